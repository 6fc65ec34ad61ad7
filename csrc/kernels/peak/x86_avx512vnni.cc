#include <immintrin.h>

#include "kernels/peak/peak.h"

namespace edgeq {

void peak_avx512vnni(const PeakParams& p) {
  const __m512i a = _mm512_set1_epi8(3);
  const __m512i b = _mm512_set1_epi8(5);
  __m512i acc[16];
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) acc[j] = _mm512_setzero_si512();
  for (size_t i = 0; i < p.iterations; ++i) {
#pragma GCC unroll 16
    // Written out, so that the compiler can neither merge the multiplications nor move the sums.
    for (int j = 0; j < 16; ++j) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(acc[j]) : "v"(a), "v"(b));
  }
  __m512i sum = acc[0];
#pragma GCC unroll 16
  for (int j = 1; j < 16; ++j) sum = _mm512_add_epi32(sum, acc[j]);
  _mm512_storeu_si512(p.sink, sum);
}

}  // namespace edgeq
