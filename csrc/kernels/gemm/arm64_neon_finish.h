#ifndef EDGEQ_KERNELS_GEMM_ARM64_NEON_FINISH_H_
#define EDGEQ_KERNELS_GEMM_ARM64_NEON_FINISH_H_

// From the sums of a tile of four rows by four channels to its codes, in assembly: for the loops over panels
// of the plain NEON kernels, each of which is one statement. Arguments are numbers of registers; the codes of
// row i end up in word i of register v<a>.

#include "kernels/gemm/arm_tile.h"

namespace edgeq {
namespace {

/// What the finishes read beside biases and scales.
struct alignas(16) FinishConstants {
  explicit FinishConstants(const GemmParams& p) : FinishConstants(SmallRange(p.range)) {
    const GemmResidual& r = p.residual;
    if (r.src == nullptr) return;
    vst1q_f32(lowest, vdupq_n_f32(static_cast<float>(p.range.min - p.range.zp)));
    vst1q_f32(highest, vdupq_n_f32(static_cast<float>(p.range.max - p.range.zp)));
    multipliers[0] = r.multiplier_acc;
    multipliers[1] = r.multiplier_src;
    vst1q_s8(zp_src, vdupq_n_s8(static_cast<int8_t>(r.zp_src)));
    const SmallProducts sum{SmallRange(r.range)};
    vst1q_f32(sum_magic, sum.magic);
    vst1q_s16(sum_odd, sum.odd);
    vst1q_s8(sum_min, sum.min);
    vst1q_s8(sum_max, sum.max);
  }

  float magic[4];
  int16_t odd[8];
  int8_t min[16];
  int8_t max[16];
  // With a residual, from byte 64 on:
  float lowest[4];
  float highest[4];
  float multipliers[4];
  int8_t zp_src[16];
  float sum_magic[4];
  int16_t sum_odd[8];
  int8_t sum_min[16];
  int8_t sum_max[16];

 private:
  explicit FinishConstants(const SmallRange& range) {
    const SmallProducts small(range);
    vst1q_f32(magic, small.magic);
    vst1q_s16(odd, small.odd);
    vst1q_s8(min, small.min);
    vst1q_s8(max, small.max);
  }
};

// clang-format off
#define EDGEQ_STEP(what, type, to, with) \
  #what " v" #to "." #type ", v" #to "." #type ", v" #with "." #type "\n\t"
#define EDGEQ_FOUR_STEPS(what, a, b, c, d, with) \
  EDGEQ_STEP(what, 4s, a, with) EDGEQ_STEP(what, 4s, b, with) EDGEQ_STEP(what, 4s, c, with) \
  EDGEQ_STEP(what, 4s, d, with)
#define EDGEQ_TO_FLOAT(a, b, c, d) \
  "scvtf v" #a ".4s, v" #a ".4s\n\t" \
  "scvtf v" #b ".4s, v" #b ".4s\n\t" \
  "scvtf v" #c ".4s, v" #c ".4s\n\t" \
  "scvtf v" #d ".4s, v" #d ".4s\n\t"
#define EDGEQ_SCALE(a, b, c, d, bias, scale) \
  EDGEQ_FOUR_STEPS(add, a, b, c, d, bias) EDGEQ_TO_FLOAT(a, b, c, d) EDGEQ_FOUR_STEPS(fmul, a, b, c, d, scale)
#define EDGEQ_ROUND(a, b, c, d, magic) \
  EDGEQ_FOUR_STEPS(fadd, a, b, c, d, magic) EDGEQ_STEP(uzp1, 8h, a, b) EDGEQ_STEP(uzp1, 8h, c, d)
#define EDGEQ_NARROW(a, c) \
  "sqxtn v" #a ".8b, v" #a ".8h\n\t" \
  "sqxtn2 v" #a ".16b, v" #c ".8h\n\t"
#define EDGEQ_NARROW_AND_CLAMP(a, c, odd, min, max) \
  EDGEQ_STEP(add, 8h, a, odd) EDGEQ_STEP(add, 8h, c, odd) EDGEQ_NARROW(a, c) EDGEQ_STEP(smax, 16b, a, min) \
  EDGEQ_STEP(smin, 16b, a, max)

// narrow_small, kSaturate and kClamp.
#define EDGEQ_SATURATED(a, b, c, d, bias, scale, magic) \
  EDGEQ_SCALE(a, b, c, d, bias, scale) EDGEQ_ROUND(a, b, c, d, magic) EDGEQ_NARROW(a, c)
#define EDGEQ_CLAMPED(a, b, c, d, bias, scale, magic, odd, min, max) \
  EDGEQ_SCALE(a, b, c, d, bias, scale) EDGEQ_ROUND(a, b, c, d, magic) \
  EDGEQ_NARROW_AND_CLAMP(a, c, odd, min, max)

// add_residual of codes that never become bytes, where adds_small holds (arm64_residual.h has the proof). Sums
// are in v0 to v3, bias in v16, scale in v17; v4 to v11 and v18 to v25 are taken.
#define EDGEQ_WITH_RESIDUAL \
  "ld1 {v4.s}[0], [%[src]], %[src_stride]\n\t" \
  "ldp q18, q19, [%[constants], #64]\n\t" \
  "ld1 {v4.s}[1], [%[src]], %[src_stride]\n\t" \
  "ldp q20, q21, [%[constants], #96]\n\t" \
  "ld1 {v4.s}[2], [%[src]], %[src_stride]\n\t" \
  "ldp q22, q23, [%[constants], #128]\n\t" \
  "ld1 {v4.s}[3], [%[src]], %[src_back]\n\t" \
  EDGEQ_SCALE(0, 1, 2, 3, 16, 17) \
  "ldp q24, q25, [%[constants], #160]\n\t" \
  "ssubl v5.8h, v4.8b, v21.8b\n\t" \
  "ssubl2 v6.8h, v4.16b, v21.16b\n\t" \
  EDGEQ_FOUR_STEPS(fmax, 0, 1, 2, 3, 18) \
  "sxtl v8.4s, v5.4h\n\t" \
  "sxtl2 v9.4s, v5.8h\n\t" \
  "sxtl v10.4s, v6.4h\n\t" \
  "sxtl2 v11.4s, v6.8h\n\t" \
  EDGEQ_FOUR_STEPS(fmin, 0, 1, 2, 3, 19) \
  EDGEQ_TO_FLOAT(8, 9, 10, 11) \
  "frintn v0.4s, v0.4s\n\t" \
  "frintn v1.4s, v1.4s\n\t" \
  "frintn v2.4s, v2.4s\n\t" \
  "frintn v3.4s, v3.4s\n\t" \
  "fmul v8.4s, v8.4s, v20.s[1]\n\t" \
  "fmul v9.4s, v9.4s, v20.s[1]\n\t" \
  "fmul v10.4s, v10.4s, v20.s[1]\n\t" \
  "fmul v11.4s, v11.4s, v20.s[1]\n\t" \
  "fmul v0.4s, v0.4s, v20.s[0]\n\t" \
  "fmul v1.4s, v1.4s, v20.s[0]\n\t" \
  "fmul v2.4s, v2.4s, v20.s[0]\n\t" \
  "fmul v3.4s, v3.4s, v20.s[0]\n\t" \
  EDGEQ_STEP(fadd, 4s, 0, 8) EDGEQ_STEP(fadd, 4s, 1, 9) \
  EDGEQ_STEP(fadd, 4s, 2, 10) EDGEQ_STEP(fadd, 4s, 3, 11) \
  EDGEQ_ROUND(0, 1, 2, 3, 22) \
  EDGEQ_NARROW_AND_CLAMP(0, 2, 23, 24, 25)
// clang-format on

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_NEON_FINISH_H_
