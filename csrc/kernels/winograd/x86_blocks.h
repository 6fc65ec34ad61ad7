#ifndef EDGEQ_KERNELS_WINOGRAD_X86_BLOCKS_H_
#define EDGEQ_KERNELS_WINOGRAD_X86_BLOCKS_H_

// Winograd convolution by blocks of 4x4 outputs in integers of 16 bits, for vectors of any width. Only
// x86_*.cc files include it; everything stands in an unnamed namespace, so that no copy serves another level.
//
// Blocks are the rows of 36 matrix products, one for each element of the 6x6 transforms. Some blocks are
// transformed into scratch, and the filters of a panel beside them; then a few blocks at a time go through
// all 36 products, and their sums, which stay in the caches, through the transformation back and the
// epilogue. winograd.h has the matrices and the bounds.
//
// With x the inputs of two channels and w their filters, words have room for
//
//   x0 * w0 + x1 * w1 = (x0 + w1) * (x1 + w0) - x0 * x1 - w0 * w1        (gemm/x86_avx2.cc)
//
// because |x + w| <= 12,800 + 18,288 = 31,088: one multiplication for two, for additions that go to other
// pipes. The sums of x0 * x1 stand behind each element of a block, those of w0 * w1 behind each of the
// filters.

#include "kernels/gemm/x86_tile.h"
#include "kernels/winograd/transformed.h"
#include "kernels/winograd/winograd.h"
#include "kernels/x86_ahead.h"

namespace edgeq {
namespace {

constexpr size_t kVectors = 2;  // of sums, of a panel
constexpr size_t kWindow = 6;   // places of a block's inputs, and of its sums, in each direction

/// Bytes of the sums of a block with a panel.
template <typename V>
constexpr size_t kSumBytes = WinogradLayout::kElements * kVectors * V::kBytes;

/// B^T of six vectors.
template <typename V, typename Int = typename V::Int>
EDGEQ_INLINE void transform_input(const Int (&d)[kWindow], Int (&out)[kWindow]) {
  const Int even = V::sub_words(V::template shift_left_words<2>(d[2]), d[4]);
  const Int odd = V::sub_words(V::template shift_left_words<2>(d[1]), d[3]);
  const Int next = V::sub_words(d[4], d[2]);
  const Int slope = V::sub_words(d[3], d[1]);
  const Int twice = V::add_words(slope, slope);
  out[0] = V::add_words(V::template shift_left_words<2>(V::sub_words(d[0], d[2])), next);
  out[1] = V::add_words(even, odd);
  out[2] = V::sub_words(even, odd);
  out[3] = V::add_words(next, twice);
  out[4] = V::sub_words(next, twice);
  out[5] = V::sub_words(V::sub_words(d[5], d[3]), V::add_words(twice, twice));
}

/// Writes B^T d B, `step` bytes from element to element, of activations less 128. `columns`: B^T d, column by
/// column.
template <typename V, typename Int = typename V::Int>
EDGEQ_INLINE void put_inputs(const Int (&columns)[kWindow][kWindow], size_t step, uint8_t* to) {
  // What is the same in all 36 inputs shows in one element only, where B^T's rows do not add up to zero.
  const Int middle = V::set1_word(6 * 6 * 128);
  for (size_t i = 0; i < kWindow; ++i) {
    Int out[kWindow];
    transform_input<V>(columns[i], out);
    if (i == 1) out[1] = V::sub_words(out[1], middle);
    unroll<kWindow>([&](auto j) EDGEQ_UNROLLED {
      V::store_all(to, out[j]);
      to += step;
    });
  }
}

/// 24 A^T times the sums of the integer multiples of G: of F(4, 3), and of F(3, 4).
template <typename V, typename Int = typename V::Int>
EDGEQ_INLINE void transform_back(const Int (&m)[kWindow], Int (&out)[4]) {
  const Int plus = V::add(m[1], m[2]);
  const Int minus = V::sub(m[1], m[2]);
  const Int far_plus = V::add(m[3], m[4]);
  const Int far_minus = V::sub(m[3], m[4]);
  const Int twice = V::add(far_minus, far_minus);
  const Int last = V::add(V::add(twice, twice), m[5]);
  out[0] = V::add(V::add(m[0], plus), far_plus);
  out[1] = V::add(minus, twice);
  out[2] = V::add(plus, V::template shift_left<2>(far_plus));
  out[3] = V::add(minus, V::add(last, last));
}
template <typename V, typename Int = typename V::Int>
EDGEQ_INLINE void transform_back(const Int (&m)[kWindow], Int (&out)[3]) {
  const Int plus = V::add(m[1], m[2]);
  const Int minus = V::sub(m[1], m[2]);
  const Int far_plus = V::add(m[3], m[4]);
  const Int far_minus = V::sub(m[3], m[4]);
  const Int twice = V::add(far_plus, far_plus);
  const Int last = V::add(twice, m[5]);
  out[0] = V::add(V::add(m[0], plus), far_plus);
  out[1] = V::add(minus, V::add(far_minus, far_minus));
  out[2] = V::add(plus, V::add(last, last));
}

/// A^T m of the sums m of a block, in the order of multiply_tile. Registers do not hold a block: what this
/// first dimension leaves waits in memory, and each row of outputs goes through the second and the epilogue
/// by itself.
template <typename V, size_t kBlock, typename Int = typename V::Int>
EDGEQ_INLINE void transform_columns(const uint8_t* sums, Int (&columns)[kBlock][kVectors][kWindow]) {
  constexpr size_t kStep = kVectors * V::kBytes;
  for (size_t j = 0; j < kWindow; ++j) {
    for (size_t v = 0; v < kVectors; ++v, sums += V::kBytes) {
      Int m[kWindow];
      Int out[kBlock];
      unroll<kWindow>([&](auto i) EDGEQ_UNROLLED { m[i] = V::load(sums + kWindow * kStep * i); });
      transform_back<V>(m, out);
      unroll<kBlock>([&](auto i) EDGEQ_UNROLLED { columns[i][v][j] = out[i]; });
    }
  }
}

/// A row of A^T m A, with the bias at `bias`.
template <typename V, size_t kBlock, typename Int = typename V::Int>
EDGEQ_INLINE void transform_row(const Int (&row)[kVectors][kWindow], const uint8_t* bias,
                                Int (&out)[kBlock][kVectors]) {
  // 576 = 9 * 2^6 times the sum: times the inverse of 9 modulo 2^32, and 6 bits less.
  const Int ninth = V::set1_dword(0x38E38E39);
  unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
    Int all[kBlock];
    transform_back<V>(row[v], all);
    const Int addend = V::load(bias + v * V::kBytes);
    unroll<kBlock>([&](auto j) EDGEQ_UNROLLED {
      out[j][v] = V::add(V::template shift_right_signed<6>(V::mul_dwords(all[j], ninth)), addend);
    });
  });
}

/// The products of kBlocks blocks with a panel: int32 [kBlocks][36][two vectors].
///
/// `Words` multiplies words of 16 bits, kPairs pairs of channels at a time: Words::add(a, b, acc) adds the
/// products of the words at `a`, the same for every lane, with filters, two vectors of each pair. With two
/// pairs, the blocks r of a tile that Words::crosses(r) names go by Words::add_crossed(a, b, acc), which adds
/// two products for these four.
template <typename V, typename Words, size_t kBlocks>
EDGEQ_NOINLINE void multiply_tile(const uint8_t* source, const WinogradLayout& layout, const uint8_t* w,
                                  uint8_t* sums) {
  using Int = typename V::Int;
  constexpr size_t kVectorBytes = V::kBytes;
  const size_t step = layout.block_bytes;
  for (size_t e = 0; e < WinogradLayout::kElements; ++e) {
    const uint8_t* a0 = source;
    const uint8_t* a3 = source + 3 * step;
    const uint8_t* a6 = source + 6 * step;
    const uint8_t* const filter_sums = w + layout.filter_bytes - kVectors * kVectorBytes;
    Int acc[kBlocks][kVectors];
    unroll<kBlocks>([&](auto r) EDGEQ_UNROLLED {
      acc[r][0] = V::zero();
      acc[r][1] = V::zero();
      if constexpr (Words::crosses(r)) {
        const Int sum = V::broadcast(a0 + r * step + layout.element_bytes - sizeof(int32_t));
        acc[r][0] = V::sub(sum, V::load(filter_sums));
        acc[r][1] = V::sub(sum, V::load(filter_sums + kVectorBytes));
      }
    });
    const uint8_t* filter = w;
    for (size_t left = layout.steps; left > 0; --left) {
      Int b[Words::kPairs * kVectors];
      unroll<Words::kPairs * kVectors>([&](auto v)
                                           EDGEQ_UNROLLED { b[v] = V::load(filter + v * kVectorBytes); });
      unroll<kBlocks>([&](auto r) EDGEQ_UNROLLED {
        const uint8_t* a = (r < 3 ? a0 : r < 6 ? a3 : a6) + r % 3 * step;
        if constexpr (Words::crosses(r)) {
          Words::add_crossed(a, b, acc[r]);
        } else {
          Words::add(a, b, acc[r]);
        }
      });
      a0 += 4 * Words::kPairs;
      a3 += 4 * Words::kPairs;
      a6 += 4 * Words::kPairs;
      filter += Words::kPairs * kVectors * kVectorBytes;
    }
    w += layout.filter_bytes;
    unroll<kBlocks>([&](auto r) EDGEQ_UNROLLED {
      V::store_all(sums + r * kSumBytes<V>, acc[r][0]);
      V::store_all(sums + r * kSumBytes<V> + kVectorBytes, acc[r][1]);
    });
    sums += kVectors * kVectorBytes;
    source += layout.element_bytes;
  }
}

/// The same of `count` <= kBlocks blocks. Of fewer than four it takes as many, whatever scratch holds.
template <typename V, typename Words, size_t kBlocks>
void multiply_blocks(size_t count, const uint8_t* source, const WinogradLayout& layout, const uint8_t* w,
                     uint8_t* sums) {
  if constexpr (kBlocks > 4) {
    if (count < kBlocks) return multiply_blocks<V, Words, kBlocks - 1>(count, source, layout, w, sums);
  }
  multiply_tile<V, Words, kBlocks>(source, layout, w, sums);
}

/// One call: rows [row_begin, row_end) of panels [panel_begin, panel_end).
///
/// `Words`: as of multiply_tile, and Words::kFlipped: nibbles hold the weight + 8. kMr: blocks of a tile.
template <typename V, typename Words, size_t kMr>
class BlockConvolution {
 public:
  BlockConvolution(const WinogradParams& params, int bits, size_t row_begin, size_t row_end,
                   size_t panel_begin, size_t panel_end)
      : p_(params),
        bits_(bits),
        layout_(winograd_layout(params.k, params.n, bits, kMr, Words::kPairs, V::kBytes)),
        channel_bytes_(8 + 9 * layout_.pairs * (bits == 4 ? 1 : 2)),
        row_begin_(row_begin),
        row_end_(row_end),
        panel_begin_(panel_begin),
        panel_end_(panel_end),
        blocks_across_((params.width_out + kBlock - 1) / kBlock) {
    output_.dst_row_stride = p_.dst_pixel_stride;
    output_.range = p_.range;
    output_.table = p_.table;
    output_.residual = p_.residual;
    output_.large_scales = p_.large_scales;
    quads_ =
        !p_.large_scales && p_.table == nullptr && (p_.residual.src == nullptr || adds_in_quads(output_));
  }

  void run() {
    const size_t total = (row_end_ - row_begin_ + kBlock - 1) / kBlock * blocks_across_;
    const bool all = panel_end_ - panel_begin_ <= layout_.panels;
    // Shared out evenly, in rounds and in tiles: none is left with a block or two.
    const size_t rounds = (total + layout_.blocks - 1) / layout_.blocks;
    for (size_t round = 0; round < rounds; ++round) {
      const size_t first = total * round / rounds;
      const size_t last = total * (round + 1) / rounds;
      for (size_t b = first; b < last; ++b) put_block(b, p_.scratch + (b - first) * layout_.block_bytes);
      for (size_t panel = panel_begin_; panel < panel_end_; ++panel) {
        uint8_t* filters = p_.scratch + layout_.block_bytes * layout_.blocks;
        if (all) filters += (panel - panel_begin_) * layout_.panel_bytes;
        const bool puts = round == 0 || !all;
        if (puts) put_filters(header(panel) + kHeader, filters);
        run_panel(first, last, panel, filters, puts && panel + 1 < panel_end_);
      }
    }
  }

 private:
  using Int = typename V::Int;
  static constexpr size_t kBlock = 4;  // outputs of a block, in each direction
  static constexpr size_t kElements = WinogradLayout::kElements;
  static constexpr bool kCrosses = Words::kPairs == 2;
  static constexpr size_t kVectorBytes = V::kBytes;
  static constexpr size_t kNr = kVectors * V::kLanes;
  static constexpr size_t kHeader = kNr * 8;  // bias and scale of a panel

  const uint8_t* header(size_t panel) const { return p_.packed + panel * kNr * channel_bytes_; }

  /// The integer multiple of G, times three vectors.
  static EDGEQ_INLINE void transform_filter(Int g0, Int g1, Int g2, Int (&out)[kWindow]) {
    const Int ends = V::add_words(g0, g2);
    const Int far = V::add_words(g0, V::template shift_left_words<2>(g2));
    const Int twice = V::add_words(g1, g1);
    out[0] = V::mul_words(g0, V::set1_word(6));
    out[1] = V::template shift_left_words<2>(V::add_words(ends, g1));
    out[2] = V::template shift_left_words<2>(V::sub_words(ends, g1));
    out[3] = V::add_words(far, twice);
    out[4] = V::sub_words(far, twice);
    out[5] = V::mul_words(g2, V::set1_word(12));
  }

  /// Writes the transform of a vector of filters, its elements filter_bytes apart. The second pair of four
  /// channels adds its products with the first to the sums of each element, a vector of which is at `sums`.
  EDGEQ_NOINLINE void put_filter(const Int (&g)[9], uint8_t* to, uint8_t* sums) const {
    Int columns[3][kWindow];
    unroll<3>([&](auto x) EDGEQ_UNROLLED { transform_filter(g[x], g[3 + x], g[6 + x], columns[x]); });
    unroll<kWindow>([&](auto y) EDGEQ_UNROLLED {
      Int row[kWindow];
      transform_filter(columns[0][y], columns[1][y], columns[2][y], row);
      unroll<kWindow>([&](auto x) EDGEQ_UNROLLED { V::store_all(to + x * layout_.filter_bytes, row[x]); });
      if (kCrosses && sums != nullptr) {
        const uint8_t* first = to - kVectors * kVectorBytes;
        unroll<kWindow>([&](auto x) EDGEQ_UNROLLED {
          uint8_t* const sum = sums + x * layout_.filter_bytes;
          const Int products = V::madd_words(V::load(first + x * layout_.filter_bytes), row[x]);
          V::store_all(sum, V::add(V::load(sum), products));
        });
        sums += kWindow * layout_.filter_bytes;
      }
      to += kWindow * layout_.filter_bytes;
    });
  }

  /// Transforms the filters of a panel.
  void put_filters(const uint8_t* w, uint8_t* to) const {
    constexpr size_t kPairBytes = kVectors * kVectorBytes;
    uint8_t* const sums = kCrosses ? to + layout_.filter_bytes - kPairBytes : nullptr;
    for (size_t e = 0; kCrosses && e < kElements; ++e) {
      for (size_t v = 0; v < kVectors; ++v) {
        V::store_all(sums + e * layout_.filter_bytes + v * kVectorBytes, V::zero());
      }
    }
    if (bits_ == 8) {
      const size_t tap = layout_.pairs * kNr * 2;
      for (size_t pair = 0; pair < layout_.steps * Words::kPairs; ++pair) {
        for (size_t v = 0; v < kVectors; ++v) {
          Int g[9];
          unroll<9>([&](auto t) EDGEQ_UNROLLED {
            g[t] = pair < layout_.pairs ? V::widen_signed_bytes(w + t * tap) : V::zero();
          });
          put_filter(g, to, kCrosses && pair % 2 != 0 ? sums + v * kVectorBytes : nullptr);
          w += kVectorBytes / 2;
          to += kVectorBytes;
        }
      }
      return;
    }
    // Half a vector of bytes holds one of an even pair in their low nibbles, and that of the next pair in the
    // high ones.
    const size_t tap = layout_.pairs * kNr;
    const Int eight = V::set1_word(8);
    const Int flips = V::set1_word(Words::kFlipped ? 0 : 0x88);
    for (size_t pair = 0; pair < layout_.pairs; pair += 2) {
      for (size_t v = 0; v < kVectors; ++v) {
        Int even[9];
        Int odd[9];
        unroll<9>([&](auto t) EDGEQ_UNROLLED {
          const Int raw = V::bit_xor(V::widen_to_words(w + t * tap), flips);
          even[t] = V::sub_words(V::bit_and(raw, V::set1_word(0x0F)), eight);
          odd[t] = V::sub_words(V::template shift_right_words<4>(raw), eight);
        });
        put_filter(even, to, nullptr);
        put_filter(odd, to + kPairBytes, kCrosses ? sums + v * kVectorBytes : nullptr);
        w += kVectorBytes / 2;
        to += kVectorBytes;
      }
      to += kPairBytes;
    }
  }

  /// Output row and column of a block's upper left corner.
  size_t row_of(size_t block) const { return row_begin_ + block / blocks_across_ * kBlock; }
  size_t column_of(size_t block) const { return block % blocks_across_ * kBlock; }

  /// Writes B^T d B of a block, of activations less 128, and behind each element what its products take off.
  void put_block(size_t block, uint8_t* to) const {
    const act_t* pixel[kWindow][kWindow];
    const size_t y = row_of(block);
    const size_t x = column_of(block);
    for (size_t i = 0; i < kWindow; ++i) {
      // A block that reaches below the last row computes what nobody stores.
      const act_t* row = y + i < row_end_ + 2 ? p_.rows[y + i] : nullptr;
      for (size_t j = 0; j < kWindow; ++j) {
        const size_t column = x + j - p_.pad_left;  // wraps to a large number left of the image
        pixel[i][j] = row != nullptr && column < p_.width_in
                          ? row + static_cast<ptrdiff_t>(column) * p_.src_pixel_stride
                          : p_.zero_pixel;
      }
    }
    for (size_t c = 0; c < p_.k; c += kVectorBytes / 2) {
      Int columns[kWindow][kWindow];
      for (size_t j = 0; j < kWindow; ++j) {
        Int d[kWindow];
        Int out[kWindow];
        unroll<kWindow>([&](auto i) EDGEQ_UNROLLED { d[i] = V::widen_to_words(pixel[i][j] + c); });
        transform_input<V>(d, out);
        unroll<kWindow>([&](auto i) EDGEQ_UNROLLED { columns[i][j] = out[i]; });
      }
      put_inputs<V>(columns, layout_.element_bytes, to + 2 * c);
    }
    // Channels beyond the last count: they meet filters of zero.
    for (size_t e = 0; kCrosses && e < kElements; ++e, to += layout_.element_bytes) {
      const int32_t sum = minus_crossed_products<V>(to, 4 * layout_.steps);
      std::memcpy(to + layout_.element_bytes - sizeof sum, &sum, sizeof sum);
    }
  }

  /// Blocks [first, last), which are in scratch, times a panel. `fetches`: and the next panel's filters,
  /// which will be transformed after that.
  void run_panel(size_t first, size_t last, size_t panel, const uint8_t* filters, bool fetches) {
    const size_t tiles = (last - first + kMr - 1) / kMr;
    Ahead next;
    if (fetches) next = Ahead(header(panel + 1), kNr * channel_bytes_, tiles);
    alignas(64) uint8_t sums[kMr * kSumBytes<V>];
    Tile at{};
    at.panel = header(panel);
    at.column = panel * kNr;
    at.columns = p_.n - at.column < kNr ? p_.n - at.column : kNr;
    size_t block = first;
    for (size_t tile = 0; tile < tiles; ++tile) {
      const size_t end = first + (last - first) * (tile + 1) / tiles;
      next.fetch();
      multiply_blocks<V, Words, kMr>(end - block, p_.scratch + (block - first) * layout_.block_bytes, layout_,
                                     filters, sums);
      for (const uint8_t* here = sums; block < end; ++block, here += kSumBytes<V>)
        put_outputs(here, block, at);
    }
  }

  /// A^T m A of a block, and its epilogue. `at` is the tile's panel.
  EDGEQ_NOINLINE void put_outputs(const uint8_t* sums, size_t block, const Tile& at) {
    const ptrdiff_t y = static_cast<ptrdiff_t>(row_of(block));
    const ptrdiff_t x = static_cast<ptrdiff_t>(column_of(block));
    Int columns[kBlock][kVectors][kWindow];
    transform_columns<V>(sums, columns);
    const size_t rows =
        row_end_ - static_cast<size_t>(y) < kBlock ? row_end_ - static_cast<size_t>(y) : kBlock;
    const size_t across = p_.width_out - static_cast<size_t>(x);
    output_.dst = p_.dst + y * p_.dst_row_stride + x * p_.dst_pixel_stride;
    if (p_.residual.src != nullptr) {
      output_.residual.src = p_.residual.src + y * p_.residual_row_stride + x * p_.residual.row_stride;
    }
    for (size_t i = 0; i < rows; ++i) {
      Int out[kBlock][kVectors];
      transform_row<V>(columns[i], at.panel, out);
      if (across < kBlock || !quads_) {
        finish_in_memory<V, kBlock, kVectors>(output_, at, out, across < kBlock ? across : kBlock);
      } else if (p_.residual.src != nullptr) {
        store_tile<V, kBlock, kVectors, false, Finish::kAdd>(output_, at, out);
      } else {
        store_tile<V, kBlock, kVectors, false, Finish::kClamp>(output_, at, out);
      }
      output_.dst += p_.dst_row_stride;
      if (p_.residual.src != nullptr) output_.residual.src += p_.residual_row_stride;
    }
  }

  const WinogradParams& p_;
  const int bits_;  // of the weights
  const WinogradLayout layout_;
  const size_t channel_bytes_;  // packed, of one output channel
  const size_t row_begin_;
  const size_t row_end_;
  const size_t panel_begin_;
  const size_t panel_end_;
  const size_t blocks_across_;
  GemmParams output_;  // what the epilogue reads, its pointers those of four outputs in a row
  bool quads_;         // whether the quads' epilogue takes it
};

/// A variant's function.
template <typename Convolution>
EDGEQ_NOINLINE void convolve(const WinogradParams& p, int bits, size_t row_begin, size_t row_end,
                             size_t panel_begin, size_t panel_end) {
  if (row_begin == row_end || panel_begin == panel_end) return;
  Convolution(p, bits, row_begin, row_end, panel_begin, panel_end).run();
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_WINOGRAD_X86_BLOCKS_H_
