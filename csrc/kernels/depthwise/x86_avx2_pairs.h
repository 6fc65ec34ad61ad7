#ifndef EDGEQ_KERNELS_DEPTHWISE_X86_AVX2_PAIRS_H_
#define EDGEQ_KERNELS_DEPTHWISE_X86_AVX2_PAIRS_H_

// Depthwise convolution of any shape by pairs of rows in words, for 8-bit weights without VNNI: of what
// x86_avx2_minimal.h does not take. Only x86_avx2.cc includes it.
//
// The rows that one or two output rows need are interleaved by pairs, two blocks of eight channels at a time,
// column by column, into scratch: [column][pair][8 channels][2] words, which stay in the first-level cache.
// Then a tile of eight outputs takes each pair of taps as one vector, and of every output's column one
// vpmaddwd with its operand in memory: 6 of them, and as many additions, for eight channels of a 3x3 output
// at stride 2. Sixteen registers hold such a tile. They do not hold the sliding windows of
// x86_quads.h, whose words went through memory once for each use.

#include <cstring>

#include "kernels/depthwise/depthwise.h"
#include "kernels/depthwise/pack.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

/// One call.
class PairConvolution {
 public:
  explicit PairConvolution(const DepthwiseParams& params)
      : p_(params),
        shape_{params.channels, params.kernel_h,   params.kernel_w,   params.stride_h,
               params.stride_w, params.dilation_h, params.dilation_w, 8},
        pairs_(shape_),
        block_bytes_(pairs_.block_bytes(shape_)),
        column_bytes_(pairs_.pairs * kPairBytes),
        block_columns_(pairs_.scratch_bytes(shape_)),
        // The widths of networks are multiples of 7 or 8.
        tile_(params.width_out % 8 != 0 && params.width_out % 7 == 0 ? 7 : 8),
        run_tiles_(tile_ == 7 ? select_tiles<7>() : select_tiles<8>()),
        zp_(V::set1_word(params.range.zp)),
        least_(V::set1_byte(params.range.min)),
        most_(V::set1_byte(params.range.max)) {
    const size_t chunk = pairs_.chunk(shape_) / tile_ * tile_;
    chunk_ = chunk < tile_ ? tile_ : chunk;
    uint32_t large;
    std::memcpy(&large, params.packed, sizeof large);
    large_ = large != 0;
    plain_ = only_saturates(params.range);
  }

  void run(size_t row_begin, size_t row_end) {
    // Rows of padding are read like any other.
    uint8_t* const zeros = p_.scratch + 2 * block_columns_;
    fill_zero_row(p_, row_begin, row_end, p_.channels, zeros);
    zero_row_ = reinterpret_cast<const act_t*>(zeros);
    for (size_t y = row_begin; y < row_end;) {
      const size_t rows = row_end - y < pairs_.rows ? row_end - y : pairs_.rows;
      find_rows(y, rows);
      act_t* const dst = p_.dst + static_cast<ptrdiff_t>(y) * p_.dst_row_stride;
      for (size_t x = 0; x < p_.width_out; x += chunk_) {
        const size_t outputs = p_.width_out - x < chunk_ ? p_.width_out - x : chunk_;
        for (size_t first = 0; first < p_.channels; first += 2 * kChannels) {
          run_blocks(dst, rows, x, outputs, first);
        }
      }
      for (size_t r = 0; r < rows && p_.table != nullptr; ++r) {
        look_up_row(p_, dst + static_cast<ptrdiff_t>(r) * p_.dst_row_stride);
      }
      y += rows;
    }
  }

 private:
  static constexpr size_t kChannels = DepthwisePairs::kChannels;
  static constexpr size_t kPairBytes = DepthwisePairs::kBytes;
  static constexpr size_t kMaxRows = 18;
  using V = Vector256;

  /// Outputs of eight channels.
  struct Outputs {
    const uint8_t* block;    // packed
    const uint8_t* columns;  // of the first output of the first row
    act_t* dst;
    size_t rows;
    size_t count;     // of a row
    size_t channels;  // that exist
  };
  using RunTiles = void (PairConvolution::*)(const Outputs&) const;

  /// The rows that output rows y to y + rows read, two for each pair.
  void find_rows(size_t y, size_t rows) {
    live_ = pairs_.sets == 2 ? pairs_.taps : pairs_.taps + rows - 1;
    const size_t used = p_.kernel_h + (rows - 1) * p_.stride_h;
    for (size_t i = 0; i < 2 * live_; ++i) {
      // The weights of rows beyond the last are zero: any row will do.
      const act_t* row = p_.rows[y * p_.stride_h + (i < used ? i : used - 1) * p_.dilation_h];
      rows_[i] = row == nullptr ? zero_row_ : row;
    }
  }

  /// `outputs` outputs from x on of each row, of up to 16 channels: two blocks, whose columns stand in
  /// scratch one behind the other.
  void run_blocks(act_t* dst, size_t rows, size_t x, size_t outputs, size_t first) {
    const size_t columns = (outputs - 1) * p_.stride_w + (p_.kernel_w - 1) * p_.dilation_w + 1;
    const ptrdiff_t column = static_cast<ptrdiff_t>(x * p_.stride_w) - static_cast<ptrdiff_t>(p_.pad_left);
    size_t pair = 0;
    for (; pair + 2 <= live_; pair += 2) interleave<2>(pair, first, column, columns);
    if (pair < live_) interleave<1>(pair, first, column, columns);
    Outputs out;
    out.block = p_.packed + kDepthwiseHeader + first / kChannels * block_bytes_;
    out.columns = p_.scratch;
    out.dst = dst + static_cast<ptrdiff_t>(x) * p_.dst_pixel_stride + static_cast<ptrdiff_t>(first);
    out.rows = rows;
    out.count = outputs;
    for (size_t left = p_.channels - first, i = 0; i < 2; ++i) {
      out.channels = left < kChannels ? left : kChannels;
      (this->*run_tiles_)(out);
      if (left <= kChannels) return;
      left -= kChannels;
      out.block += block_bytes_;
      out.columns += block_columns_;
      out.dst += kChannels;
    }
  }

  /// Writes kPairs pairs of rows of 16 channels, columns `column` to `column` + count.
  template <int kPairs>
  EDGEQ_NOINLINE void interleave(size_t pair, size_t first, ptrdiff_t column, size_t count) const {
    uint8_t* to = p_.scratch + pair * kPairBytes;
    uint8_t* const upper = to + block_columns_;
    const size_t step = column_bytes_;
    const ptrdiff_t upper_step = upper - to;
    const ptrdiff_t end = column + static_cast<ptrdiff_t>(count);
    const ptrdiff_t width = static_cast<ptrdiff_t>(p_.width_in);
    const auto put = [&](auto i, __m128i a, __m128i b) EDGEQ_UNROLLED {
      V::store_all(to + i * kPairBytes, _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)));
      V::store_all(to + upper_step + i * kPairBytes, _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b)));
    };
    const __m128i zero = Vector128::load(p_.zero_pixel + first);
    const auto pad = [&](ptrdiff_t until) EDGEQ_UNROLLED {
      for (; column < until; ++column, to += step) {
        unroll<kPairs>([&](auto i) EDGEQ_UNROLLED { put(i, zero, zero); });
      }
    };
    pad(end < 0 ? end : 0);
    const ptrdiff_t pixel = p_.src_pixel_stride;
    const act_t* row[2 * kPairs];
    unroll<2 * kPairs>([&](auto i) EDGEQ_UNROLLED { row[i] = rows_[2 * pair + i] + column * pixel + first; });
    const ptrdiff_t inside = end < width ? end : width;
    for (ptrdiff_t at = 0; column < inside; ++column, at += pixel, to += step) {
      unroll<kPairs>([&](auto i) EDGEQ_UNROLLED {
        put(i, Vector128::load(row[2 * i] + at), Vector128::load(row[2 * i + 1] + at));
      });
    }
    pad(end);
  }

  // The steps of the tiles are written out: the compilers' own order takes all products of a tile first, and
  // keeps them, or the addresses of all columns, in memory.

  /// Adds the products of a pair of taps with kOutputs columns, `step` bytes apart.
  template <int kOutputs>
  static EDGEQ_INLINE void multiply(const uint8_t* weights, const uint8_t* at, size_t step,
                                    __m256i (&acc)[kOutputs]) {
    const __m256i pair = V::load(weights);
    const uint8_t* const at3 = at + 3 * step;
    const uint8_t* const at6 = at + 6 * step;
    unroll<kOutputs>([&](auto o) EDGEQ_UNROLLED {
      const uint8_t* column = (o < 3 ? at : o < 6 ? at3 : at6) + o % 3 * step;
      __m256i product;
      __asm__(
          "vpmaddwd %[column], %[pair], %[product]\n\t"
          "vpaddd %[product], %[acc], %[acc]"
          : [acc] "+x"(acc[o]), [product] "=x"(product)
          : [pair] "x"(pair), [column] "m"(*reinterpret_cast<const __m256i_u*>(column)));
    });
  }

  /// Adds the product of a pair of taps with the column `kAt` bytes behind `columns`.
  template <size_t kAt>
  static EDGEQ_INLINE void multiply_at(__m256i pair, const uint8_t* columns, __m256i& acc) {
    __m256i product;
    __asm__(
        "vpmaddwd %c[at](%[columns]), %[pair], %[product]\n\t"
        "vpaddd %[product], %[acc], %[acc]"
        : [acc] "+x"(acc), [product] "=x"(product)
        : [pair] "x"(pair), [columns] "r"(columns), [at] "i"(kAt),
          "m"(*reinterpret_cast<const uint8_t (*)[kAt + kPairBytes]>(columns)));
  }

  /// All products of a kernel whose columns have kPairs pairs, of which an output row takes kTaps.
  template <int kOutputs, size_t kKernel, size_t kTaps, size_t kPairs>
  static EDGEQ_INLINE void multiply_all(const uint8_t* weights, const uint8_t* columns,
                                        __m256i (&acc)[kOutputs]) {
    unroll<static_cast<int>(kKernel * kTaps)>([&](auto i) EDGEQ_UNROLLED {
      constexpr size_t kFrom = (i / kTaps * kPairs + i % kTaps) * kPairBytes;
      const __m256i pair = V::load(weights + i * kPairBytes);
      unroll<kOutputs>([&](auto o) EDGEQ_UNROLLED {
        multiply_at<kFrom + o * 2 * kPairs * kPairBytes>(pair, columns, acc[o]);
      });
    });
  }

  /// Tiles of kOutputs outputs; kKernel: of both directions, at stride 2, or 0 for any.
  template <int kOutputs, int kKernel>
  void run_tiles(const Outputs& out) const {
    const uint8_t* weights = out.block + 8 * kChannels;
    const uint8_t* columns = out.columns;
    act_t* dst = out.dst;
    for (size_t r = 0; r < out.rows; ++r, dst += p_.dst_row_stride) {
      run_row<kOutputs, kKernel>(out, weights, columns, dst);
      if (pairs_.sets == 2) {
        weights += p_.kernel_w * pairs_.taps * kPairBytes;
      } else {
        columns += kPairBytes;
      }
    }
  }

  template <int kOutputs, int kKernel>
  EDGEQ_INLINE void run_row(const Outputs& out, const uint8_t* weights, const uint8_t* columns,
                            act_t* dst) const {
    constexpr size_t kTaps = (kKernel + 1) / 2;
    constexpr size_t kPairs = kTaps + 1;
    const size_t column_bytes = kKernel != 0 ? kPairs * kPairBytes : column_bytes_;
    const size_t step = column_bytes * (kKernel != 0 ? 2 : p_.stride_w);
    const uint8_t* const block = out.block;
    const ptrdiff_t pixel = p_.dst_pixel_stride;
    const __m256 scale = V::load_float(block + 4 * kChannels);
    for (size_t count = out.count;; count -= kOutputs) {
      __m256i acc[kOutputs];
      unroll<kOutputs>([&](auto o) EDGEQ_UNROLLED { acc[o] = V::load(block); });
      if constexpr (kKernel != 0) {
        multiply_all<kOutputs, kKernel, kTaps, kPairs>(weights, columns, acc);
      } else {
        const uint8_t* pair = weights;
        const uint8_t* column = columns;
        for (size_t kx = 0; kx < p_.kernel_w; ++kx, column += p_.dilation_w * column_bytes) {
          for (size_t t = 0; t < pairs_.taps; ++t, pair += kPairBytes) {
            multiply<kOutputs>(pair, column + t * kPairBytes, step, acc);
          }
        }
      }
      __m256 value[kOutputs];
      unroll<kOutputs>([&](auto o) EDGEQ_UNROLLED { value[o] = V::mul(V::to_float(acc[o]), scale); });
      if (__builtin_expect(large_, 0)) {
        const __m256 highest = upper_bound<V>(p_.range);
        unroll<kOutputs>([&](auto o) EDGEQ_UNROLLED { value[o] = V::min(value[o], highest); });
      }
      __m256i words[4];
      unroll<4>([&](auto i) EDGEQ_UNROLLED {
        constexpr int kLast = kOutputs - 1;
        const __m256i first = V::round(value[2 * i < kLast ? 2 * i : kLast]);
        const __m256i second = V::round(value[2 * i + 1 < kLast ? 2 * i + 1 : kLast]);
        words[i] = V::pack_dwords(first, second);
      });
      if (!plain_) {
        unroll<4>([&](auto i) EDGEQ_UNROLLED { words[i] = V::add_saturated_words(words[i], zp_); });
      }
      __m128i codes[4];
      unroll<2>([&](auto half) EDGEQ_UNROLLED {
        __m256i bytes = V::pack_words(words[2 * half], words[2 * half + 1]);
        if (!plain_) bytes = V::min_bytes(V::max_bytes(bytes, least_), most_);
        V::order_packed_halves(bytes, &codes[2 * half], &codes[2 * half + 1]);
      });
      if (__builtin_expect(count < kOutputs || out.channels < kChannels, 0)) {
        put_some(codes, dst, count < kOutputs ? count : kOutputs, out.channels);
      } else {
        put_tile<kOutputs>(codes, dst, pixel);
      }
      if (count <= kOutputs) return;
      columns += kOutputs * step;
      dst += kOutputs * pixel;
    }
  }

  /// Stores eight channels of each output.
  template <int kOutputs>
  static EDGEQ_INLINE void put_tile(const __m128i (&codes)[4], act_t* dst, ptrdiff_t pixel) {
    unroll<4>([&](auto i) EDGEQ_UNROLLED {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(dst), codes[i]);
      if constexpr (2 * i + 1 < kOutputs) {
        _mm_storeh_pi(reinterpret_cast<__m64*>(dst + pixel), _mm_castsi128_ps(codes[i]));
      }
      dst += 2 * pixel;
    });
  }

  EDGEQ_NOINLINE void put_some(const __m128i (&codes)[4], act_t* dst, size_t count, size_t channels) const {
    uint8_t bytes[8][kChannels];
    unroll<4>([&](auto i) EDGEQ_UNROLLED { Vector128::store_all(bytes[2 * i], codes[i]); });
    for (size_t o = 0; o < count; ++o, dst += p_.dst_pixel_stride) std::memcpy(dst, bytes[o], channels);
  }

  template <int kOutputs>
  RunTiles select_tiles() const {
    const bool dense = p_.dilation_h == 1 && p_.dilation_w == 1 && p_.kernel_h == p_.kernel_w &&
                       p_.stride_h == 2 && p_.stride_w == 2;
    if (dense && p_.kernel_w == 3) return &PairConvolution::run_tiles<kOutputs, 3>;
    if (dense && p_.kernel_w == 5) return &PairConvolution::run_tiles<kOutputs, 5>;
    return &PairConvolution::run_tiles<kOutputs, 0>;
  }

  const DepthwiseParams p_;
  const DepthwiseShape shape_;
  const DepthwisePairs pairs_;
  const size_t block_bytes_;
  const size_t column_bytes_;
  const size_t block_columns_;  // bytes of the columns of a block
  const size_t tile_;           // outputs
  const RunTiles run_tiles_;
  const __m256i zp_;     // words
  const __m256i least_;  // bytes
  const __m256i most_;   // bytes
  size_t chunk_;         // outputs
  bool large_;           // results may overflow before the clamp
  bool plain_;           // saturation clamps codes
  const act_t* zero_row_ = nullptr;
  size_t live_ = 0;  // pairs that the output rows need
  const act_t* rows_[kMaxRows] = {};
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_X86_AVX2_PAIRS_H_
