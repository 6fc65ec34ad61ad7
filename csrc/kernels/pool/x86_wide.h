#ifndef EDGEQ_KERNELS_POOL_X86_WIDE_H_
#define EDGEQ_KERNELS_POOL_X86_WIDE_H_

// Pools for one vector width, a block of V::kBytes channels at a time. Only x86_*.cc include it.
//
// A window is separable: first its rows are combined into one column a pixel, then columns into outputs, so
// that a k x k window costs k + k loads instead of k * k, and overlapping windows share columns. What remains
// for a 3x3 window with stride 2 is six loads an output vector, the input's bytes once and a half: the speed
// of the cache that holds it.

#include "kernels/pool/pool.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

/// Rows of one window and columns of one tile; larger windows take the plain path.
constexpr size_t kMaxRows = 32;
constexpr size_t kTileColumns = 64;

/// The rows of the windows of output row y that lie inside the image.
struct WindowRows {
  const act_t* row[kMaxRows];
  size_t count = 0;

  WindowRows(const PoolParams& p, size_t y) {
    for (size_t ky = 0; ky < p.kernel_h; ++ky) {
      const act_t* from = p.rows[y * p.stride_h + ky * p.dilation_h];
      if (from != nullptr) row[count++] = from;
    }
  }
};

EDGEQ_INLINE act_t* row_out(const PoolParams& p, size_t y) {
  return p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride;
}

/// Columns and outputs of a maximum. Nothing is below 0, so that 0 stands for what is outside of the image.
template <typename V>
struct Maximum {
  using Column = typename V::Int;

  static EDGEQ_INLINE Column outside() { return V::zero(); }
  static EDGEQ_INLINE Column column(const WindowRows& rows, ptrdiff_t offset) {
    auto highest = V::load(rows.row[0] + offset);
    for (size_t r = 1; r < rows.count; ++r) highest = V::max_bytes(highest, V::load(rows.row[r] + offset));
    return highest;
  }
  static EDGEQ_INLINE void merge(Column& into, const Column& column) { into = V::max_bytes(into, column); }
  static EDGEQ_INLINE void finish(const PoolParams& p, const Column& highest, size_t, size_t, act_t* dst,
                                  size_t count) {
    const auto low = V::max_bytes(highest, V::set1_byte(p.range.min));
    V::store(dst, V::min_bytes(low, V::set1_byte(p.range.max)), count);
  }
};

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

/// The taps of the window of output column x that lie inside the image: [first, last) of kernel_w.
struct Taps {
  size_t first, last;

  Taps(const PoolParams& p, size_t x) : first(0), last(p.kernel_w) {
    const size_t begin = x * p.stride_w;
    while (first < last && begin + first * p.dilation_w < p.pad_left) ++first;
    while (last > first && begin + (last - 1) * p.dilation_w >= p.pad_left + p.width_in) --last;
  }
};

/// Any window that fits a tile: the columns of a tile, then its outputs.
template <typename V, template <typename> class Op>
void pool_tiles(const PoolParams& p) {
  using Column = typename Op<V>::Column;
  Column columns[kTileColumns];
  const size_t span = (p.kernel_w - 1) * p.dilation_w + 1;
  const size_t tile = (kTileColumns - span) / p.stride_w + 1;
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    const WindowRows rows(p, y);
    for (size_t first = 0; first < p.channels; first += V::kBytes) {
      for (size_t x0 = 0; x0 < p.width_out; x0 += tile) {
        const size_t x1 = x0 + tile < p.width_out ? x0 + tile : p.width_out;
        const size_t begin = x0 * p.stride_w - p.pad_left;  // wraps in the left padding, and back below
        const size_t wanted = (x1 - 1 - x0) * p.stride_w + span;
        for (size_t i = 0; i < wanted; ++i) {
          const size_t ix = begin + i;
          columns[i] = ix < p.width_in && rows.count > 0
                           ? Op<V>::column(rows, static_cast<ptrdiff_t>(ix) * p.src_pixel_stride +
                                                     static_cast<ptrdiff_t>(first))
                           : Op<V>::outside();
        }
        for (size_t x = x0; x < x1; ++x) {
          const Column* window = columns + (x - x0) * p.stride_w;
          Column merged = window[0];
          for (size_t kx = 1; kx < p.kernel_w; ++kx) Op<V>::merge(merged, window[kx * p.dilation_w]);
          size_t taps = 0;
          size_t divisor = 0;
          if (p.multiplier != nullptr) {
            const Taps inside(p, x);
            taps = (inside.last - inside.first) * rows.count;
            divisor = static_cast<size_t>(p.count_h[y] * p.count_w[x]);
          }
          Op<V>::finish(p, merged, taps, divisor,
                        row_out(p, y) + static_cast<ptrdiff_t>(x) * p.dst_pixel_stride + first,
                        p.channels - first);
        }
      }
    }
  }
}

/// Maxima over 3x3 windows for `channels` channels from `first` on, the columns in registers. A row outside
/// of the image is replaced by one inside, which changes no maximum; a column likewise by the nearest one.
template <typename V, int kStride>
void max_pool_3x3(const PoolParams& p, size_t y, const WindowRows& rows, size_t first, size_t channels) {
  const act_t* row[3];
  for (size_t r = 0; r < 3; ++r) row[r] = rows.row[r < rows.count ? r : 0] + first;
  const ptrdiff_t last = static_cast<ptrdiff_t>(p.width_in) - 1;
  const auto column = [&](ptrdiff_t x) {
    const ptrdiff_t offset = (x < 0 ? 0 : x > last ? last : x) * p.src_pixel_stride;
    return V::max_bytes(V::max_bytes(V::load(row[0] + offset), V::load(row[1] + offset)),
                        V::load(row[2] + offset));
  };
  const auto lowest = V::set1_byte(p.range.min);
  const auto highest = V::set1_byte(p.range.max);
  act_t* dst = row_out(p, y) + first;
  ptrdiff_t x = -static_cast<ptrdiff_t>(p.pad_left);
  auto left = column(x);
  auto middle = kStride == 1 ? column(x + 1) : left;
  for (size_t i = 0; i < p.width_out; ++i, x += kStride, dst += p.dst_pixel_stride) {
    if (kStride == 2) middle = column(x + 1);
    const auto right = column(x + 2);
    const auto merged = V::max_bytes(V::max_bytes(left, middle), right);
    V::store(dst, V::min_bytes(V::max_bytes(merged, lowest), highest), channels);
    left = kStride == 1 ? middle : right;
    middle = right;
  }
}

template <typename V, typename Half, int kStride>
void max_pool_3x3(const PoolParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    const WindowRows rows(p, y);
    size_t first = 0;
    for (; p.channels - first > Half::kBytes; first += V::kBytes) {
      max_pool_3x3<V, kStride>(p, y, rows, first, p.channels - first);
      if (p.channels - first <= V::kBytes) break;
    }
    if (p.channels - first <= Half::kBytes && first < p.channels) {
      max_pool_3x3<Half, kStride>(p, y, rows, first, p.channels - first);
    }
  }
}

/// Calls visit(pixel) for each pixel of the window of output (y, x) that lies inside the image.
template <typename Visit>
EDGEQ_INLINE void visit_window(const PoolParams& p, size_t y, size_t x, Visit visit) {
  const Taps inside(p, x);
  for (size_t ky = 0; ky < p.kernel_h; ++ky) {
    const act_t* row = p.rows[y * p.stride_h + ky * p.dilation_h];
    if (row == nullptr) continue;
    for (size_t kx = inside.first; kx < inside.last; ++kx) {
      visit(row +
            static_cast<ptrdiff_t>(x * p.stride_w + kx * p.dilation_w - p.pad_left) * p.src_pixel_stride);
    }
  }
}

/// Whether the window's rows and columns fit what pool_tiles keeps of them.
inline bool fits_tile(const PoolParams& p) {
  return p.kernel_h <= kMaxRows && p.dilation_w < kTileColumns && p.kernel_w <= kTileColumns &&
         (p.kernel_w - 1) * p.dilation_w < kTileColumns;
}

/// Whether every 3x3 window has a tap inside, so that clamping a coordinate stays inside of the window.
inline bool is_3x3(const PoolParams& p) {
  if (p.kernel_h != 3 || p.kernel_w != 3 || p.dilation_h != 1 || p.dilation_w != 1) return false;
  if (p.pad_left > 2 || (p.width_out - 1) * p.stride_w >= p.width_in + p.pad_left) return false;
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    if (WindowRows(p, y).count == 0) return false;
  }
  return true;
}

template <typename V, typename Half>
void max_pool(const PoolParams& p) {
  if (is_3x3(p) && p.stride_w == 2) return max_pool_3x3<V, Half, 2>(p);
  if (is_3x3(p) && p.stride_w == 1) return max_pool_3x3<V, Half, 1>(p);
  if (fits_tile(p)) return pool_tiles<V, Maximum>(p);
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t x = 0; x < p.width_out; ++x) {
      act_t* dst = row_out(p, y) + static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
      for (size_t first = 0; first < p.channels; first += V::kBytes) {
        auto highest = V::zero();
        visit_window(p, y, x,
                     [&](const act_t* pixel) { highest = V::max_bytes(highest, V::load(pixel + first)); });
        Maximum<V>::finish(p, highest, 0, 0, dst + first, p.channels - first);
      }
    }
  }
}

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
