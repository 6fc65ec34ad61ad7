#include <cstring>

#include "base/int4.h"
#include "kernels/depthwise/depthwise.h"

// Plain loops over the linear layout: what every other variant must equal.

namespace edgeq {
namespace {

constexpr size_t kBlock = 64;

template <int kBits>
void depthwise_scalar(const DepthwiseParams& params, size_t row_begin, size_t row_end) {
  const size_t channels16 = (params.channels + 15) / 16 * 16;
  const size_t tap_bytes = channels16 * kBits / 8;
  const uint8_t* weights = params.packed + channels16 * 8;
  for (size_t y = row_begin; y < row_end; ++y) {
    for (size_t x = 0; x < params.width_out; ++x) {
      act_t* dst = params.dst + static_cast<ptrdiff_t>(y) * params.dst_row_stride +
                   static_cast<ptrdiff_t>(x) * params.dst_pixel_stride;
      for (size_t first = 0; first < params.channels; first += kBlock) {
        const size_t width = params.channels - first < kBlock ? params.channels - first : kBlock;
        uint32_t acc[kBlock];
        std::memcpy(acc, params.packed + first * 4, width * 4);
        for (size_t ky = 0; ky < params.kernel_h; ++ky) {
          const act_t* row = params.rows[y * params.stride_h + ky * params.dilation_h];
          for (size_t kx = 0; kx < params.kernel_w; ++kx) {
            const size_t padded_x = x * params.stride_w + kx * params.dilation_w;
            const bool inside = padded_x >= params.pad_left && padded_x - params.pad_left < params.width_in;
            const act_t* pixel =
                row != nullptr && inside
                    ? row + static_cast<ptrdiff_t>(padded_x - params.pad_left) * params.src_pixel_stride
                    : params.zero_pixel;
            pixel += first;
            const uint8_t* w = weights + (ky * params.kernel_w + kx) * tap_bytes;
            int8_t widened[kBlock];
            if (kBits == 4) {  // first is even: a block starts with a low nibble
              for (size_t i = 0; i < (width + 1) / 2; ++i) {
                const uint8_t byte = w[first / 2 + i];
                widened[2 * i] = int4_sign_extend(byte);
                widened[2 * i + 1] = int4_sign_extend(static_cast<uint8_t>(byte >> 4));
              }
            } else {
              std::memcpy(widened, w + first, width);
            }
            for (size_t c = 0; c < width; ++c) {
              const int16_t a = pixel[c];
              const int16_t weight = widened[c];
              acc[c] += static_cast<uint32_t>(a * weight);
            }
          }
        }
        float scale[kBlock];
        std::memcpy(scale, params.packed + channels16 * 4 + first * 4, width * 4);
        for (size_t c = 0; c < width; ++c) {
          int32_t q = requantize(static_cast<int32_t>(acc[c]), scale[c], params.range);
          if (params.table != nullptr) q = params.table[static_cast<uint8_t>(q)];
          dst[first + c] = static_cast<act_t>(q);
        }
      }
    }
  }
}

}  // namespace

#if EDGEQ_ARCH_X86
void depthwise_u8s8c_u8_1x64x1_scalar(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_scalar<8>(p, r0, r1);
}
void depthwise_u8s4c_u8_1x64x1_scalar(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_scalar<4>(p, r0, r1);
}
#else
void depthwise_s8s8c_s8_1x64x1_scalar(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_scalar<8>(p, r0, r1);
}
void depthwise_s8s4c_s8_1x64x1_scalar(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_scalar<4>(p, r0, r1);
}
#endif

}  // namespace edgeq
