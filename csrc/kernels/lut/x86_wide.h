#ifndef EDGEQ_KERNELS_LUT_X86_WIDE_H_
#define EDGEQ_KERNELS_LUT_X86_WIDE_H_

// Table look-up for one vector width. Lookup is a vector type that is built from a table of 256 bytes and
// maps V::kBytes indices. Only x86_*.cc include it.

#include <cstring>

#include "kernels/lut/lut.h"
#include "kernels/x86_bytes.h"

namespace edgeq {

void lut_scalar(const LutParams&);

namespace {

/// Look-up by sixteen shuffles of 16 entries. A shuffle looks at the lower four bits of an index and yields
/// zero where its top bit is set; with 16 subtracted before each, the shuffles whose part lies at or below an
/// index all yield something, and tables of differences (exclusive or) make their sum the entry. Indices of
/// 128 and more count as negative in the first eight shuffles until enough is subtracted: they begin in the
/// middle of the differences, which the second eight take off again. From the ninth subtraction on, it
/// saturates, so that small indices stay negative. Three instructions a shuffle: 48 for V::kBytes bytes.
template <typename V>
struct Shuffles : V {
  using Int = typename V::Int;

  explicit Shuffles(const uint8_t* table) {
    for (int i = 0; i < 16; ++i) {
      part_[i] = V::repeat128(table + 16 * i);
      if (i > 0) part_[i] = V::bit_xor(part_[i], V::repeat128(table + 16 * i - 16));
      if (i >= 8) part_[i] = V::bit_xor(part_[i], part_[i - 8]);
    }
  }
  EDGEQ_INLINE Int operator()(Int index) const {
    const Int sixteen = V::set1_byte(16);
    Int entries = V::shuffle(part_[0], index);
#pragma GCC unroll 16
    for (int i = 1; i < 16; ++i) {
      index = i <= 8 ? V::sub_bytes(index, sixteen) : V::sub_saturated_bytes(index, sixteen);
      entries = V::bit_xor(entries, V::shuffle(part_[i], index));
    }
    return entries;
  }

 private:
  Int part_[16];
};

template <typename Lookup>
EDGEQ_NOINLINE void look_up_run(const Lookup& lookup, const uint8_t* src, size_t count, uint8_t* dst) {
  size_t i = 0;
  // Two at a time: the shuffles of one wait for each other.
  for (; i + 2 * Lookup::kBytes <= count; i += 2 * Lookup::kBytes) {
    const auto low = lookup(Lookup::load(src + i));
    const auto high = lookup(Lookup::load(src + i + Lookup::kBytes));
    Lookup::store_all(dst + i, low);
    Lookup::store_all(dst + i + Lookup::kBytes, high);
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

#endif  // EDGEQ_KERNELS_LUT_X86_WIDE_H_
