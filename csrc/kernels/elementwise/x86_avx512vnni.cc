#include "kernels/elementwise/x86_wide.h"

namespace edgeq {
namespace {

/// One dot product with the weights 1, 0, 0, 0 (or another order of them) takes one byte of each dword and
/// subtracts the zero point: what else takes a widening shuffle and a subtraction.
struct Dots : Vector512 {
  using Zero = Int;
  static constexpr size_t kPlanes = 4;

  static EDGEQ_INLINE Zero zero_of(int32_t zp) { return set1_dword(-zp); }
  static EDGEQ_INLINE Int spread(const act_t* from, Zero zp, int k) {
    return _mm512_dpbusd_epi32(zp, load(from), set1_dword(1 << 8 * k));
  }
  static EDGEQ_INLINE Int order(Int codes) {
    // In each 128-bit lane, four codes of each vector: bytes 0 4 8 12, 1 5 9 13, 2 6 10 14 and 3 7 11 15.
    alignas(16) static constexpr uint8_t kOrder[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    return shuffle(codes, repeat128(kOrder));
  }
};

}  // namespace

void add_avx512vnni(const BinaryParams& p) { binary<Dots, BinaryOp::kAdd>(p); }
void sub_avx512vnni(const BinaryParams& p) { binary<Dots, BinaryOp::kSub>(p); }
void mul_avx512vnni(const BinaryParams& p) { binary<Dots, BinaryOp::kMul>(p); }

}  // namespace edgeq
