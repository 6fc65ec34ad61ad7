#ifndef EDGEQ_KERNELS_WINOGRAD_TRANSFORMED_H_
#define EDGEQ_KERNELS_WINOGRAD_TRANSFORMED_H_

#include <cstddef>
#include <cstdint>

// What the x86 kernels keep in scratch. Plain code, because preparation asks for the size.
//
//   | blocks of the input, block_bytes each | filters of a group of panels, panel_bytes each |
//
// A transformed block is 36 elements of int16 [channels], channels padded to whole vectors. The transformed
// filters of a panel are 36 elements of [pairs of channels][output channels][2]. Where two pairs are
// multiplied at a time, the pairs are an even number, and at the end of each element stands an int32, of
// filters one for each output channel (x86_blocks.h).

namespace edgeq {

struct WinogradLayout {
  static constexpr size_t kElements = 36;

  size_t pairs;          // of channels, as the packed weights have them
  size_t steps;          // of one or two pairs, in which they are multiplied
  size_t element_bytes;  // of a block, from element to element
  size_t block_bytes;    // from block to block
  size_t blocks;         // that are kept at a time
  size_t filter_bytes;   // of a panel, from element to element
  size_t panel_bytes;    // from panel to panel
  size_t panels;         // that are kept at a time

  size_t bytes() const { return block_bytes * blocks + panel_bytes * panels; }
};

/// As many bytes, up to an odd number of cache lines.
static inline size_t odd_lines(size_t bytes) { return ((bytes + 63) / 64 | 1) * 64; }

/// `mr`: blocks that are multiplied at a time, `step_pairs` of channels; `vector_bytes` of a register: a
/// panel is two of sums.
static inline WinogradLayout winograd_layout(size_t k, size_t n, int weight_bits, size_t mr,
                                             size_t step_pairs, size_t vector_bytes) {
  const size_t words = vector_bytes / sizeof(int16_t);
  const size_t nr = 2 * vector_bytes / sizeof(int32_t);
  WinogradLayout layout{};
  layout.pairs = weight_bits == 4 ? (k + 3) / 4 * 2 : (k + 1) / 2;
  // Odd numbers of cache lines keep the elements of a block, the blocks of a tile, and the elements of a
  // filter from falling into the same sets.
  layout.steps = (layout.pairs + step_pairs - 1) / step_pairs;
  const size_t note = step_pairs == 2 ? sizeof(int32_t) : 0;
  layout.element_bytes = odd_lines((k + words - 1) / words * vector_bytes + note);
  layout.block_bytes = odd_lines(layout.element_bytes * WinogradLayout::kElements);
  // Blocks enough to be worth transforming the filters for: of deep layers all that a 14x14 image has, as
  // far as a second-level cache goes.
  layout.blocks = 416 * 1024 / layout.block_bytes;
  if (layout.blocks < mr) layout.blocks = mr;
  if (layout.blocks > 128) layout.blocks = 128;
  layout.filter_bytes = odd_lines((layout.steps * step_pairs * 2 * sizeof(int16_t) + note) * nr);
  layout.panel_bytes = layout.filter_bytes * WinogradLayout::kElements;
  // All panels, where they fit beside the blocks: each is then transformed once.
  layout.panels = (n + nr - 1) / nr;
  if (layout.panel_bytes * layout.panels > 320 * 1024) layout.panels = 1;
  return layout;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_WINOGRAD_TRANSFORMED_H_
