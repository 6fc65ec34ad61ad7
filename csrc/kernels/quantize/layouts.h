#ifndef EDGEQ_KERNELS_QUANTIZE_LAYOUTS_H_
#define EDGEQ_KERNELS_QUANTIZE_LAYOUTS_H_

// The ends' layouts, by conversions of runs. Included after x86_bytes.h or arm_bytes.h.
//
// A run of elements in the order of both sides is converted as it lies. Between planes and pixels, a tile of
// 64 pixels by 32 channels is converted plane by plane into bytes, and the bytes are transposed: whatever the
// number of channels, both sides are read and written in runs.

#include "kernels/quantize/quantize.h"

namespace edgeq {

void quantize_scalar(const QuantizeParams&);
void dequantize_scalar(const DequantizeParams&);
void recode_scalar(const RecodeParams&);

namespace {

/// Whether both sides are one run of elements in the same order; then `count` elements follow each other.
template <typename Params>
bool is_flat(const Params& p) {
  const ptrdiff_t pixels = static_cast<ptrdiff_t>(p.pixels);
  const ptrdiff_t channels = static_cast<ptrdiff_t>(p.channels);
  const auto nhwc = [&](ptrdiff_t pixel, ptrdiff_t channel) {
    return (channel == 1 || channels == 1) && (pixel == channels || pixels == 1);
  };
  const auto nchw = [&](ptrdiff_t pixel, ptrdiff_t channel) {
    return (pixel == 1 || pixels == 1) && (channel == pixels || channels == 1);
  };
  return (nhwc(p.src_pixel_stride, p.src_channel_stride) && nhwc(p.dst_pixel_stride, p.dst_channel_stride)) ||
         (nchw(p.src_pixel_stride, p.src_channel_stride) && nchw(p.dst_pixel_stride, p.dst_channel_stride));
}

/// Planes of any elements to pixels of bytes: run(from, count, to) converts `count` elements of a plane.
template <typename Params, typename Run>
void convert_planes(const Params& p, Run run) {
  alignas(64) uint8_t tile[kTileBytes + kReadSlack];
  const size_t width = tile_pixels(p.channels);
  for (size_t i = 0; i < p.pixels; i += width) {
    const size_t pixels = p.pixels - i < width ? p.pixels - i : width;
    for (size_t c = 0; c < p.channels; c += kTileChannels) {
      const size_t channels = p.channels - c < kTileChannels ? p.channels - c : kTileChannels;
      for (size_t k = 0; k < channels; ++k) {
        run(p.src + static_cast<ptrdiff_t>(c + k) * p.src_channel_stride + i, pixels, tile + k * width);
      }
      uint8_t* dst = reinterpret_cast<uint8_t*>(p.dst) + static_cast<ptrdiff_t>(i) * p.dst_pixel_stride + c;
      planes_to_pixels(tile, width, false, pixels, channels, dst, p.dst_pixel_stride);
    }
  }
}

/// Pixels of bytes to planes of any elements: run(from, count, to) converts `count` bytes of a plane.
template <typename Params, typename Run>
void convert_pixels(const Params& p, Run run) {
  alignas(64) uint8_t tile[kTileBytes + kReadSlack];
  const size_t width = tile_pixels(p.channels);
  for (size_t i = 0; i < p.pixels; i += width) {
    const size_t pixels = p.pixels - i < width ? p.pixels - i : width;
    for (size_t c = 0; c < p.channels; c += kTileChannels) {
      const size_t channels = p.channels - c < kTileChannels ? p.channels - c : kTileChannels;
      const uint8_t* src =
          reinterpret_cast<const uint8_t*>(p.src) + static_cast<ptrdiff_t>(i) * p.src_pixel_stride + c;
      pixels_to_planes(src, p.src_pixel_stride, pixels, channels, tile, width);
      for (size_t k = 0; k < channels; ++k) {
        run(tile + k * width, pixels, p.dst + static_cast<ptrdiff_t>(c + k) * p.dst_channel_stride + i);
      }
    }
  }
}

/// The layouts that occur, by runs; false for another one.
template <typename Params, typename Run>
bool convert_runs(const Params& p, Run run) {
  if (is_flat(p)) {
    run(p.src, p.pixels * p.channels, p.dst);
  } else if (p.src_channel_stride == 1 && p.dst_channel_stride == 1) {
    for (size_t i = 0; i < p.pixels; ++i) {
      const ptrdiff_t pixel = static_cast<ptrdiff_t>(i);
      run(p.src + pixel * p.src_pixel_stride, p.channels, p.dst + pixel * p.dst_pixel_stride);
    }
  } else {
    return false;
  }
  return true;
}

/// By run(src, count, codes).
template <typename Run>
void quantize_runs(const QuantizeParams& p, Run run) {
  if (convert_runs(p, run)) return;
  if (p.src_pixel_stride == 1 && p.dst_channel_stride == 1) return convert_planes(p, run);
  quantize_scalar(p);
}

/// By run(codes, count, dst).
template <typename Run>
void dequantize_runs(const DequantizeParams& p, Run run) {
  if (convert_runs(p, run)) return;
  if (p.src_channel_stride == 1 && p.dst_pixel_stride == 1) return convert_pixels(p, run);
  dequantize_scalar(p);
}

/// By run(src, count, dst).
template <typename Run>
void recode_runs(const RecodeParams& p, Run run) {
  if (convert_runs(p, run)) return;
  if (p.src_pixel_stride == 1 && p.dst_channel_stride == 1) return convert_planes(p, run);
  if (p.src_channel_stride == 1 && p.dst_pixel_stride == 1) return convert_pixels(p, run);
  recode_scalar(p);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_QUANTIZE_LAYOUTS_H_
