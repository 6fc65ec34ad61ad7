#ifndef EDGEQ_KERNELS_LUT_X86_WIDE_H_
#define EDGEQ_KERNELS_LUT_X86_WIDE_H_

// Table look-up for one vector width. Only x86_*.cc include it.

#include "kernels/x86_bytes.h"

// Runs and planes, by the rearrangements of x86_bytes.h.
#include "kernels/lut/runs.h"

namespace edgeq {
namespace {

/// Look-up by shuffles, whose table is spread over the lanes once.
template <typename V>
struct Shuffles : V {
  using Int = typename V::Int;
  static constexpr bool kIsChain = false;

  explicit Shuffles(const uint8_t* table) {
    for (int i = 0; i < 16; ++i) part_[i] = V::repeat128(table + 16 * i);
  }
  EDGEQ_INLINE Int operator()(Int index) const {
    return look_up_parts<V>(index, [&](auto i) EDGEQ_UNROLLED { return part_[i]; });
  }

 private:
  Int part_[16];
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_LUT_X86_WIDE_H_
