#ifndef EDGEQ_KERNELS_GEMM_ARM_TILE_H_
#define EDGEQ_KERNELS_GEMM_ARM_TILE_H_

// The epilogue of the Arm kernels. Only arm_*.cc and arm64_*.cc files take it; everything stands in an
// unnamed namespace, so that no copy serves another level.

#include "kernels/arm_vectors.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/lhs.h"

namespace edgeq {
namespace {

#if defined(__aarch64__)

/// How the sums of a panel become codes.
enum class Finish {
  kSaturate,  // small products, and saturation to a byte is the whole clamp
  kClamp,     // small products, any range
  kMemory,    // everything else, from sums in memory: finish_rows
  kRelu,      // kSaturate of a ReLU, for sums that begin from the bits of 2^23: of whole tiles only
  kOdd,       // kClamp where saturation is the whole clamp: of whole tiles only
};

/// Requantization of small products: of a panel none of whose products can leave [-32,000, 32,000].
///
/// Adding 1.5 * 2^23 rounds, as in round_half_even, and leaves the integer in the low bits: the low halves of
/// the words are the codes without any narrowing that saturates, because with the zero point they fit 16
/// bits. An even zero point joins the constant: it does not change which integer a tie goes to. An odd one
/// would, and leaves a 1 to be added.
struct SmallRange {
  explicit EDGEQ_INLINE SmallRange(OutputRange range)
      : magic(12582912.0f + static_cast<float>(range.zp - (range.zp & 1))),
        odd(static_cast<int16_t>(range.zp & 1)),
        min(static_cast<int8_t>(range.min)),
        max(static_cast<int8_t>(range.max)) {}

  float magic;
  int16_t odd;
  int8_t min;
  int8_t max;
};

/// The same in vectors.
struct SmallProducts {
  explicit EDGEQ_INLINE SmallProducts(const SmallRange& range)
      : magic(vld1q_dup_f32(&range.magic)),
        odd(vld1q_dup_s16(&range.odd)),
        min(vld1q_dup_s8(&range.min)),
        max(vld1q_dup_s8(&range.max)) {}

  float32x4_t magic;
  int16x8_t odd;
  int8x16_t min;
  int8x16_t max;
};

/// Bytes of sixteen products.
template <Finish kFinish>
EDGEQ_INLINE int8x16_t narrow_small(float32x4_t v0, float32x4_t v1, float32x4_t v2, float32x4_t v3,
                                    const SmallProducts& small) {
  const auto whole = [&](float32x4_t v) { return vreinterpretq_s16_f32(vaddq_f32(v, small.magic)); };
  int16x8_t low = vuzp1q_s16(whole(v0), whole(v1));
  int16x8_t high = vuzp1q_s16(whole(v2), whole(v3));
  if (kFinish == Finish::kClamp) {
    low = vaddq_s16(low, small.odd);
    high = vaddq_s16(high, small.odd);
  }
  const int8x16_t q = vqmovn_high_s16(vqmovn_s16(low), high);
  return kFinish == Finish::kClamp ? vminq_s8(vmaxq_s8(q, small.min), small.max) : q;
}

/// Bytes of sixteen sums.
template <Finish kFinish>
EDGEQ_INLINE int8x16_t requantize_small(int32x4_t a0, int32x4_t a1, int32x4_t a2, int32x4_t a3,
                                        float32x4_t s0, float32x4_t s1, float32x4_t s2, float32x4_t s3,
                                        const SmallProducts& small) {
  return narrow_small<kFinish>(vmulq_f32(vcvtq_f32_s32(a0), s0), vmulq_f32(vcvtq_f32_s32(a1), s1),
                               vmulq_f32(vcvtq_f32_s32(a2), s2), vmulq_f32(vcvtq_f32_s32(a3), s3), small);
}

/// What small products of this range need.
EDGEQ_INLINE Finish finish_of(OutputRange range) {
  return (range.zp & 1) == 0 && range.min == kActMin && range.max == kActMax ? Finish::kSaturate
                                                                             : Finish::kClamp;
}

/// What bounds the products of a panel.
struct PanelBounds {
  /// Of a panel of `width` channels, a multiple of 4. `largest_sum`: what the products of one sum add up to
  /// at most.
  EDGEQ_INLINE PanelBounds(const uint8_t* panel, size_t width, double largest_sum) {
    const int32_t* bias = reinterpret_cast<const int32_t*>(panel);
    const float* scale = reinterpret_cast<const float*>(panel) + width;
    int32x4_t most = vdupq_n_s32(0);
    float32x4_t high = vdupq_n_f32(0.0f);
    float32x4_t low = high;
    for (size_t j = 0; j < width; j += 4) {
      const float32x4_t s = vld1q_f32(scale + j);
      most = vmaxq_s32(most, vqabsq_s32(vld1q_s32(bias + j)));
      high = vmaxq_f32(high, s);
      low = vminq_f32(low, s);
    }
    sum = largest_sum + vmaxvq_s32(most);
    least = vminvq_f32(low);
    largest = vmaxvq_f32(high);
  }

  double sum;            // no sum is larger, and none less than its negative
  float least, largest;  // of the scales and 0
};

/// How the sums of a panel become codes.
EDGEQ_INLINE Finish finish_of(const GemmParams& p, const PanelBounds& bounds) {
  if (p.table != nullptr || p.residual.src != nullptr) return Finish::kMemory;
  // Sums beyond 32 bits wrap, and are then anything.
  const double sum = bounds.sum > 2147483648.0 ? 2147483648.0 : bounds.sum;
  const float scale = bounds.largest > -bounds.least ? bounds.largest : -bounds.least;
  if (!(sum * static_cast<double>(scale) <= 32000.0)) return Finish::kMemory;
  return finish_of(p.range);
}

EDGEQ_INLINE Finish finish_of(const GemmParams& p, const uint8_t* panel, size_t width, double largest_sum) {
  return finish_of(p, PanelBounds(panel, width, largest_sum));
}

/// Whether kRelu may stand for kSaturate: the zero point is the least code, so that no negative product
/// counts, and every sum is below 2^23 (kernels/depthwise/arm_blocks.h has the proof).
EDGEQ_INLINE bool is_relu(const GemmParams& p, const PanelBounds& bounds) {
  return p.range.zp == kActMin && bounds.sum < 8388608.0 && bounds.least >= 0.0f;
}

/// Whether additions of small products take the short way of arm64_residual.h: products have the zero point
/// of the left operand, as they always have without a table between, and sums are small: 2 * 255 * 60 =
/// 30,600.
EDGEQ_INLINE bool adds_small(const GemmParams& p) {
  constexpr float kLargest = 60.0f;
  const GemmResidual& r = p.residual;
  return r.src != nullptr && p.table == nullptr && r.zp_acc == p.range.zp && r.multiplier_acc <= kLargest &&
         r.multiplier_acc >= -kLargest && r.multiplier_src <= kLargest && r.multiplier_src >= -kLargest;
}

#endif  // __aarch64__

/// (q - zp) * multiplier of four int16.
EDGEQ_INLINE float32x4_t scaled(int16x4_t q, float multiplier) {
  return vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(q)), multiplier);
}

/// add_quantized of sixteen codes.
EDGEQ_INLINE int8x16_t add_residual(int8x16_t q, int8x16_t src, const GemmResidual& r,
                                    const RangeVectors& range) {
  const int8x8_t zp_acc = vdup_n_s8(static_cast<int8_t>(r.zp_acc));
  const int8x8_t zp_src = vdup_n_s8(static_cast<int8_t>(r.zp_src));
  const int16x8_t a0 = vsubl_s8(vget_low_s8(q), zp_acc);
  const int16x8_t a1 = vsubl_s8(vget_high_s8(q), zp_acc);
  const int16x8_t b0 = vsubl_s8(vget_low_s8(src), zp_src);
  const int16x8_t b1 = vsubl_s8(vget_high_s8(src), zp_src);
  const auto sum = [&](int16x4_t a, int16x4_t b) {
    return vaddq_f32(scaled(a, r.multiplier_acc), scaled(b, r.multiplier_src));
  };
  return round_to_range(sum(vget_low_s16(a0), vget_low_s16(b0)), sum(vget_high_s16(a0), vget_high_s16(b0)),
                        sum(vget_low_s16(a1), vget_low_s16(b1)), sum(vget_high_s16(a1), vget_high_s16(b1)),
                        range);
}

/// Sixteen codes, looked up one by one: for what has an addition after the table. A table alone is a pass of
/// its own over the output (gemm_step.cc).
EDGEQ_NOINLINE int8x16_t look_up_each(int8x16_t codes, const act_t* table) {
  int8_t bytes[16];
  vst1q_s8(bytes, codes);
  for (int8_t& byte : bytes) byte = table[static_cast<uint8_t>(byte)];
  return vld1q_s8(bytes);
}

/// Four bytes anywhere, in lane `lane`.
template <int kLane>
EDGEQ_INLINE int32x4_t load_lane(const act_t* from, int32x4_t v) {
  int32_t word;
  std::memcpy(&word, from, sizeof word);
  return vsetq_lane_s32(word, v, kLane);
}

template <int kLane>
EDGEQ_INLINE void store_lane(act_t* to, int32x4_t v) {
  const int32_t word = vgetq_lane_s32(v, kLane);
  std::memcpy(to, &word, sizeof word);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM_TILE_H_
