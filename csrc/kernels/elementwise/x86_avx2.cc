#include "kernels/elementwise/x86_wide.h"

namespace edgeq {
namespace {

struct Widening : Vector256 {
  using Zero = Int;
  static constexpr size_t kPlanes = 1;

  static EDGEQ_INLINE Zero zero_of(int32_t zp) { return set1_dword(zp); }
  static EDGEQ_INLINE Int spread(const act_t* from, Zero zp, int k) {
    return sub(widen_bytes(from + k * kLanes), zp);
  }
  static EDGEQ_INLINE Int order(Int codes) { return order_packed(codes); }
};

}  // namespace

void add_avx2(const BinaryParams& p) { binary<Widening, BinaryOp::kAdd>(p); }
void sub_avx2(const BinaryParams& p) { binary<Widening, BinaryOp::kSub>(p); }
void mul_avx2(const BinaryParams& p) { binary<Widening, BinaryOp::kMul>(p); }

}  // namespace edgeq
