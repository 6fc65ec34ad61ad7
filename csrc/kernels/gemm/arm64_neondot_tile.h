#ifndef EDGEQ_KERNELS_GEMM_ARM64_NEONDOT_TILE_H_
#define EDGEQ_KERNELS_GEMM_ARM64_NEONDOT_TILE_H_

// Whole tiles of six rows by sixteen channels in assembly, from biases to codes. What it saves is
// beside the products: loads and stores of four registers in a row, which no compiler allocates here, and the
// steps of pointers. Registers:
//
//   v0 .. v3    weights of a group, then scales
//   v4, v5      a unit of rows 4 and 5
//   v6, v7      two groups of rows 0 to 3
//   v8 .. v31   sums, row by row

#include "kernels/gemm/arm64_tile.h"

namespace edgeq {
namespace {

// Products of one row, whose sums are registers a to d, with four channels of it.
#define EDGEQ_DOT_ROW(a, b, c, d, channels)         \
  "sdot v" #a ".4s, v0.16b, " channels "\n\t"       \
  "sdot v" #b ".4s, v1.16b, " channels "\n\t"       \
  "sdot v" #c ".4s, v2.16b, " channels "\n\t"       \
  "sdot v" #d ".4s, v3.16b, " channels "\n\t"

// Products of a group: `four` holds it of rows 0 to 3, lane `lane` of v4 and v5 of the others.
#define EDGEQ_DOT_GROUP(four, lane)                 \
  "ld1 {v0.16b-v3.16b}, [%[w]], #64\n\t"            \
  EDGEQ_DOT_ROW(8, 9, 10, 11, four ".4b[0]")        \
  EDGEQ_DOT_ROW(12, 13, 14, 15, four ".4b[1]")      \
  EDGEQ_DOT_ROW(16, 17, 18, 19, four ".4b[2]")      \
  EDGEQ_DOT_ROW(20, 21, 22, 23, four ".4b[3]")      \
  EDGEQ_DOT_ROW(24, 25, 26, 27, "v4.4b[" #lane "]") \
  EDGEQ_DOT_ROW(28, 29, 30, 31, "v5.4b[" #lane "]")

#define EDGEQ_DOT_UNIT                              \
  "ld1 {v4.16b-v7.16b}, [%[a]], #64\n\t"            \
  EDGEQ_DOT_GROUP("v6", 0)                          \
  EDGEQ_DOT_GROUP("v7", 1)                          \
  "ld1 {v6.16b-v7.16b}, [%[a]], #32\n\t"            \
  EDGEQ_DOT_GROUP("v6", 2)                          \
  EDGEQ_DOT_GROUP("v7", 3)

// The sums of a tile. A round is `units` units and the `rest` of one; rows and weights are stepped past.
#define EDGEQ_DOT_SUMS                              \
  "7:\n\t"                                          \
  "mov %[w], %[weights]\n\t"                        \
  "mov %[taps], %[rounds]\n\t"                      \
  "ld1 {v8.4s-v11.4s}, [%[bias]]\n\t"               \
  "ld1 {v12.4s-v15.4s}, [%[bias]]\n\t"              \
  "ld1 {v16.4s-v19.4s}, [%[bias]]\n\t"              \
  "ld1 {v20.4s-v23.4s}, [%[bias]]\n\t"              \
  "ld1 {v24.4s-v27.4s}, [%[bias]]\n\t"              \
  "ld1 {v28.4s-v31.4s}, [%[bias]]\n"                \
  "1:\n\t"                                          \
  "lsr %[count], %[units], #1\n\t"                  \
  "cbz %[count], 6f\n"                              \
  "2:\n\t"                                          \
  "subs %[count], %[count], #1\n\t"                 \
  EDGEQ_DOT_UNIT                                    \
  EDGEQ_DOT_UNIT                                    \
  "b.ne 2b\n"                                       \
  "6:\n\t"                                          \
  "tbz %[units], #0, 3f\n\t"                        \
  EDGEQ_DOT_UNIT                                    \
  "3:\n\t"                                          \
  "cbz %[rest], 5f\n\t"                             \
  "ld1 {v4.16b-v7.16b}, [%[a]], #64\n\t"            \
  "cmp %[rest], #8\n\t"                             \
  EDGEQ_DOT_GROUP("v6", 0)                          \
  "b.lo 4f\n\t"                                     \
  EDGEQ_DOT_GROUP("v7", 1)                          \
  "b.eq 4f\n\t"                                     \
  "ld1 {v6.16b-v7.16b}, [%[a]]\n\t"                 \
  EDGEQ_DOT_GROUP("v6", 2)                          \
  "4:\n\t"                                          \
  "add %[a], %[a], #32\n"                           \
  "5:\n\t"                                          \
  "subs %[taps], %[taps], #1\n\t"                   \
  "b.ne 1b\n\t"

// Products of a row's sums, a to d, from scales in v0 to v3; v4 rounds them (SmallProducts).
#define EDGEQ_ROUND_ROW(a, b, c, d)                 \
  "scvtf v" #a ".4s, v" #a ".4s\n\t"                \
  "scvtf v" #b ".4s, v" #b ".4s\n\t"                \
  "scvtf v" #c ".4s, v" #c ".4s\n\t"                \
  "scvtf v" #d ".4s, v" #d ".4s\n\t"                \
  "fmul v" #a ".4s, v" #a ".4s, v0.4s\n\t"          \
  "fmul v" #b ".4s, v" #b ".4s, v1.4s\n\t"          \
  "fmul v" #c ".4s, v" #c ".4s, v2.4s\n\t"          \
  "fmul v" #d ".4s, v" #d ".4s, v3.4s\n\t"          \
  EDGEQ_ADD_ROW(a, b, c, d, 4)

#define EDGEQ_ADD_ROW(a, b, c, d, magic)            \
  "fadd v" #a ".4s, v" #a ".4s, v" #magic ".4s\n\t" \
  "fadd v" #b ".4s, v" #b ".4s, v" #magic ".4s\n\t" \
  "fadd v" #c ".4s, v" #c ".4s, v" #magic ".4s\n\t" \
  "fadd v" #d ".4s, v" #d ".4s, v" #magic ".4s\n\t" \
  "uzp1 v" #a ".8h, v" #a ".8h, v" #b ".8h\n\t"     \
  "uzp1 v" #c ".8h, v" #c ".8h, v" #d ".8h\n\t"

#define EDGEQ_ODD_ROW(a, c)                         \
  "add v" #a ".8h, v" #a ".8h, v5.8h\n\t"           \
  "add v" #c ".8h, v" #c ".8h, v5.8h\n\t"

#define EDGEQ_NARROW_ROW(a, c)                      \
  "sqxtn v" #a ".8b, v" #a ".8h\n\t"                \
  "sqxtn2 v" #a ".16b, v" #c ".8h\n\t"

#define EDGEQ_CLAMP_ROW(a)                          \
  "smax v" #a ".16b, v" #a ".16b, v6.16b\n\t"       \
  "smin v" #a ".16b, v" #a ".16b, v7.16b\n\t"

#define EDGEQ_STORE_ROW(a) "st1 {v" #a ".16b}, [%[dst]], %[stride]\n\t"

#define EDGEQ_SATURATE_ROW(a, b, c, d)              \
  EDGEQ_ROUND_ROW(a, b, c, d)                       \
  EDGEQ_NARROW_ROW(a, c)                            \
  EDGEQ_STORE_ROW(a)

#define EDGEQ_ADD_ODD_ROW(a, b, c, d)               \
  EDGEQ_ROUND_ROW(a, b, c, d)                       \
  EDGEQ_ODD_ROW(a, c)                               \
  EDGEQ_NARROW_ROW(a, c)                            \
  EDGEQ_STORE_ROW(a)

#define EDGEQ_CLAMPED_ROW(a, b, c, d)               \
  EDGEQ_ROUND_ROW(a, b, c, d)                       \
  EDGEQ_ODD_ROW(a, c)                               \
  EDGEQ_NARROW_ROW(a, c)                            \
  EDGEQ_CLAMP_ROW(a)                                \
  EDGEQ_STORE_ROW(a)

#define EDGEQ_SIX_ROWS(row)                         \
  row(8, 9, 10, 11) row(12, 13, 14, 15)             \
  row(16, 17, 18, 19) row(20, 21, 22, 23)           \
  row(24, 25, 26, 27) row(28, 29, 30, 31)

// Scales, and what SmallRange holds.
#define EDGEQ_LOAD_RANGE                            \
  "ld1 {v0.4s-v3.4s}, [%[scale]]\n\t"               \
  "ld1r {v4.4s}, [%[range]]\n\t"

#define EDGEQ_LOAD_ODD                              \
  "add %[count], %[range], #4\n\t"                  \
  "ld1r {v5.8h}, [%[count]]\n\t"

#define EDGEQ_LOAD_CLAMP                            \
  "add %[count], %[range], #6\n\t"                  \
  "ld1r {v6.16b}, [%[count]], #1\n\t"               \
  "ld1r {v7.16b}, [%[count]]\n\t"

// Sums that began from the bits of 2^23, a to d, to products in x to z: from scales in v4 to v7.
#define EDGEQ_RELU_ROW(a, b, c, d, w, x, y, z)                  \
  "ld1 {v" #w ".4s-v" #z ".4s}, [%[addend]]\n\t"                \
  "fmla v" #w ".4s, v" #a ".4s, v4.4s\n\t"                      \
  "fmla v" #x ".4s, v" #b ".4s, v5.4s\n\t"                      \
  "fmla v" #y ".4s, v" #c ".4s, v6.4s\n\t"                      \
  "fmla v" #z ".4s, v" #d ".4s, v7.4s\n\t"

#define EDGEQ_STORE_TWO_ROWS                        \
  EDGEQ_ADD_ROW(0, 1, 2, 3, 12)                     \
  EDGEQ_ADD_ROW(8, 9, 10, 11, 12)                   \
  EDGEQ_NARROW_ROW(0, 2)                            \
  EDGEQ_NARROW_ROW(8, 10)                           \
  EDGEQ_STORE_ROW(0)                                \
  EDGEQ_STORE_ROW(8)

#define EDGEQ_RUN_TILE(finish)                                                                             \
  __asm__ volatile(EDGEQ_DOT_SUMS finish                                                                   \
                   "subs %[left], %[left], #1\n\t"                                                         \
                   "b.ne 7b"                                                                               \
                   : [a] "+r"(a), [w] "=&r"(w), [taps] "=&r"(taps), [count] "=&r"(count), [dst] "+r"(dst), \
                     [left] "+r"(left)                                                                     \
                   : [weights] "r"(tiles.weights), [rounds] "r"(tiles.taps), [units] "r"(tiles.units),     \
                     [rest] "r"(tiles.rest), [bias] "r"(tiles.bias), [scale] "r"(tiles.scale),             \
                     [addend] "r"(tiles.addend), [range] "r"(&range), [stride] "r"(stride)                 \
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",      \
                     "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24",   \
                     "v25", "v26", "v27", "v28", "v29", "v30", "v31", "cc", "memory")

/// `left` whole tiles, one below the other: steps `a` past their rows and `dst` past their codes (kMemory:
/// their sums).
template <Finish kFinish, typename Element>
EDGEQ_INLINE void run_whole_tiles(const Tiles& tiles, const SmallRange& range, size_t left, const int8_t*& a,
                                  Element*& dst, ptrdiff_t stride) {
  static_assert(sizeof(SmallRange) == 8, "magic, odd, min, max");
  const int8_t* w;
  size_t taps, count;
  if constexpr (kFinish == Finish::kRelu) {
    EDGEQ_RUN_TILE("ld1 {v4.4s-v7.4s}, [%[scale]]\n\t"                      //
                   EDGEQ_RELU_ROW(8, 9, 10, 11, 0, 1, 2, 3)                 //
                   EDGEQ_RELU_ROW(12, 13, 14, 15, 8, 9, 10, 11)             //
                   "ld1r {v12.4s}, [%[range]]\n\t" EDGEQ_STORE_TWO_ROWS     //
                   EDGEQ_RELU_ROW(16, 17, 18, 19, 0, 1, 2, 3)               //
                   EDGEQ_RELU_ROW(20, 21, 22, 23, 8, 9, 10, 11)             //
                   EDGEQ_STORE_TWO_ROWS                                     //
                   EDGEQ_RELU_ROW(24, 25, 26, 27, 0, 1, 2, 3)               //
                   EDGEQ_RELU_ROW(28, 29, 30, 31, 8, 9, 10, 11)             //
                   EDGEQ_STORE_TWO_ROWS);
  } else if constexpr (kFinish == Finish::kSaturate) {
    EDGEQ_RUN_TILE(EDGEQ_LOAD_RANGE EDGEQ_SIX_ROWS(EDGEQ_SATURATE_ROW));
  } else if constexpr (kFinish == Finish::kOdd) {
    EDGEQ_RUN_TILE(EDGEQ_LOAD_RANGE EDGEQ_LOAD_ODD EDGEQ_SIX_ROWS(EDGEQ_ADD_ODD_ROW));
  } else if constexpr (kFinish == Finish::kClamp) {
    EDGEQ_RUN_TILE(EDGEQ_LOAD_RANGE EDGEQ_LOAD_ODD EDGEQ_LOAD_CLAMP EDGEQ_SIX_ROWS(EDGEQ_CLAMPED_ROW));
  } else {
    EDGEQ_RUN_TILE(
        "st1 {v8.4s-v11.4s}, [%[dst]], #64\n\t"
        "st1 {v12.4s-v15.4s}, [%[dst]], #64\n\t"
        "st1 {v16.4s-v19.4s}, [%[dst]], #64\n\t"
        "st1 {v20.4s-v23.4s}, [%[dst]], #64\n\t"
        "st1 {v24.4s-v27.4s}, [%[dst]], #64\n\t"
        "st1 {v28.4s-v31.4s}, [%[dst]], #64\n\t");
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_NEONDOT_TILE_H_
