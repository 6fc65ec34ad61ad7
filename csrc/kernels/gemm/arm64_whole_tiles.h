#ifndef EDGEQ_KERNELS_GEMM_ARM64_WHOLE_TILES_H_
#define EDGEQ_KERNELS_GEMM_ARM64_WHOLE_TILES_H_

// Whole tiles of six rows by sixteen channels in assembly, from biases to codes, one below the other. What it
// saves is beside the products: loads and stores of four registers in a row, which no compiler allocates
// where all registers are in use, the steps of pointers, and moves between registers.
//
// A level's header defines what differs, and includes this last:
//
//   EDGEQ_STORE_ROWS_4_5, EDGEQ_STORE_ROWS_0_3
//                          a unit of sixteen channels of these rows, from registers, to where tiles read it
//   EDGEQ_TILE_BIAS        biases to the sums, v8 to v31
//   EDGEQ_TILE_UNIT        products of a unit, which a and w are stepped past
//   EDGEQ_TILE_REST        the same of `rest` channels, a multiple of kKr below sixteen; not zero
//   EDGEQ_TILE_RELU, EDGEQ_TILE_SATURATE, EDGEQ_TILE_ODD, EDGEQ_TILE_CLAMP, EDGEQ_TILE_MEMORY
//                          sums to memory as in Finish; dst is stepped past

#include "kernels/gemm/arm64_tile.h"

namespace edgeq {
namespace {

// clang-format off

// Products of four registers' sums, a to d, by scales in v0 to v3, as words in a and c; v4 rounds them
// (SmallProducts).
#define EDGEQ_ROUND_FOUR(a, b, c, d)                                                                        \
  "scvtf v" #a ".4s, v" #a ".4s\n\t"                                                                        \
  "scvtf v" #b ".4s, v" #b ".4s\n\t"                                                                        \
  "scvtf v" #c ".4s, v" #c ".4s\n\t"                                                                        \
  "scvtf v" #d ".4s, v" #d ".4s\n\t"                                                                        \
  "fmul v" #a ".4s, v" #a ".4s, v0.4s\n\t"                                                                  \
  "fmul v" #b ".4s, v" #b ".4s, v1.4s\n\t"                                                                  \
  "fmul v" #c ".4s, v" #c ".4s, v2.4s\n\t"                                                                  \
  "fmul v" #d ".4s, v" #d ".4s, v3.4s\n\t"                                                                  \
  EDGEQ_WORDS_FOUR(a, b, c, d, 4)

#define EDGEQ_WORDS_FOUR(a, b, c, d, magic)                                                                 \
  "fadd v" #a ".4s, v" #a ".4s, v" #magic ".4s\n\t"                                                         \
  "fadd v" #b ".4s, v" #b ".4s, v" #magic ".4s\n\t"                                                         \
  "fadd v" #c ".4s, v" #c ".4s, v" #magic ".4s\n\t"                                                         \
  "fadd v" #d ".4s, v" #d ".4s, v" #magic ".4s\n\t"                                                         \
  "uzp1 v" #a ".8h, v" #a ".8h, v" #b ".8h\n\t"                                                             \
  "uzp1 v" #c ".8h, v" #c ".8h, v" #d ".8h\n\t"

#define EDGEQ_ADD_ODD(a, c)                                                                                 \
  "add v" #a ".8h, v" #a ".8h, v5.8h\n\t"                                                                   \
  "add v" #c ".8h, v" #c ".8h, v5.8h\n\t"

#define EDGEQ_BYTES(a, c)                                                                                   \
  "sqxtn v" #a ".8b, v" #a ".8h\n\t"                                                                        \
  "sqxtn2 v" #a ".16b, v" #c ".8h\n\t"

// Codes of four registers' sums, in a.
#define EDGEQ_SATURATED_FOUR(a, b, c, d)                                                                    \
  EDGEQ_ROUND_FOUR(a, b, c, d)                                                                              \
  EDGEQ_BYTES(a, c)

#define EDGEQ_ODD_FOUR(a, b, c, d)                                                                          \
  EDGEQ_ROUND_FOUR(a, b, c, d)                                                                              \
  EDGEQ_ADD_ODD(a, c)                                                                                       \
  EDGEQ_BYTES(a, c)

#define EDGEQ_CLAMPED_FOUR(a, b, c, d)                                                                      \
  EDGEQ_ODD_FOUR(a, b, c, d)                                                                                \
  "smax v" #a ".16b, v" #a ".16b, v6.16b\n\t"                                                               \
  "smin v" #a ".16b, v" #a ".16b, v7.16b\n\t"

// Sums that began from the bits of 2^23, a to d, to products in x to z: by scales in v4 to v7.
#define EDGEQ_RELU_FOUR(a, b, c, d, w, x, y, z, addend)                                                     \
  "ld1 {v" #w ".4s-v" #z ".4s}, [%[" #addend "]]\n\t"                                                       \
  "fmla v" #w ".4s, v" #a ".4s, v4.4s\n\t"                                                                  \
  "fmla v" #x ".4s, v" #b ".4s, v5.4s\n\t"                                                                  \
  "fmla v" #y ".4s, v" #c ".4s, v6.4s\n\t"                                                                  \
  "fmla v" #z ".4s, v" #d ".4s, v7.4s\n\t"

// What SmallRange holds.
#define EDGEQ_LOAD_MAGIC(to)                                                                                \
  "ld1r {v" #to ".4s}, [%[range]]\n\t"

#define EDGEQ_LOAD_ODD                                                                                      \
  "add %[count], %[range], #4\n\t"                                                                          \
  "ld1r {v5.8h}, [%[count]]\n\t"

#define EDGEQ_LOAD_CLAMP                                                                                    \
  "add %[count], %[range], #6\n\t"                                                                          \
  "ld1r {v6.16b}, [%[count]], #1\n\t"                                                                       \
  "ld1r {v7.16b}, [%[count]]\n\t"

#define EDGEQ_STORE_CODES(a)                                                                                \
  "st1 {v" #a ".16b}, [%[dst]], %[stride]\n\t"

// The sums of a tile of any depth, in rounds: `units` units, and the rest of one.
#define EDGEQ_TILE_ROUNDS                                                                                   \
  "7:\n\t"                                                                                                  \
  "mov %[w], %[weights]\n\t"                                                                                \
  "mov %[taps], %[rounds]\n\t"                                                                              \
  EDGEQ_TILE_BIAS                                                                                           \
  "1:\n\t"                                                                                                  \
  "lsr %[count], %[units], #1\n\t"                                                                          \
  "cbz %[count], 3f\n\t"                                                                                    \
  "2:\n\t"                                                                                                  \
  "subs %[count], %[count], #1\n\t"                                                                         \
  EDGEQ_TILE_UNIT                                                                                           \
  EDGEQ_TILE_UNIT                                                                                           \
  "b.ne 2b\n\t"                                                                                             \
  "3:\n\t"                                                                                                  \
  "tbz %[units], #0, 4f\n\t"                                                                                \
  EDGEQ_TILE_UNIT                                                                                           \
  "4:\n\t"                                                                                                  \
  "cbz %[rest], 6f\n\t"                                                                                     \
  EDGEQ_TILE_REST                                                                                           \
  "6:\n\t"                                                                                                  \
  "subs %[taps], %[taps], #1\n\t"                                                                           \
  "b.ne 1b\n\t"

// The same where there is one round of whole units, at least one: less to decide for each tile and unit.
#define EDGEQ_TILE_UNITS                                                                                    \
  "7:\n\t"                                                                                                  \
  "mov %[w], %[weights]\n\t"                                                                                \
  "lsr %[count], %[units], #2\n\t"                                                                          \
  EDGEQ_TILE_BIAS                                                                                           \
  "tbz %[units], #1, 1f\n\t"                                                                                \
  EDGEQ_TILE_UNIT                                                                                           \
  EDGEQ_TILE_UNIT                                                                                           \
  "1:\n\t"                                                                                                  \
  "tbz %[units], #0, 2f\n\t"                                                                                \
  EDGEQ_TILE_UNIT                                                                                           \
  "2:\n\t"                                                                                                  \
  "cbz %[count], 4f\n\t"                                                                                    \
  "3:\n\t"                                                                                                  \
  "subs %[count], %[count], #1\n\t"                                                                         \
  EDGEQ_TILE_UNIT                                                                                           \
  EDGEQ_TILE_UNIT                                                                                           \
  EDGEQ_TILE_UNIT                                                                                           \
  EDGEQ_TILE_UNIT                                                                                           \
  "b.ne 3b\n\t"                                                                                             \
  "4:\n\t"

#define EDGEQ_RUN_TILES(sums, finish)                                                                       \
  __asm__ volatile(sums finish                                                                              \
                   "subs %[left], %[left], #1\n\t"                                                          \
                   "b.ne 7b"                                                                                \
                   : [a] "+r"(a), [w] "=&r"(w), [taps] "=&r"(taps), [count] "=&r"(count), [dst] "+r"(dst),  \
                     [left] "+r"(left)                                                                      \
                   : [weights] "r"(tiles.weights), [rounds] "r"(tiles.taps), [units] "r"(tiles.units),      \
                     [rest] "r"(tiles.rest), [bias] "r"(tiles.bias), [bias_high] "r"(tiles.bias + 16),      \
                     [scale] "r"(tiles.scale), [scale_high] "r"(tiles.scale + 16),                          \
                     [addend] "r"(tiles.addend), [addend_high] "r"(tiles.addend + 16),                      \
                     [range] "r"(&range), [stride] "r"(stride)                                              \
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",       \
                     "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24",    \
                     "v25", "v26", "v27", "v28", "v29", "v30", "v31", "cc", "memory")

#define EDGEQ_TILES(finish)                                                                                 \
  if constexpr (kUnits) {                                                                                   \
    EDGEQ_RUN_TILES(EDGEQ_TILE_UNITS, finish);                                                              \
  } else {                                                                                                  \
    EDGEQ_RUN_TILES(EDGEQ_TILE_ROUNDS, finish);                                                             \
  }

// clang-format on

/// `left` whole tiles, one below the other: steps `a` past their rows and `dst` past their codes (kMemory:
/// their sums). kUnits: one round of whole units.
template <Finish kFinish, bool kUnits, typename Element>
EDGEQ_INLINE void run_whole_tiles(const Tiles& tiles, const SmallRange& range, size_t left, const int8_t*& a,
                                  Element*& dst, ptrdiff_t stride) {
  static_assert(sizeof(SmallRange) == 8, "magic, odd, min, max");
  const int8_t* w;
  size_t taps, count;
  if constexpr (kFinish == Finish::kRelu) {
    EDGEQ_TILES(EDGEQ_TILE_RELU)
  } else if constexpr (kFinish == Finish::kSaturate) {
    EDGEQ_TILES(EDGEQ_TILE_SATURATE)
  } else if constexpr (kFinish == Finish::kOdd) {
    EDGEQ_TILES(EDGEQ_TILE_ODD)
  } else if constexpr (kFinish == Finish::kClamp) {
    EDGEQ_TILES(EDGEQ_TILE_CLAMP)
  } else {
    EDGEQ_TILES(EDGEQ_TILE_MEMORY)
  }
}

// clang-format off

/// Writes `units` units of six rows as tiles read them. Returns the end.
EDGEQ_INLINE int8_t* interleave_units(const int8_t* r0, const int8_t* r1, const int8_t* r2, const int8_t* r3,
                                      const int8_t* r4, const int8_t* r5, size_t units, int8_t* to) {
  for (size_t pairs = units / 2; pairs > 0; --pairs) {
    __asm__ volatile(
        "ldp q16, q22, [%[r4]], #32\n\t"
        "ldp q17, q23, [%[r5]], #32\n\t"
        "ldp q18, q24, [%[r0]], #32\n\t"
        "ldp q19, q25, [%[r1]], #32\n\t"
        "ldp q20, q26, [%[r2]], #32\n\t"
        "ldp q21, q27, [%[r3]], #32\n\t"
        EDGEQ_STORE_ROWS_4_5(16, 17)
        EDGEQ_STORE_ROWS_0_3(18, 21)
        EDGEQ_STORE_ROWS_4_5(22, 23)
        EDGEQ_STORE_ROWS_0_3(24, 27)
        : [to] "+r"(to), [r0] "+r"(r0), [r1] "+r"(r1), [r2] "+r"(r2), [r3] "+r"(r3), [r4] "+r"(r4),
          [r5] "+r"(r5)
        :
        : "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "memory");
  }
  if (units % 2 != 0) {
    __asm__ volatile(
        "ldr q16, [%[r4]]\n\t"
        "ldr q17, [%[r5]]\n\t"
        "ldr q18, [%[r0]]\n\t"
        "ldr q19, [%[r1]]\n\t"
        "ldr q20, [%[r2]]\n\t"
        "ldr q21, [%[r3]]\n\t"
        EDGEQ_STORE_ROWS_4_5(16, 17)
        EDGEQ_STORE_ROWS_0_3(18, 21)
        : [to] "+r"(to)
        : [r0] "r"(r0), [r1] "r"(r1), [r2] "r"(r2), [r3] "r"(r3), [r4] "r"(r4), [r5] "r"(r5)
        : "v16", "v17", "v18", "v19", "v20", "v21", "memory");
  }
  return to;
}

// clang-format on

/// The whole tiles of a panel, or some of them.
template <Finish kFinish, typename Element>
EDGEQ_INLINE void run_whole_tiles(const Tiles& tiles, const SmallRange& range, size_t count,
                                  const int8_t*& lhs, Element*& dst, ptrdiff_t stride) {
  if (tiles.taps == 1 && tiles.rest == 0) {
    run_whole_tiles<kFinish, true>(tiles, range, count, lhs, dst, stride);
  } else {
    run_whole_tiles<kFinish, false>(tiles, range, count, lhs, dst, stride);
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_WHOLE_TILES_H_
