#include "kernels/gemm/widened.h"
#include "kernels/gemm/x86_tile.h"

// Without VNNI, vpmaddubsw multiplies bytes into saturating 16-bit pair sums. With 8-bit weights they would
// saturate (2 * 255 * 127 = 64,770), so W8 widens both sides to 16 bits and uses vpmaddwd. With 4-bit weights
// there is room to spare, and W4 runs at up to twice the rate.

namespace edgeq {
namespace {

using V = Vector256;
constexpr int kVectorBytes = 32;

// ---- W8 ----

struct Words {
  template <int kRows, int kVectors>
  static void run(const GemmParams& p, const Tile& tile) {
    __m256i acc[kRows][kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] = V::load(tile.panel + v * kVectorBytes);
    }
    const uint8_t* w = tile.panel + kVectors * kVectorBytes * 2;
    const uint8_t* row[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      row[r] = reinterpret_cast<const uint8_t*>(tile.widened + static_cast<size_t>(r) * tile.widened_stride);
    }
    for (size_t g = 0; g < tile.groups; ++g) {
      __m256i b[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) b[v] = V::widen_signed_bytes(w + v * 16);
      w += kVectors * 16;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const __m256i a = V::broadcast(row[r] + 4 * g);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) acc[r][v] = V::add(acc[r][v], V::madd_words(a, b[v]));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) V::keep_in_register(acc[r][v]);
    }
    (void)p;
    finish_tile<V, kRows, kVectors>(p, tile, acc);
  }
};

/// Zero-extends `count` bytes to int16, whole vectors of 16.
void widen_row(const act_t* from, size_t count, int16_t* to) {
  for (size_t i = 0; i < count; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepu8_epi16(bytes));
  }
}

void run_words(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end) {
  constexpr int kRows = 6;
  constexpr int kVectors = 2;
  if (panel_begin >= panel_end) return;
  const size_t padded_k = (p.k + 1) / 2 * 2;
  const size_t depth = p.taps * padded_k;
  const size_t stride = widened_stride(depth);
  const size_t block_rows = widened_rows(depth, kRows);
  const bool large_scales =
      any_large_scale<kVectors * V::kLanes, V::kLanes>(p, panel_begin, panel_end, 8 + depth);
  int16_t* widened = reinterpret_cast<int16_t*>(p.scratch);
  for (size_t block = row_begin; block < row_end; block += block_rows) {
    const size_t rows = row_end - block < block_rows ? row_end - block : block_rows;
    for (size_t i = 0; i < rows; ++i) {
      for (size_t t = 0; t < p.taps; ++t) {
        widen_row(lhs_row(p.lhs, t, block + i), padded_k, widened + i * stride + t * padded_k);
      }
    }
    const size_t tiles = (rows + kRows - 1) / kRows;
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
      for (size_t i = 0; i < tiles; ++i) {
        const size_t first = rows * i / tiles;
        const size_t last = rows * (i + 1) / tiles;
        Tile tile{};
        tile.groups = depth / 2;
        tile.row = block + first;
        tile.large_scales = large_scales;
        tile.widened = widened + first * stride;
        tile.widened_stride = stride;
        run_in_panel<V, Words, kRows, kVectors>(p, tile, last - first, panel, 8 + depth);
      }
    }
  }
}

// ---- W4 ----

/// Adds the products of kPairs pairs of groups to the sums of kVectors vectors of kRows rows.
///
/// Each pair sum of vpmaddubsw is at most 2 * 255 * 8 = 4,080, so the int16 lanes hold 8 of them, those of 8
/// groups or 4 pairs, before they must be widened (8 * 4,080 = 32,640 < 32,767).
template <int kPairs, int kRows, int kVectors>
EDGEQ_INLINE void add_pairs(const act_t* const (&row)[kRows], size_t group, const uint8_t* w,
                            __m256i (&sum)[kRows][kVectors]) {
  static_assert(kPairs <= 4, "int16 would overflow");
  const __m256i low_nibbles = V::set1_byte(0x0F);
  // Entry i is the value of nibble i.
  const __m256i values = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1,  //
                                          0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  __m256i acc[kRows][kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kPairs; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m256i raw = V::load(w + (i * kVectors + v) * kVectorBytes);
      const __m256i even = V::shuffle(values, V::bit_and(raw, low_nibbles));
      const __m256i odd = V::shuffle(values, V::bit_and(V::shift_right<4>(raw), low_nibbles));
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const uint8_t* a = row[r] + 4 * group + static_cast<size_t>(8 * i);
        const __m256i first = V::madd_bytes(V::broadcast(a), even);
        const __m256i second = V::madd_bytes(V::broadcast(a + 4), odd);
        acc[r][v] =
            i == 0 ? V::add_words(first, second) : V::add_words(acc[r][v], V::add_words(first, second));
        // Keeps the compiler from reordering the additions, which would need more registers than there are.
        V::keep_in_register(acc[r][v]);
      }
    }
  }
  const __m256i ones = V::set1_word(1);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V::add(sum[r][v], V::madd_words(acc[r][v], ones));
  }
}

struct Nibbles {
  template <int kRows, int kVectors>
  static void run(const GemmParams& p, const Tile& tile) {
    constexpr int kPairBytes = kVectors * kVectorBytes;
    __m256i sum[kRows][kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = V::load(tile.panel + v * kVectorBytes);
    }
    const uint8_t* w = tile.panel + kVectors * kVectorBytes * 2;
    for (size_t t = 0; t < p.taps; ++t) {
      const act_t* row[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) row[r] = lhs_row(p.lhs, t, tile.row + static_cast<size_t>(r));
      size_t g = 0;
      for (; g + 8 <= tile.groups; g += 8) {
        add_pairs<4>(row, g, w, sum);
        w += 4 * kPairBytes;
      }
      switch ((tile.groups - g) / 2) {
        case 3:
          add_pairs<3>(row, g, w, sum);
          break;
        case 2:
          add_pairs<2>(row, g, w, sum);
          break;
        case 1:
          add_pairs<1>(row, g, w, sum);
          break;
        default:
          break;
      }
      w += (tile.groups - g) / 2 * kPairBytes;
    }
    finish_tile<V, kRows, kVectors>(p, tile, sum);
  }
};

}  // namespace

void gemm_u8s8c_u8_6x16x2_avx2(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_words(p, r0, r1, p0, p1);
}

void gemm_u8s4c_u8_4x16x4_avx2(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  const size_t groups = (p.k + 7) / 8 * 2;
  run_tiles<V, Nibbles, 4, 2>(p, r0, r1, p0, p1, groups, 8 + p.taps * groups * 2);
}

}  // namespace edgeq
