#ifndef EDGEQ_KERNELS_POOL_WINDOWS_H_
#define EDGEQ_KERNELS_POOL_WINDOWS_H_

// Pools for every architecture and vector width, a block of V::kBytes channels at a time. Included after
// x86_vectors.h or arm_vectors.h.
//
// A window is separable: first its rows are combined into one column a pixel, then columns into outputs, so
// that a k x k window costs k + k loads instead of k * k, and overlapping windows share columns. What remains
// for a 3x3 window with stride 2 is six loads an output vector, the input's bytes once and a half: the speed
// of the cache that holds it.

#include "kernels/pool/pool.h"

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

/// Columns and outputs of a maximum. The lowest byte stands for what is outside of the image.
template <typename V>
struct Maximum {
  using Column = typename V::Int;

  static EDGEQ_INLINE Column outside() { return V::set1_byte(kActMin); }
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
  const auto lowest = V::set1_byte(p.range.min);
  const auto highest = V::set1_byte(p.range.max);
  // Copies, which no store can change, and no function that takes their addresses: the loop in the middle
  // keeps everything in registers.
  const ptrdiff_t step_in = p.src_pixel_stride, step_out = p.dst_pixel_stride;
  const ptrdiff_t pad = static_cast<ptrdiff_t>(p.pad_left), last = static_cast<ptrdiff_t>(p.width_in) - 1;
  const ptrdiff_t outputs = static_cast<ptrdiff_t>(p.width_out);
  const auto column = [row, step_in](ptrdiff_t x) __attribute__((always_inline)) {
    const ptrdiff_t offset = x * step_in;
    return V::max_bytes(V::max_bytes(V::load(row[0] + offset), V::load(row[1] + offset)),
                        V::load(row[2] + offset));
  };
  const auto nearest = [column, last](ptrdiff_t x) __attribute__((always_inline)) {
    return column(x < 0 ? 0 : x > last ? last : x);
  };
  auto left = nearest(-pad);
  auto middle = kStride == 1 ? nearest(1 - pad) : left;
  act_t* const dst = row_out(p, y) + first;
  const auto put = [&](ptrdiff_t i, const auto& at) __attribute__((always_inline)) {
    const ptrdiff_t x = i * kStride - pad;
    if (kStride == 2) middle = at(x + 1);
    const auto right = at(x + 2);
    const auto merged = V::max_bytes(V::max_bytes(left, middle), right);
    V::store(dst + i * step_out, V::min_bytes(V::max_bytes(merged, lowest), highest), channels);
    left = kStride == 1 ? middle : right;
    middle = right;
  };
  ptrdiff_t i = 0;
  for (; i < outputs && i * kStride < pad; ++i) put(i, nearest);
  for (; i < outputs && i * kStride + 2 <= last + pad; ++i) put(i, column);
  for (; i < outputs; ++i) put(i, nearest);
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
        auto highest = Maximum<V>::outside();
        visit_window(p, y, x,
                     [&](const act_t* pixel) { highest = V::max_bytes(highest, V::load(pixel + first)); });
        Maximum<V>::finish(p, highest, 0, 0, dst + first, p.channels - first);
      }
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_POOL_WINDOWS_H_
