#ifndef EDGEQ_KERNELS_LUT_RUNS_H_
#define EDGEQ_KERNELS_LUT_RUNS_H_

// Table look-up by runs of bytes, for every architecture. Included after x86_bytes.h or arm_bytes.h. Lookup
// is a vector type that is built from a table of 256 bytes and maps Lookup::kBytes indices; kIsChain: by a
// chain of instructions.

#include <cstring>

#include "kernels/lut/lut.h"

namespace edgeq {

void lut_scalar(const LutParams&);

namespace {

template <typename Lookup>
EDGEQ_NOINLINE void look_up_run(const Lookup& lookup, const uint8_t* src, size_t count, uint8_t* dst) {
  size_t i = 0;
  // Two at a time where the steps of one wait for each other.
  for (; Lookup::kIsChain && i + 2 * Lookup::kBytes <= count; i += 2 * Lookup::kBytes) {
    const auto low = lookup(Lookup::load(src + i));
    const auto high = lookup(Lookup::load(src + i + Lookup::kBytes));
    Lookup::store_all(dst + i, low);
    Lookup::store_all(dst + i + Lookup::kBytes, high);
  }
  for (; !Lookup::kIsChain && i + Lookup::kBytes <= count; i += Lookup::kBytes) {
    Lookup::store_all(dst + i, lookup(Lookup::load(src + i)));
  }
#if defined(__SANITIZE_THREAD__)
  // In place, the bytes behind the last one may be another thread's to write: what is read of them is
  // dropped, but it is a race to the sanitizer.
  if (i < count) {
    uint8_t tail[2 * Lookup::kBytes] = {};
    std::memcpy(tail, src + i, count - i);
    for (size_t at = 0; i + at < count; at += Lookup::kBytes) {
      Lookup::store(dst + i + at, lookup(Lookup::load(tail + at)), count - i - at);
    }
  }
#else
  for (; i < count; i += Lookup::kBytes) Lookup::store(dst + i, lookup(Lookup::load(src + i)), count - i);
#endif
}

/// A table a channel: a tile of pixels is turned into planes, which are looked up each in its own table, and
/// back.
template <typename Lookup>
void lut_planes(const LutParams& p) {
  alignas(64) uint8_t tile[kTileBytes + kReadSlack];
  const size_t width = tile_pixels(p.channels);
  for (size_t i = 0; i < p.rows; i += width) {
    const size_t pixels = p.rows - i < width ? p.rows - i : width;
    for (size_t first = 0; first < p.channels; first += kTileChannels) {
      const size_t channels = p.channels - first < kTileChannels ? p.channels - first : kTileChannels;
      const size_t from = p.reversed ? p.channels - first - channels : first;
      pixels_to_planes(p.src + static_cast<ptrdiff_t>(i) * p.src_row_stride + from, p.src_row_stride, pixels,
                       channels, tile, width);
      for (size_t c = 0; c < channels; ++c) {
        uint8_t* plane = tile + (p.reversed ? channels - 1 - c : c) * width;
        look_up_run(Lookup(p.table + 256 * (first + c)), plane, pixels, plane);
      }
      uint8_t* dst = p.dst + static_cast<ptrdiff_t>(i) * p.dst_row_stride + first;
      planes_to_pixels(tile, width, p.reversed, pixels, channels, dst, p.dst_row_stride);
    }
  }
}

template <typename Lookup>
void lut(const LutParams& p) {
  if (p.per_channel || p.reversed) {
    // A few pixels are not worth a tile.
    if (!p.per_channel || p.rows < 16) return lut_scalar(p);
    return lut_planes<Lookup>(p);
  }
  const Lookup lookup(p.table);
  const ptrdiff_t channels = static_cast<ptrdiff_t>(p.channels);
  const bool dense = p.src_row_stride == channels && p.dst_row_stride == channels;
  const size_t rows = dense ? 1 : p.rows;
  const size_t count = dense ? p.rows * p.channels : p.channels;
  for (size_t i = 0; i < rows; ++i) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(i);
    look_up_run(lookup, p.src + row * p.src_row_stride, count, p.dst + row * p.dst_row_stride);
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_LUT_RUNS_H_
