#include <cstring>

#include "kernels/copy/copy.h"

namespace edgeq {

void copy_scalar(const CopyParams& p) {
  const bool contiguous = p.src_stride[3] == 1 && p.dst_stride[3] == 1;
  for (size_t i0 = 0; i0 < p.size[0]; ++i0) {
    for (size_t i1 = 0; i1 < p.size[1]; ++i1) {
      for (size_t i2 = 0; i2 < p.size[2]; ++i2) {
        const ptrdiff_t index[3] = {static_cast<ptrdiff_t>(i0), static_cast<ptrdiff_t>(i1),
                                    static_cast<ptrdiff_t>(i2)};
        const uint8_t* src = p.src;
        uint8_t* dst = p.dst;
        for (int d = 0; d < 3; ++d) {
          src += index[d] * p.src_stride[d];
          dst += index[d] * p.dst_stride[d];
        }
        if (contiguous) {
          std::memcpy(dst, src, p.size[3]);
          continue;
        }
        for (size_t i3 = 0; i3 < p.size[3]; ++i3) {
          dst[static_cast<ptrdiff_t>(i3) * p.dst_stride[3]] =
              src[static_cast<ptrdiff_t>(i3) * p.src_stride[3]];
        }
      }
    }
  }
}

void interleave_scalar(const InterleaveParams& p) {
  for (size_t i = 0; i < p.rows; ++i) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(i);
    for (size_t g = 0; g < p.groups; ++g) {
      const uint8_t* src = p.src[g] + row * p.src_row_stride[g];
      uint8_t* dst = p.dst + row * p.dst_row_stride + g;
      for (size_t c = 0; c < p.channels; ++c) dst[c * p.groups] = src[c];
    }
  }
}

void pad_scalar(const PadParams& p) {
  const size_t channels_out = p.channels_before + p.channels + p.channels_after;
  const size_t width_out = p.left + p.width + p.right;
  const size_t height_out = p.top + p.height + p.bottom;
  for (size_t y = 0; y < height_out; ++y) {
    const bool row_inside = y >= p.top && y - p.top < p.height;
    for (size_t x = 0; x < width_out; ++x) {
      uint8_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride +
                     static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
      if (!row_inside || x < p.left || x - p.left >= p.width) {
        std::memset(dst, p.value, channels_out);
        continue;
      }
      const uint8_t* src = p.src + static_cast<ptrdiff_t>(y - p.top) * p.src_row_stride +
                           static_cast<ptrdiff_t>(x - p.left) * p.src_pixel_stride;
      std::memset(dst, p.value, p.channels_before);
      std::memcpy(dst + p.channels_before, src, p.channels);
      std::memset(dst + p.channels_before + p.channels, p.value, p.channels_after);
    }
  }
}

}  // namespace edgeq
