#ifndef EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_
#define EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_

#include <cstddef>

// How the plain NEON kernels walk over a product, and what they keep in scratch. Selection needs the size:
// plain C++.
//
//   | addresses of a tile's rows, all taps | W4: a block of panels in the form of W8 |
//
// A block of panels stays in the first-level cache while all rows pass; a tile of rows stays while the
// block's panels pass.

namespace edgeq {

struct NeonBlocks {
  static constexpr size_t kRows = 4;
  static constexpr size_t kChannels = 4;  // of a panel

  size_t tap_depth;      // channels of one tap in the form of W8: whole eights
  size_t panel_bytes;    // in the form of W8
  size_t panels;         // of a block
  size_t address_bytes;  // 64-byte units
  size_t scratch_panels;

  size_t bytes() const { return address_bytes + scratch_panels * panel_bytes; }
};

static inline NeonBlocks neon_blocks(size_t k, size_t taps, int weight_bits) {
  // Half of a first-level cache of 32 KiB.
  constexpr size_t kBlockBytes = 16 * 1024;
  constexpr size_t kHeader = 8;  // bias and scale of a channel
  NeonBlocks blocks{};
  blocks.tap_depth = (k + 7) / 8 * 8;
  blocks.panel_bytes = NeonBlocks::kChannels * (kHeader + blocks.tap_depth * taps);
  blocks.panels = blocks.panel_bytes < kBlockBytes ? kBlockBytes / blocks.panel_bytes : 1;
  blocks.address_bytes = (taps * NeonBlocks::kRows * sizeof(void*) + 63) / 64 * 64;
  blocks.scratch_panels = weight_bits == 4 ? blocks.panels : 0;
  return blocks;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_
