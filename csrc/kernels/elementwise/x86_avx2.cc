#include "kernels/elementwise/x86_wide.h"

namespace edgeq {

void add_avx2(const BinaryParams& p) { binary<Vector256, BinaryOp::kAdd>(p); }
void sub_avx2(const BinaryParams& p) { binary<Vector256, BinaryOp::kSub>(p); }
void mul_avx2(const BinaryParams& p) { binary<Vector256, BinaryOp::kMul>(p); }

}  // namespace edgeq
