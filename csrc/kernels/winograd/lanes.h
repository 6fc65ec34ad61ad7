#ifndef EDGEQ_KERNELS_WINOGRAD_LANES_H_
#define EDGEQ_KERNELS_WINOGRAD_LANES_H_

#include <cstddef>
#include <cstdint>

// What the kernels that multiply by lanes keep in scratch. Plain code, because preparation asks for the size.
//
//   | tiles of blocks of the input, tile_bytes each | filters of a group of panels, tile_bytes each |
//
// A tile of transformed blocks is 16 elements of int16 [channels / 4][8 blocks][4 channels]; the transformed
// filters of a panel are 16 elements of int16 [channels][8 output channels].
//
// Behind the packed panels of 4-bit weights stand notes of each, for its 16 elements, in words of 64 bits: a
// bit for each four input channels, the first ones' the highest, which is 1 where a run of channels ends of
// which 16 bits hold the sums of products. The last four of a word end one. All bits of an element are 0
// where some four do not fit.

namespace edgeq {

struct WinogradLanes {
  static constexpr size_t kBlocks = 8;    // of a tile
  static constexpr size_t kChannels = 8;  // of a panel

  size_t groups;         // of eight input channels
  size_t element_bytes;  // of a tile or a panel, from element to element
  size_t tile_bytes;     // of a tile or a panel
  size_t tiles;          // that are kept at a time
  size_t panels;         // that are kept at a time

  size_t bytes() const { return tile_bytes * (tiles + panels); }
};

/// Words of the notes of an element.
static inline size_t winograd_note_words(size_t k) { return (k + 255) / 256; }

static inline WinogradLanes winograd_lanes(size_t k, size_t n) {
  WinogradLanes lanes{};
  lanes.groups = (k + 7) / 8;
  // An odd number of cache lines: the 16 elements of a block, written one after the other, fall into
  // different sets.
  lanes.element_bytes = lanes.groups * 8 * WinogradLanes::kBlocks * sizeof(int16_t) + 64;
  lanes.tile_bytes = lanes.element_bytes * 16;
  // The filters are transformed once for all tiles that are kept: of deep layers all that a 14x14 image has,
  // as far as a second-level cache goes.
  lanes.tiles = 464 * 1024 / lanes.tile_bytes;
  if (lanes.tiles < 1) lanes.tiles = 1;
  if (lanes.tiles > 16) lanes.tiles = 16;
  // All panels, where they fit beside the tiles: each is then transformed once.
  lanes.panels = (n + WinogradLanes::kChannels - 1) / WinogradLanes::kChannels;
  if (lanes.tile_bytes * lanes.panels > 160 * 1024) lanes.panels = 1;
  return lanes;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_WINOGRAD_LANES_H_
