#ifndef EDGEQ_KERNELS_GEMM_ARM64_TILE_H_
#define EDGEQ_KERNELS_GEMM_ARM64_TILE_H_

// The kernels with dot products: tiles of six rows by sixteen channels, whose 24 sums, the weights of four
// vectors and the rows of three fill the 32 registers. arm64_neondot.cc and arm64_neoni8mm.cc include it,
// each with its own Dot, which has
//
//   kKr                     channels of a group of weights, 4 or 8
//   kTwice                  whether constants stand twice, for sums in blocks of 2 x 2
//   kLeastRows              of a tile
//   whole_tiles             tiles of six rows by sixteen channels: arm64_whole_tiles.h
//   interleave              a tap of six rows, as a tile reads them: 96 bytes for 16 channels
//   Sums<kRows, kVectors>   the sums of a tile, see arm64_neondot.cc
//
// The rows of a block are interleaved once for all panels: a tile then reads them with two loads for
// sixteen channels, through one pointer, whatever the map of the rows is. It costs about a
// hundredth of multiplying them by 96 channels, with i8mm a fiftieth.

#include <cstring>

#include "kernels/gemm/arm64_blocking.h"
#include "kernels/gemm/arm64_residual.h"
#include "kernels/gemm/arm_tile.h"

namespace edgeq {
namespace {

/// The compiler orders loads as it likes and runs out of registers: this keeps what uses `pointer` below
/// behind what makes `sums`.
#define EDGEQ_ORDER(pointer, sum) asm("" : "+r"(pointer), "+w"(sum))

#if defined(__clang__)
// Clang finds no four registers in a row among those that are left: single loads.
template <int kCount>
EDGEQ_INLINE void load_registers(const int8_t* from, int8x16_t (&to)[kCount]) {
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) to[i] = vld1q_s8(from + 16 * i);
}
#else
template <int kCount>
EDGEQ_INLINE void load_registers(const int8_t* from, int8x16_t (&to)[kCount]) {
  if constexpr (kCount == 4) {
    const int8x16x4_t all = vld1q_s8_x4(from);
    to[0] = all.val[0];
    to[1] = all.val[1];
    to[2] = all.val[2];
    to[3] = all.val[3];
  } else if constexpr (kCount == 3) {
    const int8x16x3_t all = vld1q_s8_x3(from);
    to[0] = all.val[0];
    to[1] = all.val[1];
    to[2] = all.val[2];
  } else if constexpr (kCount == 2) {
    const int8x16x2_t all = vld1q_s8_x2(from);
    to[0] = all.val[0];
    to[1] = all.val[1];
  } else {
    to[0] = vld1q_s8(from);
  }
}
#endif

/// Everything that may follow the sums, from sums in memory, sixteen a row: a table is looked up, a residual
/// is added, and products may be of any size.
///
/// Args:
///   scale: 16 values; those beyond `columns` are of no account.
EDGEQ_NOINLINE void finish_rows(const GemmParams& p, const SumsPlace& place, const int32_t* sums,
                                const float* scale) {
  const GemmResidual& r = p.residual;
  if (adds_small(p)) {
    add_rows(p, place, sums, scale);
    return;
  }
  const RangeVectors range(p.range);
  const RangeVectors sum_range(r.range);
  const float32x4_t s0 = vld1q_f32(scale), s1 = vld1q_f32(scale + 4);
  const float32x4_t s2 = vld1q_f32(scale + 8), s3 = vld1q_f32(scale + 12);
  const auto codes = [&](const int32_t* from) {
    return requantize(vld1q_s32(from), vld1q_s32(from + 4), vld1q_s32(from + 8), vld1q_s32(from + 12), s0, s1,
                      s2, s3, range);
  };
  const size_t rows = place.rows;
  const size_t columns = place.columns;
  const ptrdiff_t stride = p.dst_row_stride;
  act_t* dst = p.dst + static_cast<ptrdiff_t>(place.row) * stride + place.column;
  if (p.table == nullptr && r.src == nullptr && columns == 16) {
    for (size_t i = 0; i < rows; ++i, sums += 16, dst += stride) vst1q_s8(dst, codes(sums));
    return;
  }
  for (size_t i = 0; i < rows; ++i, sums += 16, dst += stride) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(place.row + i);
    int8x16_t q = codes(sums);
    if (p.table != nullptr) q = look_up_each(q, p.table);
    if (r.src != nullptr)
      q = add_residual(q, vld1q_s8(r.src + row * r.row_stride + place.column), r, sum_range);
    store_first(dst, q, columns);
  }
}

/// Tiles of one panel, one below the other.
struct Tiles {
  const int8_t* lhs;  // interleaved
  size_t lhs_bytes;   // of a tile
  const int8_t* weights;
  size_t taps;          // rounds
  size_t units;         // whole ones of a round
  size_t rest;          // channels of one more
  const int32_t* bias;  // of kTwice, as the sums need them
  const float* scale;
  const float* addend;  // of account for kRelu only
  bool relu;            // whether kRelu may stand for kSaturate
  act_t* dst;
  ptrdiff_t dst_stride;
  size_t count;
  SumsPlace place;           // for kMemory
  const float* plain_scale;  // for kMemory: 16
};

/// Bytes of a row of 4 * kVectors codes.
template <int kVectors>
EDGEQ_INLINE void store_row(act_t* to, int8x16_t q) {
  const auto store_word = [&](act_t* word_to, int32_t word) { std::memcpy(word_to, &word, sizeof word); };
  if constexpr (kVectors == 4) {
    vst1q_s8(to, q);
  } else {
    if constexpr (kVectors >= 2) vst1_s8(to, vget_low_s8(q));
    if constexpr (kVectors == 3) store_word(to + 8, vgetq_lane_s32(vreinterpretq_s32_s8(q), 2));
    if constexpr (kVectors == 1) store_word(to, vgetq_lane_s32(vreinterpretq_s32_s8(q), 0));
  }
}

/// Copies `rows` rows of `columns` codes, at least kBytes and at most twice as many: two parts, which
/// overlap.
template <size_t kBytes>
EDGEQ_INLINE void copy_parts(const act_t* from, size_t rows, size_t columns, act_t* to, ptrdiff_t stride) {
  for (; rows > 0; --rows, from += kArm64TileColumns, to += stride) {
    std::memcpy(to, from, kBytes);
    std::memcpy(to + columns - kBytes, from + columns - kBytes, kBytes);
  }
}

/// Copies codes that a tile left aside, because its rows or columns are not all there.
EDGEQ_NOINLINE void copy_codes(const act_t* from, const SumsPlace& place, act_t* to, ptrdiff_t stride) {
  const size_t columns = place.columns;
  if (columns >= 8) return copy_parts<8>(from, place.rows, columns, to, stride);
  if (columns >= 4) return copy_parts<4>(from, place.rows, columns, to, stride);
  if (columns >= 2) return copy_parts<2>(from, place.rows, columns, to, stride);
  copy_parts<1>(from, place.rows, columns, to, stride);
}

/// Tiles of six rows whose sums wait in memory for finish_rows.
constexpr size_t kPendingTiles = 8;

template <typename Dot>
EDGEQ_INLINE void run_whole_tiles_to_memory(const GemmParams& p, const Tiles& tiles) {
  alignas(16) int32_t stored[kPendingTiles * kArm64TileRows * 16];
  const SmallRange range(p.range);
  const int8_t* lhs = tiles.lhs;
  SumsPlace place = tiles.place;
  for (size_t left = tiles.count; left > 0;) {
    const size_t pending = left < kPendingTiles ? left : kPendingTiles;
    left -= pending;
    int32_t* to = stored;
    Dot::template whole_tiles<Finish::kMemory>(tiles, range, pending, lhs, to, 0);
    place.rows = (left == 0 ? tiles.place.rows : kArm64TileRows) + (pending - 1) * kArm64TileRows;
    finish_rows(p, place, stored, tiles.plain_scale);
    place.row += place.rows;
  }
}

template <typename Dot, int kRows, int kVectors, Finish kFinish>
EDGEQ_NOINLINE void run_tiles(const GemmParams& p, const Tiles& tiles_ref) {
  constexpr bool kWholeTile = kRows == kArm64TileRows && kVectors == 4;
  if constexpr (kWholeTile && kFinish == Finish::kMemory) return run_whole_tiles_to_memory<Dot>(p, tiles_ref);
  const SmallRange range(p.range);
  if constexpr (kWholeTile) {
    if (tiles_ref.place.columns == kArm64TileColumns && tiles_ref.place.rows == kRows) {
      const int8_t* from = tiles_ref.lhs;
      act_t* to = tiles_ref.dst;
      Dot::template whole_tiles<kFinish>(tiles_ref, range, tiles_ref.count, from, to, tiles_ref.dst_stride);
      return;
    }
  }
  const Tiles tiles = tiles_ref;  // a copy: stores of bytes could change anything else
  const int8_t* lhs = tiles.lhs;
  act_t* dst = tiles.dst;
  SumsPlace place = tiles.place;
  constexpr size_t kPending = kRows == kArm64TileRows ? kPendingTiles : 1;
  alignas(16) int32_t stored[kFinish == Finish::kMemory ? kPending * kRows * 16 : 1];
  size_t pending = 0;
  act_t codes[kRows * kArm64TileColumns];
  const bool whole = place.columns == 4 * kVectors && place.rows == kRows;
  const ptrdiff_t stride = whole ? tiles.dst_stride : static_cast<ptrdiff_t>(kArm64TileColumns);
  act_t* to = whole ? dst : codes;
  for (size_t left = tiles.count; left > 0; --left) {
    act_t* next = to;
    if constexpr (kWholeTile) {
      Dot::template whole_tiles<kFinish>(tiles, range, 1, lhs, next, stride);
    } else {
      typename Dot::template Sums<kRows, kVectors> sums;
      sums.start(tiles.bias);
      const int8_t* a = lhs;
      const int8_t* w = tiles.weights;
      lhs += tiles.lhs_bytes;
      size_t rounds = tiles.taps;
      do {
        for (size_t units = tiles.units; units > 0; --units) sums.template multiply<16>(a, w);
        if (tiles.rest != 0) {
          if constexpr (Dot::kKr == 4) {
            if (tiles.rest == 4) sums.template multiply<4>(a, w);
            if (tiles.rest == 12) sums.template multiply<12>(a, w);
          }
          if (tiles.rest == 8) sums.template multiply<8>(a, w);
        }
      } while (--rounds > 0);
      // All sums are in registers here. Without this the compiler keeps a copy of each in memory for what
      // follows, and writes it in every round of the loop.
      sums.each([](int32x4_t& sum) { asm("" : "+w"(sum)); });
      if constexpr (kFinish == Finish::kMemory) {
        sums.store(stored + pending * kRows * 16);
        if (++pending == kPending || left == 1) {
          place.rows = (left == 1 ? tiles.place.rows : kRows) + (pending - 1) * kRows;
          finish_rows(p, place, stored, tiles.plain_scale);
          place.row += place.rows;
          pending = 0;
        }
        continue;
      } else {
        // In vectors from here on only: there is no register to keep them in.
        const SmallRange* here = &range;
        EDGEQ_ORDER(here, sums.at[0][0]);
        const SmallProducts small(*here);
        int8x16_t q[kRows];
        sums.template codes<kFinish>(tiles.scale, small, q);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) store_row<kVectors>(to + r * stride, q[r]);
        next += kRows * stride;
      }
    }
    if (whole) {
      to = next;
    } else {
      copy_codes(codes, place, dst, tiles.dst_stride);
      dst += kRows * tiles.dst_stride;
    }
  }
}

/// Tiles that have all six rows.
template <typename Dot, int kVectors, Finish kFinish>
EDGEQ_INLINE void run_whole_rows(const GemmParams& p, Tiles& tiles) {
  if constexpr (kVectors == 4) {
    if (kFinish == Finish::kSaturate && tiles.relu && tiles.count > 1) {
      constexpr int kConstants = Dot::kTwice ? 32 : 16;
      alignas(16) int32_t bias[kConstants];
      alignas(16) float addend[kConstants];
#pragma GCC unroll 8
      for (int i = 0; i < kConstants; i += 4) {
        vst1q_s32(bias + i, vaddq_s32(vld1q_s32(tiles.bias + i), vdupq_n_s32(0x4B000000)));
        vst1q_f32(addend + i, vmulq_n_f32(vld1q_f32(tiles.scale + i), -8388608.0f));
      }
      const int32_t* const plain_bias = tiles.bias;
      tiles.bias = bias;
      tiles.addend = addend;
      run_tiles<Dot, 6, 4, Finish::kRelu>(p, tiles);
      tiles.bias = plain_bias;
      return;
    }
    if (kFinish == Finish::kClamp && p.range.min == kActMin && p.range.max == kActMax) {
      run_tiles<Dot, 6, 4, Finish::kOdd>(p, tiles);
      return;
    }
  }
  run_tiles<Dot, 6, kVectors, kFinish>(p, tiles);
}

/// The tiles of a panel: whole ones, and one of what is left.
template <typename Dot, int kVectors, Finish kFinish>
void run_panel(const GemmParams& p, Tiles& tiles, size_t rows) {
  tiles.count = rows / kArm64TileRows;
  const size_t rest = rows % kArm64TileRows;
  if (tiles.count > 0) {
    tiles.place.rows = kArm64TileRows;
    run_whole_rows<Dot, kVectors, kFinish>(p, tiles);
    tiles.lhs += tiles.count * tiles.lhs_bytes;
    tiles.dst += static_cast<ptrdiff_t>(rows - rest) * tiles.dst_stride;
    tiles.place.row += rows - rest;
  }
  if (rest == 0) return;
  tiles.count = 1;
  tiles.place.rows = rest;
  if (rest == 5) {
    run_tiles<Dot, 6, kVectors, kFinish>(p, tiles);
  } else if (rest >= 3) {
    run_tiles<Dot, 4, kVectors, kFinish>(p, tiles);
  } else if (rest == 2) {
    run_tiles<Dot, 2, kVectors, kFinish>(p, tiles);
  } else {
    run_tiles<Dot, static_cast<int>(Dot::kLeastRows), kVectors, kFinish>(p, tiles);
  }
}

template <typename Dot, int kVectors>
EDGEQ_NOINLINE void run_panel(const GemmParams& p, Tiles& tiles, size_t rows, Finish finish) {
  switch (finish) {
    case Finish::kSaturate:
      return run_panel<Dot, kVectors, Finish::kSaturate>(p, tiles, rows);
    case Finish::kClamp:
      return run_panel<Dot, kVectors, Finish::kClamp>(p, tiles, rows);
    default:
      return run_panel<Dot, kVectors, Finish::kMemory>(p, tiles, rows);
  }
}

/// 4-bit weights of 64 bytes as twice as many: the even ones at `even`, the others at `odd`.
EDGEQ_INLINE void unpack_64(const int8_t* from, int8_t* even, int8_t* odd) {
  const int8x16x4_t raw = vld1q_s8_x4(from);
  int8x16x4_t low, high;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    low.val[i] = vshrq_n_s8(vshlq_n_s8(raw.val[i], 4), 4);
    high.val[i] = vshrq_n_s8(raw.val[i], 4);
  }
  vst1q_s8_x4(even, low);
  vst1q_s8_x4(odd, high);
}

/// The same of `pairs` pairs of groups of kGroupBytes.
template <size_t kGroupBytes>
EDGEQ_INLINE void unpack_pairs(const int8_t* from, size_t pairs, int8_t* to) {
  for (; pairs > 0; --pairs, to += 2 * kGroupBytes) {
#pragma GCC unroll 2
    for (size_t b = 0; b < kGroupBytes; b += 64, from += 64) unpack_64(from, to + b, to + kGroupBytes + b);
  }
}

/// 4-bit weights of a panel as bytes: each pair of groups (pack.h) becomes two groups; a tap of an odd number
/// of groups loses its padding group. kGroupBytes: a group's where the panel has all its channels.
template <size_t kGroupBytes>
EDGEQ_NOINLINE void unpack_panel(const uint8_t* packed, size_t taps, size_t groups, size_t group_bytes,
                                 int8_t* to) {
  const int8_t* from = reinterpret_cast<const int8_t*>(packed);
  if (group_bytes == kGroupBytes && groups % 2 == 0) {
    unpack_pairs<kGroupBytes>(from, taps * groups / 2, to);
    return;
  }
  for (size_t t = 0; t < taps; ++t) {
    for (size_t g = 0; g < groups; g += 2) {
      const bool pair = g + 1 < groups;
      int8_t* second = to + (pair ? group_bytes : 0);
      // Without a second group, its zeros are overwritten.
      for (size_t b = 0; b < group_bytes; b += 16) {
        const int8x16_t raw = vld1q_s8(from + b);
        vst1q_s8(second + b, vshrq_n_s8(raw, 4));
        vst1q_s8(to + b, vshrq_n_s8(vshlq_n_s8(raw, 4), 4));
      }
      from += group_bytes;
      to += pair ? 2 * group_bytes : group_bytes;
    }
  }
}

/// Interleaves rows [first, first + rows) into tiles at `to`. Where the last tile lacks rows, its last one
/// stands for them.
template <typename Dot>
EDGEQ_NOINLINE void interleave_rows(const GemmParams& p, size_t first, size_t rows, int8_t* to) {
  const size_t units = (p.k + kArm64Unit - 1) / kArm64Unit;
  const size_t taps = p.taps;
  const GemmLhs lhs = p.lhs;
  const int8_t* row[kArm64TileRows];
  if (lhs.pixel_offset == nullptr) {
    const int8_t* from = lhs.base + static_cast<ptrdiff_t>(first) * lhs.row_stride;
    for (; rows >= kArm64TileRows; rows -= kArm64TileRows) {
#pragma GCC unroll 8
      for (size_t r = 0; r < kArm64TileRows; ++r, from += lhs.row_stride) row[r] = from;
      to = Dot::interleave(row, units, to);
    }
    if (rows == 0) return;
    // Unrolled: an index that varies would keep the array in memory for the loop above too.
#pragma GCC unroll 8
    for (size_t r = 0; r < kArm64TileRows; ++r) {
      row[r] = from;
      if (r + 1 < rows) from += lhs.row_stride;
    }
    Dot::interleave(row, units, to);
    return;
  }
  for (; rows > 0; first += kArm64TileRows) {
    const size_t count = rows < kArm64TileRows ? rows : kArm64TileRows;
    rows -= count;
    const int32_t* offsets[kArm64TileRows];  // of each row, by taps
#pragma GCC unroll 8
    for (size_t r = 0; r < kArm64TileRows; ++r)
      offsets[r] = lhs.pixel_offset + lhs.row_index[first + (r < count ? r : count - 1)];
    for (size_t t = 0; t < taps; ++t) {
      const ptrdiff_t tap = lhs.tap_index[t];
#pragma GCC unroll 8
      for (size_t r = 0; r < kArm64TileRows; ++r) {
        const int32_t offset = offsets[r][tap];
        row[r] = offset < 0 ? lhs.zero_row : lhs.base + offset;
      }
      to = Dot::interleave(row, units, to);
    }
  }
}

/// Four values, each pair twice.
EDGEQ_INLINE void twice_four(const uint8_t* from, uint8_t* to) {
  const int64x2_t four = vreinterpretq_s64_u8(vld1q_u8(from));
  vst1q_u8(to, vreinterpretq_u8_s64(vzip1q_s64(four, four)));
  vst1q_u8(to + 16, vreinterpretq_u8_s64(vzip2q_s64(four, four)));
}

/// Bias or scale of `width` channels, each pair twice.
EDGEQ_INLINE void twice(const uint8_t* from, size_t width, uint8_t* to) {
  if (width == kArm64TileColumns) {
#pragma GCC unroll 4
    for (size_t j = 0; j < kArm64TileColumns; j += 4) twice_four(from + 4 * j, to + 8 * j);
  } else {
    for (size_t j = 0; j < width; j += 4) twice_four(from + 4 * j, to + 8 * j);
  }
}

/// Rows [row_begin, row_end) of panels [panel_begin, panel_end): blocks of rows that are interleaved once,
/// and pass by all panels, whose weights then stay in the first-level cache while a block passes by.
template <typename Dot, int kBits>
void run_gemm(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end) {
  if (row_begin >= row_end || panel_begin >= panel_end) return;
  constexpr size_t kNr = kArm64TileColumns;
  constexpr size_t kKr = Dot::kKr;
  const size_t groups = (p.k + kKr - 1) / kKr;
  const size_t stored_groups = kBits == 8 ? groups : (groups + 1) / 2 * 2;
  const size_t channel_bytes = 8 + p.taps * stored_groups * kKr * kBits / 8;
  const double largest_sum = static_cast<double>(p.taps * p.k) * (kBits == 8 ? 127.0 * 128.0 : 7.0 * 128.0);
  const Arm64Blocking blocking = arm64_blocking(arm64_depth(p.k, p.taps), kBits);
  uint8_t* const constants = p.scratch;
  int8_t* const block = reinterpret_cast<int8_t*>(p.scratch + kArm64ConstantBytes);
  int8_t* const unpacked = reinterpret_cast<int8_t*>(p.scratch + blocking.unpacked_offset);
  Tiles tiles{};
  tiles.lhs_bytes = blocking.tile_bytes;
  // Taps of whole units follow each other like one.
  tiles.units = groups * kKr / kArm64Unit;
  tiles.rest = groups * kKr % kArm64Unit;
  tiles.taps = p.taps;
  if (tiles.rest == 0) {
    tiles.units *= p.taps;
    tiles.taps = 1;
  }
  for (size_t row = row_begin; row < row_end; row += blocking.rows) {
    const size_t rows = row_end - row < blocking.rows ? row_end - row : blocking.rows;
    interleave_rows<Dot>(p, row, rows, block);
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
      const size_t column = panel * kNr;
      const size_t columns = p.n - column < kNr ? p.n - column : kNr;
      const size_t width = (columns + 3) / 4 * 4;
      const uint8_t* const packed = p.packed + column * channel_bytes;
      const PanelBounds bounds(packed, width, largest_sum);
      const Finish finish = finish_of(p, bounds);
      tiles.relu = finish == Finish::kSaturate && is_relu(p, bounds);
      float plain_scale[kNr] = {};
      tiles.lhs = block;
      tiles.weights = reinterpret_cast<const int8_t*>(packed) + 8 * width;
      if (kBits == 4) {
        unpack_panel<kNr * kKr>(packed + 8 * width, p.taps, groups, width * kKr, unpacked);
        tiles.weights = unpacked;
      }
      tiles.bias = reinterpret_cast<const int32_t*>(packed);
      tiles.scale = reinterpret_cast<const float*>(packed) + width;
      if (finish == Finish::kMemory) {
        std::memcpy(plain_scale, tiles.scale, width * sizeof(float));
        tiles.plain_scale = plain_scale;
      }
      if (Dot::kTwice) {
        twice(packed, width, constants);
        twice(packed + 4 * width, width, constants + kArm64ConstantBytes / 2);
        tiles.bias = reinterpret_cast<const int32_t*>(constants);
        tiles.scale = reinterpret_cast<const float*>(constants + kArm64ConstantBytes / 2);
      }
      tiles.addend = tiles.scale;
      tiles.dst = p.dst + static_cast<ptrdiff_t>(row) * p.dst_row_stride + column;
      tiles.dst_stride = p.dst_row_stride;
      tiles.place = {row, 0, column, columns};
      switch (width / 4) {
        case 4:
          run_panel<Dot, 4>(p, tiles, rows, finish);
          break;
        case 3:
          run_panel<Dot, 3>(p, tiles, rows, finish);
          break;
        case 2:
          run_panel<Dot, 2>(p, tiles, rows, finish);
          break;
        default:
          run_panel<Dot, 1>(p, tiles, rows, finish);
          break;
      }
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_TILE_H_
