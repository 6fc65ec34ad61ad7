#ifndef EDGEQ_KERNELS_GEMM_X86_TILE_H_
#define EDGEQ_KERNELS_GEMM_X86_TILE_H_

// The epilogue of a tile of the VNNI and AMX kernels. Only x86_*.cc files and the headers that they alone
// include take it; everything stands in an unnamed namespace, so that no copy serves another level.
//
// A quad is four vectors of sums, which become one vector of codes: four vectors of one row, two of two rows,
// one of four rows, or their halves. On Zen 4 vector instructions go to four pipes, and what a quad needs is:
//
//   two pipes with the products of the rows around it       4 multiplications by the scales
//   the other two                                           8 conversions, 4 shuffles
//   whichever is free                                       4 or 5 clamps and additions, where the range
//   needs them
//
// Products of depth k take k cycles for a quad, and its bound is k + 4: 20 for a depth of 16, 36 for 32.
// Saturating additions would go to the first two pipes as well: none is used. The rest hides behind products
// as long as there are some to be had: see run_rows in x86_vnni.h.

#include <cmath>
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/lhs.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

/// What a tile needs besides the parameters.
struct Tile {
  const uint8_t* panel;  // packed
  size_t groups;         // groups of four channels in one tap
  size_t row;            // first row
  size_t column;         // first output channel
  size_t columns;        // output channels that exist, at most kVectors * V::kLanes
};

/// How a tile's sums become codes.
enum class Finish {
  kSaturate,  // what saturation to a byte makes of the rounded products
  kClamp,     // zero point and bounds
  kAdd,       // the same, and a residual addition
};

/// Zero point and bounds of an output range, ready for pack_quad.
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

/// The residual addition of rounded products whose zero point is that of the left operand, as it always is
/// without a table between.
template <typename V>
struct QuadAddition {
  using Int = typename V::Int;
  using Float = typename V::Float;

  Int lowest;   // dwords: min - zp of the products
  Int highest;  // dwords: max - zp
  Int zp_src;
  Float multiplier_acc;
  Float multiplier_src;

  EDGEQ_INLINE QuadAddition(OutputRange range, const GemmResidual& r)
      : lowest(V::set1_dword(range.min - range.zp)),
        highest(V::set1_dword(range.max - range.zp)),
        zp_src(V::set1_dword(r.zp_src)),
        multiplier_acc(V::set1(r.multiplier_acc)),
        multiplier_src(V::set1(r.multiplier_src)) {}

  /// Products and the other operand's codes to the rounded sum.
  EDGEQ_INLINE Int operator()(Int q, Int codes) const {
    q = V::min_dwords(V::max_dwords(q, lowest), highest);
    const Float left = V::mul(V::to_float(q), multiplier_acc);
    const Float right = V::mul(V::to_float(V::sub(codes, zp_src)), multiplier_src);
    return V::round(V::plus(left, right));
  }
};

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

/// Everything that may follow the sums, from sums in memory: what hardly ever runs. A large scale is clamped
/// before the conversion to integers; a table is looked up; a residual is added to whatever comes out.
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
      if (p.large_scales) value = V::min(value, hi);
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

/// The vectors of a tile of kRows rows by kVectors vectors, of which each row's last may be there in its
/// lower half only, as the vectors of quads: pairs of halves make one where that fills a quad.
template <int kRows, int kVectors, bool kHalf>
struct QuadLayout {
  static constexpr bool kJoined = kHalf && kVectors <= 2;
  static constexpr int kQuadRows = kVectors == 1 ? (kHalf ? 8 : 4) : kVectors == 2 ? 2 : 1;

  /// Vector i of the quad from row r on: which vector of the rows it is, of which row (and the next, for a
  /// pair of halves). A row beyond the tile is its last one again: it is not stored.
  static constexpr int vector(int i) {
    if (kJoined) return kVectors == 1 ? 0 : i < 2 ? 0 : 1;
    return i < kQuadRows * kVectors ? i % kVectors : 0;
  }
  static constexpr int row(int r, int i) {
    int row = r;
    if (kJoined) {
      row += kVectors == 1 ? 2 * i : i < 2 ? i : 0;
    } else if (i < kQuadRows * kVectors) {
      row += i / kVectors;
    }
    return row < kRows ? row : kRows - 1;
  }
  static constexpr bool pair(int i) { return kJoined && vector(i) == kVectors - 1; }
  /// Whether vector i is not just another copy of the one before it.
  static constexpr bool fills(int i) { return kJoined ? kVectors == 1 || i < 3 : i < kQuadRows * kVectors; }
};

/// Requantizes and stores the rows of a tile, quad by quad.
template <typename V, int kRows, int kVectors, bool kHalf, Finish kFinish>
EDGEQ_INLINE void store_tile(const GemmParams& p, const Tile& tile,
                             const typename V::Int (&sums)[kRows][kVectors]) {
  using Int = typename V::Int;
  using Layout = QuadLayout<kRows, kVectors, kHalf>;
  constexpr bool kAdd = kFinish == Finish::kAdd;
  const uint8_t* scale = tile.panel + kVectors * V::kLanes * 4;
  const QuadRange<V> range(kAdd ? p.residual.range : p.range);
  const QuadAddition<V> add(p.range, p.residual);
  const ptrdiff_t src_stride = kAdd ? p.residual.row_stride : 0;
  const act_t* src =
      kAdd ? p.residual.src + static_cast<ptrdiff_t>(tile.row) * src_stride + tile.column : nullptr;
  act_t* dst = p.dst + static_cast<ptrdiff_t>(tile.row) * p.dst_row_stride + tile.column;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r += Layout::kQuadRows) {
    Int q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if (!Layout::fills(i)) {
        q[i] = q[i - 1];
        continue;
      }
      const int row = Layout::row(r, i);
      const int v = Layout::vector(i);
      const uint8_t* scales = scale + v * V::kLanes * 4;
      const act_t* other = src + row * src_stride + v * V::kLanes;
      if constexpr (Layout::kJoined) {
        if (Layout::pair(i)) {
          const int next = row + 1 < kRows ? row + 1 : row;
          q[i] = V::round(
              V::mul(V::to_float(V::join_halves(sums[row][v], sums[next][v])), V::load_half_twice(scales)));
          if (kAdd) q[i] = add(q[i], V::widen_halves(other, other + (next - row) * src_stride));
          continue;
        }
      }
      q[i] = V::round(V::mul(V::to_float(sums[row][v]), V::load_float(scales)));
      if (kAdd) q[i] = add(q[i], V::widen_bytes(other));
    }
    Int bytes = pack_quad<V, kFinish == Finish::kSaturate>(q[0], q[1], q[2], q[3], range);
    if constexpr (V::kBytes == 32 && Layout::kQuadRows == 2) {
      __m128i both[2];
      V::order_packed_halves(bytes, &both[0], &both[1]);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i, dst += p.dst_row_stride) {
        if (r + i < kRows) Vector128::store(dst, both[i], tile.columns);
      }
      continue;
    }
    if constexpr (Layout::kJoined && kVectors == 2) {
      bytes = V::order_packed_pairs(bytes);
    } else {
      bytes = V::order_packed(bytes);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Layout::kQuadRows; ++i) {
      if (r + i < kRows) store_quad_row<V, Layout::kQuadRows>(dst, bytes, i, tile.columns);
      dst += p.dst_row_stride;
    }
  }
}

/// Whether the quads' addition takes this one: products have the zero point of the left operand, and no sum
/// leaves 32 bits (2 * 255 * 2^22 < 2^31).
EDGEQ_INLINE bool adds_in_quads(const GemmParams& p) {
  constexpr float kLargest = 4194304.0f;
  return p.residual.zp_acc == p.range.zp && std::fabs(p.residual.multiplier_acc) <= kLargest &&
         std::fabs(p.residual.multiplier_src) <= kLargest;
}

template <typename V, int kRows, int kVectors>
EDGEQ_INLINE void finish_in_memory(const GemmParams& p, const Tile& tile,
                                   const typename V::Int (&sums)[kRows][kVectors], size_t rows = kRows) {
  typename V::Int stored[kRows * kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) stored[r * kVectors + v] = sums[r][v];
  }
  finish_rows<V, kVectors>(p, tile, stored, rows);
}

/// Requantizes, finishes and stores a tile from its sums (bias included). A tile of few rows is the rest of
/// many others: its additions are not worth their code.
template <typename V, int kRows, int kVectors, bool kHalf = false>
EDGEQ_INLINE void finish_tile(const GemmParams& p, const Tile& tile,
                              const typename V::Int (&sums)[kRows][kVectors]) {
  const bool adds = p.residual.src != nullptr;
  if (p.large_scales || p.table != nullptr || (adds && (kRows < 3 || !adds_in_quads(p)))) {
    finish_in_memory<V, kRows, kVectors>(p, tile, sums);
  } else if (adds) {
    store_tile<V, kRows, kVectors, kHalf, Finish::kAdd>(p, tile, sums);
  } else if (only_saturates(p.range)) {
    store_tile<V, kRows, kVectors, kHalf, Finish::kSaturate>(p, tile, sums);
  } else {
    store_tile<V, kRows, kVectors, kHalf, Finish::kClamp>(p, tile, sums);
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_X86_TILE_H_
