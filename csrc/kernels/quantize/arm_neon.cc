#include "kernels/arm_bytes.h"

// The layouts, by the rearrangements of arm_bytes.h.
#include "kernels/quantize/layouts.h"

namespace edgeq {
namespace {

/// a / b, correctly rounded. Armv7 divides in its scalar unit alone.
EDGEQ_INLINE float32x4_t divide(float32x4_t a, float32x4_t b) {
#if defined(__aarch64__)
  return vdivq_f32(a, b);
#else
  float quotient[4], divisor[4];
  vst1q_f32(quotient, a);
  vst1q_f32(divisor, b);
  for (int i = 0; i < 4; ++i) quotient[i] /= divisor[i];
  return vld1q_f32(quotient);
#endif
}

/// codes[0, count) = quantize_value(src[0, count)).
///
/// A division is exact but slow (22 cycles for four floats on Cortex-A53, more where the scalar unit has to
/// do it); a product with the reciprocal is neither. So
///
///   j = trunc(x * (1 / scale) * 2^13), one conversion to fixed point,
///
/// is the quotient in 1/8192, and (j + 2^12) >> 13 its rounded value unless j lies near a tie, which is 2^12
/// modulo 2^13. For |x / scale| up to 512, 2^22 in those units, the reciprocal is off by at most 1/4 of one
/// and so is the product, the truncation by less than 1, and the statement's own quotient by 1/4: j is less
/// than 1.75 from 8192 times that, so that j on the wrong side of a tie is at most 1 away from it. What is
/// between 2 below and 1 above one is divided. Above 512, all are clamped alike; NaN becomes 0.
class Quantizer {
 public:
  Quantizer(float scale, OutputRange range) : range_(range), scale_(scale) {
    // The bounds above need normal numbers all along.
    multiplies_ = scale > 1e-30f && scale < 1e30f;
    reciprocal_ = multiplies_ ? 1.0f / scale : 0.0f;
  }

  EDGEQ_NOINLINE void operator()(const float* src, size_t count, int8_t* codes) const {
    const size_t blocks = count / 16;
    for (size_t i = 0; i < blocks; ++i) {
      // Without a call in it, the loop keeps its constants in registers.
      if (multiplies_) i += multiply_blocks(src + 16 * i, blocks - i, codes + 16 * i);
      if (i < blocks) vst1q_s8(codes + 16 * i, divided_block(src + 16 * i));
    }
    if (count % 16 == 0) return;
    float rest[16] = {};
    std::memcpy(rest, src + 16 * blocks, count % 16 * sizeof(float));
    store_first(codes + 16 * blocks, divided_block(rest), count % 16);
  }

 private:
  /// Blocks of 16 up to the first one with an element near a tie, or the one before it, at most `blocks`;
  /// their number. Two at a time: one branch for both.
  EDGEQ_INLINE size_t multiply_blocks(const float* src, size_t blocks, int8_t* codes) const {
    const int16x8_t zp = vdupq_n_s16(static_cast<int16_t>(range_.zp));
    const int8x16_t min = vdupq_n_s8(static_cast<int8_t>(range_.min));
    const int8x16_t max = vdupq_n_s8(static_cast<int8_t>(range_.max));
    const float32x4_t reciprocal = vdupq_n_f32(reciprocal_);
    // j + from_tie has none of the mask's bits where j is -2, -1, 0 or 1 from a tie.
    const int16x8_t from_tie = vdupq_n_s16(2 - 4096);
    const int16x8_t mask = vdupq_n_s16(0x1FFC);
    const size_t pairs = blocks / 2;
    for (size_t pair = 0; pair < pairs; ++pair, src += 32, codes += 32) {
      int16x8_t word[4];
      uint16x8_t far = vdupq_n_u16(0xFFFF);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const int32x4_t a = vcvtq_n_s32_f32(vmulq_f32(vld1q_f32(src + 8 * v), reciprocal), 13);
        const int32x4_t b = vcvtq_n_s32_f32(vmulq_f32(vld1q_f32(src + 8 * v + 4), reciprocal), 13);
        const uint16x8_t apart = vtstq_s16(vaddq_s16(low_words(a, b), from_tie), mask);
        far = v == 0 ? apart : vandq_u16(far, apart);
        word[v] = vqaddq_s16(round_quotients(a, b), zp);
      }
      if (__builtin_expect(!all_set(vreinterpretq_u8_u16(far)), 0)) return 2 * pair;
      const int8x16_t low = narrow(word[0], word[1]);
      const int8x16_t high = narrow(word[2], word[3]);
      vst1q_s8(codes, vminq_s8(vmaxq_s8(low, min), max));
      vst1q_s8(codes + 16, vminq_s8(vmaxq_s8(high, min), max));
    }
    return 2 * pairs;
  }

  static EDGEQ_INLINE int16x8_t low_words(int32x4_t a, int32x4_t b) {
#if defined(__aarch64__)
    return vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
#else
    return vcombine_s16(vmovn_s32(a), vmovn_s32(b));
#endif
  }
  /// Whether all bytes, each 0 or 255, are 255.
  static EDGEQ_INLINE bool all_set(uint8x16_t bytes) {
#if defined(__aarch64__)
    return vminvq_u8(bytes) != 0;
#else
    const uint8x8_t half = vand_u8(vget_low_u8(bytes), vget_high_u8(bytes));
    return vget_lane_u64(vreinterpret_u64_u8(half), 0) == ~uint64_t{0};
#endif
  }
  static EDGEQ_INLINE int16x8_t round_quotients(int32x4_t a, int32x4_t b) {
#if defined(__aarch64__)
    return vqrshrn_high_n_s32(vqrshrn_n_s32(a, 13), b, 13);
#else
    return vcombine_s16(vqrshrn_n_s32(a, 13), vqrshrn_n_s32(b, 13));
#endif
  }
  static EDGEQ_INLINE int8x16_t narrow(int16x8_t a, int16x8_t b) {
#if defined(__aarch64__)
    return vqmovn_high_s16(vqmovn_s16(a), b);
#else
    return vcombine_s8(vqmovn_s16(a), vqmovn_s16(b));
#endif
  }

  EDGEQ_NOINLINE int8x16_t divided_block(const float* src) const {
    float32x4_t quotient[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const float32x4_t x = divide(vld1q_f32(src + 4 * v), vdupq_n_f32(scale_));
      const uint32x4_t number = vceqq_f32(x, x);
      quotient[v] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), number));
    }
    return round_to_range(quotient[0], quotient[1], quotient[2], quotient[3], RangeVectors(range_));
  }

  OutputRange range_;
  float scale_, reciprocal_;
  bool multiplies_;
};

EDGEQ_NOINLINE void dequantize_run(const int8_t* src, size_t count, int32_t zp, float scale, float* dst) {
  const int8x8_t zeros = vdup_n_s8(static_cast<int8_t>(zp));
  const auto real = [scale](int16x4_t centered) {
    return vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(centered)), scale);
  };
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const int16x8_t centered = vsubl_s8(vld1_s8(src + i), zeros);
    vst1q_f32(dst + i, real(vget_low_s16(centered)));
    vst1q_f32(dst + i + 4, real(vget_high_s16(centered)));
  }
  for (; i < count; ++i) dst[i] = static_cast<float>(src[i] - zp) * scale;
}

EDGEQ_NOINLINE void recode_run(const uint8_t* src, size_t count, uint8_t xor_mask, uint8_t* dst) {
  size_t i = 0;
  for (; i + 16 <= count; i += 16) vst1q_u8(dst + i, veorq_u8(vld1q_u8(src + i), vdupq_n_u8(xor_mask)));
  for (; i < count; ++i) dst[i] = static_cast<uint8_t>(src[i] ^ xor_mask);
}

}  // namespace

void quantize_neon(const QuantizeParams& p) {
  const Quantizer quantizer(p.scale, p.range);
  quantize_runs(p, [&](const float* src, size_t count, void* codes) {
    quantizer(src, count, static_cast<int8_t*>(codes));
  });
}

void dequantize_neon(const DequantizeParams& p) {
  dequantize_runs(p, [&](const void* codes, size_t count, float* dst) {
    dequantize_run(static_cast<const int8_t*>(codes), count, p.zp, p.scale, dst);
  });
}

void recode_neon(const RecodeParams& p) {
  recode_runs(
      p, [&](const uint8_t* src, size_t count, uint8_t* dst) { recode_run(src, count, p.xor_mask, dst); });
}

}  // namespace edgeq
