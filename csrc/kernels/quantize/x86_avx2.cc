#include "kernels/quantize/x86_wide.h"

namespace edgeq {
namespace {

struct Ends : Vector256 {
  static EDGEQ_INLINE Float multiply_add(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  /// Whether any dword has none of the mask's bits.
  static EDGEQ_INLINE bool any_clear(const Int (&a)[4], int32_t mask) {
    const Int bits = set1_dword(mask);
    Int least = bit_and(a[0], bits);
    for (int v = 1; v < 4; ++v) least = _mm256_min_epu32(least, bit_and(a[v], bits));
    const Int clear = _mm256_cmpeq_epi32(least, zero());
    return _mm256_testz_si256(clear, clear) == 0;
  }
};

}  // namespace

void quantize_avx2(const QuantizeParams& p) { quantize<Ends>(p); }
void dequantize_avx2(const DequantizeParams& p) { dequantize<Ends>(p); }
void recode_avx2(const RecodeParams& p) { recode<Ends>(p); }

}  // namespace edgeq
