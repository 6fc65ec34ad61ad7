#include "kernels/quantize/x86_wide.h"

namespace edgeq {
namespace {

struct Ends : Vector512 {
  static EDGEQ_INLINE Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  /// Whether any dword has none of the mask's bits.
  static EDGEQ_INLINE bool any_clear(const Int (&a)[4], int32_t mask) {
    const Int bits = set1_dword(mask);
    const __mmask16 low = _mm512_testn_epi32_mask(a[0], bits) | _mm512_testn_epi32_mask(a[1], bits);
    const __mmask16 high = _mm512_testn_epi32_mask(a[2], bits) | _mm512_testn_epi32_mask(a[3], bits);
    return (low | high) != 0;
  }
};

}  // namespace

void quantize_avx512vnni(const QuantizeParams& p) { quantize<Ends>(p); }
void dequantize_avx512vnni(const DequantizeParams& p) { dequantize<Ends>(p); }
void recode_avx512vnni(const RecodeParams& p) { recode<Ends>(p); }

}  // namespace edgeq
