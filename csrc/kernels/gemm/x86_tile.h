#ifndef EDGEQ_KERNELS_GEMM_X86_TILE_H_
#define EDGEQ_KERNELS_GEMM_X86_TILE_H_

// What the x86 matrix kernels share: the epilogue of a tile, and loops over tiles and panels. Only x86_*.cc
// files and the headers that they alone include take it; everything stands in an unnamed namespace, so that
// no copy serves another level.

#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/lhs.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

// Weights that fit beside a row tile in the first-level cache.
constexpr size_t kResidentWeights = 24 * 1024;

/// What a tile needs besides the parameters.
struct Tile {
  const uint8_t* panel;              // packed
  size_t groups;                     // groups of four channels in one tap
  size_t row;                        // first row
  size_t column;                     // first output channel
  size_t columns;                    // output channels that exist, at most kVectors * V::kLanes
  bool large_scales;                 // see any_large_scale
  const int16_t* widened = nullptr;  // rows of the tile as int16, where the kernel wants them so
  size_t widened_stride = 0;         // elements from row to row
};

// ---- the epilogue ----
//
// A quad is four vectors of sums, which become one vector of codes: four vectors of one row, two of two rows
// or one of four rows. On Zen 4 the multiply-accumulates keep two of the four vector pipes busy; of what a
// quad takes, only its four multiplications and what saturating additions it does must run there. The
// conversions (eight) and the shuffles (four) run on the other two, beside the next rows' products. Hence no
// saturating addition, and no clamp where the range is the whole byte: 16 + 4 cycles for 16 groups of four...
// see docs/performance.md.

/// Bounds and zero point of an output range, ready for pack_quad.
template <typename V>
struct QuadRange {
  typename V::Int highest;  // words: max - zp
  typename V::Int zp;       // words
  typename V::Int lowest;   // bytes: min

  EDGEQ_INLINE explicit QuadRange(OutputRange range)
      : highest(V::set1_word(range.max - range.zp)),
        zp(V::set1_word(range.zp)),
        lowest(V::set1_byte(range.min)) {}
};

/// Whether the codes are what saturation to a byte makes of the rounded products, as after a ReLU whose zero
/// point is the lowest code.
EDGEQ_INLINE bool saturation_is_enough(OutputRange range) {
  return (range.zp | range.min) == 0 && range.max == kActMax;
}

/// Bytes clamp(q + zp) of four vectors of rounded products, before V::order_packed.
///
/// Each bound commutes with the saturation to 16 bits. With q <= max - zp the addition cannot leave the 16
/// bits upwards, nor, the zero point being 0 or more, downwards; the last saturation is the clamp to 0.
template <typename V, bool kSaturate>
EDGEQ_INLINE typename V::Int pack_quad(typename V::Int q0, typename V::Int q1, typename V::Int q2,
                                       typename V::Int q3, const QuadRange<V>& range) {
  typename V::Int low = V::pack_dwords(q0, q1);
  typename V::Int high = V::pack_dwords(q2, q3);
  if (kSaturate) return V::pack_words(low, high);
  low = V::add_words(V::min_words(low, range.highest), range.zp);
  high = V::add_words(V::min_words(high, range.highest), range.zp);
  return V::max_bytes(V::pack_words(low, high), range.lowest);
}

/// Stores row `row` of a quad of kRows rows: `columns` bytes of its share of the vector.
template <typename V, int kRows>
EDGEQ_INLINE void store_quad_row(act_t* to, typename V::Int bytes, int row, size_t columns) {
  if constexpr (kRows == 1) {
    V::store(to, bytes, columns);
  } else {
    constexpr int kHalfRows = kRows / 2;
    const auto half = row < kHalfRows ? V::low_half(bytes) : V::high_half(bytes);
    store_quad_row<typename V::Half, kHalfRows>(to, half, row % kHalfRows, columns);
  }
}

/// Table and residual addition of requantized codes, and their stores; also the requantization where scales
/// are large. Out of line, from sums in memory: what hardly ever runs, or costs more than its way through
/// memory.
template <typename V, int kVectors>
__attribute__((noinline)) void finish_rows(const GemmParams& p, const Tile& tile, const typename V::Int* sums,
                                           size_t rows) {
  using Int = typename V::Int;
  using Float = typename V::Float;
  const uint8_t* scale = tile.panel + kVectors * V::kLanes * 4;
  const QuadRange<V> range(p.range);
  const Float hi = upper_bound<V>(p.range);
  const GemmResidual& r = p.residual;
  const QuadRange<V> sum_range(r.range);
  const Float sum_hi = upper_bound<V>(r.range);
  const Int zp_acc = V::set1_dword(r.zp_acc);
  const Int zp_src = V::set1_dword(r.zp_src);
  const Float multiplier_acc = V::set1(r.multiplier_acc);
  const Float multiplier_src = V::set1(r.multiplier_src);
  for (size_t i = 0; i < rows; ++i) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(tile.row + i);
    Int q[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      if (v >= kVectors) {
        q[v] = q[0];
        continue;
      }
      Float value = V::mul(V::to_float(sums[i * kVectors + static_cast<size_t>(v)]),
                           V::load_float(scale + v * V::kLanes * 4));
      if (tile.large_scales) value = V::min(value, hi);
      q[v] = V::round(value);
    }
    Int bytes = V::order_packed(pack_quad<V, false>(q[0], q[1], q[2], q[3], range));
    if (p.table != nullptr) bytes = look_up<V>(bytes, p.table);
    if (r.src != nullptr) {
      alignas(64) uint8_t left_codes[64];
      V::store_all(left_codes, bytes);
      const act_t* src = r.src + row * r.row_stride + tile.column;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const Float left =
            V::mul(V::to_float(V::sub(V::widen_bytes(left_codes + v * V::kLanes), zp_acc)), multiplier_acc);
        const Float right =
            V::mul(V::to_float(V::sub(V::widen_bytes(src + v * V::kLanes), zp_src)), multiplier_src);
        q[v] = round_below<V>(V::plus(left, right), sum_hi);
      }
      bytes = V::order_packed(pack_quad<V, false>(q[0], q[1], q[2], q[3], sum_range));
    }
    V::store(p.dst + row * p.dst_row_stride + tile.column, bytes, tile.columns);
  }
}

/// Whether a scale of these panels is 1 or more. Where none is, the clamp can wait until the codes are
/// packed, where it costs one instruction for four vectors: |acc| <= 2^31 and |scale| <= 1 - 2^-24 give
/// |product| < 2^31, which converts to an integer without overflow, and saturation and integer bounds commute
/// with rounding.
template <size_t kNr, size_t kStep>
bool any_large_scale(const GemmParams& p, size_t panel_begin, size_t panel_end, size_t channel_bytes) {
  int32_t large = 0;
  for (size_t panel = panel_begin; panel < panel_end; ++panel) {
    const size_t width = panel_width(p.n, panel, kNr, kStep);
    const uint8_t* scale = p.packed + panel * kNr * channel_bytes + width * sizeof(int32_t);
    for (size_t j = 0; j < width; ++j) {
      int32_t bits;
      std::memcpy(&bits, scale + j * sizeof(float), sizeof bits);
      large |= (bits & 0x7FFFFFFF) >= 0x3F800000;
    }
  }
  return large != 0;
}

/// Rows of a quad: see above. Halves of eight rows or of two rows make whole vectors.
template <int kVectors, bool kHalf>
constexpr int quad_rows() {
  return kVectors == 1 ? (kHalf ? 8 : 4) : kVectors == 2 ? 2 : 1;
}

template <typename V>
EDGEQ_INLINE typename V::Int rounded(typename V::Int sum, const uint8_t* scale) {
  return V::round(V::mul(V::to_float(sum), V::load_float(scale)));
}

/// The lower halves of the last vectors of rows `row` and `row` + 1 side by side; beyond the tile, of `row`
/// again.
template <typename V, int kRows, int kVectors>
EDGEQ_INLINE typename V::Int rounded_halves(const typename V::Int (&sums)[kRows][kVectors], int row,
                                            const uint8_t* scale) {
  constexpr int kLast = kVectors - 1;
  const auto joined = V::join_halves(sums[row][kLast], sums[row + 1 < kRows ? row + 1 : row][kLast]);
  return V::round(V::mul(V::to_float(joined), V::load_half_twice(scale + kLast * V::kLanes * 4)));
}

/// Requantizes and stores the rows of a tile, quad by quad. With kHalf only the lower half of each row's last
/// vector is there.
template <typename V, int kRows, int kVectors, bool kHalf, bool kSaturate>
EDGEQ_INLINE void store_tile(const GemmParams& p, const Tile& tile,
                             const typename V::Int (&sums)[kRows][kVectors]) {
  using Int = typename V::Int;
  constexpr int kQuadRows = quad_rows<kVectors, kHalf>();
  constexpr bool kJoined = kHalf && kVectors <= 2;
  const uint8_t* scale = tile.panel + kVectors * V::kLanes * 4;
  const QuadRange<V> range(p.range);
  act_t* dst = p.dst + static_cast<ptrdiff_t>(tile.row) * p.dst_row_stride + tile.column;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r += kQuadRows) {
    Int q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if constexpr (kJoined && kVectors == 1) {
        q[i] = r + 2 * i < kRows ? rounded_halves<V, kRows, kVectors>(sums, r + 2 * i, scale) : q[0];
      } else if constexpr (kJoined) {
        q[i] = i == 2   ? rounded_halves<V, kRows, kVectors>(sums, r, scale)
               : i == 3 ? q[2]
                        : rounded<V>(sums[r + i < kRows ? r + i : r][0], scale);
      } else {
        const int row = r + i / kVectors;
        q[i] = i < kQuadRows * kVectors && row < kRows
                   ? rounded<V>(sums[row][i % kVectors], scale + i % kVectors * V::kLanes * 4)
                   : q[0];
      }
    }
    Int bytes = pack_quad<V, kSaturate>(q[0], q[1], q[2], q[3], range);
    if constexpr (kJoined && kVectors == 2) {
      bytes = V::order_packed_pairs(bytes);
    } else {
      bytes = V::order_packed(bytes);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kQuadRows; ++i) {
      if (r + i < kRows) store_quad_row<V, kQuadRows>(dst, bytes, i, tile.columns);
      dst += p.dst_row_stride;
    }
  }
}

/// Requantizes, finishes and stores a tile from its sums (bias included).
template <typename V, int kRows, int kVectors, bool kHalf = false>
EDGEQ_INLINE void finish_tile(const GemmParams& p, const Tile& tile,
                              const typename V::Int (&sums)[kRows][kVectors]) {
  if (tile.large_scales || p.table != nullptr || p.residual.src != nullptr) {
    typename V::Int stored[kRows * kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) stored[r * kVectors + v] = sums[r][v];
    }
    finish_rows<V, kVectors>(p, tile, stored, kRows);
  } else if (saturation_is_enough(p.range)) {
    store_tile<V, kRows, kVectors, kHalf, true>(p, tile, sums);
  } else {
    store_tile<V, kRows, kVectors, kHalf, false>(p, tile, sums);
  }
}

// ---- loops ----

/// Calls Kernel::run<rows, vectors>.
template <typename Kernel, int kRows, int kVectors>
void run_sized(const GemmParams& p, const Tile& tile, size_t rows, size_t vectors) {
  if constexpr (kRows == 0 || kVectors == 0) {
    (void)p, (void)tile, (void)rows, (void)vectors;
  } else if (rows != kRows) {
    run_sized<Kernel, kRows - 1, kVectors>(p, tile, rows, vectors);
  } else if (vectors != kVectors) {
    run_sized<Kernel, kRows, kVectors - 1>(p, tile, rows, vectors);
  } else {
    Kernel::template run<kRows, kVectors>(p, tile);
  }
}

/// Runs one tile: rows [first, last) of one panel, whose channels take channel_bytes each.
template <typename V, typename Kernel, int kRows, int kVectors>
EDGEQ_INLINE void run_in_panel(const GemmParams& p, Tile tile, size_t rows, size_t panel,
                               size_t channel_bytes) {
  constexpr size_t kNr = kVectors * V::kLanes;
  tile.column = panel * kNr;
  tile.columns = p.n - tile.column < kNr ? p.n - tile.column : kNr;
  tile.panel = p.packed + tile.column * channel_bytes;
  run_sized<Kernel, kRows, kVectors>(p, tile, rows, (tile.columns + V::kLanes - 1) / V::kLanes);
}

/// The loops over tiles of at most kRows rows and panels of kVectors vectors.
template <typename V, typename Kernel, int kRows, int kVectors>
void run_tiles(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end,
               size_t groups, size_t channel_bytes) {
  if (row_begin >= row_end || panel_begin >= panel_end) return;
  const size_t rows = row_end - row_begin;
  const size_t tiles = (rows + kRows - 1) / kRows;
  const bool large_scales =
      any_large_scale<kVectors * V::kLanes, V::kLanes>(p, panel_begin, panel_end, channel_bytes);
  // Rows are shared out evenly, so that no tile is left with a row or two.
  const auto run = [&](size_t tile_index, size_t panel) {
    const size_t first = row_begin + rows * tile_index / tiles;
    const size_t last = row_begin + rows * (tile_index + 1) / tiles;
    Tile tile{};
    tile.groups = groups;
    tile.row = first;
    tile.large_scales = large_scales;
    run_in_panel<V, Kernel, kRows, kVectors>(p, tile, last - first, panel, channel_bytes);
  };
  if ((panel_end - panel_begin) * kVectors * V::kLanes * channel_bytes <= kResidentWeights) {
    for (size_t i = 0; i < tiles; ++i) {
      for (size_t panel = panel_begin; panel < panel_end; ++panel) run(i, panel);
    }
  } else {
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
      for (size_t i = 0; i < tiles; ++i) run(i, panel);
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_X86_TILE_H_
