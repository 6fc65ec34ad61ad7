#ifndef EDGEQ_KERNELS_GEMM_ARM64_NEON_LANES_H_
#define EDGEQ_KERNELS_GEMM_ARM64_NEON_LANES_H_

// Tiles of products by one lane, for 4-bit weights: a vector of eight channels' weights, widened to 16 bits,
// times one place of the depth of a row. A lane is the sum of one output: nothing is left to be added up at
// the end, which costs the tiles of arm64_neon_tile.h more the less depth there is. mla adds in 16 bits,
// eight products an instruction, for as long as a panel's notes allow (pack.h); then sums of 32 bits in
// memory take over. With 8-bit weights the products would have to be added in 32 bits, four an instruction.
//
// Rows are widened once for all panels, eight rows beside each other for every eight places of the depth.
// From the products to the codes of all panels it is one statement. Tiles of fewer rows or channels, and the
// last four places of the depth, leave out what is padding.
//
//   v0 .. v7      eight rows: eight channels of each; then biases and scales
//   v8 .. v15     weights of four places of the depth; then what rounds, and a row
//   v16 .. v31    sums: a row in two vectors

#include "kernels/gemm/arm64_neon_finish.h"
#include "kernels/gemm/neon_blocks.h"

namespace edgeq {
namespace {

// clang-format off
#define EDGEQ_IF_ROWS(r, text) ".if %c[count] > " #r "\n\t" text ".endif\n\t"
#define EDGEQ_LANE_WEIGHTS_0 "ld1 {v8.8h-v11.8h}, [%[w]], #64\n\t"
#define EDGEQ_LANE_WEIGHTS_1 "ld1 {v12.8h-v15.8h}, [%[w]], #64\n\t"

// One place of the depth: lane `lane` of the rows, weights in v<b0> and v<b1>.
#define EDGEQ_LANE_ROW(multiply, s0, s1, row, lane, b0, b1) \
  #multiply " v" #s0 ".8h, v" #b0 ".8h, v" #row ".h[" #lane "]\n\t" \
  ".if %c[width] > 8\n\t" \
  #multiply " v" #s1 ".8h, v" #b1 ".8h, v" #row ".h[" #lane "]\n\t" \
  ".endif\n\t"
#define EDGEQ_LANE(multiply, lane, b0, b1) \
  EDGEQ_LANE_ROW(multiply, 16, 17, 0, lane, b0, b1) \
  EDGEQ_IF_ROWS(1, EDGEQ_LANE_ROW(multiply, 18, 19, 1, lane, b0, b1) \
                   EDGEQ_LANE_ROW(multiply, 20, 21, 2, lane, b0, b1) \
                   EDGEQ_LANE_ROW(multiply, 22, 23, 3, lane, b0, b1)) \
  EDGEQ_IF_ROWS(4, EDGEQ_LANE_ROW(multiply, 24, 25, 4, lane, b0, b1) \
                   EDGEQ_LANE_ROW(multiply, 26, 27, 5, lane, b0, b1) \
                   EDGEQ_LANE_ROW(multiply, 28, 29, 6, lane, b0, b1) \
                   EDGEQ_LANE_ROW(multiply, 30, 31, 7, lane, b0, b1))
// A tile of fewer rows skips those of the others.
#define EDGEQ_LANE_LOAD_ROWS \
  ".if %c[count] > 4\n\t" \
  "ld1 {v0.8h-v3.8h}, [%[a]], #64\n\t" \
  "ld1 {v4.8h-v7.8h}, [%[a]], #64\n\t" \
  ".else\n\t" \
  "ld1 {v0.8h-v3.8h}, [%[a]], %[step]\n\t" \
  ".endif\n\t"
#define EDGEQ_LANES(first) \
  EDGEQ_LANE_LOAD_ROWS EDGEQ_LANE_WEIGHTS_0 EDGEQ_LANE_WEIGHTS_1 EDGEQ_LANE(first, 0, 8, 9) EDGEQ_LANE(mla, 1, 10, 11) \
  EDGEQ_LANE_WEIGHTS_0 EDGEQ_LANE(mla, 2, 12, 13) EDGEQ_LANE(mla, 3, 14, 15) \
  EDGEQ_LANE_WEIGHTS_1 EDGEQ_LANE(mla, 4, 8, 9) EDGEQ_LANE(mla, 5, 10, 11) \
  EDGEQ_LANE(mla, 6, 12, 13) EDGEQ_LANE(mla, 7, 14, 15)

// A run of %[run] fours of places, at least two.
#define EDGEQ_LANE_RUN \
  "sub %[left], %[run], #2\n\t" \
  EDGEQ_LANES(mul) \
  "tbz %[left], #1, 9f\n\t" \
  EDGEQ_LANES(mla) \
  "9:\n\t" \
  "lsr %[left], %[left], #2\n\t" \
  "cbz %[left], 3f\n\t" \
  "2:\n\t" \
  EDGEQ_LANES(mla) \
  "subs %[left], %[left], #1\n\t" \
  EDGEQ_LANES(mla) \
  "b.ne 2b\n\t" \
  "3:\n\t" \
  "tbz %[run], #0, 4f\n\t" \
  EDGEQ_LANE_LOAD_ROWS EDGEQ_LANE_WEIGHTS_0 EDGEQ_LANE_WEIGHTS_1 \
  EDGEQ_LANE(mla, 0, 8, 9) EDGEQ_LANE(mla, 1, 10, 11) EDGEQ_LANE(mla, 2, 12, 13) EDGEQ_LANE(mla, 3, 14, 15) \
  "4:\n\t"

// All runs of some panels: sums that are not the last go to memory, and `last` and `last_wide` say what becomes
// of those.
#define EDGEQ_LANE_PANELS(last, last_wide) \
  "10:\n\t" \
  "add %[runs], %[panel], #128\n\t" \
  "add %[w], %[panel], %[weights_at]\n\t" \
  "mov %[a], %[rows]\n\t" \
  "ldrb %w[run], [%[runs]], #1\n\t" \
  "mov %[wide], #0\n\t" \
  "1:\n\t" \
  EDGEQ_LANE_RUN \
  "ldrb %w[run], [%[runs]], #1\n\t" \
  "cbz %[run], 6f\n\t" \
  "cbnz %[wide], 5f\n\t" \
  EDGEQ_LANE_BIASES \
  "mov %[wide], %[sums]\n\t" \
  EDGEQ_LANE_ROWS(EDGEQ_LANE_BEGIN_ROW) \
  "b 1b\n\t" \
  "5:\n\t" \
  "mov %[wide], %[sums]\n\t" \
  EDGEQ_LANE_ROWS(EDGEQ_LANE_ADD_ROW) \
  "b 1b\n\t" \
  "6:\n\t" \
  "cbnz %[wide], 7f\n\t" \
  EDGEQ_LANE_BIASES last \
  "b 8f\n\t" \
  "7:\n\t" \
  "mov %[wide], %[sums]\n\t" \
  last_wide \
  "8:\n\t" \
  "subs %[panels], %[panels], #1\n\t" \
  "add %[panel], %[panel], %[panel_bytes]\n\t" \
  "add %[dst], %[dst], %[dst_next]\n\t" \
  "b.ne 10b"

#define EDGEQ_LANE_ROWS(row) \
  row(16, 17) EDGEQ_IF_ROWS(1, row(18, 19) row(20, 21) row(22, 23)) \
  EDGEQ_IF_ROWS(4, row(24, 25) row(26, 27) row(28, 29) row(30, 31))

// The sums of a row in v12 to v15: with the biases, or with those of 32 bits.
#define EDGEQ_LANE_ADD(s, t, b0, b1, b2, b3) \
  "saddw v12.4s, v" #b0 ".4s, v" #s ".4h\n\t" \
  "saddw2 v13.4s, v" #b1 ".4s, v" #s ".8h\n\t" \
  "saddw v14.4s, v" #b2 ".4s, v" #t ".4h\n\t" \
  "saddw2 v15.4s, v" #b3 ".4s, v" #t ".8h\n\t"
#define EDGEQ_LANE_BIASED(s, t) EDGEQ_LANE_ADD(s, t, 0, 1, 2, 3)
#define EDGEQ_LANE_WIDENED(s, t) \
  "ld1 {v12.4s-v15.4s}, [%[wide]]\n\t" \
  EDGEQ_LANE_ADD(s, t, 12, 13, 14, 15)

#define EDGEQ_LANE_BIASES "ld1 {v0.4s-v3.4s}, [%[panel]]\n\t"
#define EDGEQ_LANE_KEEP "st1 {v12.4s-v15.4s}, [%[wide]], #64\n\t"
#define EDGEQ_LANE_BEGIN_ROW(s, t) EDGEQ_LANE_BIASED(s, t) EDGEQ_LANE_KEEP
#define EDGEQ_LANE_ADD_ROW(s, t) EDGEQ_LANE_WIDENED(s, t) EDGEQ_LANE_KEEP

#define EDGEQ_LANE_SCALES \
  "ldp q4, q5, [%[panel], #64]\n\t" \
  "ldp q6, q7, [%[panel], #96]\n\t" \
  "ldr q8, [%[constants]]\n\t"
#define EDGEQ_LANE_RANGE \
  "ldr q9, [%[constants], #16]\n\t" \
  "ldp q10, q11, [%[constants], #32]\n\t"
#define EDGEQ_LANE_ROUND \
  EDGEQ_TO_FLOAT(12, 13, 14, 15) \
  EDGEQ_STEP(fmul, 4s, 12, 4) EDGEQ_STEP(fmul, 4s, 13, 5) EDGEQ_STEP(fmul, 4s, 14, 6) EDGEQ_STEP(fmul, 4s, 15, 7) \
  EDGEQ_ROUND(12, 13, 14, 15, 8)
#define EDGEQ_LANE_STORE "st1 {v12.16b}, [%[dst]], %[stride]\n\t"
#define EDGEQ_LANE_SATURATE EDGEQ_LANE_ROUND EDGEQ_NARROW(12, 14) EDGEQ_LANE_STORE
#define EDGEQ_LANE_CLAMP EDGEQ_LANE_ROUND EDGEQ_NARROW_AND_CLAMP(12, 14, 9, 10, 11) EDGEQ_LANE_STORE
// kRelu: products from the bits of floats, by addends. A row's four are read at once where four registers are
// free: from the third row on, or without biases.
#define EDGEQ_LANE_RELU_FIRST(s, t) \
  EDGEQ_LANE_BIASED(s, t) \
  "ldp q9, q10, [%[addend]]\n\t" \
  "fmla v9.4s, v12.4s, v4.4s\n\t" \
  "fmla v10.4s, v13.4s, v5.4s\n\t" \
  "ldp q12, q13, [%[addend], #32]\n\t" \
  "fmla v12.4s, v14.4s, v6.4s\n\t" \
  "fmla v13.4s, v15.4s, v7.4s\n\t" \
  EDGEQ_LANE_RELU_CODES(9, 10, 12, 13)
#define EDGEQ_LANE_RELU_BY(a, b, c, d) \
  "ld1 {v" #a ".4s-v" #d ".4s}, [%[addend]]\n\t" \
  "fmla v" #a ".4s, v12.4s, v4.4s\n\t" \
  "fmla v" #b ".4s, v13.4s, v5.4s\n\t" \
  "fmla v" #c ".4s, v14.4s, v6.4s\n\t" \
  "fmla v" #d ".4s, v15.4s, v7.4s\n\t" \
  EDGEQ_LANE_RELU_CODES(a, b, c, d)
#define EDGEQ_LANE_RELU_CODES(a, b, c, d) \
  EDGEQ_ROUND(a, b, c, d, 8) EDGEQ_NARROW(a, c) \
  "st1 {v" #a ".16b}, [%[dst]], %[stride]\n\t"
#define EDGEQ_LANE_RELU_ROW(s, t) EDGEQ_LANE_BIASED(s, t) EDGEQ_LANE_RELU_BY(16, 17, 18, 19)
#define EDGEQ_LANE_RELU_WIDE(s, t) EDGEQ_LANE_WIDENED(s, t) EDGEQ_LANE_NEXT_WIDE EDGEQ_LANE_RELU_BY(0, 1, 2, 3)
#define EDGEQ_LANE_ADDENDS "add %[addend], %[panel], %[addend_at]\n\t"
#define EDGEQ_LANE_RELU_ROWS \
  EDGEQ_LANE_RELU_FIRST(16, 17) \
  EDGEQ_IF_ROWS(1, EDGEQ_LANE_RELU_FIRST(18, 19) EDGEQ_LANE_RELU_ROW(20, 21) EDGEQ_LANE_RELU_ROW(22, 23)) \
  EDGEQ_IF_ROWS(4, EDGEQ_LANE_RELU_ROW(24, 25) EDGEQ_LANE_RELU_ROW(26, 27) EDGEQ_LANE_RELU_ROW(28, 29) \
                   EDGEQ_LANE_RELU_ROW(30, 31))
#define EDGEQ_LANE_NEXT_WIDE "add %[wide], %[wide], #64\n\t"
#define EDGEQ_LANE_SATURATE_ROW(s, t) EDGEQ_LANE_BIASED(s, t) EDGEQ_LANE_SATURATE
#define EDGEQ_LANE_CLAMP_ROW(s, t) EDGEQ_LANE_BIASED(s, t) EDGEQ_LANE_CLAMP
#define EDGEQ_LANE_SATURATE_WIDE(s, t) EDGEQ_LANE_WIDENED(s, t) EDGEQ_LANE_NEXT_WIDE EDGEQ_LANE_SATURATE
#define EDGEQ_LANE_CLAMP_WIDE(s, t) EDGEQ_LANE_WIDENED(s, t) EDGEQ_LANE_NEXT_WIDE EDGEQ_LANE_CLAMP

#define EDGEQ_RUN_LANES(last, last_wide) \
  __asm__ volatile(EDGEQ_LANE_PANELS(last, last_wide) \
                   : [a] "=&r"(a), [w] "=&r"(w), [runs] "=&r"(runs), [run] "=&r"(run), [left] "=&r"(left), \
                     [wide] "=&r"(wide), [addend] "=&r"(addend), [dst] "+r"(dst), [panel] "+r"(panel), \
                     [panels] "+r"(panels) \
                   : [rows] "r"(rows), [sums] "r"(sums), [constants] "r"(&constants), [stride] "r"(stride), \
                     [dst_next] "r"(dst_next), [panel_bytes] "r"(panel_bytes), [step] "r"(step), \
                     [count] "i"(kRows), [width] "i"(kWidth), [addend_at] "i"(kAddends), \
                     [weights_at] "i"(kAddends + LaneBlocks::kChannels * 4) \
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", \
                     "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", \
                     "v26", "v27", "v28", "v29", "v30", "v31", "memory", "cc")
// clang-format on

/// Widens eight rows, `eights` times eight places, and steps `to` past them.
EDGEQ_INLINE void widen_eight_rows(const act_t* const (&rows)[8], size_t eights, int16_t*& to) {
  const act_t *a0 = rows[0], *a1 = rows[1], *a2 = rows[2], *a3 = rows[3];
  const act_t *a4 = rows[4], *a5 = rows[5], *a6 = rows[6], *a7 = rows[7];
  size_t left;
  __asm__ volatile(
      "lsr %[left], %[eights], #1\n\t"
      "cbz %[left], 2f\n\t"
      "1:\n\t"
      "ldr q16, [%[a0]], #16\n\t"
      "ldr q17, [%[a1]], #16\n\t"
      "ldr q18, [%[a2]], #16\n\t"
      "ldr q19, [%[a3]], #16\n\t"
      "sxtl v0.8h, v16.8b\n\t"
      "ldr q20, [%[a4]], #16\n\t"
      "sxtl v1.8h, v17.8b\n\t"
      "ldr q21, [%[a5]], #16\n\t"
      "sxtl v2.8h, v18.8b\n\t"
      "ldr q22, [%[a6]], #16\n\t"
      "sxtl v3.8h, v19.8b\n\t"
      "ldr q23, [%[a7]], #16\n\t"
      "sxtl v4.8h, v20.8b\n\t"
      "st1 {v0.8h-v3.8h}, [%[to]], #64\n\t"
      "sxtl v5.8h, v21.8b\n\t"
      "sxtl v6.8h, v22.8b\n\t"
      "sxtl v7.8h, v23.8b\n\t"
      "sxtl2 v16.8h, v16.16b\n\t"
      "sxtl2 v17.8h, v17.16b\n\t"
      "st1 {v4.8h-v7.8h}, [%[to]], #64\n\t"
      "sxtl2 v18.8h, v18.16b\n\t"
      "sxtl2 v19.8h, v19.16b\n\t"
      "sxtl2 v20.8h, v20.16b\n\t"
      "sxtl2 v21.8h, v21.16b\n\t"
      "st1 {v16.8h-v19.8h}, [%[to]], #64\n\t"
      "sxtl2 v22.8h, v22.16b\n\t"
      "sxtl2 v23.8h, v23.16b\n\t"
      "subs %[left], %[left], #1\n\t"
      "st1 {v20.8h-v23.8h}, [%[to]], #64\n\t"
      "b.ne 1b\n\t"
      "2:\n\t"
      "tbz %[eights], #0, 3f\n\t"
      "ldr d0, [%[a0]]\n\t"
      "ldr d1, [%[a1]]\n\t"
      "ldr d2, [%[a2]]\n\t"
      "ldr d3, [%[a3]]\n\t"
      "ldr d4, [%[a4]]\n\t"
      "ldr d5, [%[a5]]\n\t"
      "ldr d6, [%[a6]]\n\t"
      "ldr d7, [%[a7]]\n\t"
      "sxtl v0.8h, v0.8b\n\t"
      "sxtl v1.8h, v1.8b\n\t"
      "sxtl v2.8h, v2.8b\n\t"
      "sxtl v3.8h, v3.8b\n\t"
      "sxtl v4.8h, v4.8b\n\t"
      "sxtl v5.8h, v5.8b\n\t"
      "sxtl v6.8h, v6.8b\n\t"
      "sxtl v7.8h, v7.8b\n\t"
      "st1 {v0.8h-v3.8h}, [%[to]], #64\n\t"
      "st1 {v4.8h-v7.8h}, [%[to]], #64\n\t"
      "3:"
      : [a0] "+r"(a0), [a1] "+r"(a1), [a2] "+r"(a2), [a3] "+r"(a3), [a4] "+r"(a4), [a5] "+r"(a5),
        [a6] "+r"(a6), [a7] "+r"(a7), [to] "+r"(to), [left] "=&r"(left)
      : [eights] "r"(eights)
      : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21", "v22",
        "v23", "memory", "cc");
}

/// Products of kRows rows (8, 4 or 1) with some panels of kWidth channels (16, or 8 of one panel), to codes
/// at `dst` or, of kMemory and one panel, to sums with biases. What belongs to the channels of a panel beyond
/// kWidth is any.
///
/// Args:
///   rows: Widened, as above.
///   panel: Biases, scales and notes; addends, of kRelu; and the weights, widened, 16 channels of a place of
///   the
///     depth side by side.
///   sums: Sums of 32 bits, of kMemory or where there is more than one run.
template <Finish kFinish, size_t kRows, size_t kWidth>
EDGEQ_INLINE void run_lane_tiles(const int16_t* rows, const uint8_t* panel, size_t panel_bytes, size_t panels,
                                 const FinishConstants& constants, act_t* dst, ptrdiff_t stride,
                                 int32_t* sums) {
  constexpr ptrdiff_t step = 2 * 8 * 8;  // bytes of eight places of eight rows
  constexpr size_t kAddends = LaneBlocks::kChannels * 8 + kGemmLaneNotes;
  const ptrdiff_t dst_next =
      static_cast<ptrdiff_t>(LaneBlocks::kChannels) - static_cast<ptrdiff_t>(kRows) * stride;
  const int16_t *a, *w;
  const uint8_t *runs, *addend;
  const int32_t* wide;
  uint64_t run, left;
  if constexpr (kFinish == Finish::kMemory) {
    EDGEQ_RUN_LANES("mov %[wide], %[sums]\n\t" EDGEQ_LANE_ROWS(EDGEQ_LANE_BEGIN_ROW),
                    EDGEQ_LANE_ROWS(EDGEQ_LANE_ADD_ROW));
  } else if constexpr (kFinish == Finish::kRelu) {
    EDGEQ_RUN_LANES(EDGEQ_LANE_ADDENDS EDGEQ_LANE_SCALES EDGEQ_LANE_RELU_ROWS,
                    EDGEQ_LANE_ADDENDS EDGEQ_LANE_SCALES EDGEQ_LANE_ROWS(EDGEQ_LANE_RELU_WIDE));
  } else if constexpr (kFinish == Finish::kSaturate) {
    EDGEQ_RUN_LANES(EDGEQ_LANE_SCALES EDGEQ_LANE_ROWS(EDGEQ_LANE_SATURATE_ROW),
                    EDGEQ_LANE_SCALES EDGEQ_LANE_ROWS(EDGEQ_LANE_SATURATE_WIDE));
  } else {
    EDGEQ_RUN_LANES(EDGEQ_LANE_SCALES EDGEQ_LANE_RANGE EDGEQ_LANE_ROWS(EDGEQ_LANE_CLAMP_ROW),
                    EDGEQ_LANE_SCALES EDGEQ_LANE_RANGE EDGEQ_LANE_ROWS(EDGEQ_LANE_CLAMP_WIDE));
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_NEON_LANES_H_
