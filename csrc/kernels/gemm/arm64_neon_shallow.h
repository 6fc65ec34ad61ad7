#ifndef EDGEQ_KERNELS_GEMM_ARM64_NEON_SHALLOW_H_
#define EDGEQ_KERNELS_GEMM_ARM64_NEON_SHALLOW_H_

// Tiles of four rows by four channels for a depth of at most 32, 8-bit weights: the rows stay in registers
// while all panels pass, and a panel is one run of instructions from its products to its codes.
//
// A product of eight lanes is four places of the depth of two output channels, not eight of one. The widened
// sums of two channels then share a vector, and one addp a row brings four channels together, where the tiles
// of arm64_neon_tile.h take three. The rows must hold every four bytes twice for it, which is done once for
// all panels. For eight places of the depth:
//
//   row         | c0 .. c3 | c0 .. c3 | c4 .. c7 | c4 .. c7 |
//   weights     | c0 .. c3 of channel 0 | c0 .. c3 of channel 1 | c4 .. c7 of 0 | c4 .. c7 of 1 |, of 2 and 3
//
// smull takes the lower halves, smlal2 the upper ones: two products of a lane (2 * 128 * 127 = 32,512).
//
//   v0 .. v7      sums, 2 * row + channel / 2
//   v8 .. v11     weights of 16 places
//   v12 .. v15    products, then bias, scale and what rounds
//   v16 .. v31    rows, 4 * row + place / 8

#include "kernels/gemm/arm64_neon_finish.h"
#include "kernels/gemm/neon_blocks.h"

namespace edgeq {
namespace {

/// Brings a panel into the form above: weights, bias, scale, and what rounds. `eights`: its depth.
EDGEQ_INLINE void spread_panel(const uint8_t* panel, size_t header_bytes, size_t eights, Finish finish,
                               const SmallRange& range, uint8_t* to) {
  const int8_t* w = reinterpret_cast<const int8_t*>(panel + header_bytes);
  int8_t* out = reinterpret_cast<int8_t*>(to);
  for (size_t e = 0; e < eights; ++e) {
    // Two eights make a group of a panel, but for a last one alone.
    const bool alone = e + 1 == eights && eights % 2 != 0;
    const size_t step = alone ? 8 : 16;
    const int8_t* from = w + e / 2 * 64 + e % 2 * 8;
    for (size_t j = 0; j < 4; j += 2, out += 16) {
      const int32x2_t first = vreinterpret_s32_s8(vld1_s8(from + j * step));
      const int32x2_t second = vreinterpret_s32_s8(vld1_s8(from + (j + 1) * step));
      vst1_s8(out, vreinterpret_s8_s32(vzip1_s32(first, second)));
      vst1_s8(out + 8, vreinterpret_s8_s32(vzip2_s32(first, second)));
    }
  }
  const SmallProducts small(range);
  std::memcpy(out, panel, 32);
  vst1q_s8(out + 32, vreinterpretq_s8_f32(small.magic));
  if (finish == Finish::kClamp) vst1q_s8(out + 48, vreinterpretq_s8_s16(small.odd));
}

// clang-format off

// Products of one eight of two rows with four channels, and their sums in pairs.
#define EDGEQ_SHALLOW_ROWS(add, a, b, w0, w1, s0, s1, s2, s3) \
  "smull v12.8h, v" #a ".8b, v" #w0 ".8b\n\t" \
  "smull v13.8h, v" #a ".8b, v" #w1 ".8b\n\t" \
  "smull v14.8h, v" #b ".8b, v" #w0 ".8b\n\t" \
  "smull v15.8h, v" #b ".8b, v" #w1 ".8b\n\t" \
  "smlal2 v12.8h, v" #a ".16b, v" #w0 ".16b\n\t" \
  "smlal2 v13.8h, v" #a ".16b, v" #w1 ".16b\n\t" \
  "smlal2 v14.8h, v" #b ".16b, v" #w0 ".16b\n\t" \
  "smlal2 v15.8h, v" #b ".16b, v" #w1 ".16b\n\t" \
  #add " v" #s0 ".4s, v12.8h\n\t" \
  #add " v" #s1 ".4s, v13.8h\n\t" \
  #add " v" #s2 ".4s, v14.8h\n\t" \
  #add " v" #s3 ".4s, v15.8h\n\t"
#define EDGEQ_SHALLOW_EIGHT(add, a, b, c, d, w0, w1) \
  EDGEQ_SHALLOW_ROWS(add, a, b, w0, w1, 0, 1, 2, 3) \
  EDGEQ_SHALLOW_ROWS(add, c, d, w0, w1, 4, 5, 6, 7)
#define EDGEQ_SHALLOW_WEIGHTS_16 "ld1 {v8.16b-v11.16b}, [%[w]], #64\n\t"
#define EDGEQ_SHALLOW_WEIGHTS_8 "ld1 {v8.16b-v9.16b}, [%[w]], #32\n\t"

// The first weights of a panel are loaded while the one before becomes codes.
#define EDGEQ_SHALLOW_1 EDGEQ_SHALLOW_EIGHT(saddlp, 16, 20, 24, 28, 8, 9)
#define EDGEQ_SHALLOW_2 \
  EDGEQ_SHALLOW_1 \
  EDGEQ_SHALLOW_EIGHT(sadalp, 17, 21, 25, 29, 10, 11)
#define EDGEQ_SHALLOW_3 \
  EDGEQ_SHALLOW_2 \
  EDGEQ_SHALLOW_WEIGHTS_8 \
  EDGEQ_SHALLOW_EIGHT(sadalp, 18, 22, 26, 30, 8, 9)
#define EDGEQ_SHALLOW_4 \
  EDGEQ_SHALLOW_2 \
  EDGEQ_SHALLOW_WEIGHTS_16 \
  EDGEQ_SHALLOW_EIGHT(sadalp, 18, 22, 26, 30, 8, 9) \
  EDGEQ_SHALLOW_EIGHT(sadalp, 19, 23, 27, 31, 10, 11)

#define EDGEQ_SHALLOW_FINISH(next, finish) \
  EDGEQ_STEP(addp, 4s, 0, 1) EDGEQ_STEP(addp, 4s, 2, 3) EDGEQ_STEP(addp, 4s, 4, 5) \
  EDGEQ_STEP(addp, 4s, 6, 7) \
  next finish \
  "st1 {v0.s}[0], [%[d0]], #4\n\t" \
  "st1 {v0.s}[1], [%[d1]], #4\n\t" \
  "subs %[panels], %[panels], #1\n\t" \
  "st1 {v0.s}[2], [%[d2]], #4\n\t" \
  "st1 {v0.s}[3], [%[d3]], #4\n\t" \
  "b.ne 1b"

// Every four bytes of a row twice; `row` is its first register.
#define EDGEQ_SPREAD_ROW_1(address, r0, r1, r2, r3) \
  "ldr d" #r0 ", [%[" #address "]]\n\t" \
  "zip1 v" #r0 ".4s, v" #r0 ".4s, v" #r0 ".4s\n\t"
#define EDGEQ_SPREAD_ROW_2(address, r0, r1, r2, r3) \
  "ldr q" #r0 ", [%[" #address "]]\n\t" \
  "zip2 v" #r1 ".4s, v" #r0 ".4s, v" #r0 ".4s\n\t" \
  "zip1 v" #r0 ".4s, v" #r0 ".4s, v" #r0 ".4s\n\t"
#define EDGEQ_SPREAD_ROW_3(address, r0, r1, r2, r3) \
  "ldr d" #r2 ", [%[" #address "], #16]\n\t" \
  EDGEQ_SPREAD_ROW_2(address, r0, r1, r2, r3) \
  "zip1 v" #r2 ".4s, v" #r2 ".4s, v" #r2 ".4s\n\t"
#define EDGEQ_SPREAD_ROW_4(address, r0, r1, r2, r3) \
  "ldr q" #r2 ", [%[" #address "], #16]\n\t" \
  EDGEQ_SPREAD_ROW_2(address, r0, r1, r2, r3) \
  "zip2 v" #r3 ".4s, v" #r2 ".4s, v" #r2 ".4s\n\t" \
  "zip1 v" #r2 ".4s, v" #r2 ".4s, v" #r2 ".4s\n\t"
#define EDGEQ_SPREAD_ROWS(row) \
  row(a0, 16, 17, 18, 19) row(a1, 20, 21, 22, 23) row(a2, 24, 25, 26, 27) row(a3, 28, 29, 30, 31)

#define EDGEQ_RUN_SHALLOW(eights, first, finish) \
  __asm__ volatile(EDGEQ_SPREAD_ROWS(EDGEQ_SPREAD_ROW_##eights) first "1:\n\t" EDGEQ_SHALLOW_##eights finish \
                   : [d0] "+r"(d0), [d1] "+r"(d1), [d2] "+r"(d2), [d3] "+r"(d3), [w] "+r"(w), \
                     [panels] "+r"(panels) \
                   : [a0] "r"(a0), [a1] "r"(a1), [a2] "r"(a2), [a3] "r"(a3), [bounds] "r"(bounds) \
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", \
                     "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", \
                     "v25", "v26", "v27", "v28", "v29", "v30", "v31", "cc", "memory")
#define EDGEQ_RUN_SHALLOW_TO(eights, first) \
  if constexpr (kFinish == Finish::kSaturate) { \
    EDGEQ_RUN_SHALLOW(eights, first, "ld1 {v12.4s-v14.4s}, [%[w]], #48\n\t" \
        EDGEQ_SHALLOW_FINISH(first, EDGEQ_SATURATED(0, 2, 4, 6, 12, 13, 14))); \
  } else { \
    EDGEQ_RUN_SHALLOW(eights, first, "ld1 {v12.4s-v15.4s}, [%[w]], #64\n\t" \
        EDGEQ_SHALLOW_FINISH(first, "ldp q1, q3, [%[bounds]]\n\t" \
                                    EDGEQ_CLAMPED(0, 2, 4, 6, 12, 13, 14, 15, 1, 3))); \
  }

// clang-format on

/// Tiles of four rows times all of `panels` panels in the form above, kSaturate or kClamp. Up to 64 bytes
/// behind the last panel are read.
template <int kEights, Finish kFinish>
void shallow_tiles(const act_t* a, ptrdiff_t a_stride, size_t tiles, const uint8_t* weights, size_t count,
                   const SmallRange& range, act_t* dst, ptrdiff_t dst_stride) {
  int8_t bounds[32];
  vst1q_s8(bounds, vdupq_n_s8(range.min));
  vst1q_s8(bounds + 16, vdupq_n_s8(range.max));
  for (; tiles != 0; --tiles, a += 4 * a_stride, dst += 4 * dst_stride) {
    const act_t *a0 = a, *a1 = a0 + a_stride, *a2 = a1 + a_stride, *a3 = a2 + a_stride;
    act_t *d0 = dst, *d1 = d0 + dst_stride, *d2 = d1 + dst_stride, *d3 = d2 + dst_stride;
    const uint8_t* w = weights;
    size_t panels = count;
    if constexpr (kEights == 1) {
      EDGEQ_RUN_SHALLOW_TO(1, EDGEQ_SHALLOW_WEIGHTS_8)
    } else if constexpr (kEights == 2) {
      EDGEQ_RUN_SHALLOW_TO(2, EDGEQ_SHALLOW_WEIGHTS_16)
    } else if constexpr (kEights == 3) {
      EDGEQ_RUN_SHALLOW_TO(3, EDGEQ_SHALLOW_WEIGHTS_16)
    } else {
      EDGEQ_RUN_SHALLOW_TO(4, EDGEQ_SHALLOW_WEIGHTS_16)
    }
  }
}

using ShallowTiles = void (*)(const act_t*, ptrdiff_t, size_t, const uint8_t*, size_t, const SmallRange&,
                              act_t*, ptrdiff_t);

/// The function for a depth, or null if there is none.
EDGEQ_INLINE ShallowTiles find_shallow_tiles(size_t eights, Finish finish) {
  constexpr ShallowTiles kTiles[2][4] = {
      {shallow_tiles<1, Finish::kSaturate>, shallow_tiles<2, Finish::kSaturate>,
       shallow_tiles<3, Finish::kSaturate>, shallow_tiles<4, Finish::kSaturate>},
      {shallow_tiles<1, Finish::kClamp>, shallow_tiles<2, Finish::kClamp>, shallow_tiles<3, Finish::kClamp>,
       shallow_tiles<4, Finish::kClamp>}};
  if (eights == 0 || eights > 4 || finish == Finish::kMemory) return nullptr;
  return kTiles[finish == Finish::kClamp][eights - 1];
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_NEON_SHALLOW_H_
