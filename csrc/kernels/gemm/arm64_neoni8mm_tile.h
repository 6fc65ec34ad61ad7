#ifndef EDGEQ_KERNELS_GEMM_ARM64_NEONI8MM_TILE_H_
#define EDGEQ_KERNELS_GEMM_ARM64_NEONI8MM_TILE_H_

// What whole tiles (arm64_whole_tiles.h) are made of where there is a product of 2 x 8 by 8 x 2. Registers:
//
//   v0, v1      two groups of rows 4 and 5
//   v2, v3      a group of rows 0 and 1, and of rows 2 and 3
//   v4 .. v7    weights of a group, of half the channels
//   v8 .. v31   sums, a pair of rows after the other, in blocks of two rows by two channels

// clang-format off

// A unit: both groups of rows 4 and 5, then each group of the other pairs of rows.
#define EDGEQ_STORE_ROWS_4_5(a, b) "st2 {v" #a ".2d-v" #b ".2d}, [%[to]], #32\n\t"
#define EDGEQ_STORE_ROWS_0_3(a, d) "st4 {v" #a ".2d-v" #d ".2d}, [%[to]], #64\n\t"

#define EDGEQ_MMLA_LOW(last)                                                                                \
  "ld1 {v4.16b-v7.16b}, [%[w]], #64\n\t"                                                                    \
  "smmla v8.4s, v2.16b, v4.16b\n\t"                                                                         \
  "smmla v9.4s, v2.16b, v5.16b\n\t"                                                                         \
  "smmla v10.4s, v2.16b, v6.16b\n\t"                                                                        \
  "smmla v11.4s, v2.16b, v7.16b\n\t"                                                                        \
  "smmla v16.4s, v3.16b, v4.16b\n\t"                                                                        \
  "smmla v17.4s, v3.16b, v5.16b\n\t"                                                                        \
  "smmla v18.4s, v3.16b, v6.16b\n\t"                                                                        \
  "smmla v19.4s, v3.16b, v7.16b\n\t"                                                                        \
  "smmla v24.4s, v" #last ".16b, v4.16b\n\t"                                                                \
  "smmla v25.4s, v" #last ".16b, v5.16b\n\t"                                                                \
  "smmla v26.4s, v" #last ".16b, v6.16b\n\t"                                                                \
  "smmla v27.4s, v" #last ".16b, v7.16b\n\t"

#define EDGEQ_MMLA_HIGH(last)                                                                               \
  "ld1 {v4.16b-v7.16b}, [%[w]], #64\n\t"                                                                    \
  "smmla v12.4s, v2.16b, v4.16b\n\t"                                                                        \
  "smmla v13.4s, v2.16b, v5.16b\n\t"                                                                        \
  "smmla v14.4s, v2.16b, v6.16b\n\t"                                                                        \
  "smmla v15.4s, v2.16b, v7.16b\n\t"                                                                        \
  "smmla v20.4s, v3.16b, v4.16b\n\t"                                                                        \
  "smmla v21.4s, v3.16b, v5.16b\n\t"                                                                        \
  "smmla v22.4s, v3.16b, v6.16b\n\t"                                                                        \
  "smmla v23.4s, v3.16b, v7.16b\n\t"                                                                        \
  "smmla v28.4s, v" #last ".16b, v4.16b\n\t"                                                                \
  "smmla v29.4s, v" #last ".16b, v5.16b\n\t"                                                                \
  "smmla v30.4s, v" #last ".16b, v6.16b\n\t"                                                                \
  "smmla v31.4s, v" #last ".16b, v7.16b\n\t"

#define EDGEQ_MMLA_GROUP(last)                                                                              \
  EDGEQ_MMLA_LOW(last)                                                                                      \
  EDGEQ_MMLA_HIGH(last)

#define EDGEQ_TILE_UNIT                                                                                     \
  "ld1 {v0.16b-v3.16b}, [%[a]], #64\n\t"                                                                    \
  EDGEQ_MMLA_GROUP(0)                                                                                       \
  "ld1 {v2.16b-v3.16b}, [%[a]], #32\n\t"                                                                    \
  EDGEQ_MMLA_GROUP(1)

#define EDGEQ_TILE_REST                                                                                     \
  "ld1 {v0.16b-v3.16b}, [%[a]], #64\n\t"                                                                    \
  EDGEQ_MMLA_GROUP(0)                                                                                       \
  "add %[a], %[a], #32\n\t"

#define EDGEQ_TILE_BIAS                                                                                     \
  "ld1 {v8.4s-v11.4s}, [%[bias]]\n\t"                                                                       \
  "ld1 {v12.4s-v15.4s}, [%[bias_high]]\n\t"                                                                 \
  "ld1 {v16.4s-v19.4s}, [%[bias]]\n\t"                                                                      \
  "ld1 {v20.4s-v23.4s}, [%[bias_high]]\n\t"                                                                 \
  "ld1 {v24.4s-v27.4s}, [%[bias]]\n\t"                                                                      \
  "ld1 {v28.4s-v31.4s}, [%[bias_high]]\n\t"

// Codes of a pair of rows, in a of the lower channels and in b of the others: two of each row alternate.
#define EDGEQ_STORE_PAIR(a, b, to)                                                                          \
  "uzp1 v" #to ".8h, v" #a ".8h, v" #b ".8h\n\t"                                                            \
  "uzp2 v" #b ".8h, v" #a ".8h, v" #b ".8h\n\t"                                                             \
  EDGEQ_STORE_CODES(to)                                                                                     \
  EDGEQ_STORE_CODES(b)

#define EDGEQ_THREE_PAIRS(codes)                                                                            \
  codes(8, 9, 10, 11)                                                                                       \
  codes(16, 17, 18, 19)                                                                                     \
  codes(24, 25, 26, 27)                                                                                     \
  "ld1 {v0.4s-v3.4s}, [%[scale_high]]\n\t"                                                                  \
  codes(12, 13, 14, 15)                                                                                     \
  codes(20, 21, 22, 23)                                                                                     \
  codes(28, 29, 30, 31)                                                                                     \
  EDGEQ_STORE_PAIR(8, 12, 0)                                                                                \
  EDGEQ_STORE_PAIR(16, 20, 1)                                                                               \
  EDGEQ_STORE_PAIR(24, 28, 2)

#define EDGEQ_LOAD_SCALES                                                                                   \
  "ld1 {v0.4s-v3.4s}, [%[scale]]\n\t"                                                                       \
  EDGEQ_LOAD_MAGIC(4)

#define EDGEQ_TILE_SATURATE                                                                                 \
  EDGEQ_LOAD_SCALES                                                                                         \
  EDGEQ_THREE_PAIRS(EDGEQ_SATURATED_FOUR)

#define EDGEQ_TILE_ODD                                                                                      \
  EDGEQ_LOAD_SCALES                                                                                         \
  EDGEQ_LOAD_ODD                                                                                            \
  EDGEQ_THREE_PAIRS(EDGEQ_ODD_FOUR)

#define EDGEQ_TILE_CLAMP                                                                                    \
  EDGEQ_LOAD_SCALES                                                                                         \
  EDGEQ_LOAD_ODD                                                                                            \
  EDGEQ_LOAD_CLAMP                                                                                          \
  EDGEQ_THREE_PAIRS(EDGEQ_CLAMPED_FOUR)

// Each product goes where sums that are done with stood.
#define EDGEQ_TILE_RELU                                                                                     \
  "ld1 {v4.4s-v7.4s}, [%[scale]]\n\t"                                                                       \
  EDGEQ_RELU_FOUR(8, 9, 10, 11, 0, 1, 2, 3, addend)                                                         \
  EDGEQ_RELU_FOUR(16, 17, 18, 19, 8, 9, 10, 11, addend)                                                     \
  EDGEQ_RELU_FOUR(24, 25, 26, 27, 16, 17, 18, 19, addend)                                                   \
  EDGEQ_LOAD_MAGIC(24)                                                                                      \
  "ld1 {v4.4s-v7.4s}, [%[scale_high]]\n\t"                                                                  \
  EDGEQ_WORDS_FOUR(0, 1, 2, 3, 24)                                                                          \
  EDGEQ_WORDS_FOUR(8, 9, 10, 11, 24)                                                                        \
  EDGEQ_WORDS_FOUR(16, 17, 18, 19, 24)                                                                      \
  EDGEQ_BYTES(0, 2)                                                                                         \
  EDGEQ_BYTES(8, 10)                                                                                        \
  EDGEQ_BYTES(16, 18)                                                                                       \
  EDGEQ_RELU_FOUR(12, 13, 14, 15, 24, 25, 26, 27, addend_high)                                              \
  EDGEQ_RELU_FOUR(20, 21, 22, 23, 12, 13, 14, 15, addend_high)                                              \
  EDGEQ_RELU_FOUR(28, 29, 30, 31, 20, 21, 22, 23, addend_high)                                              \
  EDGEQ_LOAD_MAGIC(28)                                                                                      \
  EDGEQ_WORDS_FOUR(24, 25, 26, 27, 28)                                                                      \
  EDGEQ_WORDS_FOUR(12, 13, 14, 15, 28)                                                                      \
  EDGEQ_WORDS_FOUR(20, 21, 22, 23, 28)                                                                      \
  EDGEQ_BYTES(24, 26)                                                                                       \
  EDGEQ_BYTES(12, 14)                                                                                       \
  EDGEQ_BYTES(20, 22)                                                                                       \
  EDGEQ_STORE_PAIR(0, 24, 1)                                                                                \
  EDGEQ_STORE_PAIR(8, 12, 2)                                                                                \
  EDGEQ_STORE_PAIR(16, 20, 3)

#define EDGEQ_STORE_SUMS(a, b, c, d, e, f, g, h)                                                            \
  "zip1 v0.2d, v" #a ".2d, v" #b ".2d\n\t"                                                                  \
  "zip1 v1.2d, v" #c ".2d, v" #d ".2d\n\t"                                                                  \
  "zip1 v2.2d, v" #e ".2d, v" #f ".2d\n\t"                                                                  \
  "zip1 v3.2d, v" #g ".2d, v" #h ".2d\n\t"                                                                  \
  "st1 {v0.4s-v3.4s}, [%[dst]], #64\n\t"                                                                    \
  "zip2 v0.2d, v" #a ".2d, v" #b ".2d\n\t"                                                                  \
  "zip2 v1.2d, v" #c ".2d, v" #d ".2d\n\t"                                                                  \
  "zip2 v2.2d, v" #e ".2d, v" #f ".2d\n\t"                                                                  \
  "zip2 v3.2d, v" #g ".2d, v" #h ".2d\n\t"                                                                  \
  "st1 {v0.4s-v3.4s}, [%[dst]], #64\n\t"

#define EDGEQ_TILE_MEMORY                                                                                   \
  EDGEQ_STORE_SUMS(8, 9, 10, 11, 12, 13, 14, 15)                                                            \
  EDGEQ_STORE_SUMS(16, 17, 18, 19, 20, 21, 22, 23)                                                          \
  EDGEQ_STORE_SUMS(24, 25, 26, 27, 28, 29, 30, 31)

// clang-format on

#include "kernels/gemm/arm64_whole_tiles.h"

#endif  // EDGEQ_KERNELS_GEMM_ARM64_NEONI8MM_TILE_H_
