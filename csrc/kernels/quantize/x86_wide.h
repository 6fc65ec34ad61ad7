#ifndef EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_
#define EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_

// The graph's ends for one vector width. Only x86_*.cc include it.
//
#include "kernels/quantize/quantize.h"
#include "kernels/x86_bytes.h"

// The layouts, by the rearrangements of x86_bytes.h.
#include "kernels/quantize/layouts.h"

namespace edgeq {

namespace {

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
  quantize_runs(p, [&](const float* src, size_t count, act_t* dst) { quantizer(src, count, dst); });
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
  dequantize_runs(p, [&](const act_t* src, size_t count, float* dst) {
    dequantize_run<V>(src, count, p.zp, p.scale, dst);
  });
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
  recode_runs(
      p, [&](const uint8_t* src, size_t count, uint8_t* dst) { recode_run<V>(src, count, p.xor_mask, dst); });
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_QUANTIZE_X86_WIDE_H_
