#include "kernels/depthwise/x86_avx2_minimal.h"
#include "kernels/depthwise/x86_avx2_pairs.h"
#include "kernels/depthwise/x86_quads.h"

// Without VNNI: W8 multiplies pairs of rows as 16-bit words (vpmaddwd), because vpmaddubsw would saturate
// (2 * 255 * 127 = 64,770 > 32,767): see PairConvolution, and MinimalConvolution for the usual filters at
// stride 1. W4 multiplies the bytes themselves: see ByteEngine; but most 5x5 filters at stride 1 like those of
// W8, because minimal filtering saves more than twice as fast products do.

namespace edgeq {
namespace {

/// Pairs of taps as bytes, for 4-bit weights.
///
/// Each pair sum is at most 2 * 255 * 8 = 4,080, so the int16 lanes hold 8 of them, those of 4 quads, before
/// they must be widened (8 * 4,080 = 32,640 < 32,767). A 3x3 kernel needs 3 quads: one widening at its end.
template <typename V>
struct ByteEngine {
  using Vec = V;
  using Int = typename V::Int;
  static constexpr int kDwords = 2;
  static constexpr int kSteps = 2;
  struct Pair {
    Int bytes;
  };
  struct Half {
    Int vectors[kHalfVectors];
  };
  struct Column {
    Half half[2];
  };
  struct Sums {
    Int words;
    Int acc[2];
  };

  template <int kHalf>
  static EDGEQ_INLINE Pair pair(Int a, Int b) {
    return Pair{kHalf == 0 ? V::low_bytes(a, b) : V::high_bytes(a, b)};
  }
  static EDGEQ_INLINE Half join(Pair ab, Pair cd) { return Half{{ab.bytes, cd.bytes}}; }
  static EDGEQ_INLINE Sums start(const uint8_t*, int) { return Sums{V::zero(), {V::zero(), V::zero()}}; }
  /// Adds the words of lanes' lower and upper halves, sign-extended, to the dwords.
  static EDGEQ_INLINE void widen(Int words, Int& low, Int& high) {
    low = V::add(low, V::template shift_right_signed<16>(V::low_words(words, words)));
    high = V::add(high, V::template shift_right_signed<16>(V::high_words(words, words)));
  }
  static EDGEQ_INLINE void before(Sums& sums, int quad) {
    if (quad == 0 || quad % 4 != 0) return;
    widen(sums.words, sums.acc[0], sums.acc[1]);
    sums.words = V::zero();
  }
  static EDGEQ_INLINE int index(int, int step) { return step; }
  static EDGEQ_INLINE void multiply(Sums& sums, Int column, Int weights) {
    sums.words = V::add_words(sums.words, V::madd_bytes(column, weights));
  }
  template <int kCount>
  static EDGEQ_INLINE void totals(const Sums (&sums)[kCount], const uint8_t* bias, Int (&acc)[2][kCount]) {
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      acc[0][i] = V::add(sums[i].acc[0], V::load(bias));
      acc[1][i] = V::add(sums[i].acc[1], V::load(bias + V::kBytes));
      widen(sums[i].words, acc[0][i], acc[1][i]);
    }
  }
};

}  // namespace

void depthwise_u8s8c_u8_2x16x2_avx2(const DepthwiseParams& p, size_t r0, size_t r1) {
  if (p.kernel_w == 3) {
    MinimalConvolution<3>(p).run(r0, r1);
  } else {
    MinimalConvolution<5>(p).run(r0, r1);
  }
}
void depthwise_u8s8c_u8_2x8x2_avx2(const DepthwiseParams& p, size_t r0, size_t r1) {
  PairConvolution(p).run(r0, r1);
}
void depthwise_u8s4c_u8_2x16x2_avx2(const DepthwiseParams& p, size_t r0, size_t r1) {
  MinimalConvolution<5>(p).run(r0, r1);
}
void depthwise_u8s4c_u8_2x32x2_avx2(const DepthwiseParams& p, size_t r0, size_t r1) {
  Depthwise<ByteEngine<Vector256>>(p, 4).run(r0, r1);
}

}  // namespace edgeq
