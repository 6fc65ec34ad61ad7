#ifndef EDGEQ_KERNELS_GEMM_WIDENED_H_
#define EDGEQ_KERNELS_GEMM_WIDENED_H_

#include <cstddef>
#include <cstdint>

// What the AVX2 kernels keep in scratch: one operand, or both, in the form that the multiply instruction
// takes. Plain code, because selection asks for the size.
//
//   | rows: one block, stride bytes each | weights: one group of panels |
//
// W8: rows and weights as int16, because vpmaddwd multiplies 16-bit numbers, to a depth of whole fours; the
// last four bytes of a row's stride and 64 bytes behind a panel's weights hold what a tile's sums begin with
// (x86_avx2.cc). W4: weights as int8; rows only where taps must be gathered, because a direct row is used
// where it lies. All taps of a row follow each other, so that a tile sees one run of depth.

namespace edgeq {

struct WidenedLayout {
  size_t tap_depth;    // channels of one tap, padded as the packed weights are
  size_t depth;        // of all taps, as packed
  size_t row_stride;   // bytes; 0: rows are used where they lie
  size_t block_rows;   // rows that are kept at a time
  size_t panel_bytes;  // the weights of 16 channels, and what their sums begin with
  size_t panels;       // panels that are kept at a time

  size_t row_bytes() const { return row_stride * block_rows; }
  size_t bytes() const { return row_bytes() + panel_bytes * panels; }
};

/// The layout for `k` channels a tap. `direct`: the rows lie one after the other (GemmLhs). `mr`: rows of a
/// full tile.
static inline WidenedLayout widened_layout(size_t k, size_t taps, int weight_bits, bool direct, size_t mr) {
  constexpr size_t kLine = 64;
  WidenedLayout layout{};
  const size_t step = weight_bits == 8 ? 2 : 8;
  const size_t element = weight_bits == 8 ? sizeof(int16_t) : sizeof(int8_t);
  layout.tap_depth = (k + step - 1) / step * step;
  layout.depth = layout.tap_depth * taps;
  if (weight_bits == 8 || !direct) {
    // The last store of a row may write a vector beyond it. An odd number of cache lines keeps the rows of a
    // tile from falling into the same sets.
    const size_t lines = (layout.depth * element + 2 * kLine - 1) / kLine;
    layout.row_stride = (lines | 1) * kLine;
    // What fits into half of a small second-level cache. Deep rows take more of it, up to all rows of a 7x7
    // image, because each block of rows widens the weights anew.
    const size_t fit = 128 * 1024 / layout.row_stride;
    const size_t most = 512 * 1024 / layout.row_stride;
    const size_t deep = 54;
    const size_t rows = fit > deep ? fit : (most < deep ? most : deep);
    layout.block_rows = rows < mr ? mr : rows / mr * mr;
  }
  const size_t depth = (layout.depth + 3) / 4 * 4;
  layout.panel_bytes = depth * 16 * element + (weight_bits == 8 ? kLine : 0);
  layout.panels = 96 * 1024 / layout.panel_bytes;
  if (layout.panels == 0) layout.panels = 1;
  return layout;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_WIDENED_H_
