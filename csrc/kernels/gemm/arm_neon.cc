#include <type_traits>

#include "kernels/gemm/arm_tile.h"
#include "kernels/gemm/neon_blocks.h"
#if defined(__aarch64__)
#include "kernels/gemm/arm64_neon_lanes.h"
#include "kernels/gemm/arm64_neon_shallow.h"
#include "kernels/gemm/arm64_neon_tile.h"
#include "kernels/gemm/arm64_residual.h"
#endif

// NEON without a dot product. A tile is four rows by four channels; each of its sums is a vector of partial
// sums, for every fourth or eighth place of the depth, which are added up at the end.
//
// W8: two products of a lane fit 16 bits (2 * 128 * 127 = 32,512), so that sixteen products take smull,
// smlal2 and sadalp. W4: thirty-six do (36 * 128 * 7 = 32,256), so that a lane's sums stay 16 bits wide for
// 288 places of the depth, and sixteen products take smlal and smlal2. Real weights are so small that the
// sums mostly stay so for the whole depth, which a panel's notes tell (pack.h). 4-bit weights of a block of
// panels are unpacked once for all rows.

namespace edgeq {
namespace {

constexpr size_t kMr = NeonBlocks::kRows;
constexpr size_t kNr = NeonBlocks::kChannels;
constexpr size_t kChannelBytes = kNr * 8;  // bias and scale of a panel
constexpr size_t kNarrowNotes = 16;        // bytes of the notes of 4-bit weights, pack.h

// Sixteen registers hold the sums of half a tile only.
#if defined(__aarch64__)
constexpr size_t kTileRows = 4;
#else
constexpr size_t kTileRows = 2;
#endif

EDGEQ_INLINE int16x8_t multiply_high(int16x8_t acc, int8x16_t a, int8x16_t b) {
#if defined(__aarch64__)
  return vmlal_high_s8(acc, a, b);
#else
  return vmlal_s8(acc, vget_high_s8(a), vget_high_s8(b));
#endif
}

/// Sums of each of four vectors' lanes.
EDGEQ_INLINE int32x4_t add_lanes(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) {
#if defined(__aarch64__)
  return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
#else
  const auto halves = [](int32x4_t v) { return vadd_s32(vget_low_s32(v), vget_high_s32(v)); };
  return vcombine_s32(vpadd_s32(halves(a), halves(b)), vpadd_s32(halves(c), halves(d)));
#endif
}

/// What a tile reads.
struct Operands {
  const act_t* const* rows;  // kMr addresses for each tap
  size_t taps;
  size_t groups;  // whole groups of 16 channels in a tap
  size_t half;    // 1: and a group of 8
  size_t header_bytes;
  size_t panel_bytes;
  size_t note_bytes;
  bool by_panels;  // run_panels takes whole tiles: of 4-bit weights, where these have parts (pack.h)
  bool all_have_parts;
  act_t* side;  // W4, where by_panels holds: for a tile's rows side by side
};

/// Sums of a tile, without bias.
template <size_t kRows>
struct WideSums {
  EDGEQ_INLINE WideSums() {
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (size_t j = 0; j < kNr; ++j) sums[r][j] = vdupq_n_s32(0);
    }
  }

  static EDGEQ_INLINE void sum(const Operands& x, const int8_t*& w, int32x4_t (&total)[kRows]) {
    WideSums tile;
    const act_t* const* rows = x.rows;
    for (size_t t = x.taps; t > 0; --t, rows += kMr) tile.add_tap(x, rows, w);
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) total[r] = tile.row(r);
  }

  EDGEQ_INLINE void add_tap(const Operands& x, const act_t* const* rows, const int8_t*& w) {
    const int8_t* a[kRows];
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) a[r] = rows[r];
    for (size_t left = x.groups; left > 0; --left) {
      int8x16_t b[kNr];
#pragma GCC unroll 4
      for (size_t j = 0; j < kNr; ++j) b[j] = vld1q_s8(w + 16 * j);
      w += 16 * kNr;
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        const int8x16_t row = vld1q_s8(a[r]);
        a[r] += 16;
#pragma GCC unroll 4
        for (size_t j = 0; j < kNr; ++j) {
          const int16x8_t low = vmull_s8(vget_low_s8(row), vget_low_s8(b[j]));
          sums[r][j] = vpadalq_s16(sums[r][j], multiply_high(low, row, b[j]));
        }
      }
    }
    if (x.half == 0) return;
    int8x8_t b[kNr];
#pragma GCC unroll 4
    for (size_t j = 0; j < kNr; ++j) b[j] = vld1_s8(w + 8 * j);
    w += 8 * kNr;
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const int8x8_t row = vld1_s8(a[r]);
#pragma GCC unroll 4
      for (size_t j = 0; j < kNr; ++j) sums[r][j] = vpadalq_s16(sums[r][j], vmull_s8(row, b[j]));
    }
  }

  EDGEQ_INLINE int32x4_t row(size_t r) const {
    return add_lanes(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
  }

  int32x4_t sums[kRows][kNr];
};

/// The same where weights have 4 bits: products are added in 16 bits.
template <size_t kRows>
struct NarrowSums {
  static constexpr size_t kMost = 36;  // products of a lane

  EDGEQ_INLINE NarrowSums() {
    clear();
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (size_t j = 0; j < kNr; ++j) wide[r][j] = vdupq_n_s32(0);
    }
  }

  EDGEQ_INLINE void clear() {
    room = kMost;
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (size_t j = 0; j < kNr; ++j) sums[r][j] = vdupq_n_s16(0);
    }
  }

  EDGEQ_INLINE void widen() {
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (size_t j = 0; j < kNr; ++j) wide[r][j] = vpadalq_s16(wide[r][j], sums[r][j]);
    }
    clear();
  }

  static EDGEQ_INLINE void sum(const Operands& x, const int8_t*& w, int32x4_t (&total)[kRows]) {
    NarrowSums tile;
    const act_t* const* rows = x.rows;
    for (size_t t = x.taps; t > 0; --t, rows += kMr) tile.add_tap(x, rows, w);
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) total[r] = tile.row(r);
  }

  EDGEQ_INLINE void add_tap(const Operands& x, const act_t* const* rows, const int8_t*& w) {
    const int8_t* a[kRows];
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) a[r] = rows[r];
    for (size_t left = x.groups; left > 0;) {
      if (room < 2) widen();
      size_t run = room / 2 < left ? room / 2 : left;
      left -= run;
      room -= 2 * run;
      for (; run > 0; --run) {
        int8x16_t b[kNr];
#pragma GCC unroll 4
        for (size_t j = 0; j < kNr; ++j) b[j] = vld1q_s8(w + 16 * j);
        w += 16 * kNr;
#pragma GCC unroll 4
        for (size_t r = 0; r < kRows; ++r) {
          const int8x16_t row = vld1q_s8(a[r]);
          a[r] += 16;
#pragma GCC unroll 4
          for (size_t j = 0; j < kNr; ++j) {
            sums[r][j] = vmlal_s8(sums[r][j], vget_low_s8(row), vget_low_s8(b[j]));
            sums[r][j] = multiply_high(sums[r][j], row, b[j]);
          }
        }
      }
    }
    if (x.half == 0) return;
    if (room < 1) widen();
    --room;
    int8x8_t b[kNr];
#pragma GCC unroll 4
    for (size_t j = 0; j < kNr; ++j) b[j] = vld1_s8(w + 8 * j);
    w += 8 * kNr;
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const int8x8_t row = vld1_s8(a[r]);
#pragma GCC unroll 4
      for (size_t j = 0; j < kNr; ++j) sums[r][j] = vmlal_s8(sums[r][j], row, b[j]);
    }
  }

  EDGEQ_INLINE int32x4_t row(size_t r) const {
    int32x4_t all[kNr];
#pragma GCC unroll 4
    for (size_t j = 0; j < kNr; ++j) all[j] = vpadalq_s16(wide[r][j], sums[r][j]);
    return add_lanes(all[0], all[1], all[2], all[3]);
  }

  size_t room;  // products that a lane still holds
  int16x8_t sums[kRows][kNr];
  int32x4_t wide[kRows][kNr];
};

#if defined(__aarch64__)

/// The notes before a panel's weights.
EDGEQ_INLINE const uint8_t* notes_of(const Operands& x, const int8_t* weights) {
  return reinterpret_cast<const uint8_t*>(weights) - x.note_bytes;
}

/// The sums of a whole tile of 8-bit weights; kOneTap: of panels whose notes are bits.
template <bool kOneTap>
struct WideTile {
  static EDGEQ_INLINE void sum(const Operands& x, const int8_t*& w, int32x4_t (&sums)[4]) {
    if (kOneTap) {
      sum_wide_panel(x.rows, x.groups, x.half, reinterpret_cast<const uint8_t*>(w) - x.header_bytes, sums);
      w += x.panel_bytes - x.header_bytes;
    } else {
      sum_wide_tile(x.rows, x.taps, x.groups, x.half, notes_of(x, w), w, sums);
    }
  }
};

/// Sums of 4-bit weights that do not fit the lanes.
EDGEQ_NOINLINE void sum_deep(const Operands& x, const int8_t*& w, int32x4_t (&sums)[4]) {
  constexpr size_t kMostGroups = kNarrowProducts / 2;
  int32x4_t wide[16] = {};
  const size_t of_tap = 2 * x.groups + x.half;
  const act_t* const* rows = x.rows;
  if (of_tap <= kNarrowProducts) {
    const size_t most = kNarrowProducts / of_tap;
    for (size_t left = x.taps; left > 0;) {
      const size_t taps = left < most ? left : most;
      add_narrow_tile(rows, taps, x.groups, x.half, 0, w, wide);
      rows += taps * kMr;
      left -= taps;
    }
  } else {
    for (size_t t = x.taps; t > 0; --t, rows += kMr) {
      size_t first = 0;
      for (; x.groups - first > kMostGroups; first += kMostGroups)
        add_narrow_tile(rows, 1, kMostGroups, 0, 16 * first, w, wide);
      const size_t rest = x.groups - first;
      const bool with_half = x.half != 0 && rest < kMostGroups;
      add_narrow_tile(rows, 1, rest, with_half, 16 * first, w, wide);
      if (x.half != 0 && !with_half) add_narrow_tile(rows, 1, 0, 1, 16 * x.groups, w, wide);
    }
  }
  for (size_t r = 0; r < 4; ++r)
    sums[r] = add_lanes(wide[4 * r], wide[4 * r + 1], wide[4 * r + 2], wide[4 * r + 3]);
}

/// Those of 4-bit weights.
template <bool kOneTap>
struct NarrowTile {
  static EDGEQ_INLINE void sum(const Operands& x, const int8_t*& w, int32x4_t (&sums)[4]) {
    const uint32_t fit = static_cast<uint8_t>(w[-static_cast<ptrdiff_t>(kNarrowNotes)]);
    if (fit != 0) {
      sum_narrow_tile<kOneTap>(x.rows, x.taps, x.groups, x.half, fit, w, sums);
    } else {
      sum_deep(x, w, sums);
    }
  }
};

#endif

#if defined(__aarch64__)
/// The sums of one row of 4-bit weights.
struct NarrowRow {
  static EDGEQ_INLINE void sum(const Operands& x, const int8_t*& w, int32x4_t (&total)[1]) {
    if (x.taps != 1) return NarrowSums<1>::sum(x, w, total);
    const act_t* a = x.rows[0];
    if (w[-static_cast<ptrdiff_t>(kNarrowNotes)] != 0) {
      total[0] = sum_narrow_row(a, x.groups, x.half, w);
      return;
    }
    // As many groups at a time as fit whatever the weights are; half a group may be one too many.
    constexpr size_t kMost = kNarrowProducts / 2 - 1;
    size_t left = x.groups;
    total[0] = vdupq_n_s32(0);
    for (; left > kMost; left -= kMost, a += 16 * kMost)
      total[0] = vaddq_s32(total[0], sum_narrow_row(a, kMost, 0, w));
    total[0] = vaddq_s32(total[0], sum_narrow_row(a, left, x.half, w));
  }
};
#else
using NarrowRow = NarrowSums<1>;
#endif

/// What all tiles of a call share.
struct Epilogue {
  explicit Epilogue(const GemmParams& p)
      : range(p.range),
        sum_range(p.residual.range),
        table(p.table),
        residual(p.residual),
        plain(p.table == nullptr && p.residual.src == nullptr)
#if defined(__aarch64__)
        ,
        small(p.range),
        constants(p),
        adds_small_sums(adds_small(p))
#endif
  {
  }

#if defined(__aarch64__)
  /// Finds out how the sums of some panels of kWidth channels become codes. kMost: where the notes of 4-bit
  /// weights say what their magnitudes add up to at most; 0: of 8-bit weights, `depth` of them.
  template <size_t kWidth, size_t kMost>
  void look_at(const GemmParams& p, const uint8_t* panel, size_t panel_bytes, size_t panels, double depth) {
    GemmParams sums = p;
    sums.residual.src = nullptr;
    const double largest_sum = depth * 127.0 * 128.0;
    Finish all = finish_of(p.range);
    bool relus = true;
    for (size_t i = 0; i < panels && all != Finish::kMemory; ++i, panel += panel_bytes) {
      uint32_t most = 0;
      if (kMost != 0) std::memcpy(&most, panel + kWidth * 8 + kMost, sizeof most);
      const PanelBounds bounds(panel, kWidth, kMost != 0 ? most * 128.0 : largest_sum);
      all = finish_of(sums, bounds);
      relus = relus && is_relu(p, bounds);
    }
    finish = plain ? all : Finish::kMemory;
    relu = relus && finish == Finish::kSaturate;
    small_residual = adds_small_sums && all != Finish::kMemory;
  }
#endif

  RangeVectors range;
  RangeVectors sum_range;
  const act_t* table;
  const GemmResidual& residual;
  bool plain;  // nothing follows the rounding
#if defined(__aarch64__)
  SmallRange small;
  FinishConstants constants;
  bool adds_small_sums;
  Finish finish = Finish::kMemory;  // of the panels at hand
  bool relu = false;                // kRelu may stand for it
  bool small_residual = false;      // a residual after small products, and nothing else
#endif
};

/// Where a tile's codes go.
struct Place {
  act_t* dst;
  ptrdiff_t dst_stride;
  const act_t* src;  // of the residual, or null
  ptrdiff_t src_stride;
  size_t columns;
};

/// Requantizes, finishes and stores sums.
template <size_t kRows>
EDGEQ_INLINE void finish_tile(const Epilogue& epilogue, const Place& place, const int32x4_t (&sums)[kRows],
                              float32x4_t scale) {
  const auto sum = [&](size_t r) { return sums[r < kRows ? r : kRows - 1]; };
  int8x16_t codes = requantize(sum(0), sum(1), sum(2), sum(3), scale, scale, scale, scale, epilogue.range);
  if (epilogue.table != nullptr) codes = look_up_each(codes, epilogue.table);
  if (place.src != nullptr) {
    int32x4_t other = vdupq_n_s32(0);
    const act_t* src = place.src;
    other = load_lane<0>(src, other);
    if (kRows > 1) other = load_lane<1>(src + place.src_stride, other);
    if (kRows > 2) other = load_lane<2>(src + 2 * place.src_stride, other);
    if (kRows > 3) other = load_lane<3>(src + 3 * place.src_stride, other);
    codes = add_residual(codes, vreinterpretq_s8_s32(other), epilogue.residual, epilogue.sum_range);
  }
  act_t* dst = place.dst;
  const int32x4_t words = vreinterpretq_s32_s8(codes);
  if (place.columns >= kNr) {
    store_lane<0>(dst, words);
    if (kRows > 1) store_lane<1>(dst + place.dst_stride, words);
    if (kRows > 2) store_lane<2>(dst + 2 * place.dst_stride, words);
    if (kRows > 3) store_lane<3>(dst + 3 * place.dst_stride, words);
    return;
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r, dst += place.dst_stride) {
    store_first(dst, codes, place.columns);
    codes = vextq_s8(codes, codes, 4);
  }
}

#if defined(__aarch64__)

template <int kLane>
EDGEQ_INLINE void store_next(act_t*& to, int8x16_t codes) {
  __asm__ volatile("st1 {%1.s}[%2], [%0], #4" : "+r"(to) : "w"(codes), "i"(kLane) : "memory");
}

/// Four rows times some whole panels, with nothing after the rounding. kMemory: products may be large.
template <typename Sums, Finish kFinish>
void whole_tiles(const Epilogue& epilogue, const Operands& x, const Place& place, const uint8_t* panel,
                 size_t panels) {
  act_t* d0 = place.dst;
  act_t* d1 = d0 + place.dst_stride;
  act_t* d2 = d1 + place.dst_stride;
  act_t* d3 = d2 + place.dst_stride;
  do {
    const int8_t* w = reinterpret_cast<const int8_t*>(panel + x.header_bytes);
    int32x4_t sums[4];
    Sums::sum(x, w, sums);
    const int32x4_t bias = vld1q_s32(reinterpret_cast<const int32_t*>(panel));
    const float32x4_t scale = vld1q_f32(reinterpret_cast<const float*>(panel + kNr * 4));
    int8x16_t codes;
#pragma GCC unroll 4
    for (int32x4_t& sum : sums) sum = vaddq_s32(sum, bias);
    if constexpr (kFinish == Finish::kMemory) {
      codes = requantize(sums[0], sums[1], sums[2], sums[3], scale, scale, scale, scale, epilogue.range);
    } else {
      const SmallProducts small(epilogue.small);
      codes =
          requantize_small<kFinish>(sums[0], sums[1], sums[2], sums[3], scale, scale, scale, scale, small);
    }
    store_next<0>(d0, codes);
    store_next<1>(d1, codes);
    store_next<2>(d2, codes);
    store_next<3>(d3, codes);
    panel = reinterpret_cast<const uint8_t*>(w);
  } while (--panels != 0);
}

#endif

/// A tile of rows times some panels.
template <typename Sums, size_t kRows>
void tile_row(const Epilogue& epilogue, const Operands& x, Place place, const uint8_t* panel,
              size_t columns) {
  for (;;) {
    const int8_t* w = reinterpret_cast<const int8_t*>(panel + x.header_bytes);
    int32x4_t sums[kRows];
    Sums::sum(x, w, sums);
    const int32x4_t bias = vld1q_s32(reinterpret_cast<const int32_t*>(panel));
    const float32x4_t scale = vld1q_f32(reinterpret_cast<const float*>(panel + kNr * 4));
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) sums[r] = vaddq_s32(sums[r], bias);
    place.columns = columns < kNr ? columns : kNr;
    finish_tile<kRows>(epilogue, place, sums, scale);
    if (columns <= kNr) return;
    columns -= kNr;
    panel = reinterpret_cast<const uint8_t*>(w);
    place.dst += kNr;
    if (place.src != nullptr) place.src += kNr;
  }
}

#if defined(__aarch64__)
// Compilers load and store four registers one by one.
#define EDGEQ_NIBBLES                     \
  "ld1 {v0.16b-v3.16b}, [%[in]], #64\n\t" \
  "subs %[count], %[count], #1\n\t"       \
  "shl v4.16b, v0.16b, #4\n\t"            \
  "shl v5.16b, v1.16b, #4\n\t"            \
  "shl v6.16b, v2.16b, #4\n\t"            \
  "shl v7.16b, v3.16b, #4\n\t"            \
  "sshr v0.16b, v0.16b, #4\n\t"           \
  "sshr v1.16b, v1.16b, #4\n\t"           \
  "sshr v2.16b, v2.16b, #4\n\t"           \
  "sshr v3.16b, v3.16b, #4\n\t"           \
  "sshr v4.16b, v4.16b, #4\n\t"           \
  "sshr v5.16b, v5.16b, #4\n\t"           \
  "sshr v6.16b, v6.16b, #4\n\t"           \
  "sshr v7.16b, v7.16b, #4\n\t"

/// Unpacks `count` >= 1 pairs of groups of four channels.
EDGEQ_INLINE void unpack_pairs(size_t count, const int8_t*& in, int8_t*& out) {
  __asm__ volatile("1:\n\t" EDGEQ_NIBBLES
                   "st1 {v4.16b-v7.16b}, [%[out]], #64\n\t"
                   "st1 {v0.16b-v3.16b}, [%[out]], #64\n\t"
                   "b.ne 1b"
                   : [count] "+r"(count), [in] "+r"(in), [out] "+r"(out)
                   :
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "cc", "memory");
}

/// Widens `count` >= 1 times eight places of 16 channels to 16 bits.
EDGEQ_INLINE void widen_eights(size_t count, const int8_t*& in, int16_t*& out) {
  __asm__ volatile("1:\n\t" EDGEQ_NIBBLES
                   "sxtl v16.8h, v4.8b\n\t"
                   "sxtl2 v17.8h, v4.16b\n\t"
                   "sxtl v18.8h, v0.8b\n\t"
                   "sxtl2 v19.8h, v0.16b\n\t"
                   "sxtl v20.8h, v5.8b\n\t"
                   "sxtl2 v21.8h, v5.16b\n\t"
                   "sxtl v22.8h, v1.8b\n\t"
                   "sxtl2 v23.8h, v1.16b\n\t"
                   "st1 {v16.8h-v19.8h}, [%[out]], #64\n\t"
                   "sxtl v16.8h, v6.8b\n\t"
                   "sxtl2 v17.8h, v6.16b\n\t"
                   "sxtl v18.8h, v2.8b\n\t"
                   "sxtl2 v19.8h, v2.16b\n\t"
                   "st1 {v20.8h-v23.8h}, [%[out]], #64\n\t"
                   "sxtl v20.8h, v7.8b\n\t"
                   "sxtl2 v21.8h, v7.16b\n\t"
                   "sxtl v22.8h, v3.8b\n\t"
                   "sxtl2 v23.8h, v3.16b\n\t"
                   "st1 {v16.8h-v19.8h}, [%[out]], #64\n\t"
                   "st1 {v20.8h-v23.8h}, [%[out]], #64\n\t"
                   "b.ne 1b"
                   : [count] "+r"(count), [in] "+r"(in), [out] "+r"(out)
                   :
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21",
                     "v22", "v23", "cc", "memory");
}
#endif

/// Whether a panel of 4-bit weights has parts (pack.h); that of one group counts no pairs.
EDGEQ_INLINE bool has_parts(const uint8_t* panel) {
  return panel[kChannelBytes] != 0 || panel[kChannelBytes + kGemmNarrowParts] != 0;
}

/// Brings a panel of 4-bit weights into the form of W8.
void unpack_panel(const uint8_t* from, const Operands& x, uint8_t* to) {
  constexpr size_t kHeader = kChannelBytes + kNarrowNotes;
  std::memcpy(to, from, kHeader);
  const int8_t* in = reinterpret_cast<const int8_t*>(from + kHeader);
  int8_t* out = reinterpret_cast<int8_t*>(to + kHeader);
  const auto lower = [](int8x16_t bytes) { return vshrq_n_s8(vshlq_n_s8(bytes, 4), 4); };
  const auto upper = [](int8x16_t bytes) { return vshrq_n_s8(bytes, 4); };
  const auto put = [&](const auto& nibbles) {
#pragma GCC unroll 4
    for (size_t j = 0; j < kNr; ++j) vst1q_s8(out + 16 * j, nibbles(vld1q_s8(in + 16 * j)));
    out += 16 * kNr;
  };
  const auto put_half = [&](const auto& nibbles) {
#pragma GCC unroll 4
    for (size_t j = 0; j < kNr; ++j) vst1_s8(out + 8 * j, vget_low_s8(nibbles(vld1q_s8(in + 16 * j))));
    out += 8 * kNr;
  };
  for (size_t t = 0; t < x.taps; ++t) {
    size_t left = x.groups;
#if defined(__aarch64__)
    if (left >= 2) unpack_pairs(left / 2, in, out);
    left %= 2;
#else
    for (; left >= 2; left -= 2) {
      int8x16_t bytes[kNr];
#pragma GCC unroll 4
      for (size_t j = 0; j < kNr; ++j) {
        bytes[j] = vld1q_s8(in + 16 * j);
        vst1q_s8(out + 16 * j, lower(bytes[j]));
        vst1q_s8(out + 16 * (kNr + j), upper(bytes[j]));
      }
      in += 16 * kNr;
      out += 32 * kNr;
    }
#endif
    if (left != 0) put(lower);
    if (x.half != 0) {
      if (left != 0) {
        put_half(upper);
      } else {
        put_half(lower);
      }
    }
    if (left + x.half != 0) in += 16 * kNr;
  }
}

#if defined(__aarch64__)
template <typename Tile>
EDGEQ_INLINE void run_tile(const Epilogue& epilogue, const Operands& x, Place place, const uint8_t* panel,
                           size_t columns) {
  const size_t panels = columns / kNr;
  if (epilogue.plain && panels != 0) {
    if (epilogue.finish == Finish::kSaturate) {
      whole_tiles<Tile, Finish::kSaturate>(epilogue, x, place, panel, panels);
    } else if (epilogue.finish == Finish::kClamp) {
      whole_tiles<Tile, Finish::kClamp>(epilogue, x, place, panel, panels);
    } else {
      whole_tiles<Tile, Finish::kMemory>(epilogue, x, place, panel, panels);
    }
    columns -= panels * kNr;
    if (columns == 0) return;
    panel += panels * x.panel_bytes;
    place.dst += panels * kNr;
  }
  tile_row<Tile, 4>(epilogue, x, place, panel, columns);
}

/// The same where run_panels takes whole tiles.
template <int kBits>
EDGEQ_INLINE void run_tile_by_panels(const Epilogue& epilogue, const Operands& x, Place place,
                                     const uint8_t* panel, size_t columns) {
  using Tile = std::conditional_t<kBits == 8, WideTile<true>, NarrowTile<true>>;
  const auto function = epilogue.small_residual                ? run_panels<kBits, PanelFinish::kResidual>
                        : epilogue.finish == Finish::kSaturate ? run_panels<kBits, PanelFinish::kSaturate>
                        : epilogue.finish == Finish::kClamp    ? run_panels<kBits, PanelFinish::kClamp>
                                                               : nullptr;
  const void* rows = x.rows;
  // Taps side by side, whose groups are even (pack.h), are one.
  const size_t groups = kBits == 4 ? x.groups * x.taps : x.groups;
  if constexpr (kBits == 4) {
    if (function != nullptr && columns >= kNr) {
      const act_t* const* tap = x.rows;
      act_t* to = x.side;
      for (size_t t = x.taps; t > 0; --t, tap += kMr, to += 16 * kMr * x.groups)
        put_side_by_side(tap, x.groups, x.half, to);
      rows = x.side;
    }
  }
  for (;;) {
    size_t count = function == nullptr ? 0 : columns / kNr;
    if (kBits == 4 && !x.all_have_parts) {
      size_t some = 0;
      while (some < count && has_parts(panel + some * x.panel_bytes)) ++some;
      count = some;
    }
    const auto step = [&](size_t panels) {
      columns -= panels * kNr;
      panel += panels * x.panel_bytes;
      place.dst += panels * kNr;
      if (place.src != nullptr) place.src += panels * kNr;
    };
    if (count != 0) {
      function(rows, groups, x.half, panel, x.panel_bytes, count, epilogue.constants, place.dst,
               place.dst_stride, place.src, place.src_stride);
      step(count);
    }
    if (columns == 0) return;
    const bool all = kBits == 8 || function == nullptr || columns < kNr;
    const size_t rest = all ? columns : kNr;
    if (kBits == 4 && x.taps != 1) {
      tile_row<NarrowTile<false>, 4>(epilogue, x, place, panel, rest);
    } else {
      tile_row<Tile, 4>(epilogue, x, place, panel, rest);
    }
    if (all) return;
    step(1);
    if (columns == 0) return;
  }
}
#endif

template <int kBits>
EDGEQ_INLINE void run_rows(const Epilogue& epilogue, Operands x, Place place, const uint8_t* panel,
                           size_t columns, size_t rows) {
  if (kTileRows < kMr && rows > kTileRows) {
    run_rows<kBits>(epilogue, x, place, panel, columns, kTileRows);
    x.rows += kTileRows;
    place.dst += static_cast<ptrdiff_t>(kTileRows) * place.dst_stride;
    if (place.src != nullptr) place.src += static_cast<ptrdiff_t>(kTileRows) * place.src_stride;
    rows -= kTileRows;
  }
  constexpr bool kNarrow = kBits == 4;
  switch (rows) {
#if defined(__aarch64__)
    case 4:
      if (x.by_panels) return run_tile_by_panels<kBits>(epilogue, x, place, panel, columns);
      return run_tile<std::conditional_t<kNarrow, NarrowTile<false>, WideTile<false>>>(epilogue, x, place,
                                                                                       panel, columns);
    case 3:
      return tile_row<std::conditional_t<kNarrow, NarrowSums<3>, WideSums<3>>, 3>(epilogue, x, place, panel,
                                                                                  columns);
#endif
    case 2:
      return tile_row<std::conditional_t<kNarrow, NarrowSums<2>, WideSums<2>>, 2>(epilogue, x, place, panel,
                                                                                  columns);
    default:
      return tile_row<std::conditional_t<kNarrow, NarrowRow, WideSums<1>>, 1>(epilogue, x, place, panel,
                                                                              columns);
  }
}

/// Writes the addresses of some rows: kMr for each tap, of which `rows` exist.
EDGEQ_INLINE void find_rows(const GemmLhs& lhs, size_t taps, size_t first, size_t rows,
                            const act_t** addresses) {
  if (lhs.pixel_offset == nullptr) {
    // An address beyond the last row is not used.
    const act_t* row = lhs_row(lhs, 0, first);
#pragma GCC unroll 4
    for (size_t r = 0; r < kMr; ++r) addresses[r] = row + static_cast<ptrdiff_t>(r) * lhs.row_stride;
    return;
  }
  for (size_t t = 0; t < taps; ++t, addresses += kMr) {
    for (size_t r = 0; r < rows; ++r) addresses[r] = lhs_row(lhs, t, first + r);
  }
}

#if defined(__aarch64__)
/// Computes whole tiles of a block of panels by arm64_neon_shallow.h; returns how many panels of them.
EDGEQ_INLINE size_t run_shallow(const GemmParams& p, const NeonBlocks& blocks, const Epilogue& epilogue,
                                size_t row_begin, size_t row_end, const uint8_t* weights, size_t column,
                                size_t columns) {
  const size_t tiles = (row_end - row_begin) / kMr;
  const size_t panels = columns / kNr;
  const size_t eights = blocks.tap_depth / 8;
  const bool takes = p.taps == 1 && p.lhs.pixel_offset == nullptr && tiles != 0;
  const ShallowTiles shallow = takes ? find_shallow_tiles(eights, epilogue.finish) : nullptr;
  if (shallow == nullptr || panels == 0) return 0;
  uint8_t* const spread = p.scratch + blocks.address_bytes;
  const size_t bytes = kNr * blocks.tap_depth + (epilogue.finish == Finish::kClamp ? 64 : 48);
  for (size_t i = 0; i < panels; ++i) {
    spread_panel(weights + i * blocks.panel_bytes, blocks.header_bytes, eights, epilogue.finish,
                 epilogue.small, spread + i * bytes);
  }
  shallow(lhs_row(p.lhs, 0, row_begin), p.lhs.row_stride, tiles, spread, panels, epilogue.small,
          p.dst + static_cast<ptrdiff_t>(row_begin) * p.dst_row_stride + column, p.dst_row_stride);
  return panels;
}
#endif

template <int kBits>
void run(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end) {
  const NeonBlocks blocks = neon_blocks(p.k, p.taps, kBits);
  const size_t packed_panel =
      kBits == 4 ? blocks.header_bytes + (p.k + 31) / 32 * 16 * kNr * p.taps : blocks.panel_bytes;
  const act_t** const addresses = reinterpret_cast<const act_t**>(p.scratch);
  uint8_t* const unpacked = p.scratch + blocks.address_bytes + blocks.row_bytes;
  Epilogue epilogue(p);
  Operands x{};
  x.rows = addresses;
  x.taps = p.taps;
  x.header_bytes = blocks.header_bytes;
  x.panel_bytes = blocks.panel_bytes;
  x.groups = blocks.tap_depth / 16;
  x.note_bytes = blocks.header_bytes - kChannelBytes;
  x.half = blocks.tap_depth / 8 % 2;
  x.by_panels = x.groups != 0 && (kBits == 8 ? gemm_notes_are_bits(x.groups, x.taps) : blocks.row_bytes != 0);
  if (kBits == 4)
    x.side = reinterpret_cast<act_t*>(p.scratch + blocks.address_bytes + NeonBlocks::kPartBytes);
  Place place{};
  place.dst_stride = p.dst_row_stride;
  place.src_stride = p.residual.row_stride;
  for (size_t panel = panel_begin; panel < panel_end; panel += blocks.panels) {
    const size_t count = panel_end - panel < blocks.panels ? panel_end - panel : blocks.panels;
    const size_t column = panel * kNr;
    const size_t columns = p.n - column < count * kNr ? p.n - column : count * kNr;
    const uint8_t* weights = p.packed + panel * packed_panel;
#if defined(__aarch64__)
    const double depth = static_cast<double>(blocks.tap_depth * p.taps);
    epilogue.look_at<kNr, kBits == 4 ? kGemmNarrowMost : 0>(p, weights, packed_panel, count, depth);
#endif
    if (kBits == 4) {
      for (size_t i = 0; i < count; ++i)
        unpack_panel(weights + i * packed_panel, x, unpacked + i * blocks.panel_bytes);
      weights = unpacked;
      x.all_have_parts = true;
      for (size_t i = 0; i < count; ++i)
        x.all_have_parts = x.all_have_parts && has_parts(weights + i * blocks.panel_bytes);
    }
    const auto run_tiles = [&](size_t from, size_t to, size_t done) {
      for (size_t i = from; i < to; i += kMr) {
        const size_t rows = to - i < kMr ? to - i : kMr;
        find_rows(p.lhs, p.taps, i, rows, addresses);
        const size_t first = column + done * kNr;
        place.dst = p.dst + static_cast<ptrdiff_t>(i) * p.dst_row_stride + first;
        place.src = p.residual.src == nullptr
                        ? nullptr
                        : p.residual.src + static_cast<ptrdiff_t>(i) * p.residual.row_stride + first;
        run_rows<kBits>(epilogue, x, place, weights + done * blocks.panel_bytes, columns - done * kNr, rows);
      }
    };
    size_t first_row = row_begin;
#if defined(__aarch64__)
    if (kBits == 8) {
      const size_t done = run_shallow(p, blocks, epilogue, row_begin, row_end, weights, column, columns);
      if (done != 0) {
        first_row += (row_end - row_begin) / kMr * kMr;
        if (done * kNr < columns) run_tiles(row_begin, first_row, done);
      }
    }
#endif
    run_tiles(first_row, row_end, 0);
  }
}

#if defined(__aarch64__)

// ---- shallow products: tiles by lanes ----

constexpr size_t kLaneNr = LaneBlocks::kChannels;
constexpr size_t kLaneChannelBytes = kLaneNr * 8;  // bias and scale of a panel
constexpr size_t kLaneHeader = kLaneChannelBytes + kGemmLaneNotes;
constexpr size_t kLaneWeights = kLaneHeader + kLaneNr * 4;  // where a widened panel's weights begin
constexpr size_t kLaneRows = LaneBlocks::kRows;

/// Widens a panel's weights to 16 bits.
void widen_panel(const uint8_t* from, const LaneBlocks& blocks, size_t k, size_t taps, uint8_t* to) {
  std::memcpy(to, from, kLaneHeader);
  const int8_t* w = reinterpret_cast<const int8_t*>(from + kLaneHeader);
  int16_t* out = reinterpret_cast<int16_t*>(to + kLaneWeights);
  const auto put = [&](int8x16_t channels) {
    vst1q_s16(out, vmovl_s8(vget_low_s8(channels)));
    vst1q_s16(out + 8, vmovl_high_s8(channels));
    out += kLaneNr;
  };
  for (size_t t = 0; t < taps; ++t) {
    size_t c = 0;
    if (k >= 8) widen_eights(k / 8, w, out);
    c = k / 8 * 8;
    for (; c < k; c += 2, w += kLaneNr) {
      const int8x16_t bytes = vld1q_s8(w);
      put(vshrq_n_s8(vshlq_n_s8(bytes, 4), 4));
      put(vshrq_n_s8(bytes, 4));
    }
    for (; c < blocks.tap_depth; ++c) put(vdupq_n_s8(0));
  }
}

/// Has the sums of a widened panel begin from the bits of 2^23, and puts down what takes it off their
/// products (Finish::kRelu; kernels/depthwise/arm_blocks.h has the proof).
void begin_from_floats(uint8_t* panel) {
  int32_t* bias = reinterpret_cast<int32_t*>(panel);
  const float* scale = reinterpret_cast<const float*>(panel + kLaneNr * 4);
  float* addend = reinterpret_cast<float*>(panel + kLaneHeader);
  for (size_t j = 0; j < kLaneNr; j += 4) {
    vst1q_s32(bias + j, vaddq_s32(vld1q_s32(bias + j), vdupq_n_s32(0x4B000000)));
    vst1q_f32(addend + j, vmulq_n_f32(vld1q_f32(scale + j), -8388608.0f));
  }
}

/// Widens the rows of a tile; those beyond `rows` are any. What lies behind a tap's channels meets weights of
/// zero.
EDGEQ_NOINLINE void widen_rows(const GemmParams& p, const LaneBlocks& blocks, size_t first, size_t rows,
                               int16_t* to) {
  if (p.lhs.pixel_offset == nullptr && rows == kLaneRows) {
    const ptrdiff_t stride = p.lhs.row_stride;
    const act_t* a = p.lhs.base + static_cast<ptrdiff_t>(first) * stride;
    const act_t* const b = a + 4 * stride;
    widen_eight_rows(
        {a, a + stride, a + 2 * stride, a + 3 * stride, b, b + stride, b + 2 * stride, b + 3 * stride},
        blocks.tap_depth / 8, to);
    return;
  }
  for (size_t t = 0; t < p.taps; ++t) {
    const act_t* addresses[kLaneRows];
    addresses[0] = lhs_row(p.lhs, t, first);
#pragma GCC unroll 8
    for (size_t r = 1; r < kLaneRows; ++r)
      addresses[r] = r < rows ? lhs_row(p.lhs, t, first + r) : addresses[r - 1];
    widen_eight_rows(addresses, blocks.tap_depth / 8, to);
  }
}

/// Requantizes, finishes and stores the sums of a tile.
EDGEQ_NOINLINE void finish_lane_sums(const GemmParams& p, const Epilogue& epilogue, const int32_t* sums,
                                     const float* scale, const Place& place, const SumsPlace& where) {
  if (epilogue.small_residual) return add_rows(p, where, sums, scale);
  act_t* dst = place.dst;
  const act_t* src = place.src;
  for (size_t r = 0; r < where.rows; ++r, sums += kLaneNr, dst += place.dst_stride) {
    int8x16_t codes = requantize(vld1q_s32(sums), vld1q_s32(sums + 4), vld1q_s32(sums + 8),
                                 vld1q_s32(sums + 12), vld1q_f32(scale), vld1q_f32(scale + 4),
                                 vld1q_f32(scale + 8), vld1q_f32(scale + 12), epilogue.range);
    if (epilogue.table != nullptr) codes = look_up_each(codes, epilogue.table);
    if (src != nullptr) {
      codes = add_residual(codes, vld1q_s8(src), epilogue.residual, epilogue.sum_range);
      src += place.src_stride;
    }
    store_first(dst, codes, where.columns);
  }
}

/// Widened rows of tiles.
struct WidenedRows {
  int16_t* first;
  size_t step;  // from tile to tile
  bool done;    // they are there
};

/// Rows [row, row_end) times some panels, `columns` channels of them from `column` on, in tiles of kRows
/// rows; the last may have fewer.
template <Finish kFinish, size_t kRows>
void lane_rows(const GemmParams& p, const Epilogue& epilogue, const LaneBlocks& blocks, size_t row,
               size_t row_end, const WidenedRows& all_widened, const uint8_t* panels, size_t column,
               size_t columns) {
  uint8_t* const scratch = p.scratch + blocks.tiles * blocks.row_bytes();
  int32_t* const sums = reinterpret_cast<int32_t*>(scratch);
  act_t* const edge = reinterpret_cast<act_t*>(scratch + LaneBlocks::kSumBytes);
  int16_t* widened = all_widened.first;
  const ptrdiff_t stride = p.dst_row_stride;
  for (; row < row_end; row += kRows, widened += all_widened.step) {
    const size_t rows = row_end - row < kRows ? row_end - row : kRows;
    if (!all_widened.done) widen_rows(p, blocks, row, rows, widened);
    act_t* dst = p.dst + static_cast<ptrdiff_t>(row) * stride + column;
    const uint8_t* panel = panels;
    for (size_t left = columns; left != 0;) {
      const bool whole = kFinish != Finish::kMemory && rows == kRows && left >= kLaneNr;
      const size_t panels_here = whole ? left / kLaneNr : 1;
      const uint8_t* const first_panel = panel;
      const auto run = [&](auto width) __attribute__((always_inline)) {
        run_lane_tiles<kFinish, kRows, decltype(width)::value>(
            widened, panel, blocks.panel_bytes, panels_here, epilogue.constants, whole ? dst : edge,
            whole ? stride : static_cast<ptrdiff_t>(kLaneNr), sums);
      };
      if (kRows == kLaneRows && left <= kLaneNr / 2) {
        run(std::integral_constant<size_t, kLaneNr / 2>());
      } else {
        run(std::integral_constant<size_t, kLaneNr>());
      }
      const size_t some = whole ? panels_here * kLaneNr : left < kLaneNr ? left : kLaneNr;
      act_t* const to = dst;
      left -= some;
      panel += panels_here * blocks.panel_bytes;
      dst += some;
      if (whole) continue;
      if (kFinish == Finish::kMemory) {
        const size_t first = column + columns - left - some;
        Place place{};
        place.dst = to;
        place.dst_stride = stride;
        place.src_stride = p.residual.row_stride;
        if (p.residual.src != nullptr)
          place.src = p.residual.src + static_cast<ptrdiff_t>(row) * place.src_stride + first;
        finish_lane_sums(p, epilogue, sums, reinterpret_cast<const float*>(first_panel + kLaneNr * 4), place,
                         SumsPlace{row, rows, first, some});
      } else {
        for (size_t r = 0; r < rows; ++r)
          store_first(to + static_cast<ptrdiff_t>(r) * stride, vld1q_s8(edge + r * kLaneNr), some);
      }
    }
  }
}

using LaneRows = void (*)(const GemmParams&, const Epilogue&, const LaneBlocks&, size_t, size_t,
                          const WidenedRows&, const uint8_t*, size_t, size_t);

/// The function for tiles of so many rows: 49 and 196 rows leave one and four.
template <size_t kRows>
EDGEQ_INLINE LaneRows find_lane_rows(const Epilogue& epilogue) {
  return epilogue.relu                          ? lane_rows<Finish::kRelu, kRows>
         : epilogue.finish == Finish::kSaturate ? lane_rows<Finish::kSaturate, kRows>
         : epilogue.finish == Finish::kClamp    ? lane_rows<Finish::kClamp, kRows>
                                                : lane_rows<Finish::kMemory, kRows>;
}

void run_lanes(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end) {
  const LaneBlocks blocks = lane_blocks(p.k, p.taps);
  const size_t packed_panel = kLaneHeader + (p.k + 1) / 2 * p.taps * kLaneNr;
  uint8_t* const widened =
      p.scratch + blocks.tiles * blocks.row_bytes() + LaneBlocks::kSumBytes + LaneBlocks::kCodeBytes;
  const bool keeps = panel_end - panel_begin > blocks.panels &&
                     (row_end - row_begin + kLaneRows - 1) / kLaneRows <= blocks.tiles;
  const size_t step = keeps ? blocks.row_bytes() / sizeof(int16_t) : 0;
  Epilogue epilogue(p);
  for (size_t panel = panel_begin; panel < panel_end; panel += blocks.panels) {
    const size_t count = panel_end - panel < blocks.panels ? panel_end - panel : blocks.panels;
    const size_t column = panel * kLaneNr;
    const size_t columns = p.n - column < count * kLaneNr ? p.n - column : count * kLaneNr;
    const uint8_t* packed = p.packed + panel * packed_panel;
    epilogue.look_at<kLaneNr, kGemmLaneMost>(p, packed, packed_panel, count, 0.0);
    for (size_t i = 0; i < count; ++i)
      widen_panel(packed + i * packed_panel, blocks, p.k, p.taps, widened + i * blocks.panel_bytes);
    if (epilogue.relu) {
      for (size_t i = 0; i < count; ++i) begin_from_floats(widened + i * blocks.panel_bytes);
    }
    const size_t rest = (row_end - row_begin) % kLaneRows;
    const size_t whole_end = rest <= 4 ? row_end - rest : row_end;
    WidenedRows rows{reinterpret_cast<int16_t*>(p.scratch), step, keeps && panel != panel_begin};
    find_lane_rows<kLaneRows>(epilogue)(p, epilogue, blocks, row_begin, whole_end, rows, widened, column,
                                        columns);
    if (whole_end == row_end) continue;
    rows.first += (whole_end - row_begin) / kLaneRows * step;
    const LaneRows last = rest == 1 ? find_lane_rows<1>(epilogue) : find_lane_rows<4>(epilogue);
    last(p, epilogue, blocks, whole_end, row_end, rows, widened, column, columns);
  }
}

#endif

}  // namespace

#if defined(__aarch64__)
void gemm_s8s4c_s8_8x16x1_neon(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_lanes(p, r0, r1, p0, p1);
}
#endif

void gemm_s8s8c_s8_4x4x16_neon(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run<8>(p, r0, r1, p0, p1);
}

void gemm_s8s4c_s8_4x4x16_neon(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run<4>(p, r0, r1, p0, p1);
}

}  // namespace edgeq
