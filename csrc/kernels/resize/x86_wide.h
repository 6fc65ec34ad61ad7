#ifndef EDGEQ_KERNELS_RESIZE_X86_WIDE_H_
#define EDGEQ_KERNELS_RESIZE_X86_WIDE_H_

// Bilinear resize for one vector width. Only x86_*.cc include it.

#include "kernels/resize/resize.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

template <typename V>
void resize_bilinear(const ResizeParams& p) {
  const auto half = V::set1_dword(1 << 21);
  const OutputRange whole{0, 0, 255};
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    const ResizeTap& ty = p.tap_y[y];
    const act_t* row0 = p.src + ty.index_0 * p.src_row_stride;
    const act_t* row1 = p.src + ty.index_1 * p.src_row_stride;
    for (size_t x = 0; x < p.width_out; ++x) {
      const ResizeTap& tx = p.tap_x[x];
      const act_t* pixel[4] = {row0 + tx.index_0 * p.src_pixel_stride, row0 + tx.index_1 * p.src_pixel_stride,
                               row1 + tx.index_0 * p.src_pixel_stride,
                               row1 + tx.index_1 * p.src_pixel_stride};
      const typename V::Int weight[4] = {
          V::set1_dword(ty.weight_0 * tx.weight_0), V::set1_dword(ty.weight_0 * tx.weight_1),
          V::set1_dword(ty.weight_1 * tx.weight_0), V::set1_dword(ty.weight_1 * tx.weight_1)};
      act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride +
                   static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
      for (size_t first = 0; first < p.channels; first += V::kBytes) {
        typename V::Int sum[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) {
          sum[v] = half;
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            const auto bytes = V::widen_bytes(pixel[i] + first + static_cast<size_t>(v * V::kLanes));
            sum[v] = V::add(sum[v], V::mul_dwords(weight[i], bytes));
          }
          sum[v] = V::template shift_right<22>(sum[v]);
        }
        V::store(dst + first, V::order_packed(pack_codes<V>(sum[0], sum[1], sum[2], sum[3], whole)),
                 p.channels - first);
      }
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_RESIZE_X86_WIDE_H_
