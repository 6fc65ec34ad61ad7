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
  static constexpr int kDwords = 1;
  static constexpr int kSteps = 1;
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
    Int acc;
  };

  template <int kHalf>
  static EDGEQ_INLINE Pair pair(Int a, Int b) {
    return Pair{kHalf == 0 ? V::low_bytes(a, b) : V::high_bytes(a, b)};
  }
  static EDGEQ_INLINE Half join(Pair ab, Pair cd) {
    return Half{{V::low_words(ab.bytes, cd.bytes), V::high_words(ab.bytes, cd.bytes)}};
  }
  static EDGEQ_INLINE Sums start(const uint8_t* bias, int part) {
    Int acc = V::load(bias + part * V::kBytes);
    keep(acc);
    return Sums{acc};
  }
  static EDGEQ_INLINE void before(Sums&, int) {}
  static EDGEQ_INLINE int index(int part, int) { return part; }
  static EDGEQ_INLINE void multiply(Sums& sums, Int column, Int weights) {
    sums.acc = V::dot(sums.acc, column, weights);
  }
  template <int kCount>
  static EDGEQ_INLINE void totals(const Sums (&sums)[kCount], const uint8_t*, Int (&acc)[1][kCount]) {
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) acc[0][i] = sums[i].acc;
  }
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_X86_VNNI_H_
