#ifndef EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_
#define EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_

// The graph's ends for one vector width. Only x86_*.cc include it.

#include "kernels/quantize/quantize.h"
#include "kernels/x86_vectors.h"

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

/// Three planes of 16 bytes to 16 pixels of three bytes.
inline void interleave3(const uint8_t* planes, ptrdiff_t plane_stride, uint8_t* dst) {
  const __m128i plane0 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(planes));
  const __m128i plane1 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(planes + plane_stride));
  const __m128i plane2 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(planes + 2 * plane_stride));
  // Output byte 3 * i + c is byte i of plane c; -1 yields zero.
  const __m128i from0[3] = {_mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5),
                            _mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1),
                            _mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1)};
  const __m128i from1[3] = {_mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1),
                            _mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10),
                            _mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1)};
  const __m128i from2[3] = {_mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1),
                            _mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1),
                            _mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15)};
  for (int i = 0; i < 3; ++i) {
    const __m128i merged =
        _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(plane0, from0[i]), _mm_shuffle_epi8(plane1, from1[i])),
                     _mm_shuffle_epi8(plane2, from2[i]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + 16 * i), merged);
  }
}

/// Quantizes full blocks of V::kBytes consecutive floats.
template <typename V>
EDGEQ_INLINE typename V::Int quantize_block(const float* src, typename V::Float scale, typename V::Float hi,
                                            OutputRange range) {
  typename V::Int q[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    q[v] = round_below<V>(V::nan_to_zero(V::div(V::load_float(src + v * V::kLanes), scale)), hi);
  }
  return V::order_packed(pack_codes<V>(q[0], q[1], q[2], q[3], range));
}

template <typename V>
void quantize(const QuantizeParams& p) {
  const auto scale = V::set1(p.scale);
  const auto hi = upper_bound<V>(p.range);
  constexpr size_t kBlock = V::kBytes;
  if (is_flat(p)) {
    const size_t count = p.pixels * p.channels;
    const size_t whole = count / kBlock * kBlock;
    for (size_t i = 0; i < whole; i += kBlock) {
      V::store_all(p.dst + i, quantize_block<V>(p.src + i, scale, hi, p.range));
    }
    for (size_t i = whole; i < count; ++i)
      p.dst[i] = static_cast<act_t>(quantize_value(p.src[i], p.scale, p.range));
    return;
  }
  const bool image =
      p.channels == 3 && p.src_pixel_stride == 1 && p.dst_channel_stride == 1 && p.dst_pixel_stride == 3;
  if (!image) {
    quantize_scalar(p);
    return;
  }
  const size_t whole = p.pixels / kBlock * kBlock;
  for (size_t i = 0; i < whole; i += kBlock) {
    alignas(64) uint8_t planes[3 * kBlock];
    for (int c = 0; c < 3; ++c) {
      const float* src = p.src + c * p.src_channel_stride + static_cast<ptrdiff_t>(i);
      V::store_all(planes + static_cast<size_t>(c) * kBlock, quantize_block<V>(src, scale, hi, p.range));
    }
    for (size_t j = 0; j < kBlock; j += 16) {
      interleave3(planes + j, static_cast<ptrdiff_t>(kBlock), p.dst + 3 * (i + j));
    }
  }
  QuantizeParams rest = p;
  rest.pixels = p.pixels - whole;
  rest.src += whole;
  rest.dst += 3 * whole;
  quantize_scalar(rest);
}

template <typename V>
void dequantize(const DequantizeParams& p) {
  if (!is_flat(p)) {
    dequantize_scalar(p);
    return;
  }
  const auto zp = V::set1_dword(p.zp);
  const auto scale = V::set1(p.scale);
  const size_t count = p.pixels * p.channels;
  const size_t whole = count / V::kLanes * V::kLanes;
  for (size_t i = 0; i < whole; i += V::kLanes) {
    V::store_float(p.dst + i, V::mul(V::to_float(V::sub(V::widen_bytes(p.src + i), zp)), scale));
  }
  for (size_t i = whole; i < count; ++i) p.dst[i] = static_cast<float>(p.src[i] - p.zp) * p.scale;
}

template <typename V>
void recode(const RecodeParams& p) {
  const auto mask = V::set1_byte(p.xor_mask);
  constexpr size_t kBlock = V::kBytes;
  if (is_flat(p)) {
    const size_t count = p.pixels * p.channels;
    const size_t whole = count / kBlock * kBlock;
    for (size_t i = 0; i < whole; i += kBlock) V::store_all(p.dst + i, V::bit_xor(V::load(p.src + i), mask));
    for (size_t i = whole; i < count; ++i) p.dst[i] = static_cast<uint8_t>(p.src[i] ^ p.xor_mask);
    return;
  }
  const bool image =
      p.channels == 3 && p.src_pixel_stride == 1 && p.dst_channel_stride == 1 && p.dst_pixel_stride == 3;
  if (!image) {
    recode_scalar(p);
    return;
  }
  const size_t whole = p.pixels / kBlock * kBlock;
  for (size_t i = 0; i < whole; i += kBlock) {
    alignas(64) uint8_t planes[3 * kBlock];
    for (int c = 0; c < 3; ++c) {
      const uint8_t* src = p.src + c * p.src_channel_stride + static_cast<ptrdiff_t>(i);
      V::store_all(planes + static_cast<size_t>(c) * kBlock, V::bit_xor(V::load(src), mask));
    }
    for (size_t j = 0; j < kBlock; j += 16) {
      interleave3(planes + j, static_cast<ptrdiff_t>(kBlock), p.dst + 3 * (i + j));
    }
  }
  RecodeParams rest = p;
  rest.pixels = p.pixels - whole;
  rest.src += whole;
  rest.dst += 3 * whole;
  recode_scalar(rest);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_
