#ifndef EDGEQ_KERNELS_GEMM_X86_VNNI_H_
#define EDGEQ_KERNELS_GEMM_X86_VNNI_H_

// The VNNI kernels, for 512-bit and 256-bit vectors and both encodings. Only x86_*vnni.cc include it, each
// with its own vector type V, which also has
//
//   dot(acc, a, b)       the multiply-accumulate
//   kHalves              whether there is dot_half, the same on the lower half of the registers alone
//   kTileVectors         vectors of a full panel

#include "kernels/gemm/unpacked.h"
#include "kernels/gemm/x86_tile.h"

namespace edgeq {
namespace {

/// How a tile gets its weights.
enum class Weights {
  kBytes,      // W8, or unpacked W4
  kNibbles,    // W4, used as they are: four times less work than unpacking, and sums that are 16 times too
               // large
  kUnpacking,  // W4, unpacked to W8 in scratch on the way, for the tiles that follow
};

/// The lower half of a last vector is enough for some widths, and takes half a cycle: of n = 24, 8 of 32
/// lanes would be idle.
template <typename V, bool kHalf>
EDGEQ_INLINE typename V::Int load_last(const uint8_t* from) {
  if constexpr (kHalf) {
    return V::load_half(from);
  } else {
    return V::load(from);
  }
}

template <typename V, bool kHalf>
EDGEQ_INLINE typename V::Int dot_last(typename V::Int acc, typename V::Int a, typename V::Int b) {
  if constexpr (kHalf) {
    return V::dot_half(acc, a, b);
  } else {
    return V::dot(acc, a, b);
  }
}

template <typename V, int kVectors, bool kHalf>
EDGEQ_INLINE void load_group(const uint8_t* w, typename V::Int (&b)[kVectors]) {
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    b[v] = v + 1 < kVectors ? V::load(w + v * V::kLanes * 4) : load_last<V, kHalf>(w + v * V::kLanes * 4);
    // A load takes as long as a multiply-accumulate: none may be repeated for each row, as an operand in
    // memory. And loads in the order of the addresses are what the prefetchers follow.
    V::keep_in_register(b[v]);
  }
}

/// Adds the products of one group: kRows broadcasts of four input channels by kVectors vectors of weights.
template <typename V, int kRows, int kVectors, bool kHalf>
EDGEQ_INLINE void multiply_group(const act_t* const (&a)[kRows], size_t offset,
                                 const typename V::Int (&b)[kVectors],
                                 typename V::Int (&acc)[kRows][kVectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const typename V::Int x = V::broadcast(a[r] + offset);
#pragma GCC unroll 4
    for (int v = 0; v + 1 < kVectors; ++v) acc[r][v] = V::dot(acc[r][v], x, b[v]);
    acc[r][kVectors - 1] = dot_last<V, kHalf>(acc[r][kVectors - 1], x, b[kVectors - 1]);
  }
}

/// Few chains do not hide the latency of the multiply-accumulate: two sets of sums then.
template <int kRows, int kVectors>
constexpr int sum_sets() {
  return kRows * kVectors < 5 ? 2 : 1;
}

/// W8: adds the products of `groups` groups, and moves `w` past their weights.
template <typename V, int kRows, int kVectors, bool kHalf, int kSets>
EDGEQ_INLINE void multiply(const act_t* const (&a)[kRows], const uint8_t*& w, size_t groups,
                           typename V::Int (&acc)[kSets][kRows][kVectors]) {
  using Int = typename V::Int;
  constexpr int kVectorBytes = V::kLanes * 4;
  size_t g = 0;
  if constexpr (kSets == 2) {
#pragma GCC unroll 1
    for (; g + 2 <= groups; g += 2) {
#pragma GCC unroll 2
      for (int s = 0; s < 2; ++s) {
        Int b[kVectors];
        load_group<V, kVectors, kHalf>(w, b);
        w += kVectors * kVectorBytes;
        multiply_group<V, kRows, kVectors, kHalf>(a, 4 * g + static_cast<size_t>(4 * s), b, acc[s]);
      }
    }
  }
#pragma GCC unroll 1
  for (; g < groups; ++g) {
    Int b[kVectors];
    load_group<V, kVectors, kHalf>(w, b);
    w += kVectors * kVectorBytes;
    multiply_group<V, kRows, kVectors, kHalf>(a, 4 * g, b, acc[0]);
  }
}

/// W4: the same. A nibble in the upper half of a byte is 16 times its value: no sign extension. Sums are then
/// 16 times too large, and stay below 2^31 up to a depth of max_depth = 65,792: 16 * 255 * 8 * 65,792 =
/// 2,147,450,880.
template <typename V, int kRows, int kVectors, int kSets>
EDGEQ_INLINE void multiply_nibbles(const act_t* const (&a)[kRows], const uint8_t*& w, size_t groups,
                                   typename V::Int (&acc)[kSets][kRows][kVectors]) {
  using Int = typename V::Int;
  constexpr int kVectorBytes = V::kLanes * 4;
  const Int high = V::set1_byte(0xF0);
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; g += 2) {
    Int raw[kVectors];
    Int b[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      raw[v] = V::load(w + v * kVectorBytes);
      V::keep_in_register(raw[v]);
    }
    w += kVectors * kVectorBytes;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) b[v] = V::bit_and(V::template shift_left<4>(raw[v]), high);
    multiply_group<V, kRows, kVectors, false>(a, 4 * g, b, acc[0]);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) b[v] = V::bit_and(raw[v], high);
    multiply_group<V, kRows, kVectors, false>(a, 4 * g + 4, b, acc[kSets - 1]);
  }
}

/// W4: the same, and stores the weights at `to` as W8. The shuffles and the stores take their time beside the
/// multiplications.
template <typename V, int kRows, int kVectors, bool kHalf, int kSets>
EDGEQ_INLINE void multiply_unpacking(const act_t* const (&a)[kRows], const uint8_t*& w, uint8_t*& to,
                                     size_t groups, typename V::Int (&acc)[kSets][kRows][kVectors]) {
  using Int = typename V::Int;
  constexpr int kVectorBytes = V::kLanes * 4;
  alignas(16) static constexpr int8_t kValues[16] = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
  const Int values = V::repeat128(kValues);
  const Int nibble = V::set1_byte(0x0F);
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; g += 2) {
    Int raw[kVectors];
    Int b[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      raw[v] = V::load(w + v * kVectorBytes);
      b[v] = V::shuffle(values, V::bit_and(raw[v], nibble));
      V::store_all(to + v * kVectorBytes, b[v]);
    }
    w += kVectors * kVectorBytes;
    to += kVectors * kVectorBytes;
    multiply_group<V, kRows, kVectors, kHalf>(a, 4 * g, b, acc[0]);
    // A tap of an odd number of groups loses its padding group.
    if (g + 1 == groups) break;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      b[v] = V::shuffle(values, V::bit_and(V::template shift_right<4>(raw[v]), nibble));
      V::store_all(to + v * kVectorBytes, b[v]);
    }
    to += kVectors * kVectorBytes;
    multiply_group<V, kRows, kVectors, kHalf>(a, 4 * g + 4, b, acc[kSets - 1]);
  }
}

template <typename V, Weights kWeights, int kRows, int kVectors, bool kHalf, int kSets>
EDGEQ_INLINE void multiply_tap(const act_t* const (&a)[kRows], const uint8_t*& w, uint8_t*& to, size_t groups,
                               typename V::Int (&acc)[kSets][kRows][kVectors]) {
  if constexpr (kWeights == Weights::kBytes) {
    multiply<V, kRows, kVectors, kHalf, kSets>(a, w, groups, acc);
  } else if constexpr (kWeights == Weights::kNibbles) {
    multiply_nibbles<V, kRows, kVectors, kSets>(a, w, groups, acc);
  } else {
    multiply_unpacking<V, kRows, kVectors, kHalf, kSets>(a, w, to, groups, acc);
  }
  // All sums are in registers here. Without this the compiler keeps a copy of each in memory for the
  // epilogue, and writes it in every round of the loop.
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) V::keep_in_register(acc[0][r][v]);
  }
}

/// Tiles of kRows rows by kVectors vectors, from tile.row on while whole ones fit before row_end.
///
/// The rows of a tile are few: out-of-order execution then runs the epilogue of one tile beside the products
/// of the next one, which it cannot where an epilogue alone fills its window.
template <typename V, Weights kWeights, int kRows, int kVectors, bool kHalf>
__attribute__((noinline)) void run_rows(const GemmParams& p, Tile& tile, size_t row_end) {
  using Int = typename V::Int;
  constexpr int kVectorBytes = V::kLanes * 4;
  constexpr int kGroupBytes = kVectors * kVectorBytes;
  constexpr int kSets = sum_sets<kRows, kVectors>();
  const size_t groups = tile.groups;
  const uint8_t* const panel = tile.panel;
  uint8_t* to = p.scratch;
  if (kWeights == Weights::kUnpacking) {
    std::memcpy(to, panel, 2 * kGroupBytes);
    to += 2 * kGroupBytes;
  }
  const act_t* row = p.lhs.base + static_cast<ptrdiff_t>(tile.row) * p.lhs.row_stride;
  for (; tile.row + kRows <= row_end; tile.row += kRows) {
    Int acc[kSets][kRows][kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        acc[0][r][v] = kWeights == Weights::kNibbles ? V::zero() : V::load(panel + v * kVectorBytes);
        if (kSets == 2) acc[kSets - 1][r][v] = V::zero();
      }
    }
    const uint8_t* w = panel + 2 * kGroupBytes;
    const act_t* a[kRows];
    if (p.lhs.pixel_offset == nullptr) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        a[r] = row;
        row += p.lhs.row_stride;
      }
      multiply_tap<V, kWeights, kRows, kVectors, kHalf, kSets>(a, w, to, groups, acc);
    } else {
      for (size_t t = 0; t < p.taps; ++t) {
        const int32_t* index = p.lhs.row_index + tile.row;
        const int32_t* offset = p.lhs.pixel_offset + p.lhs.tap_index[t];
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const int32_t o = offset[index[r]];
          a[r] = o < 0 ? p.lhs.zero_row : p.lhs.base + o;
        }
        multiply_tap<V, kWeights, kRows, kVectors, kHalf, kSets>(a, w, to, groups, acc);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        Int& sum = acc[0][r][v];
        if (kSets == 2) sum = V::add(sum, acc[kSets - 1][r][v]);
        // The division by 16 is exact; the bias joins after it, because 16 times a bias may not fit.
        if (kWeights == Weights::kNibbles)
          sum = V::add(V::template shift_right_signed<4>(sum), V::load(panel + v * kVectorBytes));
      }
    }
    // Of these there is one tile a panel, or the depth is large: not worth the code of a fast epilogue.
    if constexpr (kWeights == Weights::kBytes) {
      finish_tile<V, kRows, kVectors, kHalf>(p, tile, acc[0]);
    } else {
      finish_in_memory<V, kRows, kVectors>(p, tile, acc[0]);
    }
  }
}

/// The rows of one panel, in tiles of each of the given heights in turn. The first tile of kUnpacking is the
/// one that unpacks; there are rows enough for it.
template <typename V, Weights kWeights, int kVectors, bool kHalf, int kFirst, int... kOthers>
void run_heights(const GemmParams& p, Tile& tile, size_t row_end) {
  if constexpr (kWeights == Weights::kUnpacking) {
    run_rows<V, kWeights, kFirst, kVectors, kHalf>(p, tile, tile.row + kFirst);
    tile.panel = p.scratch;
    run_heights<V, Weights::kBytes, kVectors, kHalf, kFirst, kOthers...>(p, tile, row_end);
  } else {
    if (tile.row + kFirst <= row_end) run_rows<V, kWeights, kFirst, kVectors, kHalf>(p, tile, row_end);
    if constexpr (sizeof...(kOthers) > 0) {
      if (tile.row < row_end) run_heights<V, kWeights, kVectors, kHalf, kOthers...>(p, tile, row_end);
    }
  }
}

// Weights of a panel that stay in the first-level cache (32 KiB) while rows pass by.
constexpr size_t kNearWeights = 24 * 1024;

/// The rows of a whole panel whose weights come from the second-level cache or from farther for each tile:
/// six rows use what four would leave the loads waiting for (a group is 256 bytes; four rows would ask for 16
/// bytes a cycle). Tiles of six and five rows leave no single rows behind.
template <typename V>
void run_far_panel512(const GemmParams& p, Tile& tile, size_t row_end) {
  const size_t rows = row_end - tile.row;
  const size_t tiles = (rows + 5) / 6;
  const size_t fives = 6 * tiles - rows;
  if (fives <= tiles) {
    const size_t sixes_end = row_end - 5 * fives;
    run_rows<V, Weights::kBytes, 6, 4, false>(p, tile, sixes_end);
    run_rows<V, Weights::kBytes, 5, 4, false>(p, tile, row_end);
  } else {
    run_heights<V, Weights::kBytes, 4, false, 4, 1>(p, tile, row_end);
  }
}

/// The rows of one panel of up to four 512-bit vectors, in tiles of eight to sixteen sums: enough chains to
/// hide the latency (four cycles at one product a cycle).
template <typename V, Weights kWeights>
void run_panel512(const GemmParams& p, Tile& tile, size_t row_end) {
  const size_t vectors = (tile.columns + V::kLanes - 1) / V::kLanes;
  if constexpr (kWeights == Weights::kNibbles) {
    switch (vectors) {
      case 4:
        return run_heights<V, kWeights, 4, false, 4, 2, 1>(p, tile, row_end);
      case 3:
        return run_heights<V, kWeights, 3, false, 4, 1>(p, tile, row_end);
      case 2:
        return run_heights<V, kWeights, 2, false, 4, 1>(p, tile, row_end);
      default:
        return run_heights<V, kWeights, 1, false, 4, 1>(p, tile, row_end);
    }
  } else {
    const bool half = tile.columns + V::kLanes / 2 <= vectors * V::kLanes;
    switch (2 * vectors - half) {
      case 8:
        if constexpr (kWeights == Weights::kBytes) {
          const bool far = p.taps * tile.groups * V::kLanes * 16 > kNearWeights || row_end - tile.row <= 64;
          if (far) return run_far_panel512<V>(p, tile, row_end);
        }
        return run_heights<V, kWeights, 4, false, 4, 1>(p, tile, row_end);
      case 7:
        return run_heights<V, kWeights, 4, true, 3, 1>(p, tile, row_end);
      case 6:
        return run_heights<V, kWeights, 3, false, 3, 1>(p, tile, row_end);
      case 5:
        return run_heights<V, kWeights, 3, true, 4, 1>(p, tile, row_end);
      case 4:
        return run_heights<V, kWeights, 2, false, 4, 1>(p, tile, row_end);
      case 3:
        return run_heights<V, kWeights, 2, true, 4, 1>(p, tile, row_end);
      case 2:
        return run_heights<V, kWeights, 1, false, 8, 4, 1>(p, tile, row_end);
      default:
        return run_heights<V, kWeights, 1, true, 8, 4, 1>(p, tile, row_end);
    }
  }
}

/// The same of up to two 256-bit vectors, with sixteen registers: six rows of bytes, four where W4 takes
/// registers.
template <typename V, Weights kWeights>
void run_panel256(const GemmParams& p, Tile& tile, size_t row_end) {
  if (tile.columns <= V::kLanes) {
    run_heights<V, kWeights, 1, false, 8, 4, 1>(p, tile, row_end);
  } else if constexpr (kWeights == Weights::kBytes) {
    run_heights<V, kWeights, 2, false, 6, 2, 1>(p, tile, row_end);
  } else {
    run_heights<V, kWeights, 2, false, 4, 2, 1>(p, tile, row_end);
  }
}

template <typename V, Weights kWeights>
void run_panel(const GemmParams& p, Tile& tile, size_t row_end) {
  if constexpr (V::kTileVectors == 4) {
    run_panel512<V, kWeights>(p, tile, row_end);
  } else {
    run_panel256<V, kWeights>(p, tile, row_end);
  }
}

/// Rows [row_begin, row_end) of panels [panel_begin, panel_end).
///
/// Panel by panel: its weights stay in the first-level cache, or in the second, while the rows pass by.
/// Blocks of rows that pass by all panels while their output lies in the first-level cache were slower on
/// every shape: the second level takes the parts of cache lines as they come, and entering a panel costs
/// about 60 cycles.
template <typename V, int kBits>
void run_gemm(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end) {
  constexpr size_t kNr = V::kTileVectors * V::kLanes;
  if (row_begin >= row_end || panel_begin >= panel_end) return;
  const size_t groups = (p.k + 3) / 4;
  const size_t stored_groups = kBits == 8 ? groups : (groups + 1) / 2 * 2;
  const size_t channel_bytes = 8 + p.taps * stored_groups * kBits / 2;
  const bool unpack =
      kBits == 4 && row_end - row_begin >= kMinUnpackedRows && unpacked_scratch(kNr, p.k, p.taps) > 0;
  Tile tile{};
  for (size_t panel = panel_begin; panel < panel_end; ++panel) {
    tile.row = row_begin;
    tile.column = panel * kNr;
    tile.columns = p.n - tile.column < kNr ? p.n - tile.column : kNr;
    tile.panel = p.packed + tile.column * channel_bytes;
    tile.groups = groups;
    if constexpr (kBits == 8) {
      run_panel<V, Weights::kBytes>(p, tile, row_end);
    } else if (unpack) {
      run_panel<V, Weights::kUnpacking>(p, tile, row_end);
    } else {
      tile.groups = stored_groups;
      run_panel<V, Weights::kNibbles>(p, tile, row_end);
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_X86_VNNI_H_
