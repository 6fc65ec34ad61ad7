#ifndef EDGEQ_KERNELS_WINOGRAD_TRANSFORMED_H_
#define EDGEQ_KERNELS_WINOGRAD_TRANSFORMED_H_

#include <cstddef>
#include <cstdint>

// What the 16-bit kernels keep in scratch. Plain code, because preparation asks for the size.
//
//   | blocks of the input, block_bytes each | filters of a group of panels, panel_bytes each |
//
// A transformed block is 16 elements of int16 [channels], channels padded to whole vectors. The transformed
// filters of a panel are 16 elements of [pairs of channels][output channels][2].

namespace edgeq {

struct WinogradLayout {
  size_t pairs;          // of channels, as the packed weights have them
  size_t element_bytes;  // of a block, from element to element
  size_t block_bytes;    // from block to block
  size_t blocks;         // that are kept at a time
  size_t filter_bytes;   // of a panel, from element to element
  size_t panel_bytes;    // from panel to panel
  size_t panels;         // that are kept at a time

  size_t bytes() const { return block_bytes * blocks + panel_bytes * panels; }
};

/// `mr`: blocks that are multiplied at a time.
static inline WinogradLayout winograd_layout(size_t k, size_t n, int weight_bits, size_t mr) {
  constexpr size_t kLine = 64;
  WinogradLayout layout{};
  layout.pairs = weight_bits == 4 ? (k + 3) / 4 * 2 : (k + 1) / 2;
  layout.element_bytes = (k + 15) / 16 * 16 * sizeof(int16_t);
  // Odd numbers of cache lines keep the blocks of a tile, and the elements of a filter, from falling into the
  // same sets.
  layout.block_bytes = (layout.element_bytes * 16 / kLine | 1) * kLine;
  // Blocks enough to be worth transforming the filters for: of deep layers all that a 14x14 image has, as
  // far as a second-level cache goes.
  layout.blocks = 416 * 1024 / layout.block_bytes;
  if (layout.blocks < mr) layout.blocks = mr;
  if (layout.blocks > 16 * mr) layout.blocks = 16 * mr;
  layout.filter_bytes = (layout.pairs * 16 * 2 * sizeof(int16_t) / kLine | 1) * kLine;
  layout.panel_bytes = layout.filter_bytes * 16;
  // All panels, where they fit beside the blocks: each is then transformed once.
  layout.panels = (n + 15) / 16;
  if (layout.panel_bytes * layout.panels > 160 * 1024) layout.panels = 1;
  return layout;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_WINOGRAD_TRANSFORMED_H_
