#ifndef EDGEQ_KERNELS_GEMM_ARM64_NEON_LANES_H_
#define EDGEQ_KERNELS_GEMM_ARM64_NEON_LANES_H_

// Tiles of products by one lane, for 4-bit weights: a vector of eight channels' weights, widened to 16 bits,
// times one place of the depth of a row. A lane is the sum of one output: nothing is left to be added up at
// the end, which for a shallow depth costs more than the products. mla adds in 16 bits, eight products an
// instruction; 36 of them fit (36 * 128 * 7 = 32,256). With 8-bit weights the products would have to be added
// in 32 bits, four an instruction: no better than the tiles of arm64_neon_tile.h at any depth.
//
//   v0 .. v7      eight rows: eight channels of each, widened
//   v8 .. v15     weights of four places of the depth
//   v16 .. v31    sums: a row in two vectors

#include "kernels/arm_vectors.h"

namespace edgeq {
namespace {

// clang-format off
#define EDGEQ_LOAD_LANES(row, address) \
  "ldr d" #row ", [%[" #address "]], #8\n\t"
#define EDGEQ_WIDEN_LANES(row) "sshll v" #row ".8h, v" #row ".8b, #0\n\t"
#define EDGEQ_LANE_WEIGHTS_0 "ld1 {v8.8h, v9.8h, v10.8h, v11.8h}, [%[w]], #64\n\t"
#define EDGEQ_LANE_WEIGHTS_1 "ld1 {v12.8h, v13.8h, v14.8h, v15.8h}, [%[w]], #64\n\t"

// One place of the depth: lane `lane` of the rows, weights in v<b0> and v<b1>.
#define EDGEQ_LANE_ROW(multiply, s0, s1, row, lane, b0, b1) \
  #multiply " v" #s0 ".8h, v" #b0 ".8h, v" #row ".h[" #lane "]\n\t" \
  #multiply " v" #s1 ".8h, v" #b1 ".8h, v" #row ".h[" #lane "]\n\t"
#define EDGEQ_LANE(multiply, lane, b0, b1) \
  EDGEQ_LANE_ROW(multiply, 16, 17, 0, lane, b0, b1) EDGEQ_LANE_ROW(multiply, 18, 19, 1, lane, b0, b1) \
  EDGEQ_LANE_ROW(multiply, 20, 21, 2, lane, b0, b1) EDGEQ_LANE_ROW(multiply, 22, 23, 3, lane, b0, b1) \
  EDGEQ_LANE_ROW(multiply, 24, 25, 4, lane, b0, b1) EDGEQ_LANE_ROW(multiply, 26, 27, 5, lane, b0, b1) \
  EDGEQ_LANE_ROW(multiply, 28, 29, 6, lane, b0, b1) EDGEQ_LANE_ROW(multiply, 30, 31, 7, lane, b0, b1)
#define EDGEQ_LANES(first) \
  EDGEQ_LOAD_LANES(0, a0) EDGEQ_LOAD_LANES(1, a1) EDGEQ_LOAD_LANES(2, a2) EDGEQ_LOAD_LANES(3, a3) \
  EDGEQ_LOAD_LANES(4, a4) EDGEQ_LOAD_LANES(5, a5) EDGEQ_LOAD_LANES(6, a6) EDGEQ_LOAD_LANES(7, a7) \
  EDGEQ_LANE_WEIGHTS_0 \
  EDGEQ_WIDEN_LANES(0) EDGEQ_WIDEN_LANES(1) EDGEQ_WIDEN_LANES(2) EDGEQ_WIDEN_LANES(3) \
  EDGEQ_WIDEN_LANES(4) EDGEQ_WIDEN_LANES(5) EDGEQ_WIDEN_LANES(6) EDGEQ_WIDEN_LANES(7) \
  EDGEQ_LANE_WEIGHTS_1 EDGEQ_LANE(first, 0, 8, 9) EDGEQ_LANE(mla, 1, 10, 11) \
  EDGEQ_LANE_WEIGHTS_0 EDGEQ_LANE(mla, 2, 12, 13) EDGEQ_LANE(mla, 3, 14, 15) \
  EDGEQ_LANE_WEIGHTS_1 EDGEQ_LANE(mla, 4, 8, 9) EDGEQ_LANE(mla, 5, 10, 11) \
  EDGEQ_LANE(mla, 6, 12, 13) EDGEQ_LANE(mla, 7, 14, 15)

// All of the depth: %[eights] times eight channels, at least once.
#define EDGEQ_DEPTH_BY_LANES(begin, add) \
  begin \
  "subs %[left], %[eights], #1\n\t" \
  "b.eq 2f\n\t" \
  "1:\n\t" \
  add \
  "subs %[left], %[left], #1\n\t" \
  "b.ne 1b\n\t" \
  "2:"

#define EDGEQ_LANE_SUMS \
  register int16x8_t s0 __asm__("v16"); register int16x8_t s1 __asm__("v17"); register int16x8_t s2 __asm__("v18"); \
  register int16x8_t s3 __asm__("v19"); register int16x8_t s4 __asm__("v20"); register int16x8_t s5 __asm__("v21"); \
  register int16x8_t s6 __asm__("v22"); register int16x8_t s7 __asm__("v23"); register int16x8_t s8 __asm__("v24"); \
  register int16x8_t s9 __asm__("v25"); register int16x8_t s10 __asm__("v26"); register int16x8_t s11 __asm__("v27"); \
  register int16x8_t s12 __asm__("v28"); register int16x8_t s13 __asm__("v29"); register int16x8_t s14 __asm__("v30"); \
  register int16x8_t s15 __asm__("v31")
#define EDGEQ_LANE_OUTPUTS \
  "=w"(s0), "=w"(s1), "=w"(s2), "=w"(s3), "=w"(s4), "=w"(s5), "=w"(s6), "=w"(s7), "=w"(s8), "=w"(s9), \
  "=w"(s10), "=w"(s11), "=w"(s12), "=w"(s13), "=w"(s14), "=w"(s15)
#define EDGEQ_TAKE_LANE_SUMS(to) \
  (to)[0] = s0; (to)[1] = s1; (to)[2] = s2; (to)[3] = s3; (to)[4] = s4; (to)[5] = s5; (to)[6] = s6; \
  (to)[7] = s7; (to)[8] = s8; (to)[9] = s9; (to)[10] = s10; (to)[11] = s11; (to)[12] = s12; \
  (to)[13] = s13; (to)[14] = s14; (to)[15] = s15
#define EDGEQ_LANE_CLOBBERS \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", \
  "memory", "cc"
// clang-format on

/// Products of `eights` times eight places of the depth, 4-bit weights widened to 16 bits: sums 2 * i and
/// 2 * i + 1 are those of row i. Moves `w` behind the weights.
EDGEQ_INLINE void sum_lanes(const act_t* const* rows, size_t eights, const int16_t*& w,
                            int16x8_t (&sums)[16]) {
  const act_t *a0, *a1, *a2, *a3, *a4, *a5, *a6, *a7;
  size_t left;
  EDGEQ_LANE_SUMS;
  __asm__ volatile(
      "ldp %[a0], %[a1], [%[rows]]\n\t"
      "ldp %[a2], %[a3], [%[rows], #16]\n\t"
      "ldp %[a4], %[a5], [%[rows], #32]\n\t"
      "ldp %[a6], %[a7], [%[rows], #48]\n\t"  //
      EDGEQ_DEPTH_BY_LANES(EDGEQ_LANES(mul), EDGEQ_LANES(mla))
      : EDGEQ_LANE_OUTPUTS, [a0] "=&r"(a0), [a1] "=&r"(a1), [a2] "=&r"(a2), [a3] "=&r"(a3), [a4] "=&r"(a4),
        [a5] "=&r"(a5), [a6] "=&r"(a6), [a7] "=&r"(a7), [left] "=&r"(left), [w] "+r"(w)
      : [rows] "r"(rows), [eights] "r"(eights)
      : EDGEQ_LANE_CLOBBERS);
  EDGEQ_TAKE_LANE_SUMS(sums);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_NEON_LANES_H_
