#include "kernels/gemm/x86_avx2_steps.h"
#include "kernels/winograd/x86_avx2_phases.h"
#include "kernels/winograd/x86_blocks.h"

// Without VNNI, 8-bit weights are multiplied in 16 bits anyway (gemm/x86_avx2.cc), where the transformed
// blocks and filters of Winograd's method fit exactly: four times fewer multiplications at the same rate.
// Half of those again, as the matrix product does it (gemm/x86_avx2.cc), would need tiles of four blocks
// instead of six, and the filters that come from the second-level cache for each tile take what that wins.

namespace edgeq {
namespace {

struct Words {
  static constexpr bool kFlipped = true;

  static constexpr size_t kPairs = 1;

  static constexpr bool crosses(int) { return false; }

  static EDGEQ_INLINE void add(const uint8_t* a, const __m256i (&b)[2], __m256i (&acc)[2]) {
    add_words<2>(a, b, acc);
  }
};

using Convolution = BlockConvolution<Vector256, Words, 6>;

}  // namespace

void winograd_u8s8c_u8_6x16x2_avx2(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  convolve<Convolution>(p, 8, r0, r1, p0, p1);
}

void winograd_u8s4c_u8_6x16x2_avx2(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  convolve<Convolution>(p, 4, r0, r1, p0, p1);
}

void phases_u8s8c_u8_6x16x2_avx2(const PhaseParams& p) { PhaseConvolution<Words, 6>(p).run(); }

}  // namespace edgeq
