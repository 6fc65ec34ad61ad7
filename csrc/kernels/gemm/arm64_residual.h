#ifndef EDGEQ_KERNELS_GEMM_ARM64_RESIDUAL_H_
#define EDGEQ_KERNELS_GEMM_ARM64_RESIDUAL_H_

// Sums in memory to codes where a residual is added, in assembly: compilers write no loads of four registers
// with a step to the next, and no lower and upper half without a move between.

#include <cstring>

#include "kernels/gemm/arm_tile.h"

namespace edgeq {
namespace {

/// Where sums in memory belong.
struct SumsPlace {
  size_t row;  // of the first
  size_t rows;
  size_t column;
  size_t columns;  // at most 16
};

/// What add_rows keeps in registers v16 to v27, in their order.
struct AddRowsConstants {
  float scale[16];
  float lowest[4];  // of a product: the codes' range less their zero point
  float highest[4];
  float multipliers[4];  // of the accumulator and of the residual
  int8_t zp_src[16];
  float magic[4];  // SmallRange
  int16_t odd[8];
  int8_t min[16];
  int8_t max[16];
};

// clang-format off

#define EDGEQ_ADD_ROWS(odd, clamp, store)                                                                   \
  "ld1 {v16.4s-v19.4s}, [%[constants]], #64\n\t"                                                            \
  "ld1 {v20.4s-v23.4s}, [%[constants]], #64\n\t"                                                            \
  "ld1 {v24.4s-v27.4s}, [%[constants]]\n\t"                                                                 \
  "1:\n\t"                                                                                                  \
  "ld1 {v0.4s-v3.4s}, [%[sums]], #64\n\t"                                                                   \
  "ld1 {v4.16b}, [%[src]], %[src_stride]\n\t"                                                               \
  "scvtf v0.4s, v0.4s\n\t"                                                                                  \
  "scvtf v1.4s, v1.4s\n\t"                                                                                  \
  "scvtf v2.4s, v2.4s\n\t"                                                                                  \
  "scvtf v3.4s, v3.4s\n\t"                                                                                  \
  "fmul v0.4s, v0.4s, v16.4s\n\t"                                                                           \
  "fmul v1.4s, v1.4s, v17.4s\n\t"                                                                           \
  "fmul v2.4s, v2.4s, v18.4s\n\t"                                                                           \
  "fmul v3.4s, v3.4s, v19.4s\n\t"                                                                           \
  "ssubl v5.8h, v4.8b, v23.8b\n\t"                                                                          \
  "ssubl2 v7.8h, v4.16b, v23.16b\n\t"                                                                       \
  "fmax v0.4s, v0.4s, v20.4s\n\t"                                                                           \
  "fmax v1.4s, v1.4s, v20.4s\n\t"                                                                           \
  "fmax v2.4s, v2.4s, v20.4s\n\t"                                                                           \
  "fmax v3.4s, v3.4s, v20.4s\n\t"                                                                           \
  "sxtl v4.4s, v5.4h\n\t"                                                                                   \
  "sxtl2 v5.4s, v5.8h\n\t"                                                                                  \
  "sxtl v6.4s, v7.4h\n\t"                                                                                   \
  "sxtl2 v7.4s, v7.8h\n\t"                                                                                  \
  "fmin v0.4s, v0.4s, v21.4s\n\t"                                                                           \
  "fmin v1.4s, v1.4s, v21.4s\n\t"                                                                           \
  "fmin v2.4s, v2.4s, v21.4s\n\t"                                                                           \
  "fmin v3.4s, v3.4s, v21.4s\n\t"                                                                           \
  "scvtf v4.4s, v4.4s\n\t"                                                                                  \
  "scvtf v5.4s, v5.4s\n\t"                                                                                  \
  "scvtf v6.4s, v6.4s\n\t"                                                                                  \
  "scvtf v7.4s, v7.4s\n\t"                                                                                  \
  "frintn v0.4s, v0.4s\n\t"                                                                                 \
  "frintn v1.4s, v1.4s\n\t"                                                                                 \
  "frintn v2.4s, v2.4s\n\t"                                                                                 \
  "frintn v3.4s, v3.4s\n\t"                                                                                 \
  "fmul v4.4s, v4.4s, v22.s[1]\n\t"                                                                         \
  "fmul v5.4s, v5.4s, v22.s[1]\n\t"                                                                         \
  "fmul v6.4s, v6.4s, v22.s[1]\n\t"                                                                         \
  "fmul v7.4s, v7.4s, v22.s[1]\n\t"                                                                         \
  "fmul v0.4s, v0.4s, v22.s[0]\n\t"                                                                         \
  "fmul v1.4s, v1.4s, v22.s[0]\n\t"                                                                         \
  "fmul v2.4s, v2.4s, v22.s[0]\n\t"                                                                         \
  "fmul v3.4s, v3.4s, v22.s[0]\n\t"                                                                         \
  "fadd v0.4s, v0.4s, v4.4s\n\t"                                                                            \
  "fadd v1.4s, v1.4s, v5.4s\n\t"                                                                            \
  "fadd v2.4s, v2.4s, v6.4s\n\t"                                                                            \
  "fadd v3.4s, v3.4s, v7.4s\n\t"                                                                            \
  "fadd v0.4s, v0.4s, v24.4s\n\t"                                                                           \
  "fadd v1.4s, v1.4s, v24.4s\n\t"                                                                           \
  "fadd v2.4s, v2.4s, v24.4s\n\t"                                                                           \
  "fadd v3.4s, v3.4s, v24.4s\n\t"                                                                           \
  "uzp1 v0.8h, v0.8h, v1.8h\n\t"                                                                            \
  "uzp1 v2.8h, v2.8h, v3.8h\n\t"                                                                            \
  odd                                                                                                       \
  "sqxtn v0.8b, v0.8h\n\t"                                                                                  \
  "sqxtn2 v0.16b, v2.8h\n\t"                                                                                \
  clamp                                                                                                     \
  "subs %[rows], %[rows], #1\n\t"                                                                           \
  store                                                                                                     \
  "b.ne 1b\n\t"

#define EDGEQ_ADD_ROWS_ODD                                                                                  \
  "add v0.8h, v0.8h, v25.8h\n\t"                                                                            \
  "add v2.8h, v2.8h, v25.8h\n\t"

#define EDGEQ_ADD_ROWS_CLAMP                                                                                \
  "smax v0.16b, v0.16b, v26.16b\n\t"                                                                        \
  "smin v0.16b, v0.16b, v27.16b\n\t"

#define EDGEQ_RUN_ADD_ROWS(odd, clamp, size)                                                                \
  __asm__ volatile(EDGEQ_ADD_ROWS(odd, clamp, "st1 {v0." size "}, [%[dst]], %[dst_stride]\n\t")             \
                   : [constants] "+r"(constants), [sums] "+r"(sums), [src] "+r"(src), [dst] "+r"(dst),      \
                     [rows] "+r"(rows)                                                                      \
                   : [src_stride] "r"(src_stride), [dst_stride] "r"(dst_stride)                             \
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20",     \
                     "v21", "v22", "v23", "v24", "v25", "v26", "v27", "cc", "memory")

// clang-format on

/// At least one row, of kColumns = 16 or 8 codes.
template <Finish kFinish, int kColumns>
EDGEQ_INLINE void add_whole_rows(const AddRowsConstants* constants, size_t rows, const int32_t* sums,
                                 const act_t* src, ptrdiff_t src_stride, act_t* dst, ptrdiff_t dst_stride) {
  static_assert(sizeof(AddRowsConstants) == 12 * 16, "twelve registers");
  static_assert(kColumns == 16 || kColumns == 8, "a register or its half");
  if constexpr (kColumns == 8) {
    EDGEQ_RUN_ADD_ROWS(EDGEQ_ADD_ROWS_ODD, EDGEQ_ADD_ROWS_CLAMP, "8b");
  } else if constexpr (kFinish == Finish::kSaturate) {
    EDGEQ_RUN_ADD_ROWS("", "", "16b");
  } else if constexpr (kFinish == Finish::kOdd) {
    EDGEQ_RUN_ADD_ROWS(EDGEQ_ADD_ROWS_ODD, "", "16b");
  } else {
    EDGEQ_RUN_ADD_ROWS(EDGEQ_ADD_ROWS_ODD, EDGEQ_ADD_ROWS_CLAMP, "16b");
  }
}

/// finish_rows of an addition without a table, where no sum can leave [-32,000, 32,000]: add_quantized of
/// what requantize leaves, value for value, without a code between. The rule clamps a product in floating
/// point and rounds it to nearest even, as frintn does; it adds the zero point to the integer, and the
/// addition takes the same one off. Both are below 2^9 and exact, so that the rounded product itself is the
/// operand. Whatever remains is as in SmallRange.
///
/// Args:
///   scale: 16 values; those beyond `place.columns` are of no account.
EDGEQ_NOINLINE void add_rows(const GemmParams& p, const SumsPlace& place, const int32_t* sums,
                             const float* scale) {
  const GemmResidual& r = p.residual;
  const SmallRange small(r.range);
  AddRowsConstants constants;
  std::memcpy(constants.scale, scale, sizeof constants.scale);
  vst1q_f32(constants.lowest, vdupq_n_f32(static_cast<float>(p.range.min - p.range.zp)));
  vst1q_f32(constants.highest, vdupq_n_f32(static_cast<float>(p.range.max - p.range.zp)));
  constants.multipliers[0] = r.multiplier_acc;
  constants.multipliers[1] = r.multiplier_src;
  constants.multipliers[2] = constants.multipliers[3] = 0.0f;
  vst1q_s8(constants.zp_src, vdupq_n_s8(static_cast<int8_t>(r.zp_src)));
  vst1q_f32(constants.magic, vdupq_n_f32(small.magic));
  vst1q_s16(constants.odd, vdupq_n_s16(small.odd));
  vst1q_s8(constants.min, vdupq_n_s8(small.min));
  vst1q_s8(constants.max, vdupq_n_s8(small.max));
  const act_t* src = r.src + static_cast<ptrdiff_t>(place.row) * r.row_stride + place.column;
  act_t* dst = p.dst + static_cast<ptrdiff_t>(place.row) * p.dst_row_stride + place.column;
  const bool saturates = small.min == kActMin && small.max == kActMax;
  const ptrdiff_t src_stride = r.row_stride;
  const ptrdiff_t dst_stride = p.dst_row_stride;
  if (place.columns == 16 && saturates && small.odd == 0) {
    add_whole_rows<Finish::kSaturate, 16>(&constants, place.rows, sums, src, src_stride, dst, dst_stride);
  } else if (place.columns == 16 && saturates) {
    add_whole_rows<Finish::kOdd, 16>(&constants, place.rows, sums, src, src_stride, dst, dst_stride);
  } else if (place.columns == 16) {
    add_whole_rows<Finish::kClamp, 16>(&constants, place.rows, sums, src, src_stride, dst, dst_stride);
  } else if (place.columns == 8) {
    add_whole_rows<Finish::kClamp, 8>(&constants, place.rows, sums, src, src_stride, dst, dst_stride);
  } else {
    for (size_t i = 0; i < place.rows; ++i, sums += 16, src += src_stride, dst += dst_stride) {
      act_t codes[16];
      add_whole_rows<Finish::kClamp, 16>(&constants, 1, sums, src, 0, codes, 0);
      store_first(dst, vld1q_s8(codes), place.columns);
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_RESIDUAL_H_
