#ifndef EDGEQ_KERNELS_GEMM_ARM64_NEONDOT_TILE_H_
#define EDGEQ_KERNELS_GEMM_ARM64_NEONDOT_TILE_H_

// What whole tiles (arm64_whole_tiles.h) are made of where there is a dot product. Registers:
//
//   v0 .. v3    weights of a group, then scales
//   v4, v5      a unit of rows 4 and 5
//   v6, v7      two groups of rows 0 to 3
//   v8 .. v31   sums, row by row

// clang-format off

// A unit: rows 4 and 5, then groups 0 to 3 of rows 0 to 3. In this order a tile reads what its first two groups
// need, which fills the registers, and then the rest.
#define EDGEQ_STORE_ROWS_4_5(a, b) "st1 {v" #a ".16b-v" #b ".16b}, [%[to]], #32\n\t"
#define EDGEQ_STORE_ROWS_0_3(a, d) "st4 {v" #a ".4s-v" #d ".4s}, [%[to]], #64\n\t"

// Products of one row, whose sums are registers a to d, with four channels of it.
#define EDGEQ_DOT_ROW(a, b, c, d, channels)                                                                 \
  "sdot v" #a ".4s, v0.16b, " channels "\n\t"                                                               \
  "sdot v" #b ".4s, v1.16b, " channels "\n\t"                                                               \
  "sdot v" #c ".4s, v2.16b, " channels "\n\t"                                                               \
  "sdot v" #d ".4s, v3.16b, " channels "\n\t"

// Products of a group: `four` holds it of rows 0 to 3, lane `lane` of v4 and v5 of the others.
#define EDGEQ_DOT_GROUP(four, lane)                                                                         \
  "ld1 {v0.16b-v3.16b}, [%[w]], #64\n\t"                                                                    \
  EDGEQ_DOT_ROW(8, 9, 10, 11, four ".4b[0]")                                                                \
  EDGEQ_DOT_ROW(12, 13, 14, 15, four ".4b[1]")                                                              \
  EDGEQ_DOT_ROW(16, 17, 18, 19, four ".4b[2]")                                                              \
  EDGEQ_DOT_ROW(20, 21, 22, 23, four ".4b[3]")                                                              \
  EDGEQ_DOT_ROW(24, 25, 26, 27, "v4.4b[" #lane "]")                                                         \
  EDGEQ_DOT_ROW(28, 29, 30, 31, "v5.4b[" #lane "]")

#define EDGEQ_TILE_UNIT                                                                                     \
  "ld1 {v4.16b-v7.16b}, [%[a]], #64\n\t"                                                                    \
  EDGEQ_DOT_GROUP("v6", 0)                                                                                  \
  EDGEQ_DOT_GROUP("v7", 1)                                                                                  \
  "ld1 {v6.16b-v7.16b}, [%[a]], #32\n\t"                                                                    \
  EDGEQ_DOT_GROUP("v6", 2)                                                                                  \
  EDGEQ_DOT_GROUP("v7", 3)

#define EDGEQ_TILE_REST                                                                                     \
  "ld1 {v4.16b-v7.16b}, [%[a]], #64\n\t"                                                                    \
  "cmp %[rest], #8\n\t"                                                                                     \
  EDGEQ_DOT_GROUP("v6", 0)                                                                                  \
  "b.lo 5f\n\t"                                                                                             \
  EDGEQ_DOT_GROUP("v7", 1)                                                                                  \
  "b.eq 5f\n\t"                                                                                             \
  "ld1 {v6.16b-v7.16b}, [%[a]]\n\t"                                                                         \
  EDGEQ_DOT_GROUP("v6", 2)                                                                                  \
  "5:\n\t"                                                                                                  \
  "add %[a], %[a], #32\n\t"

#define EDGEQ_TILE_BIAS                                                                                     \
  "ld1 {v8.4s-v11.4s}, [%[bias]]\n\t"                                                                       \
  "ld1 {v12.4s-v15.4s}, [%[bias]]\n\t"                                                                      \
  "ld1 {v16.4s-v19.4s}, [%[bias]]\n\t"                                                                      \
  "ld1 {v20.4s-v23.4s}, [%[bias]]\n\t"                                                                      \
  "ld1 {v24.4s-v27.4s}, [%[bias]]\n\t"                                                                      \
  "ld1 {v28.4s-v31.4s}, [%[bias]]\n\t"

#define EDGEQ_LOAD_SCALES                                                                                   \
  "ld1 {v0.4s-v3.4s}, [%[scale]]\n\t"                                                                       \
  EDGEQ_LOAD_MAGIC(4)

#define EDGEQ_SIX_ROWS(codes)                                                                               \
  codes(8, 9, 10, 11) EDGEQ_STORE_CODES(8)                                                                  \
  codes(12, 13, 14, 15) EDGEQ_STORE_CODES(12)                                                               \
  codes(16, 17, 18, 19) EDGEQ_STORE_CODES(16)                                                               \
  codes(20, 21, 22, 23) EDGEQ_STORE_CODES(20)                                                               \
  codes(24, 25, 26, 27) EDGEQ_STORE_CODES(24)                                                               \
  codes(28, 29, 30, 31) EDGEQ_STORE_CODES(28)

#define EDGEQ_TILE_SATURATE                                                                                 \
  EDGEQ_LOAD_SCALES                                                                                         \
  EDGEQ_SIX_ROWS(EDGEQ_SATURATED_FOUR)

#define EDGEQ_TILE_ODD                                                                                      \
  EDGEQ_LOAD_SCALES                                                                                         \
  EDGEQ_LOAD_ODD                                                                                            \
  EDGEQ_SIX_ROWS(EDGEQ_ODD_FOUR)

#define EDGEQ_TILE_CLAMP                                                                                    \
  EDGEQ_LOAD_SCALES                                                                                         \
  EDGEQ_LOAD_ODD                                                                                            \
  EDGEQ_LOAD_CLAMP                                                                                          \
  EDGEQ_SIX_ROWS(EDGEQ_CLAMPED_FOUR)

// Codes of two rows whose products stand in v0 to v3 and v8 to v11.
#define EDGEQ_STORE_TWO_ROWS                                                                                \
  EDGEQ_WORDS_FOUR(0, 1, 2, 3, 12)                                                                          \
  EDGEQ_WORDS_FOUR(8, 9, 10, 11, 12)                                                                        \
  EDGEQ_BYTES(0, 2)                                                                                         \
  EDGEQ_BYTES(8, 10)                                                                                        \
  EDGEQ_STORE_CODES(0)                                                                                      \
  EDGEQ_STORE_CODES(8)

#define EDGEQ_TILE_RELU                                                                                     \
  "ld1 {v4.4s-v7.4s}, [%[scale]]\n\t"                                                                       \
  EDGEQ_RELU_FOUR(8, 9, 10, 11, 0, 1, 2, 3, addend)                                                         \
  EDGEQ_RELU_FOUR(12, 13, 14, 15, 8, 9, 10, 11, addend)                                                     \
  EDGEQ_LOAD_MAGIC(12)                                                                                      \
  EDGEQ_STORE_TWO_ROWS                                                                                      \
  EDGEQ_RELU_FOUR(16, 17, 18, 19, 0, 1, 2, 3, addend)                                                       \
  EDGEQ_RELU_FOUR(20, 21, 22, 23, 8, 9, 10, 11, addend)                                                     \
  EDGEQ_STORE_TWO_ROWS                                                                                      \
  EDGEQ_RELU_FOUR(24, 25, 26, 27, 0, 1, 2, 3, addend)                                                       \
  EDGEQ_RELU_FOUR(28, 29, 30, 31, 8, 9, 10, 11, addend)                                                     \
  EDGEQ_STORE_TWO_ROWS

#define EDGEQ_TILE_MEMORY                                                                                   \
  "st1 {v8.4s-v11.4s}, [%[dst]], #64\n\t"                                                                   \
  "st1 {v12.4s-v15.4s}, [%[dst]], #64\n\t"                                                                  \
  "st1 {v16.4s-v19.4s}, [%[dst]], #64\n\t"                                                                  \
  "st1 {v20.4s-v23.4s}, [%[dst]], #64\n\t"                                                                  \
  "st1 {v24.4s-v27.4s}, [%[dst]], #64\n\t"                                                                  \
  "st1 {v28.4s-v31.4s}, [%[dst]], #64\n\t"

// clang-format on

#include "kernels/gemm/arm64_whole_tiles.h"

#endif  // EDGEQ_KERNELS_GEMM_ARM64_NEONDOT_TILE_H_
