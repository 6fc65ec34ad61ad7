#ifndef EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_
#define EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_

#include <cstddef>

#include "kernels/gemm/pack.h"

// How the plain NEON kernels walk over a product, and what they keep in scratch. Selection needs the size:
// plain C++.
//
//   | addresses of a tile's rows, all taps | W4, one tap: a tile's rows | W4: a block of panels in the form
//   of W8 | |                                      |                            | W8, shallow: those of
//   arm64_neon_shallow.h |
//
// A block of panels stays in the first-level cache while all rows pass; a tile of rows stays while the
// block's panels pass.

namespace edgeq {

struct NeonBlocks {
  static constexpr size_t kRows = 4;
  static constexpr size_t kChannels = 4;  // of a panel
  static constexpr size_t kShallowDepth = 32;

  size_t tap_depth;      // channels of one tap in the form of W8: whole eights
  size_t header_bytes;   // of a panel: biases, scales and notes (pack.h)
  size_t panel_bytes;    // in the form of W8
  size_t panels;         // of a block
  size_t address_bytes;  // 64-byte units
  size_t row_bytes;      // 64-byte units
  size_t scratch_panels;
  size_t scratch_panel_bytes;

  size_t bytes() const { return address_bytes + row_bytes + scratch_panels * scratch_panel_bytes + 64; }
};

static inline NeonBlocks neon_blocks(size_t k, size_t taps, int weight_bits) {
  // Half of a first-level cache of 32 KiB.
  constexpr size_t kBlockBytes = 16 * 1024;
  constexpr size_t kHeader = NeonBlocks::kChannels * 8;
  NeonBlocks blocks{};
  blocks.tap_depth = (k + 7) / 8 * 8;
  blocks.header_bytes = kHeader + gemm_note_bytes(weight_bits, blocks.tap_depth / 16, taps);
  blocks.panel_bytes = blocks.header_bytes + NeonBlocks::kChannels * blocks.tap_depth * taps;
  blocks.panels = blocks.panel_bytes < kBlockBytes ? kBlockBytes / blocks.panel_bytes : 1;
  blocks.address_bytes = (taps * NeonBlocks::kRows * sizeof(void*) + 63) / 64 * 64;
  blocks.row_bytes =
      weight_bits == 4 && taps == 1 ? (NeonBlocks::kRows * blocks.tap_depth + 63) / 64 * 64 : 0;
  const bool shallow = taps == 1 && blocks.tap_depth <= NeonBlocks::kShallowDepth;
  blocks.scratch_panels = weight_bits == 4 || shallow ? blocks.panels : 0;
  blocks.scratch_panel_bytes =
      weight_bits == 4 ? blocks.panel_bytes : NeonBlocks::kChannels * (blocks.tap_depth + 16);
  return blocks;
}

/// The same for tiles by lanes (arm64_neon_lanes.h), whose panels hold weights of 16 bits:
///
///   | a tile's rows, widened | sums of a tile | codes of a tile at an edge | a block of panels |
///
/// All taps of a row are one depth; each is padded with zero weights to whole eights.
struct LaneBlocks {
  static constexpr size_t kChannels = 16;  // of a panel
  static constexpr size_t kRows = 8;

  size_t tap_depth;
  size_t depth;
  size_t panel_bytes;
  size_t panels;

  static constexpr size_t kSumBytes = kRows * kChannels * 4;
  static constexpr size_t kCodeBytes = kRows * kChannels;
  size_t row_bytes() const { return 2 * kRows * depth; }
  size_t bytes() const { return row_bytes() + kSumBytes + kCodeBytes + panels * panel_bytes; }
};

static inline LaneBlocks lane_blocks(size_t k, size_t taps) {
  constexpr size_t kBlockBytes = 16 * 1024;
  LaneBlocks blocks{};
  blocks.tap_depth = (k + 7) / 8 * 8;
  blocks.depth = blocks.tap_depth * taps;
  blocks.panel_bytes = LaneBlocks::kChannels * (12 + 2 * blocks.depth) + kGemmLaneNotes;
  blocks.panels = blocks.panel_bytes < kBlockBytes ? kBlockBytes / blocks.panel_bytes : 1;
  return blocks;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_
