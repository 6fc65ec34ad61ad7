#ifndef EDGEQ_KERNELS_GEMM_ARM64_NEON_TILE_H_
#define EDGEQ_KERNELS_GEMM_ARM64_NEON_TILE_H_

// The whole tiles of the plain NEON kernels on 64 bits: four rows by four channels. They are written out,
// because compilers keep too many products in flight and the sums in memory, and an asm statement takes fewer
// operands than there are sums:
//
//   v0 .. v15     sums, 4 * row + channel
//   v16 .. v23    rows, 32 channels of each at most
//   v24 .. v27    weights: 16 channels of each output channel
//   v28 .. v31    products (W8), or the weights of the next 16 channels (W4)
//
// An in-order core would wait where an instruction takes what the one before it yields: the four products of
// a row go through their steps side by side.

#include "kernels/gemm/arm64_neon_finish.h"
#include "kernels/gemm/neon_blocks.h"

namespace edgeq {
namespace {

// clang-format off
#define EDGEQ_LOAD_32 \
  "ldp q16, q17, [%[a0]], #32\n\t" \
  "ldp q18, q19, [%[a1]], #32\n\t" \
  "ldp q20, q21, [%[a2]], #32\n\t" \
  "ldp q22, q23, [%[a3]], #32\n\t"
#define EDGEQ_LOAD_16 \
  "ldr q16, [%[a0]], #16\n\t" \
  "ldr q18, [%[a1]], #16\n\t" \
  "ldr q20, [%[a2]], #16\n\t" \
  "ldr q22, [%[a3]], #16\n\t"
#define EDGEQ_LOAD_8 \
  "ldr d16, [%[a0]]\n\t" \
  "ldr d18, [%[a1]]\n\t" \
  "ldr d20, [%[a2]]\n\t" \
  "ldr d22, [%[a3]]\n\t"
#define EDGEQ_WEIGHTS_16 "ld1 {v24.16b, v25.16b, v26.16b, v27.16b}, [%[w]], #64\n\t"
#define EDGEQ_NEXT_WEIGHTS_16 "ld1 {v28.16b, v29.16b, v30.16b, v31.16b}, [%[w]], #64\n\t"
#define EDGEQ_WEIGHTS_8 "ld1 {v24.8b, v25.8b, v26.8b, v27.8b}, [%[w]], #32\n\t"

// ---- W8 ----

// The products of the row in register v<a> with four channels, and their sums in pairs: added to the sums in
// v<s0> to v<s3> (sadalp), or beginning these (saddlp).
#define EDGEQ_PRODUCTS_8(a) \
  "smull v28.8h, v" #a ".8b, v24.8b\n\t" \
  "smull v29.8h, v" #a ".8b, v25.8b\n\t" \
  "smull v30.8h, v" #a ".8b, v26.8b\n\t" \
  "smull v31.8h, v" #a ".8b, v27.8b\n\t"
#define EDGEQ_PRODUCTS_16(a) \
  EDGEQ_PRODUCTS_8(a) \
  "smlal2 v28.8h, v" #a ".16b, v24.16b\n\t" \
  "smlal2 v29.8h, v" #a ".16b, v25.16b\n\t" \
  "smlal2 v30.8h, v" #a ".16b, v26.16b\n\t" \
  "smlal2 v31.8h, v" #a ".16b, v27.16b\n\t"
#define EDGEQ_WIDEN(add, s0, s1, s2, s3) \
  #add " v" #s0 ".4s, v28.8h\n\t" \
  #add " v" #s1 ".4s, v29.8h\n\t" \
  #add " v" #s2 ".4s, v30.8h\n\t" \
  #add " v" #s3 ".4s, v31.8h\n\t"
#define EDGEQ_W8_THREE_ROWS(add, a0, a1, a2) \
  EDGEQ_PRODUCTS_16(a0) EDGEQ_WIDEN(add, 0, 1, 2, 3) \
  EDGEQ_PRODUCTS_16(a1) EDGEQ_WIDEN(add, 4, 5, 6, 7) \
  EDGEQ_PRODUCTS_16(a2) EDGEQ_WIDEN(add, 8, 9, 10, 11)
#define EDGEQ_W8_16(add, a0, a1, a2, a3) \
  EDGEQ_W8_THREE_ROWS(add, a0, a1, a2) \
  EDGEQ_PRODUCTS_16(a3) EDGEQ_WIDEN(add, 12, 13, 14, 15)
#define EDGEQ_W8_BEGIN EDGEQ_LOAD_16 EDGEQ_WEIGHTS_16 EDGEQ_W8_16(saddlp, 16, 18, 20, 22)
#define EDGEQ_W8_ADD_16 EDGEQ_LOAD_16 EDGEQ_WEIGHTS_16 EDGEQ_W8_16(sadalp, 16, 18, 20, 22)
// The second weights load while the last sums of the first are added.
#define EDGEQ_W8_32(add) \
  EDGEQ_LOAD_32 EDGEQ_WEIGHTS_16 EDGEQ_W8_THREE_ROWS(add, 16, 18, 20) \
  EDGEQ_PRODUCTS_16(22) EDGEQ_WEIGHTS_16 EDGEQ_WIDEN(add, 12, 13, 14, 15) \
  EDGEQ_W8_16(sadalp, 17, 19, 21, 23)
// The same where four products of a lane are added in 16 bits.
#define EDGEQ_W8_ROW_32(add, a, b, s0, s1, s2, s3) \
  "smull v20.8h, v" #a ".8b, v24.8b\n\t" \
  "smull v21.8h, v" #a ".8b, v25.8b\n\t" \
  "smull v22.8h, v" #a ".8b, v26.8b\n\t" \
  "smull v23.8h, v" #a ".8b, v27.8b\n\t" \
  "smlal2 v20.8h, v" #a ".16b, v24.16b\n\t" \
  "smlal2 v21.8h, v" #a ".16b, v25.16b\n\t" \
  "smlal2 v22.8h, v" #a ".16b, v26.16b\n\t" \
  "smlal2 v23.8h, v" #a ".16b, v27.16b\n\t" \
  "smlal v20.8h, v" #b ".8b, v28.8b\n\t" \
  "smlal v21.8h, v" #b ".8b, v29.8b\n\t" \
  "smlal v22.8h, v" #b ".8b, v30.8b\n\t" \
  "smlal v23.8h, v" #b ".8b, v31.8b\n\t" \
  "smlal2 v20.8h, v" #b ".16b, v28.16b\n\t" \
  "smlal2 v21.8h, v" #b ".16b, v29.16b\n\t" \
  "smlal2 v22.8h, v" #b ".16b, v30.16b\n\t" \
  "smlal2 v23.8h, v" #b ".16b, v31.16b\n\t" \
  #add " v" #s0 ".4s, v20.8h\n\t" \
  #add " v" #s1 ".4s, v21.8h\n\t" \
  #add " v" #s2 ".4s, v22.8h\n\t" \
  #add " v" #s3 ".4s, v23.8h\n\t"
#define EDGEQ_W8_PAIR(add) \
  "ldp q16, q17, [%[a0]], #32\n\t" \
  EDGEQ_WEIGHTS_16 EDGEQ_NEXT_WEIGHTS_16 \
  "ldp q18, q19, [%[a1]], #32\n\t" \
  EDGEQ_W8_ROW_32(add, 16, 17, 0, 1, 2, 3) \
  "ldp q16, q17, [%[a2]], #32\n\t" \
  EDGEQ_W8_ROW_32(add, 18, 19, 4, 5, 6, 7) \
  "ldp q18, q19, [%[a3]], #32\n\t" \
  EDGEQ_W8_ROW_32(add, 16, 17, 8, 9, 10, 11) \
  EDGEQ_W8_ROW_32(add, 18, 19, 12, 13, 14, 15)
// 32 channels at a time, one way or the other.
#define EDGEQ_W8_BEGIN_32 \
  "ldrb %w[pair], [%[pairs]], #1\n\t" \
  "cbnz %w[pair], 9f\n\t" \
  EDGEQ_W8_32(saddlp) \
  "b 3f\n\t" \
  "9:\n\t" \
  EDGEQ_W8_PAIR(saddlp) \
  "b 3f\n\t"
#define EDGEQ_W8_LOOP_32 \
  "1:\n\t" \
  "ldrb %w[pair], [%[pairs]], #1\n\t" \
  "sub %[left], %[left], #1\n\t" \
  "cbnz %w[pair], 9f\n\t" \
  EDGEQ_W8_32(sadalp) \
  "cbnz %[left], 1b\n\t" \
  "b 4f\n\t" \
  "9:\n\t" \
  EDGEQ_W8_PAIR(sadalp) \
  "cbnz %[left], 1b\n\t"
#define EDGEQ_W8_ADD_8 \
  EDGEQ_LOAD_8 EDGEQ_WEIGHTS_8 \
  EDGEQ_PRODUCTS_8(16) EDGEQ_WIDEN(sadalp, 0, 1, 2, 3) \
  EDGEQ_PRODUCTS_8(18) EDGEQ_WIDEN(sadalp, 4, 5, 6, 7) \
  EDGEQ_PRODUCTS_8(20) EDGEQ_WIDEN(sadalp, 8, 9, 10, 11) \
  EDGEQ_PRODUCTS_8(22) EDGEQ_WIDEN(sadalp, 12, 13, 14, 15)

// ---- W4 ----

// Products of the row in v<a> with the weights in v<b0> to v<b3>, added to the sums in v<s0> to v<s3> (smlal),
// or beginning them (smull).
#define EDGEQ_LOW_PRODUCTS(multiply, a, b0, b1, b2, b3, s0, s1, s2, s3) \
  #multiply " v" #s0 ".8h, v" #a ".8b, v" #b0 ".8b\n\t" \
  #multiply " v" #s1 ".8h, v" #a ".8b, v" #b1 ".8b\n\t" \
  #multiply " v" #s2 ".8h, v" #a ".8b, v" #b2 ".8b\n\t" \
  #multiply " v" #s3 ".8h, v" #a ".8b, v" #b3 ".8b\n\t"
#define EDGEQ_W4_ROW(multiply, a, b0, b1, b2, b3, s0, s1, s2, s3) \
  EDGEQ_LOW_PRODUCTS(multiply, a, b0, b1, b2, b3, s0, s1, s2, s3) \
  "smlal2 v" #s0 ".8h, v" #a ".16b, v" #b0 ".16b\n\t" \
  "smlal2 v" #s1 ".8h, v" #a ".16b, v" #b1 ".16b\n\t" \
  "smlal2 v" #s2 ".8h, v" #a ".16b, v" #b2 ".16b\n\t" \
  "smlal2 v" #s3 ".8h, v" #a ".16b, v" #b3 ".16b\n\t"
#define EDGEQ_W4_16(multiply, a0, a1, a2, a3, b0, b1, b2, b3) \
  EDGEQ_W4_ROW(multiply, a0, b0, b1, b2, b3, 0, 1, 2, 3) \
  EDGEQ_W4_ROW(multiply, a1, b0, b1, b2, b3, 4, 5, 6, 7) \
  EDGEQ_W4_ROW(multiply, a2, b0, b1, b2, b3, 8, 9, 10, 11) \
  EDGEQ_W4_ROW(multiply, a3, b0, b1, b2, b3, 12, 13, 14, 15)
#define EDGEQ_W4_BEGIN EDGEQ_LOAD_16 EDGEQ_WEIGHTS_16 EDGEQ_W4_16(smull, 16, 18, 20, 22, 24, 25, 26, 27)
#define EDGEQ_W4_ADD_16 EDGEQ_LOAD_16 EDGEQ_WEIGHTS_16 EDGEQ_W4_16(smlal, 16, 18, 20, 22, 24, 25, 26, 27)
#define EDGEQ_W4_32(multiply) \
  EDGEQ_LOAD_32 EDGEQ_WEIGHTS_16 EDGEQ_NEXT_WEIGHTS_16 \
  EDGEQ_W4_16(multiply, 16, 18, 20, 22, 24, 25, 26, 27) \
  EDGEQ_W4_16(smlal, 17, 19, 21, 23, 28, 29, 30, 31)
#define EDGEQ_W4_BEGIN_32 \
  EDGEQ_W4_32(smull) \
  "b 3f\n\t"
#define EDGEQ_W4_LOOP_32 \
  "1:\n\t" \
  "sub %[left], %[left], #1\n\t" \
  EDGEQ_W4_32(smlal) \
  "cbnz %[left], 1b\n\t"
#define EDGEQ_W4_ADD_8 \
  EDGEQ_LOAD_8 EDGEQ_WEIGHTS_8 \
  EDGEQ_LOW_PRODUCTS(smlal, 16, 24, 25, 26, 27, 0, 1, 2, 3) \
  EDGEQ_LOW_PRODUCTS(smlal, 18, 24, 25, 26, 27, 4, 5, 6, 7) \
  EDGEQ_LOW_PRODUCTS(smlal, 20, 24, 25, 26, 27, 8, 9, 10, 11) \
  EDGEQ_LOW_PRODUCTS(smlal, 22, 24, 25, 26, 27, 12, 13, 14, 15)

// ---- both ----

#define EDGEQ_FIRST_TAP \
  "ldp %[a0], %[a1], [%[rows]]\n\t" \
  "ldp %[a2], %[a3], [%[rows], #16]\n\t"
#define EDGEQ_NEXT_TAP \
  "ldp %[a0], %[a1], [%[rows], #32]!\n\t" \
  "ldp %[a2], %[a3], [%[rows], #16]\n\t"
#define EDGEQ_FROM_OFFSET \
  "add %[a0], %[a0], %[offset]\n\t" \
  "add %[a1], %[a1], %[offset]\n\t" \
  "add %[a2], %[a2], %[offset]\n\t" \
  "add %[a3], %[a3], %[offset]\n\t"
#define EDGEQ_ZERO(s) "movi v" #s ".4s, #0\n\t"
// The sums of all taps: `next` leads from one to the next, `first` is whatever follows the addresses of a tap.
#define EDGEQ_TAPS(first, begin, begin_32, add_16, loop_32, add_8, next) \
  EDGEQ_FIRST_TAP first \
  "lsr %[left], %[groups], #1\n\t" \
  "tbnz %[groups], #0, 5f\n\t" \
  "cbz %[left], 8f\n\t" \
  "sub %[left], %[left], #1\n\t" \
  begin_32 \
  "8:\n\t" \
  EDGEQ_ZERO(0) EDGEQ_ZERO(1) EDGEQ_ZERO(2) EDGEQ_ZERO(3) EDGEQ_ZERO(4) EDGEQ_ZERO(5) EDGEQ_ZERO(6) \
  EDGEQ_ZERO(7) EDGEQ_ZERO(8) EDGEQ_ZERO(9) EDGEQ_ZERO(10) EDGEQ_ZERO(11) EDGEQ_ZERO(12) EDGEQ_ZERO(13) \
  EDGEQ_ZERO(14) EDGEQ_ZERO(15) \
  "b 4f\n\t" \
  "2:\n\t" \
  "lsr %[left], %[groups], #1\n\t" \
  "tbz %[groups], #0, 3f\n\t" \
  add_16 \
  "b 3f\n\t" \
  "5:\n\t" \
  begin \
  "3:\n\t" \
  "cbz %[left], 4f\n\t" \
  loop_32 \
  "4:\n\t" \
  "cbz %[half], 6f\n\t" \
  add_8 \
  "6:\n\t" \
  next \
  "7:\n\t"
#define EDGEQ_LOOP_OVER_TAPS(first) \
  "subs %[taps], %[taps], #1\n\t" \
  "b.eq 7f\n\t" \
  EDGEQ_NEXT_TAP first \
  "b 2b\n\t"

// Sums of the lanes of four vectors, in v<to>.
#define EDGEQ_ADD_PAIRS(type, to, a, b) "addp v" #to "." #type ", v" #a "." #type ", v" #b "." #type "\n\t"
#define EDGEQ_WIDE_LANES(to, s0, s1, s2, s3) \
  EDGEQ_ADD_PAIRS(4s, s0, s0, s1) EDGEQ_ADD_PAIRS(4s, s2, s2, s3) EDGEQ_ADD_PAIRS(4s, to, s0, s2)
#define EDGEQ_SADDLP(s) "saddlp v" #s ".4s, v" #s ".8h\n\t"

#define EDGEQ_TILE_SCALARS \
  [a0] "=&r"(a0), [a1] "=&r"(a1), [a2] "=&r"(a2), [a3] "=&r"(a3), [left] "=&r"(left), [w] "+r"(w)
#define EDGEQ_PAIR_SCALARS [pairs] "+r"(pairs), [pair] "=&r"(pair)
#define EDGEQ_TAP_SCALARS [rows] "+r"(rows), [taps] "+r"(taps)
#define EDGEQ_TILE_CLOBBERS \
  "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", \
  "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", "memory", "cc"
#define EDGEQ_WIDE_END \
  EDGEQ_WIDE_LANES(0, 0, 1, 2, 3) EDGEQ_WIDE_LANES(1, 4, 5, 6, 7) EDGEQ_WIDE_LANES(2, 8, 9, 10, 11) \
  EDGEQ_WIDE_LANES(3, 12, 13, 14, 15)
// clang-format on

/// Sums of a tile of 8-bit weights, without bias; moves `w` behind the weights of the panel. `pairs`: the
/// bytes that pack.h says of them.
EDGEQ_INLINE void sum_wide_tile(const act_t* const* rows, size_t taps, size_t groups, size_t half,
                                const uint8_t* pairs, const int8_t*& w, int32x4_t (&sums)[4]) {
  const act_t *a0, *a1, *a2, *a3;
  size_t left;
  uint32_t pair;
  register int32x4_t s0 __asm__("v0");
  register int32x4_t s1 __asm__("v1");
  register int32x4_t s2 __asm__("v2");
  register int32x4_t s3 __asm__("v3");
  __asm__ volatile(EDGEQ_TAPS("", EDGEQ_W8_BEGIN, EDGEQ_W8_BEGIN_32, EDGEQ_W8_ADD_16, EDGEQ_W8_LOOP_32,
                              EDGEQ_W8_ADD_8, EDGEQ_LOOP_OVER_TAPS("")) EDGEQ_WIDE_END
                   : "=w"(s0), "=w"(s1), "=w"(s2), "=w"(s3), EDGEQ_TILE_SCALARS, EDGEQ_PAIR_SCALARS,
                     EDGEQ_TAP_SCALARS
                   : [groups] "r"(groups), [half] "r"(half)
                   : EDGEQ_TILE_CLOBBERS);
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
}

// clang-format off
// One tap of at least one whole group, whose notes are bits (pack.h): adding %[bits] to itself yields the next
// pair's bit in the carry, and zero behind the last one's.
#define EDGEQ_NEXT_BIT "adds %[bits], %[bits], %[bits]\n\t"
#define EDGEQ_W8_ONE_TAP \
  EDGEQ_FIRST_TAP \
  "ldr %[bits], [%[panel], #32]\n\t" \
  "add %[w], %[panel], #48\n\t" \
  "tbnz %[groups], #0, 5f\n\t" \
  EDGEQ_NEXT_BIT \
  "b.cc 6f\n\t" \
  EDGEQ_W8_PAIR(saddlp) \
  EDGEQ_NEXT_BIT \
  "b.hi 2f\n\t" \
  "b.cc 3f\n\t" \
  "b 4f\n\t" \
  "6:\n\t" \
  EDGEQ_W8_32(saddlp) \
  EDGEQ_NEXT_BIT \
  "b.cc 3f\n\t" \
  "b.hi 2f\n\t" \
  "b 4f\n\t" \
  "5:\n\t" \
  EDGEQ_W8_BEGIN \
  EDGEQ_NEXT_BIT \
  "b.cc 3f\n\t" \
  "b.eq 4f\n\t" \
  "2:\n\t" \
  EDGEQ_W8_PAIR(sadalp) \
  EDGEQ_NEXT_BIT \
  "b.hi 2b\n\t" \
  "b.cs 4f\n\t" \
  "3:\n\t" \
  EDGEQ_W8_32(sadalp) \
  EDGEQ_NEXT_BIT \
  "b.cc 3b\n\t" \
  "b.ne 2b\n\t" \
  "4:\n\t" \
  "cbz %[half], 7f\n\t" \
  EDGEQ_W8_ADD_8 \
  "7:\n\t"

// The loop over panels; bias and scale are in v16 and v17.
#define EDGEQ_PANELS(sums, finish) \
  "10:\n\t" \
  sums \
  "ld1 {v16.4s-v17.4s}, [%[panel]], %[panel_bytes]\n\t" \
  finish \
  "st1 {v0.s}[0], [%[dst]], %[dst_stride]\n\t" \
  "st1 {v0.s}[1], [%[dst]], %[dst_stride]\n\t" \
  "subs %[panels], %[panels], #1\n\t" \
  "st1 {v0.s}[2], [%[dst]], %[dst_stride]\n\t" \
  "st1 {v0.s}[3], [%[dst]], %[dst_back]\n\t" \
  "b.ne 10b"
#define EDGEQ_PANELS_SATURATED "ldr q18, [%[constants]]\n\t" EDGEQ_SATURATED(0, 1, 2, 3, 16, 17, 18)
#define EDGEQ_PANELS_CLAMPED \
  "ldp q18, q19, [%[constants]]\n\t" \
  "ldp q20, q21, [%[constants], #32]\n\t" \
  EDGEQ_CLAMPED(0, 1, 2, 3, 16, 17, 18, 19, 20, 21)

#define EDGEQ_RUN_PANELS(first, sums, finish) \
  __asm__ volatile(first EDGEQ_PANELS(sums, finish) \
                   : [a0] "=&r"(a0), [a1] "=&r"(a1), [a2] "=&r"(a2), [a3] "=&r"(a3), [w] "=&r"(w), \
                     [bits] "=&r"(bits), [left] "=&r"(left), [panel] "+r"(panel), [panels] "+r"(panels), [dst] "+r"(dst), [src] "+r"(src) \
                   : [rows] "r"(rows), [groups] "r"(groups), [half] "r"(half), \
                     [panel_bytes] "r"(panel_bytes), [dst_stride] "r"(dst_stride), [dst_back] "r"(4 - 3 * dst_stride), \
                     [src_stride] "r"(src_stride), [src_back] "r"(4 - 3 * src_stride), \
                     [constants] "r"(&constants) \
                   : "v0", "v1", "v2", "v3", EDGEQ_TILE_CLOBBERS)
// clang-format on

/// How the sums of whole tiles become codes.
enum class PanelFinish { kSaturate, kClamp, kResidual };

/// The sums of one panel of 8-bit weights whose notes are bits, without bias.
EDGEQ_NOINLINE void sum_wide_panel(const act_t* const* rows, size_t groups, size_t half, const uint8_t* panel,
                                   int32x4_t* sums) {
  const act_t *a0, *a1, *a2, *a3, *w;
  uint64_t bits;
  __asm__ volatile(
      EDGEQ_W8_ONE_TAP EDGEQ_WIDE_END "st1 {v0.4s-v3.4s}, [%[sums]]"
      : [a0] "=&r"(a0), [a1] "=&r"(a1), [a2] "=&r"(a2), [a3] "=&r"(a3), [w] "=&r"(w), [bits] "=&r"(bits)
      : [rows] "r"(rows), [groups] "r"(groups), [half] "r"(half), [panel] "r"(panel), [sums] "r"(sums)
      : "v0", "v1", "v2", "v3", EDGEQ_TILE_CLOBBERS);
}

/// Most products that a lane of 16 bits adds whatever the 4-bit weights are.
constexpr size_t kNarrowProducts = 36;

// clang-format off
// `part` says what follows where lanes are added up one by one.
#define EDGEQ_NARROW_END(part) \
  "cmp %w[bits], #2\n\t" \
  "b.lo 9f\n\t" \
  "b.eq 8f\n\t" \
  EDGEQ_ADD_PAIRS(8h, 0, 0, 1) EDGEQ_ADD_PAIRS(8h, 2, 2, 3) EDGEQ_ADD_PAIRS(8h, 4, 4, 5) \
  EDGEQ_ADD_PAIRS(8h, 6, 6, 7) EDGEQ_ADD_PAIRS(8h, 8, 8, 9) EDGEQ_ADD_PAIRS(8h, 10, 10, 11) \
  EDGEQ_ADD_PAIRS(8h, 12, 12, 13) EDGEQ_ADD_PAIRS(8h, 14, 14, 15) \
  EDGEQ_ADD_PAIRS(8h, 0, 0, 2) EDGEQ_ADD_PAIRS(8h, 1, 4, 6) EDGEQ_ADD_PAIRS(8h, 2, 8, 10) \
  EDGEQ_ADD_PAIRS(8h, 3, 12, 14) \
  EDGEQ_SADDLP(0) EDGEQ_SADDLP(1) EDGEQ_SADDLP(2) EDGEQ_SADDLP(3) \
  "b 1f\n\t" \
  "8:\n\t" \
  EDGEQ_ADD_PAIRS(8h, 0, 0, 1) EDGEQ_ADD_PAIRS(8h, 2, 2, 3) EDGEQ_ADD_PAIRS(8h, 4, 4, 5) \
  EDGEQ_ADD_PAIRS(8h, 6, 6, 7) EDGEQ_ADD_PAIRS(8h, 8, 8, 9) EDGEQ_ADD_PAIRS(8h, 10, 10, 11) \
  EDGEQ_ADD_PAIRS(8h, 12, 12, 13) EDGEQ_ADD_PAIRS(8h, 14, 14, 15) \
  EDGEQ_SADDLP(0) EDGEQ_SADDLP(2) EDGEQ_SADDLP(4) EDGEQ_SADDLP(6) EDGEQ_SADDLP(8) EDGEQ_SADDLP(10) \
  EDGEQ_SADDLP(12) EDGEQ_SADDLP(14) \
  EDGEQ_ADD_PAIRS(4s, 0, 0, 2) EDGEQ_ADD_PAIRS(4s, 1, 4, 6) EDGEQ_ADD_PAIRS(4s, 2, 8, 10) \
  EDGEQ_ADD_PAIRS(4s, 3, 12, 14) \
  "b 1f\n\t" \
  "9:\n\t" \
  EDGEQ_SADDLP(0) EDGEQ_SADDLP(1) EDGEQ_SADDLP(2) EDGEQ_SADDLP(3) EDGEQ_SADDLP(4) EDGEQ_SADDLP(5) \
  EDGEQ_SADDLP(6) EDGEQ_SADDLP(7) EDGEQ_SADDLP(8) EDGEQ_SADDLP(9) EDGEQ_SADDLP(10) EDGEQ_SADDLP(11) \
  EDGEQ_SADDLP(12) EDGEQ_SADDLP(13) EDGEQ_SADDLP(14) EDGEQ_SADDLP(15) \
  EDGEQ_WIDE_END \
  part \
  "1:\n\t"
// clang-format on

/// The same where 16 bits hold the sums of all products, 4-bit weights being in the form of W8. `fit`: what
/// pack.h says of lanes, not 0. They are added in 16 bits as long as they fit.
template <bool kOneTap>
EDGEQ_INLINE void sum_narrow_tile(const act_t* const* rows, size_t taps, size_t groups, size_t half,
                                  uint32_t fit, const int8_t*& w, int32x4_t (&sums)[4]) {
  const act_t *a0, *a1, *a2, *a3;
  size_t left;
  register int32x4_t s0 __asm__("v0");
  register int32x4_t s1 __asm__("v1");
  register int32x4_t s2 __asm__("v2");
  register int32x4_t s3 __asm__("v3");
  if (kOneTap) {
    __asm__ volatile(EDGEQ_TAPS("", EDGEQ_W4_BEGIN, EDGEQ_W4_BEGIN_32, EDGEQ_W4_ADD_16, EDGEQ_W4_LOOP_32,
                                EDGEQ_W4_ADD_8, "") EDGEQ_NARROW_END("")
                     : "=w"(s0), "=w"(s1), "=w"(s2), "=w"(s3), EDGEQ_TILE_SCALARS
                     : [rows] "r"(rows), [groups] "r"(groups), [half] "r"(half), [bits] "r"(fit)
                     : EDGEQ_TILE_CLOBBERS);
  } else {
    __asm__ volatile(EDGEQ_TAPS("", EDGEQ_W4_BEGIN, EDGEQ_W4_BEGIN_32, EDGEQ_W4_ADD_16, EDGEQ_W4_LOOP_32,
                                EDGEQ_W4_ADD_8, EDGEQ_LOOP_OVER_TAPS("")) EDGEQ_NARROW_END("")
                     : "=w"(s0), "=w"(s1), "=w"(s2), "=w"(s3), EDGEQ_TILE_SCALARS, EDGEQ_TAP_SCALARS
                     : [groups] "r"(groups), [half] "r"(half), [bits] "r"(fit)
                     : EDGEQ_TILE_CLOBBERS);
  }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
}

// clang-format off
#define EDGEQ_WIDEN_PAIR(s0, s1, place) \
  "ldp q16, q17, [%[wide], #" #place "]\n\t" \
  "sadalp v16.4s, v" #s0 ".8h\n\t" \
  "sadalp v17.4s, v" #s1 ".8h\n\t" \
  "stp q16, q17, [%[wide], #" #place "]\n\t"
// clang-format on

/// Adds some taps of 4-bit weights, or a part of one from channel `offset` on, to the sums of 32 bits in
/// memory; no lane adds more than kNarrowProducts.
EDGEQ_INLINE void add_narrow_tile(const act_t* const* rows, size_t taps, size_t groups, size_t half,
                                  size_t offset, const int8_t*& w, int32x4_t* wide) {
  const act_t *a0, *a1, *a2, *a3;
  size_t left;
  __asm__ volatile(EDGEQ_TAPS(EDGEQ_FROM_OFFSET, EDGEQ_W4_BEGIN, EDGEQ_W4_BEGIN_32, EDGEQ_W4_ADD_16,
                              EDGEQ_W4_LOOP_32, EDGEQ_W4_ADD_8,
                              EDGEQ_LOOP_OVER_TAPS(EDGEQ_FROM_OFFSET))  //
                   EDGEQ_WIDEN_PAIR(0, 1, 0) EDGEQ_WIDEN_PAIR(2, 3, 32) EDGEQ_WIDEN_PAIR(4, 5, 64)
                       EDGEQ_WIDEN_PAIR(6, 7, 96) EDGEQ_WIDEN_PAIR(8, 9, 128) EDGEQ_WIDEN_PAIR(10, 11, 160)
                           EDGEQ_WIDEN_PAIR(12, 13, 192) EDGEQ_WIDEN_PAIR(14, 15, 224)
                   : EDGEQ_TILE_SCALARS, EDGEQ_TAP_SCALARS
                   : [groups] "r"(groups), [half] "r"(half), [offset] "r"(offset), [wide] "r"(wide)
                   : "v0", "v1", "v2", "v3", EDGEQ_TILE_CLOBBERS);
}

/// One row times a panel of one tap of 4-bit weights, of which 16 bits hold the sums: without bias; moves `w`
/// behind the weights of the panel.
EDGEQ_INLINE int32x4_t sum_narrow_row(const act_t* a, size_t groups, size_t half, const int8_t*& w) {
  size_t left;
  register int32x4_t sums __asm__("v0");
  // clang-format off
  __asm__ volatile(
      "lsr %[left], %[groups], #1\n\t"
      EDGEQ_ZERO(0) EDGEQ_ZERO(1) EDGEQ_ZERO(2) EDGEQ_ZERO(3)
      "cbz %[left], 2f\n\t"
      "1:\n\t"
      "ldp q16, q17, [%[a]], #32\n\t"
      EDGEQ_WEIGHTS_16 EDGEQ_NEXT_WEIGHTS_16
      "subs %[left], %[left], #1\n\t"
      EDGEQ_W4_ROW(smlal, 16, 24, 25, 26, 27, 0, 1, 2, 3)
      EDGEQ_W4_ROW(smlal, 17, 28, 29, 30, 31, 0, 1, 2, 3)
      "b.ne 1b\n\t"
      "2:\n\t"
      "tbz %[groups], #0, 3f\n\t"
      "ldr q16, [%[a]], #16\n\t"
      EDGEQ_WEIGHTS_16
      EDGEQ_W4_ROW(smlal, 16, 24, 25, 26, 27, 0, 1, 2, 3)
      "3:\n\t"
      "cbz %[half], 4f\n\t"
      "ldr d16, [%[a]]\n\t"
      EDGEQ_WEIGHTS_8
      EDGEQ_LOW_PRODUCTS(smlal, 16, 24, 25, 26, 27, 0, 1, 2, 3)
      "4:\n\t"
      EDGEQ_SADDLP(0) EDGEQ_SADDLP(1) EDGEQ_SADDLP(2) EDGEQ_SADDLP(3)
      EDGEQ_WIDE_LANES(0, 0, 1, 2, 3)
      : "=w"(sums), [a] "+r"(a), [w] "+r"(w), [left] "=&r"(left)
      : [groups] "r"(groups), [half] "r"(half)
      : "v1", "v2", "v3", "v16", "v17", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", "cc", "memory");
  // clang-format on
  return sums;
}

// clang-format off
// One tap of at least one whole group of 4-bit weights; the rows lie side by side, and 64 bytes before them
// are free. Where no lane holds the sums of the whole depth, it comes in parts (pack.h), whose sums are added
// up there; %[a1] is 0 but between a panel's parts.
#define EDGEQ_W4_BEFORE_PANELS \
  "mov %[a1], #0\n\t" \
  "sub %[a2], %[rows], #64\n\t"
#define EDGEQ_W4_END_PART \
  "cbnz %w[bits], 1f\n\t" \
  "cbnz %[a1], 11f\n\t" \
  "add %[a1], %[panel], #41\n\t" \
  "b 12f\n\t" \
  "11:\n\t" \
  "ld1 {v4.4s-v7.4s}, [%[a2]]\n\t" \
  EDGEQ_STEP(add, 4s, 0, 4) EDGEQ_STEP(add, 4s, 1, 5) EDGEQ_STEP(add, 4s, 2, 6) EDGEQ_STEP(add, 4s, 3, 7) \
  "12:\n\t" \
  "ldrb %w[left], [%[a1]], #1\n\t" \
  "cbz %[left], 13f\n\t" \
  "st1 {v0.4s-v3.4s}, [%[a2]]\n\t" \
  "b 14b\n\t" \
  "13:\n\t" \
  "mov %[a1], #0\n\t"
#define EDGEQ_W4_SIDE_16(multiply) \
  "ld1 {v16.16b-v19.16b}, [%[a0]], #64\n\t" \
  EDGEQ_WEIGHTS_16 EDGEQ_W4_16(multiply, 16, 17, 18, 19, 24, 25, 26, 27)
#define EDGEQ_W4_SIDE_32(multiply) \
  "ld1 {v16.16b-v19.16b}, [%[a0]], #64\n\t" \
  EDGEQ_WEIGHTS_16 \
  "ld1 {v20.16b-v23.16b}, [%[a0]], #64\n\t" \
  EDGEQ_NEXT_WEIGHTS_16 \
  EDGEQ_W4_16(multiply, 16, 18, 20, 22, 24, 25, 26, 27) \
  EDGEQ_W4_16(smlal, 17, 19, 21, 23, 28, 29, 30, 31)
#define EDGEQ_W4_ONE_TAP \
  "ldrb %w[left], [%[panel], #40]\n\t" \
  "mov %[a0], %[rows]\n\t" \
  "ldrb %w[bits], [%[panel], #32]\n\t" \
  "add %[w], %[panel], #48\n\t" \
  "tbnz %[groups], #0, 5f\n\t" \
  "14:\n\t" \
  EDGEQ_W4_SIDE_32(smull) \
  "sub %[left], %[left], #1\n\t" \
  "b 3f\n\t" \
  "5:\n\t" \
  EDGEQ_W4_SIDE_16(smull) \
  "3:\n\t" \
  "tbz %[left], #0, 2f\n\t" \
  EDGEQ_W4_SIDE_32(smlal) \
  "2:\n\t" \
  "lsr %[left], %[left], #1\n\t" \
  "cbz %[left], 4f\n\t" \
  "6:\n\t" \
  EDGEQ_W4_SIDE_32(smlal) \
  "subs %[left], %[left], #1\n\t" \
  EDGEQ_W4_SIDE_32(smlal) \
  "b.ne 6b\n\t" \
  "4:\n\t" \
  "cbz %[half], 7f\n\t" \
  "ld1 {v16.8b-v19.8b}, [%[a0]]\n\t" \
  EDGEQ_WEIGHTS_8 \
  EDGEQ_LOW_PRODUCTS(smlal, 16, 24, 25, 26, 27, 0, 1, 2, 3) \
  EDGEQ_LOW_PRODUCTS(smlal, 17, 24, 25, 26, 27, 4, 5, 6, 7) \
  EDGEQ_LOW_PRODUCTS(smlal, 18, 24, 25, 26, 27, 8, 9, 10, 11) \
  EDGEQ_LOW_PRODUCTS(smlal, 19, 24, 25, 26, 27, 12, 13, 14, 15) \
  "7:\n\t"
// clang-format on

/// Writes four rows of one tap side by side, as run_panels reads them: an odd group of 16 channels first,
/// then 32 channels of each row, then half a group.
EDGEQ_NOINLINE void put_side_by_side(const act_t* const* rows, size_t groups, size_t half, act_t* to) {
  const act_t *a0 = rows[0], *a1 = rows[1], *a2 = rows[2], *a3 = rows[3];
  size_t left;
  __asm__ volatile(
      "lsr %[left], %[groups], #1\n\t"
      "tbz %[groups], #0, 1f\n\t"
      "ldr q0, [%[a0]], #16\n\t"
      "ldr q1, [%[a1]], #16\n\t"
      "ldr q2, [%[a2]], #16\n\t"
      "ldr q3, [%[a3]], #16\n\t"
      "st1 {v0.16b-v3.16b}, [%[to]], #64\n\t"
      "1:\n\t"
      "cbz %[left], 3f\n\t"
      "2:\n\t"
      "ldp q0, q1, [%[a0]], #32\n\t"
      "ldp q2, q3, [%[a1]], #32\n\t"
      "ldp q4, q5, [%[a2]], #32\n\t"
      "ldp q6, q7, [%[a3]], #32\n\t"
      "subs %[left], %[left], #1\n\t"
      "st1 {v0.16b-v3.16b}, [%[to]], #64\n\t"
      "st1 {v4.16b-v7.16b}, [%[to]], #64\n\t"
      "b.ne 2b\n\t"
      "3:\n\t"
      "cbz %[half], 4f\n\t"
      "ldr d0, [%[a0]]\n\t"
      "ldr d1, [%[a1]]\n\t"
      "ldr d2, [%[a2]]\n\t"
      "ldr d3, [%[a3]]\n\t"
      "st1 {v0.8b-v3.8b}, [%[to]]\n\t"
      "4:"
      : [a0] "+r"(a0), [a1] "+r"(a1), [a2] "+r"(a2), [a3] "+r"(a3), [to] "+r"(to), [left] "=&r"(left)
      : [groups] "r"(groups), [half] "r"(half)
      : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "cc", "memory");
}

/// Four rows times some panels of one tap and at least one whole group, to codes. kBits = 8: `rows` are their
/// addresses, and the panels' notes are bits; 4: the rows side by side, behind 64 bytes that are free, and
/// panels in the form of W8, of which the notes name parts. Some taps side by side are one.
template <int kBits, PanelFinish kFinish>
EDGEQ_NOINLINE void run_panels(const void* rows, size_t groups, size_t half, const uint8_t* panel,
                               size_t panel_bytes, size_t panels, const FinishConstants& constants,
                               act_t* dst, ptrdiff_t dst_stride, const act_t* src, ptrdiff_t src_stride) {
  const act_t *a0, *a1, *a2, *a3, *w;
  uint64_t bits, left;
  if constexpr (kBits == 8 && kFinish == PanelFinish::kSaturate) {
    EDGEQ_RUN_PANELS("", EDGEQ_W8_ONE_TAP EDGEQ_WIDE_END, EDGEQ_PANELS_SATURATED);
  } else if constexpr (kBits == 8 && kFinish == PanelFinish::kClamp) {
    EDGEQ_RUN_PANELS("", EDGEQ_W8_ONE_TAP EDGEQ_WIDE_END, EDGEQ_PANELS_CLAMPED);
  } else if constexpr (kBits == 8) {
    EDGEQ_RUN_PANELS("", EDGEQ_W8_ONE_TAP EDGEQ_WIDE_END, EDGEQ_WITH_RESIDUAL);
  } else if constexpr (kFinish == PanelFinish::kSaturate) {
    EDGEQ_RUN_PANELS(EDGEQ_W4_BEFORE_PANELS, EDGEQ_W4_ONE_TAP EDGEQ_NARROW_END(EDGEQ_W4_END_PART),
                     EDGEQ_PANELS_SATURATED);
  } else if constexpr (kFinish == PanelFinish::kClamp) {
    EDGEQ_RUN_PANELS(EDGEQ_W4_BEFORE_PANELS, EDGEQ_W4_ONE_TAP EDGEQ_NARROW_END(EDGEQ_W4_END_PART),
                     EDGEQ_PANELS_CLAMPED);
  } else {
    EDGEQ_RUN_PANELS(EDGEQ_W4_BEFORE_PANELS, EDGEQ_W4_ONE_TAP EDGEQ_NARROW_END(EDGEQ_W4_END_PART),
                     EDGEQ_WITH_RESIDUAL);
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_NEON_TILE_H_
