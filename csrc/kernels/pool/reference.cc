#include "kernels/pool/pool.h"

namespace edgeq {
namespace {

/// Calls visit(pixel) for each pixel of the window of output (y, x) that lies inside the image.
template <typename Visit>
void for_each_pixel(const PoolParams& p, size_t y, size_t x, Visit visit) {
  for (size_t ky = 0; ky < p.kernel_h; ++ky) {
    const act_t* row = p.rows[y * p.stride_h + ky * p.dilation_h];
    if (row == nullptr) continue;
    for (size_t kx = 0; kx < p.kernel_w; ++kx) {
      const size_t padded_x = x * p.stride_w + kx * p.dilation_w;
      if (padded_x < p.pad_left || padded_x - p.pad_left >= p.width_in) continue;
      visit(row + static_cast<ptrdiff_t>(padded_x - p.pad_left) * p.src_pixel_stride);
    }
  }
}

act_t* pixel_out(const PoolParams& p, size_t y, size_t x) {
  return p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride +
         static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
}

}  // namespace

void max_pool_scalar(const PoolParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t x = 0; x < p.width_out; ++x) {
      act_t* dst = pixel_out(p, y, x);
      const act_t lowest = static_cast<act_t>(p.range.min);
      for (size_t c = 0; c < p.channels; ++c) dst[c] = lowest;
      for_each_pixel(p, y, x, [&](const act_t* pixel) {
        for (size_t c = 0; c < p.channels; ++c) dst[c] = pixel[c] > dst[c] ? pixel[c] : dst[c];
      });
      const act_t highest = static_cast<act_t>(p.range.max);
      for (size_t c = 0; c < p.channels; ++c) dst[c] = dst[c] > highest ? highest : dst[c];
    }
  }
}

void average_pool_scalar(const PoolParams& p) {
  constexpr size_t kBlock = 64;
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t x = 0; x < p.width_out; ++x) {
      act_t* dst = pixel_out(p, y, x);
      const float multiplier = p.multiplier[p.count_h[y] * p.count_w[x]];
      for (size_t first = 0; first < p.channels; first += kBlock) {
        const size_t width = p.channels - first < kBlock ? p.channels - first : kBlock;
        int32_t sum[kBlock] = {};
        for_each_pixel(p, y, x, [&](const act_t* pixel) {
          for (size_t c = 0; c < width; ++c) sum[c] += pixel[first + c] - p.zp_in;
        });
        for (size_t c = 0; c < width; ++c) {
          dst[first + c] = static_cast<act_t>(requantize(sum[c], multiplier, p.range));
        }
      }
    }
  }
}

void mean_scalar(const MeanParams& p) {
  constexpr size_t kBlock = 64;
  for (size_t first = 0; first < p.channels; first += kBlock) {
    const size_t width = p.channels - first < kBlock ? p.channels - first : kBlock;
    int32_t sum[kBlock] = {};
    for (size_t i = 0; i < p.pixels; ++i) {
      const act_t* pixel = p.src + static_cast<ptrdiff_t>(i) * p.pixel_stride + first;
      for (size_t c = 0; c < width; ++c) sum[c] += pixel[c] - p.zp_in;
    }
    for (size_t c = 0; c < width; ++c) {
      p.dst[first + c] = static_cast<act_t>(requantize(sum[c], p.multiplier, p.range));
    }
  }
}

}  // namespace edgeq
