#ifndef EDGEQ_KERNELS_BYTE_TILES_H_
#define EDGEQ_KERNELS_BYTE_TILES_H_

// Tiles of bytes between pixels and planes, by the rearrangements of one architecture: x86_bytes.h and
// arm_bytes.h include this at their end.

namespace edgeq {
namespace {

/// A tile of bytes between pixels and planes, in the first-level cache: at most kTileChannels planes.
constexpr size_t kTileChannels = 32;
constexpr size_t kTileBytes = 8192;

/// Pixels of a tile: a multiple of 64, at least 256.
inline size_t tile_pixels(size_t channels) {
  return kTileBytes / (channels < kTileChannels ? channels : kTileChannels) / 64 * 64;
}

/// `pixels` pixels of `channels` bytes, pixel_stride apart, to planes `plane_stride` apart.
inline void pixels_to_planes(const uint8_t* src, ptrdiff_t pixel_stride, size_t pixels, size_t channels,
                             uint8_t* dst, size_t plane_stride) {
  size_t done = 0;
  if (channels == 3 && pixel_stride == 3) {
    for (; done + 16 <= pixels; done += 16) {
      uint8_t* to = dst + done;
      separate3(src + 3 * done, to, to + plane_stride, to + 2 * plane_stride);
    }
  }
  transpose_bytes(src + static_cast<ptrdiff_t>(done) * pixel_stride, pixel_stride, pixels - done, channels,
                  dst + done, static_cast<ptrdiff_t>(plane_stride));
}

/// The reverse. `reversed`: the last plane becomes the first channel.
inline void planes_to_pixels(const uint8_t* src, size_t plane_stride, bool reversed, size_t pixels,
                             size_t channels, uint8_t* dst, ptrdiff_t pixel_stride) {
  ptrdiff_t step = static_cast<ptrdiff_t>(plane_stride);
  if (reversed) {
    src += static_cast<ptrdiff_t>(channels - 1) * step;
    step = -step;
  }
  size_t done = 0;
  if (channels == 3 && pixel_stride == 3) {
    for (; done + 16 <= pixels; done += 16) {
      const uint8_t* from = src + done;
      interleave3(from, from + step, from + 2 * step, dst + 3 * done);
    }
  }
  transpose_bytes(src + done, step, channels, pixels - done,
                  dst + static_cast<ptrdiff_t>(done) * pixel_stride, pixel_stride);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_BYTE_TILES_H_
