#ifndef EDGEQ_KERNELS_GEMM_X86_AVX2_TILE_H_
#define EDGEQ_KERNELS_GEMM_X86_AVX2_TILE_H_

// The epilogue of a tile of the AVX2 kernels of matrix products. Only x86_avx2.cc includes it.

#include <immintrin.h>

#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

constexpr size_t kNr = 16;  // channels of a full panel: two vectors of sums
constexpr size_t kVectorBytes = 32;

EDGEQ_INLINE __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
EDGEQ_INLINE void store(void* to, __m256i a) { _mm256_storeu_si256(static_cast<__m256i*>(to), a); }

/// What all tiles of a call share. The vectors stand in memory, where instructions take them as operands.
struct TileEpilogue {
  __m256i zp;       // words
  __m256i lowest;   // bytes
  __m256i highest;  // bytes
  OutputRange range;
  const act_t* table;
  const GemmResidual* residual;  // null: none
  bool large_scales;
  bool shifts;  // by a zero point
  bool clamps;  // more than the saturation to bytes

  TileEpilogue(OutputRange output, const act_t* lut, const GemmResidual& added, bool large)
      : zp(_mm256_set1_epi16(static_cast<int16_t>(output.zp))),
        lowest(_mm256_set1_epi8(static_cast<char>(output.min))),
        highest(_mm256_set1_epi8(static_cast<char>(output.max))),
        range(output),
        table(lut),
        residual(added.src == nullptr ? nullptr : &added),
        large_scales(large),
        shifts(output.zp != 0),
        clamps(output.min != kActMin || output.max != kActMax) {}

  bool plain() const { return table == nullptr && residual == nullptr; }
};

/// Where a tile's results go, and its panel.
struct Place {
  const uint8_t* header;  // bias [width], scale [width]
  size_t columns;         // that exist, at most the width
  act_t* dst;
  ptrdiff_t dst_stride;   // bytes from row to row
  const act_t* residual;  // of the tile's first row and column
  ptrdiff_t residual_stride;

  void advance(size_t rows) {
    dst += static_cast<ptrdiff_t>(rows) * dst_stride;
    if (residual != nullptr) residual += static_cast<ptrdiff_t>(rows) * residual_stride;
  }
};

/// Writes the first `count` (at most 16) bytes of `codes`.
EDGEQ_INLINE void store_codes(act_t* to, __m128i codes, size_t count) {
  if (count >= 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), codes);
    return;
  }
  if (count & 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), codes);
    codes = _mm_unpackhi_epi64(codes, codes);
    to += 8;
  }
  if (count & 4) {
    const int32_t dword = _mm_cvtsi128_si32(codes);
    std::memcpy(to, &dword, sizeof dword);
    codes = _mm_srli_si128(codes, 4);
    to += 4;
  }
  if (count & 2) {
    const int16_t word = static_cast<int16_t>(_mm_extract_epi16(codes, 0));
    std::memcpy(to, &word, sizeof word);
    codes = _mm_srli_si128(codes, 2);
    to += 2;
  }
  if (count & 1) *to = static_cast<act_t>(_mm_extract_epi8(codes, 0));
}

/// Table and residual addition of a tile's codes, `8 * kVectors` a row one row after the other in whole
/// vectors, and their stores. Out of line: one copy for each width.
template <int kVectors>
__attribute__((noinline, noclone)) void finish_codes(const TileEpilogue& epilogue, const Place& place,
                                                     uint8_t* codes, size_t rows) {
  using V = Vector256;
  constexpr size_t kWidth = 8 * kVectors;
  if (epilogue.table != nullptr) {
    for (size_t i = 0; i < rows * kWidth; i += kVectorBytes) {
      store(codes + i, look_up<V>(load(codes + i), epilogue.table));
    }
  }
  act_t* dst = place.dst;
  if (epilogue.residual == nullptr) {
    for (size_t i = 0; i < rows; ++i) {
      __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i * kWidth));
      if (kVectors == 2) bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i * kWidth));
      store_codes(dst, bytes, place.columns);
      dst += place.dst_stride;
    }
    return;
  }
  const GemmResidual& r = *epilogue.residual;
  const __m256 hi = upper_bound<V>(r.range);
  const __m256i zp_acc = _mm256_set1_epi32(r.zp_acc);
  const __m256i zp_src = _mm256_set1_epi32(r.zp_src);
  const __m256 multiplier_acc = _mm256_set1_ps(r.multiplier_acc);
  const __m256 multiplier_src = _mm256_set1_ps(r.multiplier_src);
  const act_t* src = place.residual;
  // As many rows as a vector of codes holds. Of fewer, what is computed beyond the last is not stored.
  constexpr size_t kRowsACode = 4 / kVectors;
  for (size_t i = 0; i < rows; i += kRowsACode) {
    __m256i q[4];
    unroll<4>([&](auto j) EDGEQ_UNROLLED {
      constexpr size_t kRow = static_cast<size_t>(j) / kVectors;
      constexpr size_t kAt = static_cast<size_t>(j) % kVectors * 8;
      const act_t* const other =
          src + (i + kRow < rows ? static_cast<ptrdiff_t>(kRow) * place.residual_stride : 0);
      const __m256i left = _mm256_sub_epi32(V::widen_bytes(codes + (i + kRow) * kWidth + kAt), zp_acc);
      const __m256i right = _mm256_sub_epi32(V::widen_bytes(other + kAt), zp_src);
      const __m256 sum = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(left), multiplier_acc),
                                       _mm256_mul_ps(_mm256_cvtepi32_ps(right), multiplier_src));
      q[j] = round_below<V>(sum, hi);
    });
    __m128i part[2];
    V::order_packed_halves(pack_codes<V>(q[0], q[1], q[2], q[3], r.range), &part[0], &part[1]);
    unroll<static_cast<int>(kRowsACode)>([&](auto row) EDGEQ_UNROLLED {
      if (i + static_cast<size_t>(row) >= rows) return;
      __m128i bytes = part[row * kVectors / 2];
      if (kVectors == 1 && row % 2 != 0) bytes = _mm_unpackhi_epi64(bytes, bytes);
      store_codes(dst, bytes, place.columns);
      dst += place.dst_stride;
    });
    src += static_cast<ptrdiff_t>(kRowsACode) * place.residual_stride;
  }
}

/// Codes of a tile whose scales may be large: clamps before the conversion. Out of line, because it hardly
/// ever runs.
template <int kVectors>
__attribute__((noinline, noclone)) void requantize_clamped(const TileEpilogue& epilogue,
                                                           const uint8_t* header, const __m256i* sums,
                                                           size_t rows, uint8_t* codes) {
  using V = Vector256;
  const __m256 hi = upper_bound<V>(epilogue.range);
  const uint8_t* scale = header + kVectors * kVectorBytes;
  for (size_t i = 0; i < rows; ++i) {
    __m256i q[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const __m256 value = _mm256_cvtepi32_ps(sums[i * kVectors + static_cast<size_t>(v)]);
      q[v] = round_below<V>(_mm256_mul_ps(value, V::load_float(scale + v * 32)), hi);
    }
    const __m256i second = q[kVectors - 1];
    const __m256i bytes = V::order_packed(pack_codes<V>(q[0], second, q[0], second, epilogue.range));
    std::memcpy(codes + i * 8 * kVectors, &bytes, 8 * kVectors);
  }
}

/// Requantizes, finishes and stores a tile from its sums (bias included).
template <int kRows, int kVectors>
EDGEQ_INLINE void finish_tile(const TileEpilogue& epilogue, const Place& place,
                              const __m256i (&sums)[kRows][kVectors]) {
  // A vector of codes holds two rows of 16, or four rows of 8; the last may not be full.
  constexpr int kRowsACode = 4 / kVectors;
  constexpr int kCodes = (kRows + kRowsACode - 1) / kRowsACode;
  if (__builtin_expect(epilogue.large_scales, 0)) {
    __m256i stored[kRows * kVectors];
    unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
      unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { stored[r * kVectors + v] = sums[r][v]; });
    });
    uint8_t bytes[kCodes * kVectorBytes] = {};
    requantize_clamped<kVectors>(epilogue, place.header, stored, kRows, bytes);
    finish_codes<kVectors>(epilogue, place, bytes, kRows);
    return;
  }
  const uint8_t* scale = place.header + kVectors * kVectorBytes;
  // Words i of the tile: of row i, or of rows 2 * i and 2 * i + 1. What lies beyond the last row repeats it.
  __m256i words[2 * kCodes];
  unroll<2 * kCodes>([&](auto i) EDGEQ_UNROLLED {
    constexpr int kLast = kRows - 1;
    constexpr int kFirst = i * kRowsACode / 2;
    constexpr int kSecond = kVectors == 2 ? kFirst : kFirst + 1;
    const auto product = [&](__m256i sum, size_t v) EDGEQ_UNROLLED {
      return _mm256_cvtps_epi32(
          _mm256_mul_ps(_mm256_cvtepi32_ps(sum), Vector256::load_float(scale + v * kVectorBytes)));
    };
    const __m256i first = product(sums[kFirst < kLast ? kFirst : kLast][0], 0);
    const __m256i second = product(sums[kSecond < kLast ? kSecond : kLast][kVectors - 1], kVectors - 1);
    words[i] = _mm256_packs_epi32(first, second);
  });
  // Most ranges need neither: branches that are always predicted for instructions that are always executed.
  if (epilogue.shifts) {
    unroll<2 * kCodes>([&](auto i) EDGEQ_UNROLLED { words[i] = _mm256_adds_epi16(words[i], epilogue.zp); });
  }
  __m256i bytes[kCodes];
  unroll<kCodes>([&](auto c)
                     EDGEQ_UNROLLED { bytes[c] = _mm256_packus_epi16(words[2 * c], words[2 * c + 1]); });
  if (epilogue.clamps) {
    unroll<kCodes>([&](auto c) EDGEQ_UNROLLED {
      bytes[c] = _mm256_min_epu8(_mm256_max_epu8(bytes[c], epilogue.lowest), epilogue.highest);
    });
  }
  // Packing works within 128-bit lanes. Each of these is a row, or two.
  __m128i codes[2 * kCodes];
  unroll<kCodes>([&](auto c) EDGEQ_UNROLLED {
    Vector256::order_packed_halves(bytes[c], &codes[2 * c], &codes[2 * c + 1]);
  });
  if (!epilogue.plain() || place.columns < 8 * kVectors) {
    alignas(32) uint8_t rows[kCodes * kVectorBytes];
    unroll<2 * kCodes>([&](auto i) EDGEQ_UNROLLED { Vector128::store_all(rows + 16 * i, codes[i]); });
    finish_codes<kVectors>(epilogue, place, rows, kRows);
    return;
  }
  act_t* dst = place.dst;
  unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
    if constexpr (kVectors == 2) {
      Vector128::store_all(dst, codes[r]);
    } else if constexpr (r % 2 == 0) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(dst), codes[r / 2]);
    } else {
      _mm_storeh_pi(reinterpret_cast<__m64*>(dst), _mm_castsi128_ps(codes[r / 2]));
    }
    dst += place.dst_stride;
  });
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_X86_AVX2_TILE_H_
