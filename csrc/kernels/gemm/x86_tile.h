#ifndef EDGEQ_KERNELS_GEMM_X86_TILE_H_
#define EDGEQ_KERNELS_GEMM_X86_TILE_H_

// What the x86 matrix kernels share: the loops over tiles and panels, and the epilogue. Only x86_*.cc files
// and the headers that they alone include take it; everything stands in an unnamed namespace, so that no copy
// serves another level.

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

/// Codes of a tile's row of up to four vectors, in order.
template <typename V, int kVectors>
EDGEQ_INLINE typename V::Int pack_row(const typename V::Int* q, OutputRange range) {
  return V::order_packed(
      pack_codes<V>(q[0], q[kVectors > 1 ? 1 : 0], q[kVectors > 2 ? 2 : 0], q[kVectors > 3 ? 3 : 0], range));
}

/// Table and residual addition of the requantized codes of a tile, and their stores. Out of line: one copy
/// for each width.
template <typename V, int kVectors>
__attribute__((noinline)) void finish_rows(const GemmParams& p, const Tile& tile,
                                           const typename V::Int* codes, size_t rows) {
  using Int = typename V::Int;
  using Float = typename V::Float;
  for (size_t i = 0; i < rows; ++i) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(tile.row + i);
    Int bytes = codes[i];
    if (p.table != nullptr) bytes = look_up<V>(bytes, p.table);
    const GemmResidual& r = p.residual;
    if (r.src != nullptr) {
      alignas(64) uint8_t left_codes[64];
      V::store_all(left_codes, bytes);
      const act_t* src = r.src + row * r.row_stride + tile.column;
      const Float hi = upper_bound<V>(r.range);
      const Int zp_acc = V::set1_dword(r.zp_acc);
      const Int zp_src = V::set1_dword(r.zp_src);
      const Float multiplier_acc = V::set1(r.multiplier_acc);
      const Float multiplier_src = V::set1(r.multiplier_src);
      Int q[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        const Float left =
            V::mul(V::to_float(V::sub(V::widen_bytes(left_codes + v * V::kLanes), zp_acc)), multiplier_acc);
        const Float right =
            V::mul(V::to_float(V::sub(V::widen_bytes(src + v * V::kLanes), zp_src)), multiplier_src);
        q[v] = round_below<V>(V::plus(left, right), hi);
      }
      bytes = pack_row<V, kVectors>(q, r.range);
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

/// Codes of a tile whose scales may be large: clamps before the conversion. Out of line, because it hardly
/// ever runs.
template <typename V, int kVectors>
__attribute__((noinline)) void requantize_clamped(const GemmParams& p, const Tile& tile,
                                                  const typename V::Int* sums, size_t rows,
                                                  typename V::Int* codes) {
  const auto hi = upper_bound<V>(p.range);
  const uint8_t* scale = tile.panel + kVectors * V::kLanes * 4;
  for (size_t i = 0; i < rows; ++i) {
    typename V::Int q[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const auto value = V::to_float(sums[i * kVectors + static_cast<size_t>(v)]);
      q[v] = round_below<V>(V::mul(value, V::load_float(scale + v * V::kLanes * 4)), hi);
    }
    codes[i] = pack_row<V, kVectors>(q, p.range);
  }
}

/// Requantizes, finishes and stores a tile from its sums (bias included).
template <typename V, int kRows, int kVectors>
EDGEQ_INLINE void finish_tile(const GemmParams& p, const Tile& tile,
                              const typename V::Int (&sums)[kRows][kVectors]) {
  using Int = typename V::Int;
  constexpr int kVectorBytes = V::kLanes * 4;
  Int codes[kRows];
  if (tile.large_scales) {
    Int stored[kRows * kVectors];
    Int clamped[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) stored[r * kVectors + v] = sums[r][v];
    }
    requantize_clamped<V, kVectors>(p, tile, stored, kRows, clamped);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) codes[r] = clamped[r];
  } else {
    const uint8_t* scale = tile.panel + kVectors * kVectorBytes;
    const Int highest = V::set1_byte(p.range.max);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      Int q[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        q[v] = V::round(V::mul(V::to_float(sums[r][v]), V::load_float(scale + v * kVectorBytes)));
      }
      codes[r] = V::min_bytes(pack_row<V, kVectors>(q, p.range), highest);
    }
  }
  if (p.table != nullptr || p.residual.src != nullptr) {
    Int stored[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) stored[r] = codes[r];
    finish_rows<V, kVectors>(p, tile, stored, kRows);
  } else {
    act_t* dst = p.dst + static_cast<ptrdiff_t>(tile.row) * p.dst_row_stride + tile.column;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      V::store(dst, codes[r], tile.columns);
      dst += p.dst_row_stride;
    }
  }
}

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
