#ifndef EDGEQ_KERNELS_GEMM_X86_AMX_H_
#define EDGEQ_KERNELS_GEMM_X86_AMX_H_

// The matrix kernel for tiles: 32 rows by 32 output channels at a time, four tiles of sums. A template over
// the tile unit: x86_amxint8.cc runs it on the instructions, kernel_test on a model of them in plain C++, so
// that a CPU without AMX tests every line of this file.
//
// A step of 64 input channels loads two tiles of rows and two of weights and multiplies each with each: four
// times 16 cycles of the tile unit against four loads of 8 cycles (Intel's optimization manual). In the
// first-level cache the loads hide behind the products; 4 KiB a step out of the second level take about 100
// cycles.

#include "kernels/gemm/amx_blocking.h"
#include "kernels/gemm/x86_tile.h"
#include "kernels/x86_amx_tiles.h"

namespace edgeq {
namespace {

// The numbers of the tiles: sums of row tile i and column tile j, rows, weights.
constexpr int kSumTile = 0;     // + 2 i + j
constexpr int kRowTile = 4;     // + i
constexpr int kWeightTile = 6;  // + j

/// Blocks of one panel's weights: block b at first + b * 16 * stride, the last one at `last`. Rows are
/// `stride` bytes.
struct AmxWeights {
  const uint8_t* bias;  // as int32
  const uint8_t* first;
  const uint8_t* last;
  ptrdiff_t stride;
  const uint8_t* packed;
  uint8_t* widened;  // W4: `first` again, to be written
};

/// Every tile of rows and of sums has `rows` rows. The whole call uses one configuration: the last tile
/// begins early enough to have as many rows as the others, and what is computed twice is stored once.
inline TileConfig amx_config(size_t rows) {
  TileConfig config;
  for (int t = 0; t < kTiles; ++t) {
    config.row_bytes[t] = kTileBytes;
    config.rows[t] = static_cast<uint8_t>(t < kWeightTile ? rows : kTileRows);
  }
  return config;
}

/// Widens a block of W4 weights: `pairs` of its 8 rows of group pairs, and zeros for the others.
template <int kColumnTiles>
EDGEQ_INLINE void widen_block(const uint8_t* packed, size_t pairs, uint8_t* block) {
  using V = Vector512;
  const V::Int values =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
  const V::Int nibble = V::set1_byte(0x0F);
  constexpr size_t kRow = kColumnTiles * kTileBytes;
  for (size_t pair = 0; pair < pairs; ++pair) {
#pragma GCC unroll 2
    for (int j = 0; j < kColumnTiles; ++j) {
      const V::Int both = V::load(packed + pair * kRow + j * kTileBytes);
      V::store_all(block + 2 * pair * kRow + j * kTileBytes, V::shuffle(values, V::bit_and(both, nibble)));
      V::store_all(block + (2 * pair + 1) * kRow + j * kTileBytes,
                   V::shuffle(values, V::bit_and(V::shift_right<4>(both), nibble)));
    }
  }
  if (pairs < kAmxBlockGroups / 2)
    std::memset(block + 2 * pairs * kRow, 0, (kAmxBlockGroups - 2 * pairs) * kRow);
}

/// Sums of up to two row tiles by up to two column tiles over the whole depth, in the tiles of sums. With
/// kWiden also widens the panel's W4 weights, a block ahead of its use: vector instructions run while the
/// tile unit multiplies.
template <int kRowTiles, int kColumnTiles, bool kWiden, typename Tiles>
void amx_multiply(Tiles& tiles, const AmxBlocking& b, const AmxPiece* pieces, const AmxWeights& weights) {
  // A stride of 0 puts the bias into every row.
  tiles.template load<kSumTile>(weights.bias, 0);
  if (kColumnTiles > 1) tiles.template load<kSumTile + 1>(weights.bias + kTileBytes, 0);
  if (kRowTiles > 1) tiles.template load<kSumTile + 2>(weights.bias, 0);
  if (kRowTiles > 1 && kColumnTiles > 1) tiles.template load<kSumTile + 3>(weights.bias + kTileBytes, 0);

  constexpr size_t kBlockBytes = kAmxBlockGroups * kColumnTiles * kTileBytes;
  size_t pairs_left = b.groups / 2;  // W4: group pairs that are not widened yet
  const auto widen = [&](size_t block) {
    const size_t pairs = pairs_left < kAmxBlockGroups / 2 ? pairs_left : kAmxBlockGroups / 2;
    widen_block<kColumnTiles>(weights.packed + block * kBlockBytes / 2, pairs,
                              weights.widened + block * kBlockBytes);
    pairs_left -= pairs;
  };
  if (kWiden) widen(0);

  const size_t total = b.total_blocks();
  size_t block = 0;
  for (size_t segment = 0; segment < b.segments; ++segment) {
    const AmxPiece& rows0 = pieces[segment];
    const AmxPiece& rows1 = pieces[kRowTiles > 1 ? b.segments + segment : segment];
    const act_t* from0 = rows0.first;
    const act_t* from1 = rows1.first;
    for (size_t i = 0; i < b.blocks; ++i) {
      if (kWiden && block + 1 < total) widen(block + 1);
      const uint8_t* w = block + 1 == total ? weights.last : weights.first + block * kBlockBytes;
      ++block;
      tiles.template load<kWeightTile>(w, weights.stride);
      tiles.template load<kRowTile>(from0, rows0.stride);
      tiles.template multiply_add<kSumTile, kRowTile, kWeightTile>();
      if (kColumnTiles > 1) {
        tiles.template load<kWeightTile + 1>(w + kTileBytes, weights.stride);
        tiles.template multiply_add<kSumTile + 1, kRowTile, kWeightTile + 1>();
      }
      if (kRowTiles > 1) {
        tiles.template load<kRowTile + 1>(from1, rows1.stride);
        tiles.template multiply_add<kSumTile + 2, kRowTile + 1, kWeightTile>();
        if (kColumnTiles > 1) tiles.template multiply_add<kSumTile + 3, kRowTile + 1, kWeightTile + 1>();
      }
      from0 += rows0.step;
      from1 += rows1.step;
    }
  }
}

/// Stores the tiles of sums: rows of kColumnTiles * 16 dwords, the second row tile from row 16 on.
template <int kRowTiles, int kColumnTiles, typename Tiles>
void amx_store(Tiles& tiles, uint8_t* sums) {
  constexpr ptrdiff_t kStride = kColumnTiles * kTileBytes;
  tiles.template store<kSumTile>(sums, kStride);
  if (kColumnTiles > 1) tiles.template store<kSumTile + 1>(sums + kTileBytes, kStride);
  uint8_t* second = sums + kTileRows * kStride;
  if (kRowTiles > 1) tiles.template store<kSumTile + 2>(second, kStride);
  if (kRowTiles > 1 && kColumnTiles > 1) tiles.template store<kSumTile + 3>(second + kTileBytes, kStride);
}

template <int kRows, int kVectors>
EDGEQ_INLINE void finish_sums(const GemmParams& p, const Tile& tile, const uint8_t* stored) {
  using V = Vector512;
  V::Int sums[kRows][kVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = V::load(stored + (r * kVectors + v) * V::kBytes);
  }
  finish_tile<V, kRows, kVectors>(p, tile, sums);
}

/// Epilogue of `rows` rows of stored sums.
template <int kVectors>
__attribute__((noinline)) void finish_rows_of_sums(const GemmParams& p, Tile tile, const uint8_t* stored,
                                                   size_t rows) {
  constexpr size_t kRow = kVectors * Vector512::kBytes;
  for (; rows >= 4; rows -= 4) {
    finish_sums<4, kVectors>(p, tile, stored);
    tile.row += 4;
    stored += 4 * kRow;
  }
  for (; rows > 0; --rows) {
    finish_sums<1, kVectors>(p, tile, stored);
    ++tile.row;
    stored += kRow;
  }
}

/// One call's rows as tiles: `count` tiles of `rows` rows each. Tile i begins at row first(i); of these rows
/// the first skip(i) belong to tile i - 1.
struct AmxRows {
  size_t begin;
  size_t end;
  size_t count;
  size_t rows;

  AmxRows(size_t row_begin, size_t row_end)
      : begin(row_begin), end(row_end), count((row_end - row_begin + kTileRows - 1) / kTileRows) {
    rows = (end - begin + count - 1) / count;
  }
  size_t first(size_t i) const {
    const size_t row = begin + i * rows;
    return row + rows > end ? end - rows : row;
  }
  size_t skip(size_t i) const { return begin + i * rows - first(i); }
};

/// A pair of row tiles whose sums are stored and not finished. The epilogue of a pair follows the products of
/// the next one: its vector instructions then find their sums ready, and run while the tile unit multiplies.
struct AmxPending {
  Tile tile;  // its row is not used
  size_t row_tile = 0;
  size_t row_tiles = 0;  // 0: nothing is pending
  const uint8_t* sums = nullptr;
};

inline void amx_finish(const GemmParams& p, const AmxRows& rows, AmxPending& pending) {
  const size_t columns = pending.tile.columns;
  for (size_t i = 0; i < pending.row_tiles; ++i) {
    const size_t skip = rows.skip(pending.row_tile + i);
    Tile tile = pending.tile;
    tile.row = rows.first(pending.row_tile + i) + skip;
    const size_t stored_row = i * kTileRows + skip;
    if (columns > kTileBytes / 4) {
      finish_rows_of_sums<2>(p, tile, pending.sums + stored_row * 2 * kTileBytes, rows.rows - skip);
    } else {
      finish_rows_of_sums<1>(p, tile, pending.sums + stored_row * kTileBytes, rows.rows - skip);
    }
  }
  pending.row_tiles = 0;
}

/// Copies `bytes` bytes to `to`; reads and writes whole vectors.
EDGEQ_INLINE void copy_vectors(const uint8_t* from, size_t bytes, uint8_t* to) {
  if (bytes <= 16) {
    Vector128::store_all(to, Vector128::load(from));
    return;
  }
  for (size_t c = 0; c < bytes; c += Vector512::kBytes)
    Vector512::store_all(to + c, Vector512::load(from + c));
}

/// All taps of the rows from `row` on, side by side, each padded to `tap_bytes`: what is there between k and
/// tap_bytes, and after the last tap, meets weights of zero.
inline AmxPiece amx_copy_taps(const GemmParams& p, const AmxBlocking& b, size_t row, size_t rows,
                              uint8_t* copy) {
  const size_t tap_bytes = b.groups / p.taps * 4;
  for (size_t r = 0; r < rows; ++r) {
    // Ascending: what a tap writes beyond its end, the next one, or the next row, overwrites.
    uint8_t* to = copy + r * b.row_stride;
    for (size_t t = 0; t < p.taps; ++t, to += tap_bytes) copy_vectors(lhs_row(p.lhs, t, row + r), p.k, to);
  }
  return AmxPiece{copy, static_cast<ptrdiff_t>(b.row_stride), static_cast<ptrdiff_t>(kAmxBlockDepth)};
}

/// Where the rows from `row` on lie for tap t: in the image when they are equally far apart there (pixels
/// within one row of it), or all padding; else in a copy, tile after tile.
inline AmxPiece amx_find_rows(const GemmParams& p, const AmxBlocking& b, size_t row, size_t rows, size_t t,
                              uint8_t* copy) {
  constexpr ptrdiff_t kBlock = kAmxBlockDepth;
  const GemmLhs& lhs = p.lhs;
  const __mmask16 lanes = static_cast<__mmask16>((1u << rows) - 1u);
  const __m512i index = _mm512_add_epi32(_mm512_maskz_loadu_epi32(lanes, lhs.row_index + row),
                                         _mm512_set1_epi32(lhs.tap_index[t]));
  const __m512i offset =
      _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, index, lhs.pixel_offset, sizeof(int32_t));
  alignas(64) int32_t offsets[kTileRows];
  _mm512_store_si512(offsets, offset);
  const __mmask16 padding = _mm512_mask_cmplt_epi32_mask(lanes, offset, _mm512_setzero_si512());
  if (padding == lanes) return AmxPiece{lhs.zero_row, 0, kBlock};
  if (padding == 0) {
    const int32_t stride = rows > 1 ? offsets[1] - offsets[0] : 0;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i expected =
        _mm512_add_epi32(_mm512_set1_epi32(offsets[0]), _mm512_mullo_epi32(lane, _mm512_set1_epi32(stride)));
    if (_mm512_mask_cmpneq_epi32_mask(lanes, offset, expected) == 0) {
      return AmxPiece{lhs.base + offsets[0], stride, kBlock};
    }
  }
  constexpr ptrdiff_t kTile = kTileRows * kAmxBlockDepth;
  for (size_t r = 0; r < rows; ++r) {
    const act_t* from = offsets[r] < 0 ? lhs.zero_row : lhs.base + offsets[r];
    for (size_t i = 0; i < b.blocks; ++i) {
      Vector512::store_all(copy + i * kTile + r * kBlock, Vector512::load(from + i * kBlock));
    }
  }
  return AmxPiece{copy, kBlock, kTile};
}

/// Fills in where the row tiles [tile_begin, tile_end) lie, copying what has to be copied.
inline void amx_prepare_rows(const GemmParams& p, const AmxBlocking& b, const AmxRows& rows,
                             size_t tile_begin, size_t tile_end, uint8_t* copies, AmxPiece* pieces) {
  for (size_t tile = tile_begin; tile < tile_end; ++tile) {
    const size_t row = rows.first(tile);
    if (p.lhs.pixel_offset == nullptr) {
      *pieces++ = AmxPiece{lhs_row(p.lhs, 0, row), p.lhs.row_stride, static_cast<ptrdiff_t>(kAmxBlockDepth)};
    } else if (b.side_by_side) {
      *pieces++ = amx_copy_taps(p, b, row, rows.rows, copies);
      copies += kTileRows * b.row_stride;
    } else {
      for (size_t t = 0; t < p.taps; ++t) {
        *pieces++ = amx_find_rows(p, b, row, rows.rows, t, copies);
        copies += b.blocks * kTileRows * kAmxBlockDepth;
      }
    }
  }
}

/// One pair of row tiles by one panel: products, the epilogue of the pair before it, and the sums to where
/// the next call finds them.
template <int kBits, int kColumnTiles, typename Tiles>
void amx_run_pair(Tiles& tiles, const GemmParams& p, const AmxBlocking& b, const AmxRows& rows,
                  size_t row_tiles, const AmxPiece* pieces, const AmxWeights& weights, bool widen,
                  uint8_t* sums, AmxPending& pending) {
  constexpr bool kFour = kBits == 4;
  if (row_tiles > 1) {
    if (kFour && widen) {
      amx_multiply<2, kColumnTiles, kFour>(tiles, b, pieces, weights);
    } else {
      amx_multiply<2, kColumnTiles, false>(tiles, b, pieces, weights);
    }
    amx_finish(p, rows, pending);
    amx_store<2, kColumnTiles>(tiles, sums);
  } else {
    if (kFour && widen) {
      amx_multiply<1, kColumnTiles, kFour>(tiles, b, pieces, weights);
    } else {
      amx_multiply<1, kColumnTiles, false>(tiles, b, pieces, weights);
    }
    amx_finish(p, rows, pending);
    amx_store<1, kColumnTiles>(tiles, sums);
  }
}

/// Panel `panel` for its first use in a row block. W8: the packed weights as they are, but for a last block
/// that is not whole, which is copied and filled up with zeros. W4: room to widen them into.
template <int kBits>
AmxWeights amx_weights(const AmxBlocking& b, const uint8_t* panel, size_t width, uint8_t* room) {
  AmxWeights w{};
  const size_t row_bytes = width * 4;
  const size_t whole = b.total_blocks() - 1;
  w.bias = panel;
  w.stride = static_cast<ptrdiff_t>(row_bytes);
  w.packed = panel + width * 8;
  if (kBits == 4) {
    w.widened = room;
    w.first = room;
    w.last = room + whole * kAmxBlockGroups * row_bytes;
    return w;
  }
  w.first = w.packed;
  w.last = w.packed + whole * kAmxBlockGroups * row_bytes;
  const size_t left = b.groups - whole * kAmxBlockGroups;
  if (left < kAmxBlockGroups) {
    std::memcpy(room, w.last, left * row_bytes);
    std::memset(room + left * row_bytes, 0, (kAmxBlockGroups - left) * row_bytes);
    w.last = room;
  }
  return w;
}

/// Configures the tiles for this call and releases them at its end: 200 cycles and more are little beside a
/// call that is worth the tile unit, and nothing has to be known about what else uses the unit in this
/// thread; a thread that waits or is switched out holds no tiles.
template <int kBits, typename Tiles>
void run_amx(Tiles& tiles, const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin,
             size_t panel_end) {
  if (row_begin >= row_end || panel_begin >= panel_end) return;
  const AmxBlocking b = amx_blocking(p.n, p.k, p.taps, kBits, p.lhs.pixel_offset == nullptr);
  const AmxRows rows(row_begin, row_end);
  const size_t channel_bytes = 8 + b.groups * kBits / 2;
  uint8_t* const sums = p.scratch;
  uint8_t* const room = sums + kAmxSumBytes;
  uint8_t* const copies = room + b.weight_bytes;
  AmxPiece* const pieces = reinterpret_cast<AmxPiece*>(copies + b.copy_bytes);

  AmxPending pending;
  Tile tile{};
  tiles.configure(amx_config(rows.rows));
  for (size_t begin = 0; begin < rows.count; begin += b.row_block_tiles) {
    const size_t end = begin + b.row_block_tiles < rows.count ? begin + b.row_block_tiles : rows.count;
    amx_prepare_rows(p, b, rows, begin, end, copies, pieces);
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
      tile.column = panel * kAmxColumns;
      tile.columns = p.n - tile.column < kAmxColumns ? p.n - tile.column : kAmxColumns;
      tile.panel = p.packed + tile.column * channel_bytes;
      const bool narrow = tile.columns <= kTileBytes / 4;
      const AmxWeights weights =
          amx_weights<kBits>(b, tile.panel, narrow ? kAmxColumns / 2 : kAmxColumns, room);
      for (size_t pair = begin; pair < end; pair += 2) {
        const size_t row_tiles = end - pair < 2 ? 1 : 2;
        const AmxPiece* first = pieces + (pair - begin) * b.segments;
        if (narrow) {
          amx_run_pair<kBits, 1>(tiles, p, b, rows, row_tiles, first, weights, pair == begin, sums, pending);
        } else {
          amx_run_pair<kBits, 2>(tiles, p, b, rows, row_tiles, first, weights, pair == begin, sums, pending);
        }
        pending = AmxPending{tile, pair, row_tiles, sums};
      }
    }
  }
  tiles.release();
  amx_finish(p, rows, pending);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_X86_AMX_H_
