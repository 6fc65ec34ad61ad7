#ifndef EDGEQ_KERNELS_RESIZE_RESIZE_H_
#define EDGEQ_KERNELS_RESIZE_RESIZE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/act.h"
#include "kernels/variant.h"

namespace edgeq {

/// One output coordinate along an axis: the two source coordinates it lies between and their weights in
/// 1/2048 (weight_0 + weight_1 = 2048, both at least 0). Nearest neighbour: index_0 only.
struct ResizeTap {
  int32_t index_0;
  int32_t index_1;
  int32_t weight_0;
  int32_t weight_1;
};

/// Resizes one NHWC image, output rows [row_begin, row_end):
///
///   kNearest:  dst(y, x, c) = src(tap_y[y].index_0, tap_x[x].index_0, c)
///   kBilinear: dst(y, x, c) = (sum over the four pixels of weight_y * weight_x * src + 2^21) >> 22
///
/// The weights sum to 2^22, so the act domain's offset passes through unchanged.
struct ResizeParams {
  size_t channels = 0;
  size_t width_out = 0;
  size_t row_begin = 0;
  size_t row_end = 0;
  const ResizeTap* tap_y = nullptr;  // [row_end]
  const ResizeTap* tap_x = nullptr;  // [width_out]
  const act_t* src = nullptr;
  ptrdiff_t src_pixel_stride = 0;
  ptrdiff_t src_row_stride = 0;
  act_t* dst = nullptr;
  ptrdiff_t dst_pixel_stride = 0;
  ptrdiff_t dst_row_stride = 0;
};

enum class ResizeOp : uint8_t { kNearest, kBilinear };

struct ResizeVariant {
  const char* name;
  Isa isa;
  ResizeOp op;
  void (*run)(const ResizeParams& params);
};

std::vector<const ResizeVariant*> resize_variants(IsaSet isas);
const ResizeVariant* select_resize(ResizeOp op, IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_RESIZE_RESIZE_H_
