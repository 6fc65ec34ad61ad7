#ifndef EDGEQ_KERNELS_X86_BYTES_H_
#define EDGEQ_KERNELS_X86_BYTES_H_

// Rearrangements of bytes that several families share, in AVX2. Only x86_*.cc files (and the headers that
// they alone include) include it; everything stands in an unnamed namespace, as in x86_vectors.h.

#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

/// Copies `count` bytes by vectors, the last of which overlaps the one before it. The two sides do not
/// overlap.
EDGEQ_INLINE void copy_row(const uint8_t* from, size_t count, uint8_t* to) {
  if (count >= 32) {
    for (size_t i = 0; i + 32 < count; i += 32) Vector256::store_all(to + i, Vector256::load(from + i));
    Vector256::store_all(to + count - 32, Vector256::load(from + count - 32));
  } else if (count >= 16) {
    const __m128i last = Vector128::load(from + count - 16);
    Vector128::store_all(to, Vector128::load(from));
    Vector128::store_all(to + count - 16, last);
  } else if (count >= 4) {
    const size_t half = count >= 8 ? 8 : 4;
    uint64_t first = 0, last = 0;
    std::memcpy(&first, from, half);
    std::memcpy(&last, from + count - half, half);
    std::memcpy(to, &first, half);
    std::memcpy(to + count - half, &last, half);
  } else {
    for (size_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

/// dst[2 * i] = a[i], dst[2 * i + 1] = b[i]; count at least 16. The last blocks overlap those before them:
/// store-bound, 32 bytes a cycle.
EDGEQ_INLINE void interleave2(const uint8_t* a, const uint8_t* b, size_t count, uint8_t* dst) {
  const auto block32 = [&](size_t i) {
    const __m256i left = Vector256::load(a + i);
    const __m256i right = Vector256::load(b + i);
    const __m256i low = Vector256::low_bytes(left, right);
    const __m256i high = Vector256::high_bytes(left, right);
    Vector256::store_all(dst + 2 * i, _mm256_permute2x128_si256(low, high, 0x20));
    Vector256::store_all(dst + 2 * i + 32, _mm256_permute2x128_si256(low, high, 0x31));
  };
  const auto block16 = [&](size_t i) {
    const __m128i left = Vector128::load(a + i);
    const __m128i right = Vector128::load(b + i);
    Vector128::store_all(dst + 2 * i, Vector128::low_bytes(left, right));
    Vector128::store_all(dst + 2 * i + 16, Vector128::high_bytes(left, right));
  };
  if (count >= 32) {
    for (size_t i = 0; i + 32 < count; i += 32) block32(i);
    block32(count - 32);
  } else {
    block16(0);
    block16(count - 16);
  }
}

/// Shuffles that merge three vectors of 16 bytes into three others: vector `to` takes byte index[to][from][i]
/// of vector `from` to its place i, zero where the index is 0x80.
struct Shuffles3 {
  uint8_t index[3][3][16];
};

/// Byte 3 * i + k is byte i of run k, or (apart) the reverse.
constexpr Shuffles3 shuffles3(bool apart) {
  Shuffles3 shuffles{};
  for (int to = 0; to < 3; ++to) {
    for (int i = 0; i < 16; ++i) {
      const int at = apart ? 3 * i + to : 16 * to + i;  // of the 48 interleaved bytes
      const int source = apart ? at / 16 : at % 3;
      for (int from = 0; from < 3; ++from) {
        const int index = apart ? at % 16 : at / 3;
        shuffles.index[to][from][i] = static_cast<uint8_t>(from == source ? index : 0x80);
      }
    }
  }
  return shuffles;
}

EDGEQ_INLINE __m128i merge3(const Shuffles3& shuffles, int to, __m128i a, __m128i b, __m128i c) {
  const __m128i from_a = Vector128::shuffle(a, Vector128::load(shuffles.index[to][0]));
  const __m128i from_b = Vector128::shuffle(b, Vector128::load(shuffles.index[to][1]));
  const __m128i from_c = Vector128::shuffle(c, Vector128::load(shuffles.index[to][2]));
  return Vector128::bit_or(Vector128::bit_or(from_a, from_b), from_c);
}

/// Three runs of 16 bytes to 16 triples.
EDGEQ_INLINE void interleave3(const uint8_t* a, const uint8_t* b, const uint8_t* c, uint8_t* dst) {
  alignas(16) static constexpr Shuffles3 kShuffles = shuffles3(false);
  const __m128i run[3] = {Vector128::load(a), Vector128::load(b), Vector128::load(c)};
  for (int i = 0; i < 3; ++i)
    Vector128::store_all(dst + 16 * i, merge3(kShuffles, i, run[0], run[1], run[2]));
}

/// The reverse.
EDGEQ_INLINE void separate3(const uint8_t* src, uint8_t* a, uint8_t* b, uint8_t* c) {
  alignas(16) static constexpr Shuffles3 kShuffles = shuffles3(true);
  const __m128i part[3] = {Vector128::load(src), Vector128::load(src + 16), Vector128::load(src + 32)};
  uint8_t* const runs[3] = {a, b, c};
  for (int i = 0; i < 3; ++i) Vector128::store_all(runs[i], merge3(kShuffles, i, part[0], part[1], part[2]));
}

/// Four runs of 16 bytes to 16 quadruples.
EDGEQ_INLINE void interleave4(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                              uint8_t* dst) {
  const __m128i run_a = Vector128::load(a), run_b = Vector128::load(b);
  const __m128i run_c = Vector128::load(c), run_d = Vector128::load(d);
  const __m128i ab[2] = {Vector128::low_bytes(run_a, run_b), Vector128::high_bytes(run_a, run_b)};
  const __m128i cd[2] = {Vector128::low_bytes(run_c, run_d), Vector128::high_bytes(run_c, run_d)};
  for (int i = 0; i < 2; ++i) {
    Vector128::store_all(dst + 32 * i, Vector128::low_words(ab[i], cd[i]));
    Vector128::store_all(dst + 32 * i + 16, Vector128::high_words(ab[i], cd[i]));
  }
}

/// dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows <= 32 (= 32 where kWhole), c < columns <=
/// 16; reads 16 bytes of each row. Two 16x16 transposes side by side: 64 unpackings for 512 bytes.
template <bool kWhole>
__attribute__((noinline)) void transpose_block(const uint8_t* src, ptrdiff_t src_stride, size_t rows,
                                               size_t columns, uint8_t* dst, ptrdiff_t dst_stride) {
  __m256i x[16], y[16];
  const auto row = [&](size_t r) {
    const size_t inside = kWhole || r < rows ? r : rows - 1;
    return Vector128::load(src + static_cast<ptrdiff_t>(inside) * src_stride);
  };
  for (size_t r = 0; r < 16; ++r) x[r] = _mm256_set_m128i(row(r + 16), row(r));
  // Each of four rounds interleaves rows i and i + 8: a bit of the column becomes one of the row, and the
  // reverse.
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      y[2 * i] = _mm256_unpacklo_epi8(x[i], x[i + 8]);
      y[2 * i + 1] = _mm256_unpackhi_epi8(x[i], x[i + 8]);
    }
    for (int i = 0; i < 16; ++i) x[i] = y[i];
  }
  for (size_t c = 0; c < columns; ++c, dst += dst_stride) Vector256::store(dst, x[c], kWhole ? 32 : rows);
}

/// dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows, c < columns. Reads up to 15 bytes past the
/// end of a row.
inline void transpose_bytes(const uint8_t* src, ptrdiff_t src_stride, size_t rows, size_t columns,
                            uint8_t* dst, ptrdiff_t dst_stride) {
  for (size_t c = 0; c < columns; c += 16) {
    const size_t width = columns - c < 16 ? columns - c : 16;
    const uint8_t* from = src + c;
    uint8_t* to = dst + static_cast<ptrdiff_t>(c) * dst_stride;
    size_t r = 0;
    for (; r + 32 <= rows; r += 32, from += 32 * src_stride) {
      transpose_block<true>(from, src_stride, 32, width, to + r, dst_stride);
    }
    if (r < rows) transpose_block<false>(from, src_stride, rows - r, width, to + r, dst_stride);
  }
}

}  // namespace
}  // namespace edgeq

#include "kernels/byte_tiles.h"

#endif  // EDGEQ_KERNELS_X86_BYTES_H_
