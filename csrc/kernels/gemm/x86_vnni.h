#ifndef EDGEQ_KERNELS_GEMM_X86_VNNI_H_
#define EDGEQ_KERNELS_GEMM_X86_VNNI_H_

// The one shape of the VNNI kernels, for 512-bit and 256-bit vectors and both encodings. Only x86_*vnni.cc
// include it, each with its own vector type V; everything stands in an unnamed namespace, so that no copy
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
  const uint8_t* panel;  // packed
  size_t groups;         // groups of four channels in one tap
  size_t row;            // first row
  size_t column;         // first output channel
  size_t columns;        // output channels that exist, at most kVectors * V::kLanes
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

/// kRows x (kVectors * V::kLanes) outputs, all accumulators in registers.
template <typename V, int kBits, int kRows, int kVectors>
void run_tile(const GemmParams& p, const Tile& tile) {
  using Int = typename V::Int;
  constexpr int kVectorBytes = V::kLanes * 4;
  // A matrix-vector product has too few chains to hide the latency of the multiply-accumulate: two sets then.
  constexpr int kSets = kRows == 1 ? 2 : 1;
  Int acc[kSets][kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      acc[0][r][v] = kBits == 8 ? V::load(tile.panel + v * kVectorBytes) : V::zero();
      if (kSets == 2) acc[kSets - 1][r][v] = V::zero();
    }
  }
  const uint8_t* w = tile.panel + kVectors * kVectorBytes * 2;
  for (size_t t = 0; t < p.taps; ++t) {
    const uint8_t* a[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) a[r] = lhs_row(p.lhs, t, tile.row + r);
    if (kBits == 8) {
      size_t g = 0;
      if (kSets == 2) {
        for (; g + 2 <= tile.groups; g += 2) {
#pragma GCC unroll 2
          for (int s = 0; s < kSets; ++s) {
            const Int x = V::broadcast(a[0] + 4 * g + 4 * s);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
              acc[s][0][v] = V::dot(acc[s][0][v], x, V::load(w + (s * kVectors + v) * kVectorBytes));
            }
          }
          w += 2 * kVectors * kVectorBytes;
        }
      }
      for (; g < tile.groups; ++g) {
        Int b[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) b[v] = V::load(w + v * kVectorBytes);
        w += kVectors * kVectorBytes;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Int x = V::broadcast(a[r] + 4 * g);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) acc[0][r][v] = V::dot(acc[0][r][v], x, b[v]);
        }
      }
    } else {
      const Int high = V::set1_byte(0xF0);
      for (size_t g = 0; g < tile.groups; g += 2) {
        // A nibble in the upper half of a byte is 16 times its value: no sign extension. Sums are then 16
        // times too large, and stay below 2^31 up to a depth of max_depth = 65,792: 16 * 255 * 8 * 65,792 =
        // 2,147,450,880.
        Int raw[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) raw[v] = V::load(w + v * kVectorBytes);
        w += kVectors * kVectorBytes;
        Int b[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) b[v] = V::bit_and(V::template shift_left<4>(raw[v]), high);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Int x = V::broadcast(a[r] + 4 * g);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) acc[0][r][v] = V::dot(acc[0][r][v], x, b[v]);
        }
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) b[v] = V::bit_and(raw[v], high);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Int x = V::broadcast(a[r] + 4 * g + 4);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) acc[kSets - 1][r][v] = V::dot(acc[kSets - 1][r][v], x, b[v]);
        }
      }
    }
    // All sums are in registers here. Without this the compiler keeps a copy of each in memory for the
    // epilogue, and writes it in every round of the loop above.
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) V::keep_in_register(acc[0][r][v]);
    }
  }
  using Float = typename V::Float;
  const Float hi = upper_bound<V>(p.range);
  const uint8_t* scale = tile.panel + kVectors * kVectorBytes;
  Int codes[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    Int q[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Int sum = acc[0][r][v];
      if (kSets == 2) sum = V::add(sum, acc[kSets - 1][r][v]);
      // The division by 16 is exact; the bias joins after it, because 16 times a bias may not fit.
      if (kBits == 4)
        sum = V::add(V::template shift_right_signed<4>(sum), V::load(tile.panel + v * kVectorBytes));
      q[v] = round_below<V>(V::mul(V::to_float(sum), V::load_float(scale + v * kVectorBytes)), hi);
    }
    codes[r] = pack_row<V, kVectors>(q, p.range);
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

template <typename V, int kBits, int kRows, int kVectors>
void run_rows(const GemmParams& p, const Tile& tile, size_t rows, size_t vectors) {
  if constexpr (kRows == 0 || kVectors == 0) {
    (void)p, (void)tile, (void)rows, (void)vectors;
  } else if (rows != kRows) {
    run_rows<V, kBits, kRows - 1, kVectors>(p, tile, rows, vectors);
  } else if (vectors != kVectors) {
    run_rows<V, kBits, kRows, kVectors - 1>(p, tile, rows, vectors);
  } else {
    run_tile<V, kBits, kRows, kVectors>(p, tile);
  }
}

/// The loops over tiles of at most kRows rows and panels of kVectors vectors.
template <typename V, int kBits, int kRows, int kVectors>
void run_gemm(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end) {
  if (row_begin >= row_end || panel_begin >= panel_end) return;
  constexpr size_t kNr = kVectors * V::kLanes;
  size_t groups = (p.k + 3) / 4;
  if (kBits == 4) groups = (groups + 1) / 2 * 2;
  const size_t channel_bytes = 8 + p.taps * groups * kBits / 2;
  const size_t rows = row_end - row_begin;
  const size_t tiles = (rows + kRows - 1) / kRows;
  const auto run = [&](size_t tile_index, size_t panel) {
    // Rows are shared out evenly, so that no tile is left with a row or two.
    const size_t first = row_begin + rows * tile_index / tiles;
    const size_t last = row_begin + rows * (tile_index + 1) / tiles;
    const size_t column = panel * kNr;
    const size_t columns = p.n - column < kNr ? p.n - column : kNr;
    const Tile tile{p.packed + column * channel_bytes, groups, first, column, columns};
    run_rows<V, kBits, kRows, kVectors>(p, tile, last - first, (columns + V::kLanes - 1) / V::kLanes);
  };
  if ((panel_end - panel_begin) * kNr * channel_bytes <= kResidentWeights) {
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

#endif  // EDGEQ_KERNELS_GEMM_X86_VNNI_H_
