#include <arm_neon.h>

#include "kernels/peak/peak.h"

namespace edgeq {

// Without dot products the instruction with the most 8-bit products is smlal, whose sums have 16 bits. They
// must be widened sooner or later; how rarely that can be is a matter of the kernel (after two products of 8
// bits, after 36 of 8 by 4), so the limit leaves it out.
void peak_neon(const PeakParams& p) {
  const int8x8_t a = vdup_n_s8(3);
  const int8x8_t b = vdup_n_s8(5);
  int16x8_t acc[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) acc[j] = vdupq_n_s16(0);
  for (size_t i = 0; i < p.iterations; ++i) {
    // Written out, so that the compiler can neither merge the multiplications nor move the sums.
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
#if defined(__aarch64__)
      __asm__ volatile("smlal %0.8h, %1.8b, %2.8b" : "+w"(acc[j]) : "w"(a), "w"(b));
#else
      __asm__ volatile("vmlal.s8 %q0, %P1, %P2" : "+w"(acc[j]) : "w"(a), "w"(b));
#endif
    }
  }
  int16x8_t sum = acc[0];
#pragma GCC unroll 8
  for (int j = 1; j < 8; ++j) sum = vaddq_s16(sum, acc[j]);
  for (int j = 0; j < 16; j += 8) {
    vst1q_s32(p.sink + j, vmovl_s16(vget_low_s16(sum)));
    vst1q_s32(p.sink + j + 4, vmovl_s16(vget_high_s16(sum)));
  }
}

}  // namespace edgeq
