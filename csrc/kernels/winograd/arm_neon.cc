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

namespace edgeq {
namespace {

constexpr size_t kMr = WinogradLanes::kBlocks;
constexpr size_t kNr = WinogradLanes::kChannels;
constexpr size_t kHeader = kNr * 8;      // bias and scale of a panel
constexpr size_t kBlockSums = 16 * kNr;  // [kNr / 4][16][4]

// Registers: v0..v7 eight channels of each block, v8..v15 the filters of those channels, and from v16 on two
// of sums for each block. Compilers either load each filter right before it is used, for which an in-order
// core waits, or run out of registers.
//
// clang-format off
#define EDGEQ_IF_BLOCK(r, text) ".if %c[blocks] > " #r "\n\t" text ".endif\n\t"
#define EDGEQ_EACH_BLOCK(row) \
  EDGEQ_IF_BLOCK(0, row(0, 16, 17)) EDGEQ_IF_BLOCK(1, row(1, 18, 19)) EDGEQ_IF_BLOCK(2, row(2, 20, 21)) \
  EDGEQ_IF_BLOCK(3, row(3, 22, 23)) EDGEQ_IF_BLOCK(4, row(4, 24, 25)) EDGEQ_IF_BLOCK(5, row(5, 26, 27)) \
  EDGEQ_IF_BLOCK(6, row(6, 28, 29)) EDGEQ_IF_BLOCK(7, row(7, 30, 31))
#define EDGEQ_CLEAR(r, low, high) "movi v" #low ".4s, #0\n\t" "movi v" #high ".4s, #0\n\t"
#define EDGEQ_MULTIPLY(b, c, r, low, high) \
  "smlal v" #low ".4s, v" #b ".4h, v" #r ".h[" #c "]\n\t" \
  "smlal2 v" #high ".4s, v" #b ".8h, v" #r ".h[" #c "]\n\t"
#define EDGEQ_CHANNEL_0(r, low, high) EDGEQ_MULTIPLY(8, 0, r, low, high)
#define EDGEQ_CHANNEL_1(r, low, high) EDGEQ_MULTIPLY(9, 1, r, low, high)
#define EDGEQ_CHANNEL_2(r, low, high) EDGEQ_MULTIPLY(10, 2, r, low, high)
#define EDGEQ_CHANNEL_3(r, low, high) EDGEQ_MULTIPLY(11, 3, r, low, high)
#define EDGEQ_CHANNEL_4(r, low, high) EDGEQ_MULTIPLY(12, 4, r, low, high)
#define EDGEQ_CHANNEL_5(r, low, high) EDGEQ_MULTIPLY(13, 5, r, low, high)
#define EDGEQ_CHANNEL_6(r, low, high) EDGEQ_MULTIPLY(14, 6, r, low, high)
#define EDGEQ_CHANNEL_7(r, low, high) EDGEQ_MULTIPLY(15, 7, r, low, high)
#define EDGEQ_STORE(r, low, high) \
  "str q" #low ", [%[sums], #512 * " #r "]\n\t" \
  "str q" #high ", [%[sums], #512 * " #r " + 256]\n\t"

/// One of the 16 products: `groups` >= 1 of eight channels of kBlocks blocks, times a panel.
template <int kBlocks>
EDGEQ_INLINE void multiply_element(const int16_t* blocks, const int16_t* filters, size_t groups, int32_t* sums) {
  __asm__ volatile(
      EDGEQ_EACH_BLOCK(EDGEQ_CLEAR)
      "1:\n\t"
      "ldp q0, q1, [%[a]], #128\n\t"
      "ldp q8, q9, [%[b]], #128\n\t"
      EDGEQ_IF_BLOCK(2, "ldp q2, q3, [%[a], #-96]\n\t")
      EDGEQ_IF_BLOCK(4, "ldp q4, q5, [%[a], #-64]\n\t")
      EDGEQ_IF_BLOCK(6, "ldp q6, q7, [%[a], #-32]\n\t")
      "ldp q10, q11, [%[b], #-96]\n\t"
      "ldp q12, q13, [%[b], #-64]\n\t"
      "ldp q14, q15, [%[b], #-32]\n\t"
      "subs %[groups], %[groups], #1\n\t"
      EDGEQ_EACH_BLOCK(EDGEQ_CHANNEL_0) EDGEQ_EACH_BLOCK(EDGEQ_CHANNEL_1)
      EDGEQ_EACH_BLOCK(EDGEQ_CHANNEL_2) EDGEQ_EACH_BLOCK(EDGEQ_CHANNEL_3)
      EDGEQ_EACH_BLOCK(EDGEQ_CHANNEL_4) EDGEQ_EACH_BLOCK(EDGEQ_CHANNEL_5)
      EDGEQ_EACH_BLOCK(EDGEQ_CHANNEL_6) EDGEQ_EACH_BLOCK(EDGEQ_CHANNEL_7)
      "b.ne 1b\n\t"
      EDGEQ_EACH_BLOCK(EDGEQ_STORE)
      : [a] "+r"(blocks), [b] "+r"(filters), [groups] "+r"(groups)
      : [sums] "r"(sums), [blocks] "i"(kBlocks)
      : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15",
        "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29",
        "v30", "v31", "cc", "memory");
}
// clang-format on

/// All 16, of which the elements lie `step` apart.
template <int kBlocks>
void multiply(const int16_t* blocks, const int16_t* filters, size_t step, size_t groups, int32_t* sums) {
  for (size_t e = 0; e < 16; ++e) {
    multiply_element<kBlocks>(blocks + e * step, filters + e * step, groups, sums + 4 * e);
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
        for (size_t tile = first; tile < last; ++tile) run_tile(tile, tile_at(tile - first), panel, filters);
      }
    }
  }

 private:
  size_t element() const { return lanes_.element_bytes / sizeof(int16_t); }
  int16_t* tile_at(size_t i) const { return reinterpret_cast<int16_t*>(p_.scratch + i * lanes_.tile_bytes); }
  const uint8_t* header(size_t panel) const { return p_.packed + panel * (kHeader + 9 * tap_bytes_); }
  size_t first_block(size_t tile) const { return blocks_ * tile / tiles_; }

  /// 2 G times three vectors.
  static EDGEQ_INLINE void transform_filter(int8x8_t g0, int8x8_t g1, int8x8_t g2, int16x8_t (&out)[4]) {
    const int16x8_t ends = vaddl_s8(g0, g2);
    out[0] = vshll_n_s8(g0, 1);
    out[1] = vaddw_s8(ends, g1);
    out[2] = vsubw_s8(ends, g1);
    out[3] = vshll_n_s8(g2, 1);
  }

  static EDGEQ_INLINE void transform_filter(int16x8_t g0, int16x8_t g1, int16x8_t g2, int16x8_t (&out)[4]) {
    const int16x8_t ends = vaddq_s16(g0, g2);
    out[0] = vaddq_s16(g0, g0);
    out[1] = vaddq_s16(ends, g1);
    out[2] = vsubq_s16(ends, g1);
    out[3] = vaddq_s16(g2, g2);
  }

  /// Writes (2 G) g (2 G)^T of a vector of filters, its 16 elements `step` apart.
  static EDGEQ_INLINE void put_filter(const int8x8_t (&g)[9], size_t step, int16_t* to) {
    int16x8_t columns[3][4];
#pragma GCC unroll 3
    for (size_t x = 0; x < 3; ++x) transform_filter(g[x], g[3 + x], g[6 + x], columns[x]);
#pragma GCC unroll 4
    for (size_t y = 0; y < 4; ++y) {
      int16x8_t row[4];
      transform_filter(columns[0][y], columns[1][y], columns[2][y], row);
#pragma GCC unroll 4
      for (size_t x = 0; x < 4; ++x, to += step) vst1q_s16(to, row[x]);
    }
  }

  /// Transforms the filters of a panel; those beyond the last channel are zero.
  EDGEQ_NOINLINE void put_filters(size_t panel, int16_t* to) const {
    const int8_t* w = reinterpret_cast<const int8_t*>(header(panel) + kHeader);
    const size_t step = element();
    const int16_t* const end = to + lanes_.groups * 8 * kNr;
    if (bits_ == 8) {
      for (size_t c = 0; c < p_.k; ++c, w += kNr, to += kNr) {
        int8x8_t g[9];
#pragma GCC unroll 9
        for (size_t t = 0; t < 9; ++t) g[t] = vld1_s8(w + t * tap_bytes_);
        put_filter(g, step, to);
      }
    } else {
      for (size_t c = 0; c < p_.k; c += 2, w += kNr, to += 2 * kNr) {
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
      }
    }
    for (; to != end; to += kNr) {
      for (size_t e = 0; e < 16; ++e) vst1q_s16(to + e * step, vdupq_n_s16(0));
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
    for (size_t block = first_block(tile); block < last; ++block, to += 8) put_block(block, to);
  }

  /// Writes B^T d B of a block.
  void put_block(size_t block, int16_t* to) const {
    const act_t* pixel[4][4];
    find_pixels(block, pixel);
    const size_t step = element();
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
      int16_t* place = to;
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) {
        vst1q_s16(place, vsubq_s16(columns[0][i], columns[2][i]));
        place += step;
        vst1q_s16(place, vaddq_s16(columns[1][i], columns[2][i]));
        place += step;
        vst1q_s16(place, vsubq_s16(columns[2][i], columns[1][i]));
        place += step;
        vst1q_s16(place, vsubq_s16(columns[1][i], columns[3][i]));
        place += step;
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

  EDGEQ_NOINLINE void run_tile(size_t tile, const int16_t* source, size_t panel,
                               const int16_t* filters) const {
    using Multiply = void (*)(const int16_t*, const int16_t*, size_t, size_t, int32_t*);
    static constexpr Multiply kMultiply[kMr] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>,
                                                multiply<5>, multiply<6>, multiply<7>, multiply<8>};
    alignas(64) int32_t sums[kMr * kBlockSums];
    const size_t first = first_block(tile);
    const size_t count = first_block(tile + 1) - first;
    kMultiply[count - 1](source, filters, element(), lanes_.groups, sums);
    Place at;
    at.header = header(panel);
    const size_t channel = panel * kNr;
    at.columns = p_.n - channel < kNr ? p_.n - channel : kNr;
    GemmParams rounding;
    rounding.range = p_.range;
    const Finish finish = finish_of(rounding, at.header, kNr, largest_sum_);
    for (size_t i = 0; i < count; ++i) {
      const size_t row = row_of(first + i);
      const size_t column = column_of(first + i);
      at.both_columns = column + 1 < p_.width_out;
      at.both_rows = row + 1 < row_end_;
      const ptrdiff_t y = static_cast<ptrdiff_t>(row);
      const ptrdiff_t x = static_cast<ptrdiff_t>(column);
      at.dst = p_.dst + y * p_.dst_row_stride + x * p_.dst_pixel_stride + channel;
      at.residual = p_.residual.src == nullptr
                        ? nullptr
                        : p_.residual.src + y * p_.residual_row_stride + x * p_.residual.row_stride + channel;
      if (finish == Finish::kMemory) {
        put_outputs<Finish::kMemory>(sums + i * kBlockSums, at);
      } else {
        put_outputs<Finish::kClamp>(sums + i * kBlockSums, at);
      }
    }
  }

  /// A^T m A of a block, a quarter of it with the bias, and its epilogue.
  template <Finish kFinish>
  EDGEQ_NOINLINE void put_outputs(const int32_t* sums, const Place& at) const {
    int32x4_t out[2][4];  // of a row: two vectors of the left pixel, two of the right one
    float32x4_t scale[2];
#pragma GCC unroll 2
    for (size_t v = 0; v < 2; ++v) {
      const int32_t* from = sums + v * (kBlockSums / 2);
      int32x4_t columns[4][2];
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i, from += 16) {
        const int32x4_t m1 = vld1q_s32(from + 4);
        const int32x4_t m2 = vld1q_s32(from + 8);
        columns[i][0] = vaddq_s32(vaddq_s32(m1, m2), vld1q_s32(from));
        columns[i][1] = vsubq_s32(vsubq_s32(m1, m2), vld1q_s32(from + 12));
      }
      const int32x4_t bias = vld1q_s32(reinterpret_cast<const int32_t*>(at.header) + 4 * v);
      scale[v] = vld1q_f32(reinterpret_cast<const float*>(at.header) + kNr + 4 * v);
#pragma GCC unroll 2
      for (size_t x = 0; x < 2; ++x) {
        const int32x4_t plus = vaddq_s32(columns[1][x], columns[2][x]);
        const int32x4_t minus = vsubq_s32(columns[1][x], columns[2][x]);
        out[0][2 * x + v] = vsraq_n_s32(bias, vaddq_s32(plus, columns[0][x]), 2);
        out[1][2 * x + v] = vsraq_n_s32(bias, vsubq_s32(minus, columns[3][x]), 2);
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
  const size_t tap_bytes_;  // packed, of a panel
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
