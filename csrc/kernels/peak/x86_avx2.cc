#include <immintrin.h>

#include "kernels/peak/peak.h"

namespace edgeq {

// Without VNNI the instruction with the most 8-bit products is vpmaddubsw, whose sums of two have 16 bits.
// They must be added, and sooner or later widened to 32 bits; how rarely that can be is a matter of the
// kernel, so the limit leaves it out.
void peak_avx2(const PeakParams& p) {
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(5);
  __m256i acc[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) acc[j] = _mm256_setzero_si256();
  for (size_t i = 0; i < p.iterations; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      __asm__ volatile(""
                       : "+x"(a));  // A new value, for all that the compiler knows: it must multiply again.
      acc[j] = _mm256_add_epi16(acc[j], _mm256_maddubs_epi16(a, b));
    }
  }
  __m256i sum = acc[0];
#pragma GCC unroll 8
  for (int j = 1; j < 8; ++j) sum = _mm256_add_epi32(sum, acc[j]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.sink), sum);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.sink + 8), sum);
}

}  // namespace edgeq
