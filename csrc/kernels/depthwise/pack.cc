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

size_t block_bytes(const DepthwiseShape& shape, size_t widest) {
  const DepthwiseQuads quads(shape);
  const size_t quad_bytes = 4 * widest * static_cast<size_t>(shape.weight_bits) / 8;
  return widest * 8 + quads.sets * quads.count * quad_bytes;
}

size_t quads_bytes(const DepthwiseShape& shape, size_t widest) {
  size_t blocks = 0;
  for (size_t first = 0; first < shape.channels; ++blocks) {
    first += depthwise_block_width(shape.channels - first, widest);
  }
  return kDepthwiseHeader + blocks * block_bytes(shape, widest);
}

/// A bound of the magnitude of an accumulator times its scale. |acc| is at most |bias| plus 255 times the
/// weights' magnitudes, and no more than 2^31 because it wraps; float32(acc) and the product round up by at
/// most 2^-24 each.
double largest_result(const DepthwiseShape& shape, WeightView weights, int32_t bias, float scale,
                      size_t channel) {
  const size_t taps = shape.kernel_h * shape.kernel_w;
  double most = bias < 0 ? -static_cast<double>(bias) : static_cast<double>(bias);
  for (size_t t = 0; t < taps; ++t) {
    const int weight = weights.at(channel * taps + t);
    most += 255.0 * (weight < 0 ? -weight : weight);
  }
  most = most < 2147483648.0 ? most : 2147483648.0;
  return most * (scale < 0 ? -static_cast<double>(scale) : static_cast<double>(scale));
}

/// Whether the product of an accumulator and its scale may reach 2^31, so that the conversion to an integer
/// would overflow before the clamp.
bool large_results(const DepthwiseShape& shape, WeightView weights, int32_t bias, float scale,
                   size_t channel) {
  return !(largest_result(shape, weights, bias, scale, channel) < 2147483000.0);
}

/// Whether a sum is below 2^23 and its product with the scale stays within int16 when it is rounded and a
/// zero point is added. Scales are not so large that 2^23 of them would overflow.
bool small_results(const DepthwiseShape& shape, WeightView weights, int32_t bias, float scale,
                   size_t channel) {
  return largest_result(shape, weights, bias, scale, channel) < 32767.0 - 128.0 - 2.0 &&
         largest_result(shape, weights, bias, 1.0f, channel) < 8388608.0 && scale >= 0.0f && scale < 1e30f;
}

/// The row and column of tap `tap` (of four) of quad `quad`; a column that no kernel has where the tap is
/// zero.
void locate_tap(const DepthwiseShape& shape, const DepthwiseQuads& quads, size_t quad, size_t tap, size_t* ky,
                size_t* kx) {
  const size_t below = quads.groups * shape.kernel_w;
  if (quad < below) {
    *ky = quad / shape.kernel_w * 4 + tap;
    *kx = quad % shape.kernel_w;
  } else {
    *ky = 4;
    *kx = quad == below ? tap : shape.stride_w + tap == 4 ? 4 : 5;
  }
}

void quads_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias, const float* scale,
                int32_t zp_in, size_t widest, QuadOrder order, uint8_t* packed) {
  const DepthwiseQuads quads(shape);
  const size_t block = block_bytes(shape, widest);
  uint32_t large = 0;
  uint8_t* out = packed + kDepthwiseHeader;
  for (size_t first = 0; first < shape.channels; out += block) {
    const size_t width = depthwise_block_width(shape.channels - first, widest);
    for (size_t i = 0; i < widest; ++i) {
      const size_t dwords = widest / 4;
      const size_t channel = first + (16 * (i % dwords / 4) + 4 * (i / dwords) + i % 4) % width;
      const Folded folded = fold(shape, weights, bias, scale, zp_in, channel);
      std::memcpy(out + i * 4, &folded.bias, 4);
      std::memcpy(out + widest * 4 + i * 4, &folded.scale, 4);
      if (channel < shape.channels)
        large |= large_results(shape, weights, folded.bias, folded.scale, channel);
    }
    // Byte j of vector `vector` holds tap 4 or 2 times a channel's place in it and so on, by the order.
    uint8_t* to = out + widest * 8;
    size_t vector = 0;
    for (size_t set = 0; set < quads.sets; ++set) {
      for (size_t quad = 0; quad < quads.count; ++quad) {
        const auto weight = [&](size_t channel, size_t tap) {
          size_t ky, kx;
          locate_tap(shape, quads, quad, tap, &ky, &kx);
          // Above the first row, ky wraps to a row that no kernel has.
          return kx < shape.kernel_w ? weight_at(shape, weights, ky - set, kx, first + channel % width)
                                     : int8_t{0};
        };
        for (size_t v = 0; v < 4; ++v, ++vector) {
          for (size_t j = 0; j < widest; ++j) {
            const size_t lane = j / 16;
            const size_t byte = j % 16;
            const int8_t tap = order == QuadOrder::kQuads
                                   ? weight(16 * lane + 4 * v + byte / 4, byte % 4)
                                   : weight(16 * lane + 8 * (v / 2) + byte / 2, v % 2 * 2 + byte % 2);
            if (shape.weight_bits == 8) {
              to[vector * widest + j] = static_cast<uint8_t>(tap);
            } else {
              uint8_t* both = to + vector / 2 * widest + j;
              *both = vector % 2 == 0 ? int4_pack(tap, 0) : int4_pack(*both, tap);
            }
          }
        }
      }
    }
    first += width;
  }
  std::memset(packed, 0, kDepthwiseHeader);
  std::memcpy(packed, &large, sizeof large);
}

}  // namespace

namespace {

/// Bytes of blocks of `width` channels and the header before them.
size_t all_blocks_bytes(const DepthwiseShape& shape, size_t width, size_t block_bytes) {
  return kDepthwiseHeader + (shape.channels + width - 1) / width * block_bytes;
}

/// Packs header, biases and scales of blocks of `width` channels, and calls pack_weights(first channel, to)
/// for each.
template <typename PackWeights>
void pack_blocks(const DepthwiseShape& shape, WeightView weights, const int32_t* bias, const float* scale,
                 int32_t zp_in, size_t width, size_t block_bytes, uint8_t* packed,
                 const PackWeights& pack_weights) {
  uint32_t small = 1;
  uint8_t* out = packed + kDepthwiseHeader;
  for (size_t begin = 0; begin < shape.channels; begin += width, out += block_bytes) {
    const size_t first = depthwise_block_first(begin, shape.channels, width);
    for (size_t i = 0; i < width; ++i) {
      const Folded folded = fold(shape, weights, bias, scale, zp_in, first + i);
      std::memcpy(out + 4 * i, &folded.bias, 4);
      std::memcpy(out + 4 * (width + i), &folded.scale, 4);
      if (first + i < shape.channels && !small_results(shape, weights, folded.bias, folded.scale, first + i))
        small = 0;
    }
    pack_weights(first, out + 8 * width);
  }
  std::memset(packed, 0, kDepthwiseHeader);
  std::memcpy(packed, &small, sizeof small);
}

}  // namespace

size_t depthwise_blocks_bytes(const DepthwiseShape& shape) {
  return all_blocks_bytes(shape, kDepthwiseBlock, depthwise_block_bytes(shape));
}

void depthwise_blocks_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed) {
  const size_t taps = shape.kernel_h * shape.kernel_w;
  const auto pack_weights = [&](size_t first, uint8_t* to) {
    const auto weight = [&](size_t tap, size_t i) {
      return tap < taps ? weight_at(shape, weights, tap / shape.kernel_w, tap % shape.kernel_w, first + i)
                        : int8_t{0};
    };
    for (size_t tap = 0; tap < taps; tap += shape.weight_bits == 4 ? 2 : 1) {
      for (size_t i = 0; i < kDepthwiseBlock; ++i) {
        *to++ = shape.weight_bits == 4 ? int4_pack(weight(tap, i), weight(tap + 1, i))
                                       : static_cast<uint8_t>(weight(tap, i));
      }
    }
  };
  pack_blocks(shape, weights, bias, scale, zp_in, kDepthwiseBlock, depthwise_block_bytes(shape), packed,
              pack_weights);
}

size_t depthwise_quads8_bytes(const DepthwiseShape& shape) {
  return all_blocks_bytes(shape, kDepthwiseQuadBlock, depthwise_quad_block_bytes(shape));
}

void depthwise_quads8_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed) {
  const auto pack_weights = [&](size_t first, uint8_t* to) {
    for (size_t kx = 0; kx < 3; ++kx) {
      // Byte j of the vectors of both halves.
      const auto weight = [&](size_t half, size_t j) {
        return weight_at(shape, weights, j % 4, kx, first + 4 * half + j / 4);
      };
      for (size_t j = 0; j < 16; ++j) {
        if (shape.weight_bits == 4) {
          *to++ = int4_pack(weight(0, j), weight(1, j));
        } else {
          to[j] = static_cast<uint8_t>(weight(0, j));
          to[16 + j] = static_cast<uint8_t>(weight(1, j));
        }
      }
      if (shape.weight_bits == 8) to += 32;
    }
  };
  pack_blocks(shape, weights, bias, scale, zp_in, kDepthwiseQuadBlock, depthwise_quad_block_bytes(shape),
              packed, pack_weights);
}

size_t depthwise_quads64_bytes(const DepthwiseShape& shape) { return quads_bytes(shape, 64); }
void depthwise_quads64_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed) {
  quads_pack(shape, weights, bias, scale, zp_in, 64, QuadOrder::kQuads, packed);
}

size_t depthwise_quads32_bytes(const DepthwiseShape& shape) { return quads_bytes(shape, 32); }
void depthwise_quads32_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed) {
  quads_pack(shape, weights, bias, scale, zp_in, 32, QuadOrder::kQuads, packed);
}

size_t depthwise_planes16_bytes(const DepthwiseShape& shape) {
  return all_blocks_bytes(shape, DepthwisePlanes::kChannels, DepthwisePlanes(shape.kernel_w).block_bytes());
}

namespace {

/// The weight of column kx that minimal filtering multiplies plane `plane` with, so that sums come out
/// doubled.
int plane_weight(const DepthwiseShape& shape, WeightView weights, size_t plane, size_t kx, size_t channel) {
  if (kx >= shape.kernel_w) return 0;
  const auto g = [&](size_t ky) { return static_cast<int>(weight_at(shape, weights, ky, kx, channel)); };
  switch (plane) {
    case 0:
      return 2 * g(0);
    case 1:
      return g(0) + g(1) + g(2);
    case 2:
      return g(0) - g(1) + g(2);
    case 3:
      return 2 * g(2);
    case 4:
      return 2 * g(3);
    case 5:
      return 2 * (g(3) + g(4));
    default:
      return 2 * g(4);
  }
}

/// Whether a doubled sum, bias included, may overflow, or half a scale be no exact float32. Without its bias
/// a sum is at most 25 * 255 * 128 < 2^20.
bool large_doubled(int32_t bias, float scale) {
  constexpr int32_t kMost = 1 << 29;
  const float magnitude = scale < 0 ? -scale : scale;
  return bias >= kMost || bias <= -kMost || !(magnitude == 0.0f || magnitude > 1e-30f);
}

}  // namespace

void depthwise_planes16_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                             const float* scale, int32_t zp_in, uint8_t* packed) {
  constexpr size_t kChannels = DepthwisePlanes::kChannels;
  const DepthwisePlanes planes(shape.kernel_w);
  uint32_t large = 0;
  for (size_t c = 0; c < shape.channels; ++c) {
    const Folded folded = fold(shape, weights, bias, scale, zp_in, c);
    large |= large_results(shape, weights, folded.bias, folded.scale, c) ||
             large_doubled(folded.bias, folded.scale);
  }
  std::memset(packed, 0, kDepthwiseHeader);
  std::memcpy(packed, &large, sizeof large);
  uint8_t* out = packed + kDepthwiseHeader;
  for (size_t first = 0; first < shape.channels; first += kChannels) {
    for (size_t i = 0; i < kChannels; ++i) {
      const Folded folded = fold(shape, weights, bias, scale, zp_in, first + i);
      const int32_t start = large ? 0 : 2 * folded.bias;
      const float of_sum = large ? folded.scale : 0.5f * folded.scale;
      std::memcpy(out + 4 * i, &start, 4);
      std::memcpy(out + 4 * (kChannels + i), &of_sum, 4);
      std::memcpy(out + 4 * (2 * kChannels + i), &folded.bias, 4);
    }
    out += DepthwisePlanes::kHeads;
    for (size_t plane = 0; plane < planes.planes(); ++plane) {
      for (size_t odd = 0; odd < 2; ++odd) {
        for (size_t kx = 0; kx < 2 * planes.taps(); kx += 2) {
          for (size_t i = 0; i < 2 * kChannels; ++i, out += 2) {
            // Left of the first column, it wraps to a column that no kernel has.
            const int tap = plane_weight(shape, weights, plane, kx + i % 2 - odd, first + i / 2);
            const int16_t word = static_cast<int16_t>(tap);
            std::memcpy(out, &word, 2);
          }
        }
      }
    }
  }
}

size_t depthwise_pairs8_bytes(const DepthwiseShape& shape) {
  const DepthwisePairs pairs(shape);
  return all_blocks_bytes(shape, DepthwisePairs::kChannels, pairs.block_bytes(shape));
}

void depthwise_pairs8_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed) {
  constexpr size_t kChannels = DepthwisePairs::kChannels;
  const DepthwisePairs pairs(shape);
  uint32_t large = 0;
  uint8_t* out = packed + kDepthwiseHeader;
  for (size_t first = 0; first < shape.channels; first += kChannels) {
    for (size_t i = 0; i < kChannels; ++i) {
      const Folded folded = fold(shape, weights, bias, scale, zp_in, first + i);
      std::memcpy(out + 4 * i, &folded.bias, 4);
      std::memcpy(out + 4 * (kChannels + i), &folded.scale, 4);
      if (first + i < shape.channels)
        large |= large_results(shape, weights, folded.bias, folded.scale, first + i);
    }
    out += 8 * kChannels;
    for (size_t set = 0; set < pairs.sets; ++set) {
      for (size_t kx = 0; kx < shape.kernel_w; ++kx) {
        for (size_t row = 0; row < 2 * pairs.taps; row += 2, out += DepthwisePairs::kBytes) {
          for (size_t i = 0; i < 2 * kChannels; ++i) {
            // Above the first row, it wraps to a row that no kernel has.
            const int16_t tap = weight_at(shape, weights, row + i % 2 - set, kx, first + i / 2);
            std::memcpy(out + 2 * i, &tap, 2);
          }
        }
      }
    }
  }
  std::memset(packed, 0, kDepthwiseHeader);
  std::memcpy(packed, &large, sizeof large);
}

size_t depthwise_bytes32_bytes(const DepthwiseShape& shape) { return quads_bytes(shape, 32); }
void depthwise_bytes32_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed) {
  quads_pack(shape, weights, bias, scale, zp_in, 32, QuadOrder::kBytes, packed);
}

}  // namespace edgeq
