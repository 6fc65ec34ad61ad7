#ifndef EDGEQ_KERNELS_ARM_VECTORS_H_
#define EDGEQ_KERNELS_ARM_VECTORS_H_

// The vector operations that the Arm files of several families share, on 64 and 32 bits. Only arm_*.cc and
// arm64_*.cc files (and the headers that they alone include) include this, each compiled with its own level's
// flags: everything stands in an unnamed namespace, so that a copy built for one level never serves another.
//
// NEON of Armv7 takes denormal numbers for zero. The rounding rule does not notice: a product that is
// denormal rounds to zero anyway, and a denormal scale times an int32 stays below 2^-95.

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/act.h"
#include "base/requantize.h"

#define EDGEQ_INLINE inline __attribute__((always_inline))
// For what several callers share and is long enough that a call does not show.
#define EDGEQ_NOINLINE __attribute__((noinline))

namespace edgeq {
namespace {

/// An OutputRange in vectors.
struct RangeVectors {
#if defined(__aarch64__)
  explicit EDGEQ_INLINE RangeVectors(OutputRange range)
      : zp(vdupq_n_s16(static_cast<int16_t>(range.zp))),
        min(vdupq_n_s8(static_cast<int8_t>(range.min))),
        max(vdupq_n_s8(static_cast<int8_t>(range.max))) {}

  int16x8_t zp;
  int8x16_t min;
  int8x16_t max;
#else
  explicit EDGEQ_INLINE RangeVectors(OutputRange range)
      : lo(vdupq_n_f32(static_cast<float>(range.min - range.zp))),
        hi(vdupq_n_f32(static_cast<float>(range.max - range.zp))),
        offset(vdupq_n_s32(0x4B400000 - range.zp)) {}

  float32x4_t lo;
  float32x4_t hi;
  int32x4_t offset;
#endif
};

/// round_to_range of sixteen values that are not NaN.
///
/// On 64 bits the conversion rounds to nearest even and saturates, and so does each narrowing: what leaves
/// int32 or int16 lies beyond both bounds of the range, zp added or not, and is clamped to the same bound. On
/// 32 bits there is no such conversion: clamped values take the way of round_half_even.
EDGEQ_INLINE int8x16_t round_to_range(float32x4_t v0, float32x4_t v1, float32x4_t v2, float32x4_t v3,
                                      const RangeVectors& range) {
#if defined(__aarch64__)
  int16x8_t low = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(v0)), vcvtnq_s32_f32(v1));
  int16x8_t high = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(v2)), vcvtnq_s32_f32(v3));
  low = vqaddq_s16(low, range.zp);
  high = vqaddq_s16(high, range.zp);
  const int8x16_t q = vqmovn_high_s16(vqmovn_s16(low), high);
  return vminq_s8(vmaxq_s8(q, range.min), range.max);
#else
  const float32x4_t magic = vdupq_n_f32(12582912.0f);
  const auto whole = [&](float32x4_t v) {
    const float32x4_t shifted = vaddq_f32(vminq_f32(vmaxq_f32(v, range.lo), range.hi), magic);
    return vmovn_s32(vsubq_s32(vreinterpretq_s32_f32(shifted), range.offset));
  };
  return vcombine_s8(vmovn_s16(vcombine_s16(whole(v0), whole(v1))),
                     vmovn_s16(vcombine_s16(whole(v2), whole(v3))));
#endif
}

/// requantize of sixteen sums, `scales` apart for each four.
EDGEQ_INLINE int8x16_t requantize(int32x4_t a0, int32x4_t a1, int32x4_t a2, int32x4_t a3, float32x4_t s0,
                                  float32x4_t s1, float32x4_t s2, float32x4_t s3, const RangeVectors& range) {
  return round_to_range(vmulq_f32(vcvtq_f32_s32(a0), s0), vmulq_f32(vcvtq_f32_s32(a1), s1),
                        vmulq_f32(vcvtq_f32_s32(a2), s2), vmulq_f32(vcvtq_f32_s32(a3), s3), range);
}

/// Stores the first `count` <= 16 bytes, and touches no other.
EDGEQ_INLINE void store_first(int8_t* to, int8x16_t a, size_t count) {
  if (count >= 16) {
    vst1q_s8(to, a);
    return;
  }
  int8x8_t rest = vget_low_s8(a);
  if ((count & 8) != 0) {
    vst1_s8(to, rest);
    rest = vget_high_s8(a);
    to += 8;
  }
  if ((count & 4) != 0) {
    const int32_t word = vget_lane_s32(vreinterpret_s32_s8(rest), 0);
    std::memcpy(to, &word, 4);
    rest = vext_s8(rest, rest, 4);
    to += 4;
  }
  if ((count & 2) != 0) {
    const int16_t half = vget_lane_s16(vreinterpret_s16_s8(rest), 0);
    std::memcpy(to, &half, 2);
    rest = vext_s8(rest, rest, 2);
    to += 2;
  }
  if ((count & 1) != 0) *to = vget_lane_s8(rest, 0);
}

/// Sixteen signed bytes, by the names that headers shared with other architectures use.
struct Bytes16 {
  using Int = int8x16_t;
  static constexpr size_t kBytes = 16;

  static EDGEQ_INLINE Int load(const void* from) { return vld1q_s8(static_cast<const int8_t*>(from)); }
  static EDGEQ_INLINE void store_all(void* to, Int a) { vst1q_s8(static_cast<int8_t*>(to), a); }
  static EDGEQ_INLINE void store(void* to, Int a, size_t count) {
    store_first(static_cast<int8_t*>(to), a, count);
  }
  static EDGEQ_INLINE Int set1_byte(int a) { return vdupq_n_s8(static_cast<int8_t>(a)); }
  static EDGEQ_INLINE Int max_bytes(Int a, Int b) { return vmaxq_s8(a, b); }
  static EDGEQ_INLINE Int min_bytes(Int a, Int b) { return vminq_s8(a, b); }
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_ARM_VECTORS_H_
