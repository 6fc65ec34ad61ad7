#include "kernels/resize/x86_wide.h"
#include "kernels/x86_bytes.h"

namespace edgeq {

void resize_nearest_avx2(const ResizeParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    const act_t* row = p.src + p.tap_y[y].index_0 * p.src_row_stride;
    act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride;
    for (size_t x = 0; x < p.width_out; ++x, dst += p.dst_pixel_stride) {
      copy_row(row + p.tap_x[x].index_0 * p.src_pixel_stride, p.channels, dst);
    }
  }
}

void resize_bilinear_avx2(const ResizeParams& p) { resize_bilinear<Vector256, Vector256>(p); }

}  // namespace edgeq
