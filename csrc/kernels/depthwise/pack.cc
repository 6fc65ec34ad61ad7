#include "kernels/depthwise/pack.h"

#include <cstring>

#include "base/requantize.h"

namespace edgeq {
namespace {

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

struct Folded {
  int32_t bias;
  float scale;
};

/// Bias with the zero-point term, and scale, of one channel; zeros beyond the last.
Folded fold(const DepthwiseShape& shape, WeightView weights, const int32_t* bias, const float* scale,
            int32_t zp_in, size_t channel) {
  if (channel >= shape.channels) return Folded{0, 0.0f};
  const size_t taps = shape.kernel_h * shape.kernel_w;
  int32_t sum = 0;
  for (size_t t = 0; t < taps; ++t) sum = wrapping_add(sum, weights.at(channel * taps + t));
  return Folded{wrapping_add(bias == nullptr ? 0 : bias[channel], wrapping_mul(-zp_in, sum)), scale[channel]};
}

int8_t weight_at(const DepthwiseShape& shape, WeightView weights, size_t ky, size_t kx, size_t channel) {
  if (channel >= shape.channels || ky >= shape.kernel_h) return 0;
  return weights.at((channel * shape.kernel_h + ky) * shape.kernel_w + kx);
}

}  // namespace

size_t depthwise_linear_bytes(const DepthwiseShape& shape) {
  const size_t channels = round_up(shape.channels, 16);
  const size_t taps = shape.kernel_h * shape.kernel_w;
  return channels * 8 + (shape.weight_bits == 4 ? taps * channels / 2 : taps * channels);
}

void depthwise_linear_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed) {
  const size_t channels = round_up(shape.channels, 16);
  for (size_t c = 0; c < channels; ++c) {
    const Folded folded = fold(shape, weights, bias, scale, zp_in, c);
    std::memcpy(packed + c * 4, &folded.bias, 4);
    std::memcpy(packed + channels * 4 + c * 4, &folded.scale, 4);
  }
  uint8_t* out = packed + channels * 8;
  for (size_t ky = 0; ky < shape.kernel_h; ++ky) {
    for (size_t kx = 0; kx < shape.kernel_w; ++kx) {
      if (shape.weight_bits == 4) {
        for (size_t c = 0; c < channels; c += 2) {
          *out++ = int4_pack(weight_at(shape, weights, ky, kx, c), weight_at(shape, weights, ky, kx, c + 1));
        }
      } else {
        for (size_t c = 0; c < channels; ++c) {
          *out++ = static_cast<uint8_t>(weight_at(shape, weights, ky, kx, c));
        }
      }
    }
  }
}

namespace {

size_t quads_bytes(const DepthwiseShape& shape, size_t widest) {
  size_t channels = 0;
  while (channels < shape.channels) channels += depthwise_block_width(shape.channels - channels, widest);
  const size_t quads = (shape.kernel_h + 3) / 4 * shape.kernel_w;
  return channels * (8 + quads * (shape.weight_bits == 4 ? 2 : 4));
}

void quads_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias, const float* scale,
                int32_t zp_in, size_t widest, uint8_t* packed) {
  const size_t row_groups = (shape.kernel_h + 3) / 4;
  for (size_t first = 0; first < shape.channels;) {
    const size_t width = depthwise_block_width(shape.channels - first, widest);
    const size_t dwords = width / 4;
    const auto channel_of = [&](size_t index) {
      const size_t v = index / dwords;
      const size_t lane = index % dwords / 4;
      const size_t dword = index % 4;
      return first + 16 * lane + 4 * v + dword;
    };
    for (size_t i = 0; i < width; ++i) {
      const Folded folded = fold(shape, weights, bias, scale, zp_in, channel_of(i));
      std::memcpy(packed + i * 4, &folded.bias, 4);
      std::memcpy(packed + width * 4 + i * 4, &folded.scale, 4);
    }
    uint8_t* out = packed + width * 8;
    for (size_t g = 0; g < row_groups; ++g) {
      for (size_t kx = 0; kx < shape.kernel_w; ++kx) {
        for (size_t i = 0; i < width; ++i) {
          int8_t taps[4];
          for (size_t r = 0; r < 4; ++r) taps[r] = weight_at(shape, weights, 4 * g + r, kx, channel_of(i));
          if (shape.weight_bits == 4) {
            *out++ = int4_pack(taps[0], taps[1]);
            *out++ = int4_pack(taps[2], taps[3]);
          } else {
            for (int8_t tap : taps) *out++ = static_cast<uint8_t>(tap);
          }
        }
      }
    }
    packed = out;
    first += width;
  }
}

}  // namespace

size_t depthwise_quads64_bytes(const DepthwiseShape& shape) { return quads_bytes(shape, 64); }
void depthwise_quads64_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed) {
  quads_pack(shape, weights, bias, scale, zp_in, 64, packed);
}

size_t depthwise_quads32_bytes(const DepthwiseShape& shape) { return quads_bytes(shape, 32); }
void depthwise_quads32_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed) {
  quads_pack(shape, weights, bias, scale, zp_in, 32, packed);
}

}  // namespace edgeq
