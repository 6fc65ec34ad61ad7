#ifndef EDGEQ_KERNELS_GEMM_ARM_TILE_H_
#define EDGEQ_KERNELS_GEMM_ARM_TILE_H_

// The epilogue of the Arm kernels. Only arm_*.cc and arm64_*.cc files take it; everything stands in an
// unnamed namespace, so that no copy serves another level.

#include "kernels/arm_vectors.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/lhs.h"

namespace edgeq {
namespace {

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
