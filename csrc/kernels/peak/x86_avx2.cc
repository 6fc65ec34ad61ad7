#include <immintrin.h>

#include "kernels/peak/peak.h"

namespace edgeq {

// Without VNNI an exact 8-bit multiply-accumulate goes through 16 bits: vpmaddwd and an addition.
void peak_avx2(const PeakParams& p) {
  __m256i a = _mm256_set1_epi16(3);
  const __m256i b = _mm256_set1_epi16(5);
  __m256i acc[6];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) acc[j] = _mm256_setzero_si256();
  for (size_t i = 0; i < p.iterations; ++i) {
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
      __asm__ volatile(""
                       : "+x"(a));  // A new value, for all that the compiler knows: it must multiply again.
      acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(a, b));
    }
  }
  __m256i sum = acc[0];
#pragma GCC unroll 6
  for (int j = 1; j < 6; ++j) sum = _mm256_add_epi32(sum, acc[j]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.sink), sum);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.sink + 8), sum);
}

}  // namespace edgeq
