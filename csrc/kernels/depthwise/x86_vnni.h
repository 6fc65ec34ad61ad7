#ifndef EDGEQ_KERNELS_DEPTHWISE_X86_VNNI_H_
#define EDGEQ_KERNELS_DEPTHWISE_X86_VNNI_H_

// The engine of x86_quads.h for VNNI: V adds dot() in its encoding to a vector type. Only x86_*vnni.cc
// include it.

#include "kernels/depthwise/x86_quads.h"

namespace edgeq {
namespace {

template <typename V>
struct VnniEngine {
  using Vec = V;
  using Int = typename V::Int;
  struct Column {
    Int quad[4];
  };
  struct Sums {
    Int acc[4];
  };
  static constexpr size_t kQuadBytes = 4 * V::kBytes;
  static constexpr bool kPrepared = false;
  static void prepare(const uint8_t*, size_t, uint8_t*) {}

  static EDGEQ_INLINE void interleave(const uint8_t* r0, const uint8_t* r1, const uint8_t* r2,
                                      const uint8_t* r3, Column& column) {
    const Int a = V::load(r0);
    const Int b = V::load(r1);
    const Int c = V::load(r2);
    const Int d = V::load(r3);
    const Int ab_low = V::low_bytes(a, b);
    const Int ab_high = V::high_bytes(a, b);
    const Int cd_low = V::low_bytes(c, d);
    const Int cd_high = V::high_bytes(c, d);
    column.quad[0] = V::low_words(ab_low, cd_low);
    column.quad[1] = V::high_words(ab_low, cd_low);
    column.quad[2] = V::low_words(ab_high, cd_high);
    column.quad[3] = V::high_words(ab_high, cd_high);
  }
  static EDGEQ_INLINE void start(Sums& sums, const uint8_t* bias) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums.acc[v] = V::load(bias + v * V::kBytes);
  }
  static EDGEQ_INLINE void accumulate(Sums& sums, const Column& column, const uint8_t* weights) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v)
      sums.acc[v] = V::dot(sums.acc[v], column.quad[v], V::load(weights + v * V::kBytes));
  }
  static EDGEQ_INLINE void totals(const Sums& sums, const uint8_t*, Int (&acc)[4]) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[v] = sums.acc[v];
  }
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_X86_VNNI_H_
