#if defined(__aarch64__)

#include "kernels/gemm/arm_tile.h"
#include "kernels/gemm/lhs.h"
#include "kernels/winograd/lanes.h"
#include "kernels/winograd/winograd.h"

// NEON without a dot product, 64 bits. Sixteen products of bytes take two multiplications and half an
// addition at least (gemm/arm_neon.cc); of 16 bits they take four multiplications, which add into 32 bits
// themselves, and Winograd's method needs 2.25 times fewer of them.
//
// Blocks of 2x2 outputs are the rows of 16 matrix products, one for each element of the 4x4 transforms. Some
// tiles of eight blocks are transformed into scratch, and the filters of a panel beside them; then each tile
// goes through all 16 products, and its sums, 4 KiB in the first-level cache, through the transformation back
// and the epilogue.
//
// Filters are transformed by integers without a common factor, (1 0 0), (1 1 1), (1 -1 1) and (0 0 1), where
// winograd.h has 2 G. In one dimension, with m1 = (d1 + d2) * (g0 + g1 + g2), m2 = (d2 - d1) * (g0 - g1 +
// g2),
//
//   m1 + m2 = 2 * (d1 * g1 + d2 * (g0 + g2))        m1 - m2 = 2 * (d1 * (g0 + g2) + d2 * g1)
//
// are even: the outputs m0 + (m1 + m2) / 2 and (m1 - m2) / 2 - m3 take additions that halve, which do not
// overflow between, and are what a plain convolution yields. An element of B^T d B is a sum of four bytes
// with signs, within [-512, 510], and one of the filters at most 9 * 127 = 1,143: 32 bits hold the sums of
// 3,669 channels.
//
// Transformed filters of 4-bit weights are so small that 16 bits hold the sums of some channels' products:
// in ResNet-18 of about 25 at the corners of a block, 13 at its edges and 7 inside. mla multiplies eight
// pairs where smlal multiplies four. Packing notes how long such runs of channels are (lanes.h).

namespace edgeq {
namespace {

constexpr size_t kMr = WinogradLanes::kBlocks;
constexpr size_t kNr = WinogradLanes::kChannels;
constexpr size_t kHeader = kNr * 8;         // bias and scale of a panel
constexpr size_t kElementSums = kMr * kNr;  // [kMr][kNr]

// Registers of a tile: v0..v3 four channels of each block, two blocks in a vector, v4..v7 the filters of
// those channels, and from v16 on two of sums for each block; v8..v15 the sums of 16 bits. Compilers either
// load each filter right before it is used, for which an in-order core waits, or run out of registers.
//
// clang-format off
#define EDGEQ_IF_BLOCK(r, text) ".if %c[blocks] > " #r "\n\t" text ".endif\n\t"
#define EDGEQ_EACH_BLOCK(step) \
  EDGEQ_IF_BLOCK(0, step(8, 16, 17)) EDGEQ_IF_BLOCK(1, step(9, 18, 19)) EDGEQ_IF_BLOCK(2, step(10, 20, 21)) \
  EDGEQ_IF_BLOCK(3, step(11, 22, 23)) EDGEQ_IF_BLOCK(4, step(12, 24, 25)) EDGEQ_IF_BLOCK(5, step(13, 26, 27)) \
  EDGEQ_IF_BLOCK(6, step(14, 28, 29)) EDGEQ_IF_BLOCK(7, step(15, 30, 31))
#define EDGEQ_LOAD_FOUR \
  "ld1 {v0.8h-v3.8h}, [%[a]], #64\n\t" \
  "ld1 {v4.8h-v7.8h}, [%[b]], #64\n\t"
#define EDGEQ_STORE_SUMS \
  "st1 {v16.4s-v19.4s}, [%[sums]], #64\n\t" \
  EDGEQ_IF_BLOCK(2, "st1 {v20.4s-v23.4s}, [%[sums]], #64\n\t") \
  EDGEQ_IF_BLOCK(4, "st1 {v24.4s-v27.4s}, [%[sums]], #64\n\t") \
  EDGEQ_IF_BLOCK(6, "st1 {v28.4s-v31.4s}, [%[sums]]\n\t")
#define EDGEQ_SUM_CLOBBERS \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", \
  "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", "cc", \
  "memory"

// Products of 32 bits: filters of one channel in v<b>, the channel in lanes <even> and <odd> of two blocks.
#define EDGEQ_CLEAR(narrow, low, high) "movi v" #low ".4s, #0\n\t" "movi v" #high ".4s, #0\n\t"
#define EDGEQ_WIDE(b, a, lane, low, high) \
  "smlal v" #low ".4s, v" #b ".4h, v" #a ".h[" #lane "]\n\t" \
  "smlal2 v" #high ".4s, v" #b ".8h, v" #a ".h[" #lane "]\n\t"
#define EDGEQ_WIDE_CHANNEL(b, even, odd) \
  EDGEQ_IF_BLOCK(0, EDGEQ_WIDE(b, 0, even, 16, 17)) EDGEQ_IF_BLOCK(1, EDGEQ_WIDE(b, 0, odd, 18, 19)) \
  EDGEQ_IF_BLOCK(2, EDGEQ_WIDE(b, 1, even, 20, 21)) EDGEQ_IF_BLOCK(3, EDGEQ_WIDE(b, 1, odd, 22, 23)) \
  EDGEQ_IF_BLOCK(4, EDGEQ_WIDE(b, 2, even, 24, 25)) EDGEQ_IF_BLOCK(5, EDGEQ_WIDE(b, 2, odd, 26, 27)) \
  EDGEQ_IF_BLOCK(6, EDGEQ_WIDE(b, 3, even, 28, 29)) EDGEQ_IF_BLOCK(7, EDGEQ_WIDE(b, 3, odd, 30, 31))
#define EDGEQ_WIDE_FOUR \
  EDGEQ_LOAD_FOUR \
  EDGEQ_WIDE_CHANNEL(4, 0, 4) EDGEQ_WIDE_CHANNEL(5, 1, 5) EDGEQ_WIDE_CHANNEL(6, 2, 6) EDGEQ_WIDE_CHANNEL(7, 3, 7)

// Products of 16 bits, and their sums to those of 32.
#define EDGEQ_NARROW(multiply, b, a, lane, sum) \
  #multiply " v" #sum ".8h, v" #b ".8h, v" #a ".h[" #lane "]\n\t"
#define EDGEQ_NARROW_CHANNEL(multiply, b, even, odd) \
  EDGEQ_IF_BLOCK(0, EDGEQ_NARROW(multiply, b, 0, even, 8)) EDGEQ_IF_BLOCK(1, EDGEQ_NARROW(multiply, b, 0, odd, 9)) \
  EDGEQ_IF_BLOCK(2, EDGEQ_NARROW(multiply, b, 1, even, 10)) EDGEQ_IF_BLOCK(3, EDGEQ_NARROW(multiply, b, 1, odd, 11)) \
  EDGEQ_IF_BLOCK(4, EDGEQ_NARROW(multiply, b, 2, even, 12)) EDGEQ_IF_BLOCK(5, EDGEQ_NARROW(multiply, b, 2, odd, 13)) \
  EDGEQ_IF_BLOCK(6, EDGEQ_NARROW(multiply, b, 3, even, 14)) EDGEQ_IF_BLOCK(7, EDGEQ_NARROW(multiply, b, 3, odd, 15))
#define EDGEQ_NARROW_FIRST(first) EDGEQ_NARROW_CHANNEL(first, 4, 0, 4) EDGEQ_NARROW_CHANNEL(mla, 5, 1, 5)
#define EDGEQ_NARROW_SECOND(first) EDGEQ_NARROW_CHANNEL(first, 6, 2, 6) EDGEQ_NARROW_CHANNEL(mla, 7, 3, 7)
#define EDGEQ_ADD_SUMS(narrow, low, high) \
  "saddw v" #low ".4s, v" #low ".4s, v" #narrow ".4h\n\t" \
  "saddw2 v" #high ".4s, v" #high ".4s, v" #narrow ".8h\n\t"
// The first channel: its products begin the sums of 32 bits.
#define EDGEQ_BEGIN(b, a, lane, low, high) \
  "smull v" #low ".4s, v" #b ".4h, v" #a ".h[" #lane "]\n\t" \
  "smull2 v" #high ".4s, v" #b ".8h, v" #a ".h[" #lane "]\n\t"
#define EDGEQ_BEGIN_SUMS \
  EDGEQ_IF_BLOCK(0, EDGEQ_BEGIN(4, 0, 0, 16, 17)) EDGEQ_IF_BLOCK(1, EDGEQ_BEGIN(4, 0, 4, 18, 19)) \
  EDGEQ_IF_BLOCK(2, EDGEQ_BEGIN(4, 1, 0, 20, 21)) EDGEQ_IF_BLOCK(3, EDGEQ_BEGIN(4, 1, 4, 22, 23)) \
  EDGEQ_IF_BLOCK(4, EDGEQ_BEGIN(4, 2, 0, 24, 25)) EDGEQ_IF_BLOCK(5, EDGEQ_BEGIN(4, 2, 4, 26, 27)) \
  EDGEQ_IF_BLOCK(6, EDGEQ_BEGIN(4, 3, 0, 28, 29)) EDGEQ_IF_BLOCK(7, EDGEQ_BEGIN(4, 3, 4, 30, 31))

// A run of pairs of channels ends at the first pair of four channels (end 0) or at the second (end 1). There is
// one line of instructions for either, which is entered where as many pairs are left as the run has, and behind
// it what adds its sums, begins the next run and enters a line for that. Offsets of the entries from their
// table take fewer instructions than asking at each pair whether it is the last one.
#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define EDGEQ_ENTRY_HINT "hint #36\n\t"  // bti j
#else
#define EDGEQ_ENTRY_HINT ""
#endif
#define EDGEQ_ENTRY(end, left) ".Lrun%=_" #end "_" #left ":\n\t" EDGEQ_ENTRY_HINT
#define EDGEQ_OFFSET(end, left) ".hword .Lrun%=_" #end "_" #left " - .Ltable%=\n\t"
#define EDGEQ_SIXTEEN(what, end) \
  what(end, 0) what(end, 1) what(end, 2) what(end, 3) what(end, 4) what(end, 5) what(end, 6) what(end, 7) \
  what(end, 8) what(end, 9) what(end, 10) what(end, 11) what(end, 12) what(end, 13) what(end, 14) what(end, 15)
#define EDGEQ_FIRST_LEFT(end, left) EDGEQ_ENTRY(end, left) EDGEQ_LOAD_FOUR EDGEQ_NARROW_FIRST(mla)
#define EDGEQ_SECOND_LEFT(end, left) EDGEQ_ENTRY(end, left) EDGEQ_NARROW_SECOND(mla)
#define EDGEQ_LINE(end, odd, even) \
  odd(end, 15) even(end, 14) odd(end, 13) even(end, 12) odd(end, 11) even(end, 10) odd(end, 9) even(end, 8) \
  odd(end, 7) even(end, 6) odd(end, 5) even(end, 4) odd(end, 3) even(end, 2) odd(end, 1)
#define EDGEQ_ENTER_LINE \
  "add %[entry], %[table], %[entry]\n\t" \
  "br %[entry]\n\t"
#define EDGEQ_END_RUN(end, begin) \
  EDGEQ_ENTRY(end, 0) \
  "ldrb %w[note], [%[notes]], #1\n\t" \
  EDGEQ_EACH_BLOCK(EDGEQ_ADD_SUMS) \
  "ldrsh %[entry], [%[table], %[note], lsl #1]\n\t" \
  "cbz %[note], 1f\n\t" \
  begin EDGEQ_ENTER_LINE

/// One of the 16 products: `groups` >= 1 of eight channels of kBlocks blocks, times a panel.
template <int kBlocks>
EDGEQ_INLINE void multiply_wide(const int16_t* blocks, const int16_t* filters, size_t groups, int32_t* sums) {
  __asm__ volatile(
      EDGEQ_EACH_BLOCK(EDGEQ_CLEAR)
      "1:\n\t"
      EDGEQ_WIDE_FOUR
      "subs %[groups], %[groups], #1\n\t"
      EDGEQ_WIDE_FOUR
      "b.ne 1b\n\t"
      EDGEQ_STORE_SUMS
      : [a] "+r"(blocks), [b] "+r"(filters), [groups] "+r"(groups), [sums] "+r"(sums)
      : [blocks] "i"(kBlocks)
      : EDGEQ_SUM_CLOBBERS);
}

/// The same of 4-bit weights, in runs of channels whose products are added in 16 bits. `notes`: how long these
/// are (lanes.h), at least one; steps past them.
template <int kBlocks>
EDGEQ_INLINE void multiply_narrow(const int16_t* blocks, const int16_t* filters, const uint8_t*& notes,
                                  int32_t* sums) {
  uint64_t table, note, entry;
  __asm__ volatile(
      "ldrb %w[note], [%[notes]], #1\n\t"
      "adr %[table], .Ltable%=\n\t"
      EDGEQ_LOAD_FOUR
      EDGEQ_BEGIN_SUMS
      "ldrsh %[entry], [%[table], %[note], lsl #1]\n\t"
      EDGEQ_NARROW_CHANNEL(mul, 5, 1, 5)
      EDGEQ_ENTER_LINE
      ".Ltable%=:\n\t"
      ".hword 0\n\t"
      EDGEQ_SIXTEEN(EDGEQ_OFFSET, 0)
      EDGEQ_SIXTEEN(EDGEQ_OFFSET, 1)
      ".hword 0\n\t"
      EDGEQ_LINE(0, EDGEQ_FIRST_LEFT, EDGEQ_SECOND_LEFT)
      EDGEQ_END_RUN(0, EDGEQ_NARROW_SECOND(mul))
      EDGEQ_LINE(1, EDGEQ_SECOND_LEFT, EDGEQ_FIRST_LEFT)
      EDGEQ_END_RUN(1, EDGEQ_LOAD_FOUR EDGEQ_NARROW_FIRST(mul))
      "1:\n\t"
      EDGEQ_STORE_SUMS
      : [a] "+r"(blocks), [b] "+r"(filters), [notes] "+r"(notes), [sums] "+r"(sums), [table] "=&r"(table),
        [note] "=&r"(note), [entry] "=&r"(entry)
      : [blocks] "i"(kBlocks)
      : EDGEQ_SUM_CLOBBERS);
}
// clang-format on

// The filters of 4-bit weights, four channels at a time. A vector of bytes has two channels, their codes
// being within [-8, 7] and the elements of their transforms within [-72, 72]: it is bytes that are added.
// v0..v11 are the channels of lower nibbles, v12..v23 those of upper ones: nine taps, then three columns of
// four.
//
// clang-format off
#define EDGEQ_LOAD_TAP(low, step) \
  "ld1 {v" #low ".16b}, [%[w]], %[" #step "]\n\t"
#define EDGEQ_SPLIT_TAP(low, high) \
  "sshr v" #high ".16b, v" #low ".16b, #4\n\t" \
  "shl v" #low ".16b, v" #low ".16b, #4\n\t" \
  "sshr v" #low ".16b, v" #low ".16b, #4\n\t"
// (1 1 1) of the taps g0, g1, g2 in v<plus>, and (1 -1 1) in the place of g1.
#define EDGEQ_COLUMN(g0, g1, g2, plus, ends) \
  "add v" #ends ".16b, v" #g0 ".16b, v" #g2 ".16b\n\t" \
  "add v" #plus ".16b, v" #ends ".16b, v" #g1 ".16b\n\t" \
  "sub v" #g1 ".16b, v" #ends ".16b, v" #g1 ".16b\n\t"
// An element of four channels, of which the first and third are in v<low>, the others in v<high>.
#define EDGEQ_PUT_ELEMENT(low, high, a, b, c, d, step) \
  "sxtl v" #a ".8h, v" #low ".8b\n\t" \
  "sxtl v" #b ".8h, v" #high ".8b\n\t" \
  "sxtl2 v" #c ".8h, v" #low ".16b\n\t" \
  "sxtl2 v" #d ".8h, v" #high ".16b\n\t" \
  "st1 {v" #a ".8h-v" #d ".8h}, [%[to]], %[" #step "]\n\t"
// A row of elements, from those of the three columns: l0, l1 and l2 of lower nibbles, and h0, h1 and h2.
#define EDGEQ_PUT_ELEMENTS(l0, l1, l2, h0, h1, h2, last) \
  EDGEQ_PUT_ELEMENT(l0, h0, 24, 25, 26, 27, element) \
  "add v" #l0 ".16b, v" #l0 ".16b, v" #l2 ".16b\n\t" \
  "add v" #h0 ".16b, v" #h0 ".16b, v" #h2 ".16b\n\t" \
  "add v30.16b, v" #l0 ".16b, v" #l1 ".16b\n\t" \
  "add v31.16b, v" #h0 ".16b, v" #h1 ".16b\n\t" \
  "sub v" #l0 ".16b, v" #l0 ".16b, v" #l1 ".16b\n\t" \
  "sub v" #h0 ".16b, v" #h0 ".16b, v" #h1 ".16b\n\t" \
  EDGEQ_PUT_ELEMENT(30, 31, 28, 29, 30, 31, element) \
  EDGEQ_PUT_ELEMENT(l0, h0, 24, 25, 26, 27, element) \
  EDGEQ_PUT_ELEMENT(l2, h2, 28, 29, 30, 31, last)

/// Transforms the filters of `fours` >= 1 times four channels of a panel, whose taps lie `tap_bytes` apart, and
/// steps past them.
EDGEQ_INLINE void put_narrow_filters(size_t fours, ptrdiff_t tap_bytes, ptrdiff_t element_bytes, const int8_t*& w,
                                     int16_t*& to) {
  __asm__ volatile(
      "1:\n\t"
      EDGEQ_LOAD_TAP(0, tap) EDGEQ_LOAD_TAP(1, tap) EDGEQ_LOAD_TAP(2, tap) EDGEQ_LOAD_TAP(3, tap)
      EDGEQ_LOAD_TAP(4, tap) EDGEQ_LOAD_TAP(5, tap) EDGEQ_LOAD_TAP(6, tap) EDGEQ_LOAD_TAP(7, tap)
      EDGEQ_LOAD_TAP(8, next_taps)
      EDGEQ_SPLIT_TAP(0, 12) EDGEQ_SPLIT_TAP(3, 15) EDGEQ_SPLIT_TAP(6, 18)
      EDGEQ_COLUMN(0, 3, 6, 9, 24) EDGEQ_COLUMN(12, 15, 18, 21, 25)
      EDGEQ_SPLIT_TAP(1, 13) EDGEQ_SPLIT_TAP(4, 16) EDGEQ_SPLIT_TAP(7, 19)
      EDGEQ_COLUMN(1, 4, 7, 10, 24) EDGEQ_COLUMN(13, 16, 19, 22, 25)
      EDGEQ_SPLIT_TAP(2, 14) EDGEQ_SPLIT_TAP(5, 17) EDGEQ_SPLIT_TAP(8, 20)
      EDGEQ_COLUMN(2, 5, 8, 11, 24) EDGEQ_COLUMN(14, 17, 20, 23, 25)
      EDGEQ_PUT_ELEMENTS(0, 1, 2, 12, 13, 14, element)
      EDGEQ_PUT_ELEMENTS(9, 10, 11, 21, 22, 23, element)
      EDGEQ_PUT_ELEMENTS(3, 4, 5, 15, 16, 17, element)
      "subs %[fours], %[fours], #1\n\t"
      EDGEQ_PUT_ELEMENTS(6, 7, 8, 18, 19, 20, next_element)
      "b.ne 1b"
      : [fours] "+r"(fours), [w] "+r"(w), [to] "+r"(to)
      : [tap] "r"(tap_bytes), [next_taps] "r"(16 - 8 * tap_bytes), [element] "r"(element_bytes),
        [next_element] "r"(64 - 15 * element_bytes)
      : EDGEQ_SUM_CLOBBERS);
}
// clang-format on

/// What the 16 products of a tile with a panel read. Elements of blocks and filters lie `step` apart.
struct Operands {
  const int16_t* blocks;
  const int16_t* filters;
  const uint8_t* notes;  // of all elements
  size_t step;
  size_t groups;  // of eight channels
};

template <int kBlocks>
void multiply(const Operands& x, int32_t* sums) {
  const uint8_t* notes = x.notes;
  for (size_t i = 0; i < 16 * x.step; i += x.step, sums += kElementSums) {
    if (*notes != 0) {
      multiply_narrow<kBlocks>(x.blocks + i, x.filters + i, notes, sums);
    } else {
      multiply_wide<kBlocks>(x.blocks + i, x.filters + i, x.groups, sums);
      ++notes;
    }
  }
}

/// One call: rows [row_begin, row_end) of panels [panel_begin, panel_end).
class Convolution {
 public:
  Convolution(const WinogradParams& params, int bits, size_t row_begin, size_t row_end, size_t panel_begin,
              size_t panel_end)
      : p_(params),
        bits_(bits),
        lanes_(winograd_lanes(params.k, params.n)),
        tap_bytes_(bits == 4 ? (params.k + 1) / 2 * kNr : params.k * kNr),
        note_bytes_(winograd_note_bytes(params.k)),
        row_begin_(row_begin),
        row_end_(row_end),
        panel_begin_(panel_begin),
        panel_end_(panel_end),
        blocks_across_((params.width_out + 1) / 2),
        blocks_((row_end - row_begin + 1) / 2 * blocks_across_),
        tiles_((blocks_ + kMr - 1) / kMr),
        largest_sum_(static_cast<double>(9 * params.k * 128) * (bits == 4 ? 7 : 127)),
        range_(params.range),
        small_range_(params.range),
        sum_range_(params.residual.range) {}

  void run() const {
    const bool all = panel_end_ - panel_begin_ <= lanes_.panels;
    // Shared out evenly, in rounds and in tiles: none is left with a block or two.
    const size_t rounds = (tiles_ + lanes_.tiles - 1) / lanes_.tiles;
    for (size_t round = 0; round < rounds; ++round) {
      const size_t first = tiles_ * round / rounds;
      const size_t last = tiles_ * (round + 1) / rounds;
      for (size_t tile = first; tile < last; ++tile) put_tile(tile, tile_at(tile - first));
      for (size_t panel = panel_begin_; panel < panel_end_; ++panel) {
        int16_t* const filters = tile_at(lanes_.tiles + (all ? panel - panel_begin_ : 0));
        if (round == 0 || !all) put_filters(panel, filters);
        const Panel at = look_at(panel, filters);
        for (size_t tile = first; tile < last; ++tile) run_tile(tile, tile_at(tile - first), at);
      }
    }
  }

 private:
  size_t element() const { return lanes_.element_bytes / sizeof(int16_t); }
  int16_t* tile_at(size_t i) const { return reinterpret_cast<int16_t*>(p_.scratch + i * lanes_.tile_bytes); }
  const uint8_t* header(size_t panel) const { return p_.packed + panel * (kHeader + 9 * tap_bytes_); }
  size_t first_block(size_t tile) const { return blocks_ * tile / tiles_; }

  /// What the tiles of a panel share.
  struct Panel {
    const uint8_t* header;
    const int16_t* filters;
    const uint8_t* notes;
    size_t channel;
    size_t columns;  // channels
    Finish finish;
  };

  Panel look_at(size_t panel, const int16_t* filters) const {
    Panel at;
    at.header = header(panel);
    at.filters = filters;
    static constexpr uint8_t kNoRuns[16] = {};
    at.notes = bits_ == 4 ? header((p_.n + kNr - 1) / kNr) + panel * note_bytes_ : kNoRuns;
    at.channel = panel * kNr;
    at.columns = p_.n - at.channel < kNr ? p_.n - at.channel : kNr;
    GemmParams rounding;
    rounding.range = p_.range;
    at.finish = finish_of(rounding, at.header, kNr, largest_sum_);
    return at;
  }

  /// Three vectors as the filters of an element.
  static EDGEQ_INLINE void transform_filter(int8x8_t g0, int8x8_t g1, int8x8_t g2, int16x8_t (&out)[4]) {
    const int16x8_t ends = vaddl_s8(g0, g2);
    out[0] = vmovl_s8(g0);
    out[1] = vaddw_s8(ends, g1);
    out[2] = vsubw_s8(ends, g1);
    out[3] = vmovl_s8(g2);
  }

  static EDGEQ_INLINE void transform_filter(int16x8_t g0, int16x8_t g1, int16x8_t g2, int16x8_t (&out)[4]) {
    const int16x8_t ends = vaddq_s16(g0, g2);
    out[0] = g0;
    out[1] = vaddq_s16(ends, g1);
    out[2] = vsubq_s16(ends, g1);
    out[3] = g2;
  }

  // Each of these loads or stores, and steps in one instruction.
  static EDGEQ_INLINE int8x8_t get(const int8_t*& from, ptrdiff_t step_bytes) {
    int8x8_t vector;
    __asm__ volatile("ld1 {%0.8b}, [%1], %2" : "=w"(vector), "+r"(from) : "r"(step_bytes) : "memory");
    return vector;
  }
  static EDGEQ_INLINE void put(int16_t*& to, ptrdiff_t step_bytes, int16x8_t vector) {
    __asm__ volatile("st1 {%1.8h}, [%0], %2" : "+r"(to) : "w"(vector), "r"(step_bytes) : "memory");
  }
  template <int kHalf>
  static EDGEQ_INLINE void put_half(int16_t*& to, ptrdiff_t step_bytes, int16x8_t vector) {
    __asm__ volatile("st1 {%1.d}[%3], [%0], %2"
                     : "+r"(to)
                     : "w"(vector), "r"(step_bytes), "i"(kHalf)
                     : "memory");
  }

  /// Writes the transform of a vector of filters, its 16 elements a `step` apart.
  static EDGEQ_INLINE void put_filter(const int8x8_t (&g)[9], ptrdiff_t step_bytes, int16_t* to) {
    int16x8_t columns[3][4];
#pragma GCC unroll 3
    for (size_t x = 0; x < 3; ++x) transform_filter(g[x], g[3 + x], g[6 + x], columns[x]);
#pragma GCC unroll 4
    for (size_t y = 0; y < 4; ++y) {
      int16x8_t row[4];
      transform_filter(columns[0][y], columns[1][y], columns[2][y], row);
#pragma GCC unroll 4
      for (const int16x8_t& vector : row) put(to, step_bytes, vector);
    }
  }

  /// Transforms the filters of a panel; those beyond the last channel are zero.
  EDGEQ_NOINLINE void put_filters(size_t panel, int16_t* to) const {
    const int8_t* w = reinterpret_cast<const int8_t*>(header(panel) + kHeader);
    const ptrdiff_t step = static_cast<ptrdiff_t>(lanes_.element_bytes);
    const int16_t* const end = to + lanes_.groups * 8 * kNr;
    if (bits_ == 8) {
      // A copy, because what is written might be this.
      const ptrdiff_t tap_bytes = static_cast<ptrdiff_t>(tap_bytes_);
      for (size_t left = p_.k; left != 0; --left, w += kNr, to += kNr) {
        const int8_t* from = w;
        int8x8_t g[9];
#pragma GCC unroll 9
        for (int8x8_t& tap : g) tap = get(from, tap_bytes);
        put_filter(g, step, to);
      }
    } else {
      const size_t pairs = (p_.k + 1) / 2;
      if (pairs >= 2) put_narrow_filters(pairs / 2, static_cast<ptrdiff_t>(tap_bytes_), step, w, to);
      if (pairs % 2 != 0) {
        int8x8_t even[9];
        int8x8_t odd[9];
#pragma GCC unroll 9
        for (size_t t = 0; t < 9; ++t) {
          const int8x8_t raw = vld1_s8(w + t * tap_bytes_);
          even[t] = vshr_n_s8(vshl_n_s8(raw, 4), 4);
          odd[t] = vshr_n_s8(raw, 4);
        }
        put_filter(even, step, to);
        put_filter(odd, step, to + kNr);
        to += 2 * kNr;
      }
    }
    for (; to != end; to += kNr) {
      int16_t* place = to;
      for (size_t e = 0; e < 16; ++e) put(place, step, vdupq_n_s16(0));
    }
  }

  /// Output row and column of a block's upper left corner.
  size_t row_of(size_t block) const { return row_begin_ + block / blocks_across_ * 2; }
  size_t column_of(size_t block) const { return block % blocks_across_ * 2; }

  /// Addresses of the 4x4 pixels of a block.
  void find_pixels(size_t block, const act_t* (&pixel)[4][4]) const {
    const size_t y = row_of(block);
    const size_t x = column_of(block);
    for (size_t i = 0; i < 4; ++i) {
      // A block that reaches below the last row computes what nobody stores.
      const act_t* row = y + i < row_end_ + 2 ? p_.rows[y + i] : nullptr;
      for (size_t j = 0; j < 4; ++j) {
        const size_t column = x + j - p_.pad_left;  // wraps to a large number left of the image
        pixel[i][j] = row != nullptr && column < p_.width_in
                          ? row + static_cast<ptrdiff_t>(column) * p_.src_pixel_stride
                          : p_.zero_pixel;
      }
    }
  }

  void put_tile(size_t tile, int16_t* to) const {
    const size_t last = first_block(tile + 1);
    for (size_t block = first_block(tile); block < last; ++block, to += 4) put_block(block, to);
  }

  /// Writes B^T d B of a block.
  void put_block(size_t block, int16_t* to) const {
    const act_t* pixel[4][4];
    find_pixels(block, pixel);
    const ptrdiff_t step = static_cast<ptrdiff_t>(lanes_.element_bytes);
    for (size_t c = 0; c < lanes_.groups * 8; c += 8, to += 8 * kMr) {
      int16x8_t columns[4][4];
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j) {
        const int8x8_t d0 = vld1_s8(pixel[0][j] + c);
        const int8x8_t d1 = vld1_s8(pixel[1][j] + c);
        const int8x8_t d2 = vld1_s8(pixel[2][j] + c);
        const int8x8_t d3 = vld1_s8(pixel[3][j] + c);
        columns[j][0] = vsubl_s8(d0, d2);
        columns[j][1] = vaddl_s8(d1, d2);
        columns[j][2] = vsubl_s8(d2, d1);
        columns[j][3] = vsubl_s8(d1, d3);
      }
      int16_t* low = to;
      int16_t* high = to + 4 * kMr;
      const auto put_element = [&](int16x8_t vector) {
        put_half<0>(low, step, vector);
        put_half<1>(high, step, vector);
      };
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) {
        put_element(vsubq_s16(columns[0][i], columns[2][i]));
        put_element(vaddq_s16(columns[1][i], columns[2][i]));
        put_element(vsubq_s16(columns[2][i], columns[1][i]));
        put_element(vsubq_s16(columns[1][i], columns[3][i]));
      }
    }
  }

  /// Where the outputs of a block go.
  struct Place {
    const uint8_t* header;
    act_t* dst;
    const act_t* residual;  // or null
    size_t columns;         // channels
    bool both_columns;
    bool both_rows;
  };

  EDGEQ_NOINLINE void run_tile(size_t tile, const int16_t* source, const Panel& panel) const {
    using Multiply = void (*)(const Operands&, int32_t*);
    static constexpr Multiply kMultiply[kMr] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>,
                                                multiply<5>, multiply<6>, multiply<7>, multiply<8>};
    alignas(64) int32_t sums[16 * kElementSums];
    const size_t first = first_block(tile);
    const size_t count = first_block(tile + 1) - first;
    kMultiply[count - 1](Operands{source, panel.filters, panel.notes, element(), lanes_.groups}, sums);
    Place at;
    at.header = panel.header;
    at.columns = panel.columns;
    for (size_t i = 0; i < count; ++i) {
      const size_t row = row_of(first + i);
      const size_t column = column_of(first + i);
      at.both_columns = column + 1 < p_.width_out;
      at.both_rows = row + 1 < row_end_;
      const ptrdiff_t y = static_cast<ptrdiff_t>(row);
      const ptrdiff_t x = static_cast<ptrdiff_t>(column);
      at.dst = p_.dst + y * p_.dst_row_stride + x * p_.dst_pixel_stride + panel.channel;
      at.residual = p_.residual.src == nullptr ? nullptr
                                               : p_.residual.src + y * p_.residual_row_stride +
                                                     x * p_.residual.row_stride + panel.channel;
      if (panel.finish == Finish::kMemory) {
        put_outputs<Finish::kMemory>(sums + i * kNr, at);
      } else {
        put_outputs<Finish::kClamp>(sums + i * kNr, at);
      }
    }
  }

  /// Reads eight sums. GCC 12 tears such pairs apart.
  template <int kAt>
  static EDGEQ_INLINE void load_pair(const int32_t* from, int32x4_t (&to)[2]) {
    __asm__("ldp %q0, %q1, [%2, %3]"
            : "=w"(to[0]), "=w"(to[1])
            : "r"(from), "i"(kAt * 4), "m"(*reinterpret_cast<const int32_t (*)[kAt + kNr]>(from)));
  }

  /// The transformation back of a block, with the bias, and its epilogue.
  template <Finish kFinish>
  EDGEQ_NOINLINE void put_outputs(const int32_t* sums, const Place& at) const {
    int32x4_t columns[4][2][2];  // row of the elements, output column, half of the channels
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i, sums += 4 * kElementSums) {
      int32x4_t m[4][2];
      load_pair<0>(sums, m[0]);
      load_pair<kElementSums>(sums, m[1]);
      load_pair<2 * kElementSums>(sums, m[2]);
      load_pair<3 * kElementSums>(sums, m[3]);
#pragma GCC unroll 2
      for (size_t v = 0; v < 2; ++v) {
        columns[i][0][v] = vaddq_s32(vhaddq_s32(m[1][v], m[2][v]), m[0][v]);
        columns[i][1][v] = vsubq_s32(vhsubq_s32(m[1][v], m[2][v]), m[3][v]);
      }
    }
    int32x4_t bias[2];
    int32x4_t scale_bits[2];
    load_pair<0>(reinterpret_cast<const int32_t*>(at.header), bias);
    load_pair<kNr>(reinterpret_cast<const int32_t*>(at.header), scale_bits);
    const float32x4_t scale[2] = {vreinterpretq_f32_s32(scale_bits[0]), vreinterpretq_f32_s32(scale_bits[1])};
    int32x4_t out[2][4];  // of a row: two vectors of the left pixel, two of the right one
#pragma GCC unroll 2
    for (size_t x = 0; x < 2; ++x) {
#pragma GCC unroll 2
      for (size_t v = 0; v < 2; ++v) {
        const int32x4_t plus = vhaddq_s32(columns[1][x][v], columns[2][x][v]);
        const int32x4_t minus = vhsubq_s32(columns[1][x][v], columns[2][x][v]);
        out[0][2 * x + v] = vaddq_s32(plus, vaddq_s32(columns[0][x][v], bias[v]));
        out[1][2 * x + v] = vaddq_s32(minus, vsubq_s32(bias[v], columns[3][x][v]));
      }
    }
    put_row<kFinish>(out[0], scale, at, at.dst, at.residual);
    if (!at.both_rows) return;
    put_row<kFinish>(out[1], scale, at, at.dst + p_.dst_row_stride,
                     at.residual == nullptr ? nullptr : at.residual + p_.residual_row_stride);
  }

  template <Finish kFinish>
  EDGEQ_INLINE void put_row(const int32x4_t (&sums)[4], const float32x4_t (&scale)[2], const Place& at,
                            act_t* dst, const act_t* residual) const {
    int8x16_t codes;
    if constexpr (kFinish == Finish::kMemory) {
      codes = requantize(sums[0], sums[1], sums[2], sums[3], scale[0], scale[1], scale[0], scale[1], range_);
    } else {
      codes = requantize_small<kFinish>(sums[0], sums[1], sums[2], sums[3], scale[0], scale[1], scale[0],
                                        scale[1], SmallProducts(small_range_));
    }
    if (p_.table != nullptr) codes = look_up_each(codes, p_.table);
    if (residual != nullptr) {
      const act_t* right = at.both_columns ? residual + p_.residual.row_stride : residual;
      codes = add_residual(codes, vcombine_s8(vld1_s8(residual), vld1_s8(right)), p_.residual, sum_range_);
    }
    if (at.columns == kNr && at.both_columns) {
      vst1_s8(dst, vget_low_s8(codes));
      vst1_s8(dst + p_.dst_pixel_stride, vget_high_s8(codes));
      return;
    }
    store_first(dst, codes, at.columns);
    if (at.both_columns) store_first(dst + p_.dst_pixel_stride, vextq_s8(codes, codes, 8), at.columns);
  }

  const WinogradParams& p_;
  const int bits_;  // of the weights
  const WinogradLanes lanes_;
  const size_t tap_bytes_;   // packed, of a panel
  const size_t note_bytes_;  // of a panel
  const size_t row_begin_;
  const size_t row_end_;
  const size_t panel_begin_;
  const size_t panel_end_;
  const size_t blocks_across_;
  const size_t blocks_;
  const size_t tiles_;
  const double largest_sum_;  // of products of weights
  const RangeVectors range_;
  const SmallRange small_range_;
  const RangeVectors sum_range_;
};

}  // namespace

void winograd_s8s8c_s8_8x8x1_neon(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  if (r0 < r1 && p0 < p1) Convolution(p, 8, r0, r1, p0, p1).run();
}

void winograd_s8s4c_s8_8x8x1_neon(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  if (r0 < r1 && p0 < p1) Convolution(p, 4, r0, r1, p0, p1).run();
}

}  // namespace edgeq

#endif  // __aarch64__
