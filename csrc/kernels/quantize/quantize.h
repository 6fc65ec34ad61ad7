#ifndef EDGEQ_KERNELS_QUANTIZE_QUANTIZE_H_
#define EDGEQ_KERNELS_QUANTIZE_QUANTIZE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/act.h"
#include "base/requantize.h"
#include "kernels/variant.h"

namespace edgeq {

// The graph's ends: one image (or one flat vector) at a time. Element (i, c), i < pixels, c < channels, lies
// at base[i * pixel_stride + c * channel_stride] on each side, strides in elements: (channels, 1) is NHWC,
// (1, pixels) is NCHW. A flat tensor is pixels = 1 or channels = 1. The two sides do not overlap. A source in
// NCHW or flat may be the caller's: nothing is read behind it.

/// dst = quantize_value(src, scale, range): NaN becomes the code of zero, infinities clamp.
struct QuantizeParams {
  size_t pixels = 0;
  size_t channels = 0;
  const float* src = nullptr;
  ptrdiff_t src_pixel_stride = 0;
  ptrdiff_t src_channel_stride = 0;
  act_t* dst = nullptr;
  ptrdiff_t dst_pixel_stride = 0;
  ptrdiff_t dst_channel_stride = 0;
  float scale = 1.0f;
  OutputRange range = {0, 0, 0};
};

/// dst = float32(src - zp) * scale.
struct DequantizeParams {
  size_t pixels = 0;
  size_t channels = 0;
  const act_t* src = nullptr;
  ptrdiff_t src_pixel_stride = 0;
  ptrdiff_t src_channel_stride = 0;
  float* dst = nullptr;
  ptrdiff_t dst_pixel_stride = 0;
  ptrdiff_t dst_channel_stride = 0;
  float scale = 1.0f;
  int32_t zp = 0;
};

/// dst = src ^ xor_mask, byte by byte: int8 codes to activations and back (xor_mask = kActXor), with a layout
/// change.
struct RecodeParams {
  size_t pixels = 0;
  size_t channels = 0;
  const uint8_t* src = nullptr;
  ptrdiff_t src_pixel_stride = 0;
  ptrdiff_t src_channel_stride = 0;
  uint8_t* dst = nullptr;
  ptrdiff_t dst_pixel_stride = 0;
  ptrdiff_t dst_channel_stride = 0;
  uint8_t xor_mask = 0;
};

using QuantizeVariant = Variant<QuantizeParams>;
using DequantizeVariant = Variant<DequantizeParams>;
using RecodeVariant = Variant<RecodeParams>;

std::vector<const QuantizeVariant*> quantize_variants(IsaSet isas);
std::vector<const DequantizeVariant*> dequantize_variants(IsaSet isas);
std::vector<const RecodeVariant*> recode_variants(IsaSet isas);
const QuantizeVariant* select_quantize(IsaSet isas);
const DequantizeVariant* select_dequantize(IsaSet isas);
const RecodeVariant* select_recode(IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_QUANTIZE_QUANTIZE_H_
