#include "kernels/elementwise/x86_wide.h"

namespace edgeq {

void add_avx512vnni(const BinaryParams& p) { binary<Vector512, BinaryOp::kAdd>(p); }
void sub_avx512vnni(const BinaryParams& p) { binary<Vector512, BinaryOp::kSub>(p); }
void mul_avx512vnni(const BinaryParams& p) { binary<Vector512, BinaryOp::kMul>(p); }

}  // namespace edgeq
