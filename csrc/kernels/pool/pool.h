#ifndef EDGEQ_KERNELS_POOL_POOL_H_
#define EDGEQ_KERNELS_POOL_POOL_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/act.h"
#include "base/requantize.h"
#include "kernels/variant.h"

namespace edgeq {

/// Window pools over rows of NHWC pixels; rows, columns and padding as in DepthwiseParams (depthwise.h).
///
///   kMax:     dst = clamp(max over the window's pixels inside the image) to range.min, range.max; range.min
///   where there are none kAverage: dst = requantize(sum over the window's pixels inside of (in - zp_in),
///   multiplier[count], range)
///             with count = count_h[y] * count_w[x], so that the caller says what padding counts for.
struct PoolParams {
  size_t channels = 0;
  size_t kernel_h = 0;
  size_t kernel_w = 0;
  size_t stride_h = 1;
  size_t stride_w = 1;
  size_t dilation_h = 1;
  size_t dilation_w = 1;
  size_t width_in = 0;
  size_t width_out = 0;
  size_t pad_left = 0;
  size_t row_begin = 0;  // output rows [row_begin, row_end) are computed
  size_t row_end = 0;
  const act_t* const* rows = nullptr;  // null: a row of the padding
  ptrdiff_t src_pixel_stride = 0;
  act_t* dst = nullptr;
  ptrdiff_t dst_pixel_stride = 0;
  ptrdiff_t dst_row_stride = 0;
  OutputRange range = {0, 0, 0};
  int32_t zp_in = 0;  // kAverage
  const float* multiplier =
      nullptr;  // kAverage: [kernel_h * kernel_w + 1], s_in / (s_out * count) as the statement has it
  const int32_t* count_h = nullptr;  // kAverage: [row_end]
  const int32_t* count_w = nullptr;  // kAverage: [width_out]
};

enum class PoolOp : uint8_t { kMax, kAverage };

struct PoolVariant {
  const char* name;
  Isa isa;
  PoolOp op;
  void (*run)(const PoolParams& params);
};

std::vector<const PoolVariant*> pool_variants(IsaSet isas);
const PoolVariant* select_pool(PoolOp op, IsaSet isas);

/// dst(c) = requantize(sum over i < pixels of (src[i * pixel_stride + c] - zp_in), multiplier, range): a
/// global average. pixels < 2^23, so that the sum fits.
struct MeanParams {
  size_t pixels = 0;
  size_t channels = 0;
  const act_t* src = nullptr;
  ptrdiff_t pixel_stride = 0;
  act_t* dst = nullptr;
  int32_t zp_in = 0;
  float multiplier = 0.0f;
  OutputRange range = {0, 0, 0};
};

using MeanVariant = Variant<MeanParams>;

std::vector<const MeanVariant*> mean_variants(IsaSet isas);
const MeanVariant* select_mean(IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_POOL_POOL_H_
