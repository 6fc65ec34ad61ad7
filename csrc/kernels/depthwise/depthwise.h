#ifndef EDGEQ_KERNELS_DEPTHWISE_DEPTHWISE_H_
#define EDGEQ_KERNELS_DEPTHWISE_DEPTHWISE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/act.h"
#include "base/cpu_features.h"
#include "base/int4.h"
#include "base/requantize.h"
#include "kernels/lut/lut.h"

namespace edgeq {

/// Depthwise convolution (one filter a channel) of rows of NHWC pixels. Computes, for output row y, column x,
/// channel c:
///
///   acc = bias(c) + sum over ky, kx of (in(ky, kx) - zp_in) * weight(ky, kx, c)                  (mod 2^32)
///   q   = requantize(acc, scale(c), range);   dst = table ? table[q] : q
///
///   in(ky, kx) = rows[y * stride_h + ky * dilation_h][ix * src_pixel_stride + c],
///   ix = x * stride_w + kx * dilation_w - pad_left
///
/// and zp_in where ix is not in [0, width_in) or the row pointer is null (a row of the top or bottom
/// padding). rows[i] is thus row i of the padded input; a strip buffer in any order can stand behind it.
/// dst(y, x, c) = dst + y * dst_row_stride + x * dst_pixel_stride + c. `packed` and `scratch` are 64-byte
/// aligned; kernels may read kReadSlack bytes past the end of each input pixel's channels. dst must not
/// overlap the input.
struct DepthwiseParams {
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
  const act_t* const* rows = nullptr;
  ptrdiff_t src_pixel_stride = 0;
  const act_t* zero_pixel = nullptr;  // `channels` bytes of zp_in, and kReadSlack more that are readable
  const uint8_t* packed = nullptr;
  act_t* dst = nullptr;
  ptrdiff_t dst_pixel_stride = 0;
  ptrdiff_t dst_row_stride = 0;
  OutputRange range = {0, 0, 0};
  const act_t* table = nullptr;     // 256 entries or null
  const LutVariant* lut = nullptr;  // looks the table up; needed where there is one
  uint8_t* scratch = nullptr;
};

/// Writes a row of padding to `row`, if output rows [row_begin, row_end) read one; `last_bytes` of its last
/// pixel.
static inline void fill_zero_row(const DepthwiseParams& p, size_t row_begin, size_t row_end,
                                 size_t last_bytes, uint8_t* row) {
  if (row_begin >= row_end) return;
  const size_t last = (row_end - 1) * p.stride_h + (p.kernel_h - 1) * p.dilation_h;
  for (size_t i = row_begin * p.stride_h; i <= last; ++i) {
    if (p.rows[i] != nullptr) continue;
    std::memset(row, static_cast<uint8_t>(p.zero_pixel[0]),
                (p.width_in - 1) * static_cast<size_t>(p.src_pixel_stride) + last_bytes);
    return;
  }
}

/// Looks a row of outputs up in the table.
static inline void look_up_row(const DepthwiseParams& p, act_t* row) {
  LutParams lut;
  lut.rows = p.width_out;
  lut.channels = p.channels;
  lut.src = lut.dst = reinterpret_cast<uint8_t*>(row);
  lut.src_row_stride = lut.dst_row_stride = p.dst_pixel_stride;
  lut.table = reinterpret_cast<const uint8_t*>(p.table);
  p.lut->run(lut);
}

/// What selection looks at.
struct DepthwiseShape {
  size_t channels;
  size_t kernel_h;
  size_t kernel_w;
  size_t stride_h;
  size_t stride_w;
  size_t dilation_h;
  size_t dilation_w;
  int weight_bits;  // 8 or 4
};

struct DepthwiseVariant {
  const char* name;
  Isa isa;
  int weight_bits;
  /// Whether the kernel takes this shape (its weight_bits apart).
  bool (*takes)(const DepthwiseShape& shape);

  /// Computes output rows [row_begin, row_end) of all channels.
  void (*run)(const DepthwiseParams& params, size_t row_begin, size_t row_end);

  /// Bytes of the packed form.
  size_t (*packed_bytes)(const DepthwiseShape& shape);

  /// Packs weights [channels][kernel_h][kernel_w] (OHWI with I = 1), bias [channels] (null: zeros) and scale
  /// [channels]; `zp_in` in the act domain. See pack.h for the layouts.
  void (*pack)(const DepthwiseShape& shape, WeightView weights, const int32_t* bias, const float* scale,
               int32_t zp_in, uint8_t* packed);

  /// Bytes of scratch that one call needs (may be 0). The last three as in the params.
  size_t (*scratch_bytes)(const DepthwiseShape& shape, size_t width_in, size_t width_out,
                          size_t src_pixel_stride);
};

/// All variants that `isas` can run, best first, of both weight widths.
std::vector<const DepthwiseVariant*> depthwise_variants(IsaSet isas);

/// The variants that take the shape, best first: what a measurement may choose from. The scalar one only
/// where there is no other.
std::vector<const DepthwiseVariant*> depthwise_candidates(const DepthwiseShape& shape, IsaSet isas);

/// The best variant that takes the shape. Never null.
const DepthwiseVariant* select_depthwise(const DepthwiseShape& shape, IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_DEPTHWISE_H_
