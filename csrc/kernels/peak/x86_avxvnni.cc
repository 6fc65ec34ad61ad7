#include <immintrin.h>

#include "kernels/peak/peak.h"

namespace edgeq {

void peak_avxvnni(const PeakParams& p) {
  const __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(5);
  __m256i acc[12];
#pragma GCC unroll 12
  for (int j = 0; j < 12; ++j) acc[j] = _mm256_setzero_si256();
  for (size_t i = 0; i < p.iterations; ++i) {
#pragma GCC unroll 12
    // Written out, so that the compiler can neither merge the multiplications nor move the sums.
    for (int j = 0; j < 12; ++j)
      __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc[j]) : "x"(a), "x"(b));
  }
  __m256i sum = acc[0];
#pragma GCC unroll 12
  for (int j = 1; j < 12; ++j) sum = _mm256_add_epi32(sum, acc[j]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.sink), sum);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.sink + 8), sum);
}

}  // namespace edgeq
