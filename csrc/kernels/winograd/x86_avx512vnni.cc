#include "kernels/winograd/x86_blocks.h"

// Products of 16 bits go at half the rate of those of bytes, and there are four times fewer of them.

namespace edgeq {
namespace {

struct Words {
  static constexpr bool kFlipped = false;

  static EDGEQ_INLINE void add(const uint8_t* a, const __m512i (&b)[2], __m512i (&acc)[2]) {
    const __m512i row = Vector512::broadcast(a);
    acc[0] = _mm512_dpwssd_epi32(acc[0], row, b[0]);
    acc[1] = _mm512_dpwssd_epi32(acc[1], row, b[1]);
  }
};

using Convolution = BlockConvolution<Vector512, Words, 8>;

}  // namespace

void winograd_u8s8c_u8_8x32x2_avx512vnni(const WinogradParams& p, size_t r0, size_t r1, size_t p0,
                                         size_t p1) {
  convolve<Convolution>(p, 8, r0, r1, p0, p1);
}

void winograd_u8s4c_u8_8x32x2_avx512vnni(const WinogradParams& p, size_t r0, size_t r1, size_t p0,
                                         size_t p1) {
  convolve<Convolution>(p, 4, r0, r1, p0, p1);
}

}  // namespace edgeq
