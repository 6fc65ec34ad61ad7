#ifndef EDGEQ_KERNELS_LUT_X86_WIDE_H_
#define EDGEQ_KERNELS_LUT_X86_WIDE_H_

// Table look-up for one vector width. Only x86_*.cc include it.

#include "kernels/x86_bytes.h"

// Runs and planes, by the rearrangements of x86_bytes.h.
#include "kernels/lut/runs.h"

namespace edgeq {
namespace {

/// Look-up by sixteen shuffles of 16 entries. A shuffle looks at the lower four bits of an index and yields
/// zero where its top bit is set; with 16 subtracted before each, the shuffles whose part lies at or below an
/// index all yield something, and tables of differences (exclusive or) make their sum the entry. Indices of
/// 128 and more count as negative in the first eight shuffles until enough is subtracted: they begin in the
/// middle of the differences, which the second eight take off again. From the ninth subtraction on, it
/// saturates, so that small indices stay negative. Three instructions a shuffle: 48 for V::kBytes bytes.
template <typename V>
struct Shuffles : V {
  using Int = typename V::Int;

  explicit Shuffles(const uint8_t* table) {
    for (int i = 0; i < 16; ++i) {
      part_[i] = V::repeat128(table + 16 * i);
      if (i > 0) part_[i] = V::bit_xor(part_[i], V::repeat128(table + 16 * i - 16));
      if (i >= 8) part_[i] = V::bit_xor(part_[i], part_[i - 8]);
    }
  }
  EDGEQ_INLINE Int operator()(Int index) const {
    const Int sixteen = V::set1_byte(16);
    Int entries = V::shuffle(part_[0], index);
#pragma GCC unroll 16
    for (int i = 1; i < 16; ++i) {
      index = i <= 8 ? V::sub_bytes(index, sixteen) : V::sub_saturated_bytes(index, sixteen);
      entries = V::bit_xor(entries, V::shuffle(part_[i], index));
    }
    return entries;
  }

 private:
  Int part_[16];
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_LUT_X86_WIDE_H_
