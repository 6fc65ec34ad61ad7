#include <arm_neon.h>

#include "kernels/peak/peak.h"

namespace edgeq {

void peak_neondot(const PeakParams& p) {
  const int8x16_t a = vdupq_n_s8(3);
  const int8x16_t b = vdupq_n_s8(5);
  int32x4_t acc[16];
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) acc[j] = vdupq_n_s32(0);
  for (size_t i = 0; i < p.iterations; ++i) {
    // Written out, so that the compiler can neither merge the multiplications nor move the sums.
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j)
      __asm__ volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc[j]) : "w"(a), "w"(b));
  }
  int32x4_t sum = acc[0];
#pragma GCC unroll 16
  for (int j = 1; j < 16; ++j) sum = vaddq_s32(sum, acc[j]);
  for (int j = 0; j < 16; j += 4) vst1q_s32(p.sink + j, sum);
}

}  // namespace edgeq
