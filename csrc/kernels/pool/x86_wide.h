#ifndef EDGEQ_KERNELS_POOL_X86_WIDE_H_
#define EDGEQ_KERNELS_POOL_X86_WIDE_H_

// Sums of bytes for one vector width. Only x86_*.cc include it.

#include "kernels/x86_vectors.h"

// Windows, by the vectors of x86_vectors.h.
#include "kernels/pool/windows.h"

namespace edgeq {
namespace {

/// Four vectors of dword sums, sum[k] being those of bytes k, k + 4, k + 8, ..., to V::kBytes codes in order.
template <typename V>
EDGEQ_INLINE void finish_sums(typename V::Int (&sum)[4], int32_t zp_sum, float multiplier, OutputRange range,
                              act_t* dst, size_t count) {
  const auto hi = upper_bound<V>(range);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const auto centered = V::to_float(V::sub(sum[k], V::set1_dword(zp_sum)));
    sum[k] = round_below<V>(V::mul(centered, V::set1(multiplier)), hi);
  }
  // In each 128-bit lane, four dwords of each vector: bytes 0 4 8 12, 1 5 9 13, 2 6 10 14 and 3 7 11 15.
  alignas(16) static constexpr uint8_t kOrder[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  V::store(dst, V::shuffle(pack_codes<V>(sum[0], sum[1], sum[2], sum[3], range), V::repeat128(kOrder)),
           count);
}

/// Sums of bytes in 16-bit lanes: `all` adds up the bytes as 16-bit words, `odd` their upper bytes alone.
/// Modulo 2^16, all - 256 * odd are the lower ones: three instructions for V::kBytes bytes, where widening
/// them takes four. Each sum must stay below 2^16: at most 257 bytes.
template <typename V>
struct WordSums {
  static constexpr size_t kMostBytes = 257;
  typename V::Int all, odd;

  static EDGEQ_INLINE WordSums zero() { return {V::zero(), V::zero()}; }
  EDGEQ_INLINE void add(typename V::Int bytes) {
    all = V::add_words(all, bytes);
    odd = V::add_words(odd, V::template shift_right_words<8>(bytes));
  }
  EDGEQ_INLINE void add(const WordSums& other) {
    all = V::add_words(all, other.all);
    odd = V::add_words(odd, other.odd);
  }
  /// sum[k]: those of bytes k, k + 4, k + 8, ...
  EDGEQ_INLINE void widen(typename V::Int (&sum)[4]) const {
    const auto even = V::sub_words(all, V::template shift_left_words<8>(odd));
    const auto low = V::set1_dword(0xFFFF);
    sum[0] = V::bit_and(even, low);
    sum[1] = V::bit_and(odd, low);
    sum[2] = V::template shift_right<16>(even);
    sum[3] = V::template shift_right<16>(odd);
  }
};

template <typename V>
struct Average {
  using Column = WordSums<V>;

  static EDGEQ_INLINE Column outside() { return Column::zero(); }
  static EDGEQ_INLINE Column column(const WindowRows& rows, ptrdiff_t offset) {
    Column sums = Column::zero();
    for (size_t r = 0; r < rows.count; ++r) sums.add(V::load(rows.row[r] + offset));
    return sums;
  }
  static EDGEQ_INLINE void merge(Column& into, const Column& column) { into.add(column); }
  static EDGEQ_INLINE void finish(const PoolParams& p, const Column& sums, size_t taps, size_t divisor,
                                  act_t* dst, size_t count) {
    typename V::Int sum[4];
    sums.widen(sum);
    finish_sums<V>(sum, static_cast<int32_t>(taps) * p.zp_in, p.multiplier[divisor], p.range, dst, count);
  }
};

template <typename V>
void average_pool(const PoolParams& p) {
  if (fits_tile(p) && p.kernel_h * p.kernel_w <= WordSums<V>::kMostBytes) return pool_tiles<V, Average>(p);
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t x = 0; x < p.width_out; ++x) {
      act_t* dst = row_out(p, y) + static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
      const float multiplier = p.multiplier[p.count_h[y] * p.count_w[x]];
      for (size_t first = 0; first < p.channels; first += V::kBytes) {
        typename V::Int sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
        const auto byte = V::set1_dword(0xFF);
        int32_t inside = 0;
        visit_window(p, y, x, [&](const act_t* pixel) {
          const auto bytes = V::load(pixel + first);
          sum[0] = V::add(sum[0], V::bit_and(bytes, byte));
          sum[1] = V::add(sum[1], V::bit_and(V::template shift_right<8>(bytes), byte));
          sum[2] = V::add(sum[2], V::bit_and(V::template shift_right<16>(bytes), byte));
          sum[3] = V::add(sum[3], V::template shift_right<24>(bytes));
          ++inside;
        });
        finish_sums<V>(sum, inside * p.zp_in, multiplier, p.range, dst + first, p.channels - first);
      }
    }
  }
}

/// Sums of the bytes `step` apart from `from` on, `count` of them, for each of V::kBytes bytes.
template <typename V>
EDGEQ_INLINE void add_up(const act_t* from, ptrdiff_t step, size_t count, typename V::Int (&sum)[4]) {
  for (int k = 0; k < 4; ++k) sum[k] = V::zero();
  while (count > 0) {
    // Two sets of sums: an addition waits for the one before it, and two fit in a cycle.
    const size_t run = count < 2 * WordSums<V>::kMostBytes ? count : 2 * WordSums<V>::kMostBytes;
    WordSums<V> sums[2] = {WordSums<V>::zero(), WordSums<V>::zero()};
    size_t i = 0;
    for (; i + 2 <= run; i += 2, from += 2 * step) {
      sums[0].add(V::load(from));
      sums[1].add(V::load(from + step));
    }
    if (i < run) {
      sums[0].add(V::load(from));
      from += step;
    }
    for (const WordSums<V>& words : sums) {
      typename V::Int wide[4];
      words.widen(wide);
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) sum[k] = V::add(sum[k], wide[k]);
    }
    count -= run;
  }
}

/// Pixels and vectors after which channels meet the same bytes of a vector again, pixels of `channels` bytes
/// following each other.
template <typename V>
struct Period {
  size_t pixels, vectors;

  explicit Period(size_t channels) {
    size_t common = V::kBytes;  // the largest power of two that divides both
    while (channels % common != 0) common /= 2;
    pixels = V::kBytes / common;
    vectors = channels / common;
  }
};

// Sums of all pixels. Where pixels follow each other, vectors run across them, and byte i of a period belongs
// to channel i % channels: every load is full and aligned as the image is. At four channels a dword, that
// holds for the four sets of dword sums too.
template <typename V>
void mean(const MeanParams& p) {
  constexpr size_t kMostVectors = 32;
  // pixels < 2^23 and zp below 256: the product fits.
  const int32_t zp_sum = static_cast<int32_t>(p.pixels) * p.zp_in;
  alignas(64) int32_t sums[4][(kMostVectors + 1) * V::kLanes];
  size_t together = 0;  // pixels of a period, 0 where none is used
  size_t periods = 0;
  if (p.pixel_stride == static_cast<ptrdiff_t>(p.channels) && p.channels % 4 == 0) {
    const Period<V> period(p.channels);
    if (period.vectors <= kMostVectors && p.pixels >= 4 * period.pixels) {
      together = period.pixels;
      periods = p.pixels / together;
      for (size_t i = 0; i < period.vectors; ++i) {
        typename V::Int sum[4];
        add_up<V>(p.src + i * V::kBytes, static_cast<ptrdiff_t>(period.vectors * V::kBytes), periods, sum);
        for (int k = 0; k < 4; ++k) V::store_all(sums[k] + i * V::kLanes, sum[k]);
      }
    }
  }
  const size_t done = periods * together;
  for (size_t first = 0; first < p.channels; first += V::kBytes) {
    typename V::Int sum[4];
    add_up<V>(p.src + done * p.channels + first, p.pixel_stride, p.pixels - done, sum);
    for (size_t i = 0; i < together; ++i) {
      const size_t at = (i * p.channels + first) / 4;
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) sum[k] = V::add(sum[k], V::load(sums[k] + at));
    }
    finish_sums<V>(sum, zp_sum, p.multiplier, p.range, p.dst + first, p.channels - first);
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_POOL_X86_WIDE_H_
