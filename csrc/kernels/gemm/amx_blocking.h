#ifndef EDGEQ_KERNELS_GEMM_AMX_BLOCKING_H_
#define EDGEQ_KERNELS_GEMM_AMX_BLOCKING_H_

#include <cstddef>

#include "kernels/gemm/gemm.h"

// How the AMX kernels cut a product up, and where their scratch lies. Selection needs it too: it is plain
// C++.

namespace edgeq {

/// One panel of an AMX kernel is 32 output channels, packed as for VNNI: a group of four input channels is a
/// row of 32 dwords, which is a row of two tiles side by side. A block is what one tile holds of a row of the
/// left-hand side: 64 input channels, or 16 groups.
///
/// Segments are what lies in one piece in a row of the left-hand side. Where the taps' channels fill whole
/// blocks, or there is one tap only, each tap is a segment, and tiles are loaded from the rows where they
/// are, or from a copy where the rows of a tile are not equally far apart. Otherwise all taps are copied side
/// by side, and the whole depth is one segment: a first layer of 3 x 3 taps and 3 channels is then 36 bytes
/// deep, one block, instead of nine.
///
/// Row tiles come in row blocks: each panel is widened (W4) or completed (W8) once for a row block.
struct AmxBlocking {
  bool side_by_side;
  size_t segments;
  size_t blocks;           // of a segment
  size_t groups;           // of a panel, all taps
  size_t row_block_tiles;  // even
  size_t row_stride;       // bytes of a row of taps copied side by side

  // Scratch, in this order: the sums of a pair of row tiles by a panel, weights, copies of rows, where the
  // tiles' rows are.
  size_t weight_bytes;
  size_t copy_bytes;
  size_t piece_bytes;

  size_t total_blocks() const { return segments * blocks; }
};

/// Where the rows of a tile lie for one segment.
struct AmxPiece {
  const act_t* first;  // the first row's first byte
  ptrdiff_t stride;    // from row to row
  ptrdiff_t step;      // from 64 channels to the next 64
};

constexpr size_t kAmxTileRows = 16;  // rows of a tile of the left-hand side
constexpr size_t kAmxColumns = 32;   // output channels of a panel
constexpr size_t kAmxBlockDepth = 64;
constexpr size_t kAmxBlockGroups = 16;
constexpr size_t kAmxSumBytes = 2 * kAmxTileRows * kAmxColumns * 4;  // a pair of row tiles by a panel

// A row block and the panel that it meets stay in the second-level cache (2 MiB on every CPU with AMX). Where
// all weights fit in the first-level cache, the rows should as well.
constexpr size_t kAmxRowBlockBytes = 384 * 1024;
constexpr size_t kAmxSmallRowBlockBytes = 16 * 1024;
constexpr size_t kAmxSmallWeights = 24 * 1024;

static inline AmxBlocking amx_blocking(size_t n, size_t k, size_t taps, int weight_bits, bool direct) {
  AmxBlocking b{};
  size_t groups = (k + 3) / 4;
  if (weight_bits == 4) groups = (groups + 1) / 2 * 2;
  b.groups = taps * groups;
  b.side_by_side = !direct && taps > 1 && k % kAmxBlockDepth != 0;
  b.segments = b.side_by_side ? 1 : taps;
  b.blocks = ((b.side_by_side ? b.groups : groups) + kAmxBlockGroups - 1) / kAmxBlockGroups;
  const size_t total = b.total_blocks();
  const size_t tile_bytes = total * kAmxTileRows * kAmxBlockDepth;
  const size_t panels = (n + kAmxColumns - 1) / kAmxColumns;
  const bool small = panels * kAmxColumns * total * kAmxBlockDepth <= kAmxSmallWeights;
  const size_t tiles = (small ? kAmxSmallRowBlockBytes : kAmxRowBlockBytes) / tile_bytes / 2 * 2;
  b.row_block_tiles = tiles < 2 ? 2 : tiles;
  // An odd number of cache lines, so that rows do not fall into the same sets of the first-level cache.
  b.row_stride = (total | 1) * kAmxBlockDepth;
  const size_t block_bytes = kAmxColumns * kAmxBlockDepth;
  b.weight_bytes = weight_bits == 4 ? total * block_bytes : b.groups % kAmxBlockGroups != 0 ? block_bytes : 0;
  if (b.side_by_side) {
    // The last copy may store a vector beyond its row.
    b.copy_bytes = b.row_block_tiles * kAmxTileRows * b.row_stride + kAmxBlockDepth;
  } else if (!direct) {
    b.copy_bytes = b.row_block_tiles * tile_bytes;
  }
  b.piece_bytes = b.row_block_tiles * b.segments * sizeof(AmxPiece);
  return b;
}

/// Scratch of one call: whole cache lines.
static inline size_t amx_scratch_bytes(const AmxBlocking& b) {
  return (kAmxSumBytes + b.weight_bytes + b.copy_bytes + b.piece_bytes + 63) / 64 * 64;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_AMX_BLOCKING_H_
