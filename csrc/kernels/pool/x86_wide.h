#ifndef EDGEQ_KERNELS_POOL_X86_WIDE_H_
#define EDGEQ_KERNELS_POOL_X86_WIDE_H_

// Pools for one vector width, a block of V::kBytes channels at a time. Only x86_*.cc include it.

#include "kernels/pool/pool.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

/// Calls visit(pixel) for each pixel of the window of output (y, x) that lies inside the image.
template <typename Visit>
EDGEQ_INLINE void visit_window(const PoolParams& p, size_t y, size_t x, Visit visit) {
  for (size_t ky = 0; ky < p.kernel_h; ++ky) {
    const act_t* row = p.rows[y * p.stride_h + ky * p.dilation_h];
    if (row == nullptr) continue;
    for (size_t kx = 0; kx < p.kernel_w; ++kx) {
      const size_t ix =
          x * p.stride_w + kx * p.dilation_w - p.pad_left;  // wraps to a huge value in the left padding
      if (ix < p.width_in) visit(row + static_cast<ptrdiff_t>(ix) * p.src_pixel_stride);
    }
  }
}

template <typename V>
void max_pool(const PoolParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t x = 0; x < p.width_out; ++x) {
      act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride +
                   static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
      for (size_t first = 0; first < p.channels; first += V::kBytes) {
        auto highest = V::set1_byte(p.range.min);
        visit_window(p, y, x,
                     [&](const act_t* pixel) { highest = V::max_bytes(highest, V::load(pixel + first)); });
        V::store(dst + first, V::min_bytes(highest, V::set1_byte(p.range.max)), p.channels - first);
      }
    }
  }
}

/// Adds V::kBytes bytes to four vectors of sums.
template <typename V>
EDGEQ_INLINE void add_bytes(typename V::Int (&sum)[4], const act_t* from) {
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) sum[v] = V::add(sum[v], V::widen_bytes(from + v * V::kLanes));
}

template <typename V>
EDGEQ_INLINE void finish_sums(typename V::Int (&sum)[4], int32_t zp_sum, float multiplier, OutputRange range,
                              act_t* dst, size_t count) {
  const auto hi = upper_bound<V>(range);
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const auto centered = V::to_float(V::sub(sum[v], V::set1_dword(zp_sum)));
    sum[v] = round_below<V>(V::mul(centered, V::set1(multiplier)), hi);
  }
  V::store(dst, V::order_packed(pack_codes<V>(sum[0], sum[1], sum[2], sum[3], range)), count);
}

template <typename V>
void average_pool(const PoolParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t x = 0; x < p.width_out; ++x) {
      act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride +
                   static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
      const float multiplier = p.multiplier[p.count_h[y] * p.count_w[x]];
      for (size_t first = 0; first < p.channels; first += V::kBytes) {
        typename V::Int sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
        int32_t inside = 0;
        visit_window(p, y, x, [&](const act_t* pixel) {
          add_bytes<V>(sum, pixel + first);
          ++inside;
        });
        finish_sums<V>(sum, inside * p.zp_in, multiplier, p.range, dst + first, p.channels - first);
      }
    }
  }
}

template <typename V>
void mean(const MeanParams& p) {
  for (size_t first = 0; first < p.channels; first += V::kBytes) {
    typename V::Int sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    const act_t* pixel = p.src + first;
    for (size_t i = 0; i < p.pixels; ++i, pixel += p.pixel_stride) add_bytes<V>(sum, pixel);
    // pixels < 2^23 and zp below 256: the product fits.
    finish_sums<V>(sum, static_cast<int32_t>(p.pixels) * p.zp_in, p.multiplier, p.range, p.dst + first,
                   p.channels - first);
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_POOL_X86_WIDE_H_
