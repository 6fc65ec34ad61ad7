#ifndef EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_
#define EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_

#include <cstddef>

#include "kernels/gemm/pack.h"

// How the plain NEON kernels walk over a product, and what they keep in scratch. Selection needs the size:
// plain C++.
//
//   | addresses of a tile's rows, all taps | sums of a part, a tile's rows | panels |
//
// The second is only there for 4-bit weights whose panels have parts (pack.h): four rows, with all taps side
// by side. The panels are a block of those in the form of W8, if weights have 4 bits; or shallow ones of 8
// bits in that of arm64_neon_shallow.h.
//
// A block of panels stays in the first-level cache while all rows pass; a tile of rows stays while the
// block's panels pass.

namespace edgeq {

struct NeonBlocks {
  static constexpr size_t kRows = 4;
  static constexpr size_t kChannels = 4;  // of a panel
  static constexpr size_t kShallowDepth = 32;
  static constexpr size_t kPartBytes = kRows * kChannels * 4;  // sums of a tile, before its rows

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

/// Panels of a block, which stays in a first-level cache of 32 KiB: half of that, or together with a tile's
/// rows that are copied (`row_bytes`) for each block, three quarters.
static inline size_t panels_beside(size_t row_bytes, size_t panel_bytes) {
  size_t bytes = 16 * 1024;
  if (row_bytes != 0) bytes = row_bytes < bytes / 2 ? bytes * 3 / 2 - row_bytes : bytes;
  return panel_bytes < bytes ? bytes / panel_bytes : 1;
}

static inline NeonBlocks neon_blocks(size_t k, size_t taps, int weight_bits) {
  constexpr size_t kHeader = NeonBlocks::kChannels * 8;
  NeonBlocks blocks{};
  blocks.tap_depth = (k + 7) / 8 * 8;
  blocks.header_bytes = kHeader + gemm_note_bytes(weight_bits, blocks.tap_depth / 16, taps);
  blocks.panel_bytes = blocks.header_bytes + NeonBlocks::kChannels * blocks.tap_depth * taps;
  blocks.address_bytes = (taps * NeonBlocks::kRows * sizeof(void*) + 63) / 64 * 64;
  if (weight_bits == 4 && gemm_has_parts(k, taps)) {
    const size_t depth = blocks.tap_depth * taps;
    blocks.row_bytes = NeonBlocks::kPartBytes + (NeonBlocks::kRows * depth + 63) / 64 * 64;
  }
  blocks.panels = panels_beside(blocks.row_bytes, blocks.panel_bytes);
  const bool shallow = taps == 1 && blocks.tap_depth <= NeonBlocks::kShallowDepth;
  blocks.scratch_panels = weight_bits == 4 || shallow ? blocks.panels : 0;
  blocks.scratch_panel_bytes =
      weight_bits == 4 ? blocks.panel_bytes : NeonBlocks::kChannels * (blocks.tap_depth + 16);
  return blocks;
}

/// The same for tiles by lanes (arm64_neon_lanes.h), whose panels hold weights of 16 bits:
///
///   | tiles' rows, widened | sums of a tile | codes of a tile at an edge | a block of panels |
///
/// All taps of a row are one depth; each is padded with zero weights to whole eights. Where there are several
/// blocks of panels, the rows of all tiles stay widened, as long as there is room.
struct LaneBlocks {
  static constexpr size_t kChannels = 16;  // of a panel
  static constexpr size_t kRows = 8;

  size_t tap_depth;
  size_t depth;
  size_t panel_bytes;
  size_t panels;
  size_t tiles;  // whose rows there is room for

  static constexpr size_t kSumBytes = kRows * kChannels * 4;
  static constexpr size_t kCodeBytes = kRows * kChannels;
  size_t row_bytes() const { return 2 * kRows * depth; }  // of a tile
  size_t bytes() const { return tiles * row_bytes() + kSumBytes + kCodeBytes + panels * panel_bytes; }
};

static inline LaneBlocks lane_blocks(size_t k, size_t taps) {
  LaneBlocks blocks{};
  blocks.tap_depth = (k + 7) / 8 * 8;
  blocks.depth = blocks.tap_depth * taps;
  blocks.panel_bytes = LaneBlocks::kChannels * (12 + 2 * blocks.depth) + kGemmLaneNotes;
  blocks.panels = panels_beside(blocks.row_bytes(), blocks.panel_bytes);
  // They pass once for each block: a second-level cache has room for them.
  constexpr size_t kAllRowBytes = 48 * 1024;
  blocks.tiles = kAllRowBytes / blocks.row_bytes();
  if (blocks.tiles < 1) blocks.tiles = 1;
  return blocks;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_NEON_BLOCKS_H_
