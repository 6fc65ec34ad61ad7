#include "kernels/quantize/quantize.h"

namespace edgeq {
namespace {

/// dst = convert(src) for every element, whatever the two layouts.
template <typename Params, typename Convert>
void for_each_element(const Params& p, Convert convert) {
  for (size_t i = 0; i < p.pixels; ++i) {
    const ptrdiff_t pixel = static_cast<ptrdiff_t>(i);
    for (size_t c = 0; c < p.channels; ++c) {
      const ptrdiff_t channel = static_cast<ptrdiff_t>(c);
      p.dst[pixel * p.dst_pixel_stride + channel * p.dst_channel_stride] =
          convert(p.src[pixel * p.src_pixel_stride + channel * p.src_channel_stride]);
    }
  }
}

}  // namespace

void quantize_scalar(const QuantizeParams& p) {
  for_each_element(p, [&p](float x) { return static_cast<act_t>(quantize_value(x, p.scale, p.range)); });
}

void dequantize_scalar(const DequantizeParams& p) {
  for_each_element(p, [&p](act_t q) { return static_cast<float>(q - p.zp) * p.scale; });
}

void recode_scalar(const RecodeParams& p) {
  for_each_element(p, [&p](uint8_t q) { return static_cast<uint8_t>(q ^ p.xor_mask); });
}

}  // namespace edgeq
