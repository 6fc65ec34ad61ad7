#include <cstring>

#include "kernels/resize/resize.h"

namespace edgeq {
namespace {

const act_t* pixel_in(const ResizeParams& p, int32_t y, int32_t x) {
  return p.src + y * p.src_row_stride + x * p.src_pixel_stride;
}

act_t* pixel_out(const ResizeParams& p, size_t y, size_t x) {
  return p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride +
         static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
}

}  // namespace

void resize_nearest_scalar(const ResizeParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t x = 0; x < p.width_out; ++x) {
      std::memcpy(pixel_out(p, y, x), pixel_in(p, p.tap_y[y].index_0, p.tap_x[x].index_0), p.channels);
    }
  }
}

void resize_bilinear_scalar(const ResizeParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    const ResizeTap& ty = p.tap_y[y];
    for (size_t x = 0; x < p.width_out; ++x) {
      const ResizeTap& tx = p.tap_x[x];
      const act_t* p00 = pixel_in(p, ty.index_0, tx.index_0);
      const act_t* p01 = pixel_in(p, ty.index_0, tx.index_1);
      const act_t* p10 = pixel_in(p, ty.index_1, tx.index_0);
      const act_t* p11 = pixel_in(p, ty.index_1, tx.index_1);
      act_t* dst = pixel_out(p, y, x);
      for (size_t c = 0; c < p.channels; ++c) {
        // At most 2^22 * 255 + 2^21 < 2^31; the shift of a negative sum (signed activations) is arithmetic:
        // it floors.
        const int32_t sum = ty.weight_0 * (tx.weight_0 * p00[c] + tx.weight_1 * p01[c]) +
                            ty.weight_1 * (tx.weight_0 * p10[c] + tx.weight_1 * p11[c]);
        dst[c] = static_cast<act_t>((sum + (1 << 21)) >> 22);
      }
    }
  }
}

}  // namespace edgeq
