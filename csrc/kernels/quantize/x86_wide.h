#ifndef EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_
#define EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_

// The graph's ends for one vector width. Only x86_*.cc include it.
//
// A run of elements in the order of both sides is converted as it lies. Between planes and pixels, a tile of
// 64 pixels by 32 channels is converted plane by plane into bytes, and the bytes are transposed: whatever the
// number of channels, both sides are read and written in runs.

#include "kernels/quantize/quantize.h"
#include "kernels/x86_bytes.h"

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

/// codes[0, count) = quantize_value(src[0, count)).
///
/// A division is exact but slow (10 cycles for 16 floats); a product with the reciprocal is neither. So
///
///   j = rne(x * (2^13 / scale) + 2^12 + 2)
///
/// is the quotient in 1/8192, and j >> 13 its rounded value unless j is 0, 1, 2 or 3 modulo 2^13: for |x /
/// scale| up to 512, the reciprocal is off by at most 2^-24 of 2^22 (1/4), the sum is rounded by at most 1/4,
/// j by 1/2, and the statement's own quotient by 1/4: j is less than 1.5 from the statement's 8192 * quotient
/// + 4098, where ties lie at 2 modulo 2^13. What comes near one is divided; so is NaN, which becomes
/// INT32_MIN. Above 512, all are clamped alike.
template <typename V>
class Quantizer {
 public:
  Quantizer(float scale, OutputRange range) : range_(range), scale_(scale) {
    // The bounds above need normal numbers all along.
    multiplies_ = scale > 1e-30f && scale < 1e30f;
    factor_ = V::set1(multiplies_ ? 8192.0f / scale : 0.0f);
    highest_ = V::set1(static_cast<float>((range.max - range.zp) * 8192 + 4098));
  }

  EDGEQ_NOINLINE void operator()(const float* src, size_t count, uint8_t* codes) const {
    size_t i = 0;
    for (; i + V::kBytes <= count; i += V::kBytes) V::store_all(codes + i, block(src + i));
    if (i == count) return;
    float rest[V::kBytes] = {};
    std::memcpy(rest, src + i, (count - i) * sizeof(float));
    V::store(codes + i, block(rest), count - i);
  }

 private:
  EDGEQ_INLINE typename V::Int block(const float* src) const {
    typename V::Int q[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const auto scaled = V::multiply_add(V::load_float(src + v * V::kLanes), factor_, V::set1(4098.0f));
      q[v] = V::round(V::min(highest_, scaled));  // of NaN, the second operand
    }
    if (__builtin_expect(!multiplies_ || V::any_clear(q, 0x1FFC), 0)) return divided_block(src);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) q[v] = V::template shift_right_signed<13>(q[v]);
    return V::order_packed(pack_codes<V>(q[0], q[1], q[2], q[3], range_));
  }

  EDGEQ_NOINLINE typename V::Int divided_block(const float* src) const {
    const auto scale = V::set1(scale_);
    const auto hi = upper_bound<V>(range_);
    typename V::Int q[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      q[v] = round_below<V>(V::nan_to_zero(V::div(V::load_float(src + v * V::kLanes), scale)), hi);
    }
    return V::order_packed(pack_codes<V>(q[0], q[1], q[2], q[3], range_));
  }

  OutputRange range_;
  float scale_;
  bool multiplies_;
  typename V::Float factor_, highest_;
};

template <typename V>
void quantize(const QuantizeParams& p) {
  const Quantizer<V> quantizer(p.scale, p.range);
  const auto run = [&](const float* src, size_t count, act_t* dst) { quantizer(src, count, dst); };
  if (convert_runs(p, run)) return;
  if (p.src_pixel_stride == 1 && p.dst_channel_stride == 1) return convert_planes(p, run);
  quantize_scalar(p);
}

template <typename V>
EDGEQ_NOINLINE void dequantize_run(const act_t* src, size_t count, int32_t zp, float scale, float* dst) {
  size_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) {
    const auto centered = V::to_float(V::sub(V::widen_bytes(src + i), V::set1_dword(zp)));
    V::store_float(dst + i, V::mul(centered, V::set1(scale)));
  }
  for (; i < count; ++i) dst[i] = static_cast<float>(src[i] - zp) * scale;
}

template <typename V>
void dequantize(const DequantizeParams& p) {
  const auto run = [&](const act_t* src, size_t count, float* dst) {
    dequantize_run<V>(src, count, p.zp, p.scale, dst);
  };
  if (convert_runs(p, run)) return;
  if (p.src_channel_stride == 1 && p.dst_pixel_stride == 1) return convert_pixels(p, run);
  dequantize_scalar(p);
}

template <typename V>
EDGEQ_NOINLINE void recode_run(const uint8_t* src, size_t count, uint8_t xor_mask, uint8_t* dst) {
  size_t i = 0;
  for (; i + V::kBytes <= count; i += V::kBytes) {
    V::store_all(dst + i, V::bit_xor(V::load(src + i), V::set1_byte(xor_mask)));
  }
  for (; i < count; ++i) dst[i] = static_cast<uint8_t>(src[i] ^ xor_mask);
}

template <typename V>
void recode(const RecodeParams& p) {
  const auto run = [&](const uint8_t* src, size_t count, uint8_t* dst) {
    recode_run<V>(src, count, p.xor_mask, dst);
  };
  if (convert_runs(p, run)) return;
  if (p.src_pixel_stride == 1 && p.dst_channel_stride == 1) return convert_planes(p, run);
  if (p.src_channel_stride == 1 && p.dst_pixel_stride == 1) return convert_pixels(p, run);
  recode_scalar(p);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_
