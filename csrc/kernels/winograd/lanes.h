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
// Behind the packed panels of 4-bit weights stand notes of each, for its 16 elements one behind the other: a
// byte for each run of channels of which 16 bits hold the sums of products, and 0. Runs are of 1 to 16 pairs
// of input channels; the first one's leave out the first channel of all. A byte is
//
//   pairs of the run, if it ends at the first pair of four channels
//   pairs of the run + 16, if it ends at the second
//
// An element has no runs where those would be too many, or some pair does not fit.

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

/// Most pairs of channels of a run.
constexpr size_t kWinogradRunPairs = 16;

/// Bytes of the notes of a panel: for runs of eight channels on average, of which ResNet-18's have ten.
static inline size_t winograd_note_bytes(size_t k) { return 16 * ((k + 7) / 8 + 2); }

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
