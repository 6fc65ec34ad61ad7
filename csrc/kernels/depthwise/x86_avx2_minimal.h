#ifndef EDGEQ_KERNELS_DEPTHWISE_X86_AVX2_MINIMAL_H_
#define EDGEQ_KERNELS_DEPTHWISE_X86_AVX2_MINIMAL_H_

// Depthwise convolution of 3x3 and 5x5 filters at stride 1 by minimal filtering down the rows, for 8-bit
// weights without VNNI. Only x86_avx2.cc includes it.
//
// Two outputs below each other of a filter of three rows take four products instead of six (Winograd,
// Arithmetic Complexity of Computations, 1980: F(2, 3)), those of two rows three instead of four:
//
//   2 y0 = (d0 - d2) 2 g0 + (d1 + d2) (g0 + g1 + g2) + (d2 - d1) (g0 - g1 + g2)
//   2 y1 =                  (d1 + d2) (g0 + g1 + g2) - (d2 - d1) (g0 - g1 + g2) - (d1 - d3) 2 g2
//     y0 = (d0 - d1) g0 + d1 (g0 + g1),  y1 = d1 (g0 + g1) - (d1 - d2) g1
//
// A filter of five rows is one of three and one of two. What stands before the products of d, of up to six
// rows, is a plane: a column has four or seven of them, which all of a filter's columns share. In 16 bits
// they are exact, |d| <= 510 and |g| <= 512 (twice the sum of two weights), and vpmaddwd adds the products of
// two columns beside each other. So 3x3 takes 8 of them for two outputs, of eight channels, where pairs of
// rows take 12; 5x5 takes 21 instead of 30.
//
// The planes of 16 channels stand in scratch by pairs of columns, [pair][plane][2 halves][8 channels][2],
// which stay in the first-level cache. An even output column begins with a pair, an odd one in the middle of
// one: each has its own weights (pack.h).

#include <cstring>
#include <type_traits>

#include "kernels/depthwise/depthwise.h"
#include "kernels/depthwise/pack.h"
#include "kernels/x86_ahead.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

/// One call.
template <int kKernel>
class MinimalConvolution {
 public:
  explicit MinimalConvolution(const DepthwiseParams& params)
      : p_(params),
        layout_(kKernel),
        chunk_(layout_.chunk(params.channels)),
        sums_(params.scratch + layout_.columns_bytes(params.channels)),
        sums_bytes_(layout_.sums_bytes(params.channels)),
        zp_(V::set1_word(params.range.zp)),
        least_(V::set1_byte(params.range.min)),
        most_(V::set1_byte(params.range.max)) {
    uint32_t large;
    std::memcpy(&large, params.packed, sizeof large);
    large_ = large != 0;
    put_row_ = only_saturates(params.range) ? &MinimalConvolution::put_row<true>
                                            : &MinimalConvolution::put_row<false>;
  }

  void run(size_t row_begin, size_t row_end) {
    // Rows of padding are read like any other.
    uint8_t* const zeros = sums_ + 2 * sums_bytes_;
    fill_zero_row(p_, row_begin, row_end, p_.channels, zeros);
    zero_row_ = reinterpret_cast<const act_t*>(zeros);
    // The weights of a block of 5x5 filters take 2,688 bytes, and are worth fetching. Of small images, whose
    // pixels stay in the first-level cache, all rows go over a block before the next.
    constexpr size_t kFewPixels = 256;
    const bool by_blocks = kKernel == 5 && (row_end - row_begin + kKernel - 1) * p_.width_in <= kFewPixels;
    const size_t step = by_blocks ? kChannels : p_.channels;
    for (size_t first = 0; first < p_.channels; first += step) {
      for (size_t y = row_begin; y < row_end; y += 2) {
        const size_t rows = row_end - y < 2 ? 1 : 2;
        find_rows(y, rows);
        run_rows(p_.dst + static_cast<ptrdiff_t>(y) * p_.dst_row_stride, rows, first, first + step,
                 kKernel == 5 && y == row_begin);
      }
    }
    for (size_t y = row_begin; y < row_end && p_.table != nullptr; ++y) {
      look_up_row(p_, p_.dst + static_cast<ptrdiff_t>(y) * p_.dst_row_stride);
    }
  }

 private:
  using V = Vector256;
  static constexpr size_t kChannels = DepthwisePlanes::kChannels;
  static constexpr size_t kRows = kKernel + 1;  // of input, for two of output
  static constexpr int kPlanes = DepthwisePlanes::planes_of(kKernel);
  static constexpr int kTaps = (kKernel + 1) / 2;  // pairs of columns that an output reads
  static constexpr size_t kVector = V::kBytes;
  static constexpr size_t kPairBytes = kPlanes * 2 * kVector;

  /// Outputs of a row, of up to 16 channels.
  struct Outputs {
    const uint8_t* block;  // packed
    act_t* dst;            // of the upper row
    size_t count;
    size_t channels;  // that exist
  };
  using PutRow = void (MinimalConvolution::*)(const Outputs&, size_t row) const;

  /// The rows that output rows y to y + rows read.
  void find_rows(size_t y, size_t rows) {
    for (size_t i = 0; i < kRows; ++i) {
      // What only a second output row would read may be any row.
      const act_t* row = p_.rows[y + (i < kKernel + rows - 1 ? i : 0)];
      rows_[i] = row == nullptr ? zero_row_ : row;
    }
  }

  /// Channels [begin, end) of one or two output rows, those below `end` that there are. `fetches`: the
  /// weights of each block of them are fetched during the block before.
  void run_rows(act_t* dst, size_t rows, size_t begin, size_t end, bool fetches) const {
    if (end > p_.channels) end = p_.channels;
    for (size_t x = 0; x < p_.width_out; x += chunk_, fetches = false) {
      const size_t outputs = p_.width_out - x < chunk_ ? p_.width_out - x : chunk_;
      for (size_t first = begin; first < end; first += kChannels) {
        if (fetches && first + kChannels < p_.channels) {
          Ahead(block(first + kChannels), layout_.block_bytes(), 1).fetch();
        }
        run_block(dst, rows, x, outputs, first);
      }
    }
  }

  /// The packed weights of the channels from `first` on.
  const uint8_t* block(size_t first) const {
    return p_.packed + kDepthwiseHeader + first / kChannels * layout_.block_bytes();
  }

  /// `outputs` outputs from x on of each row, of up to 16 channels.
  void run_block(act_t* dst, size_t rows, size_t x, size_t outputs, size_t first) const {
    put_planes(first, static_cast<ptrdiff_t>(x) - static_cast<ptrdiff_t>(p_.pad_left),
               (outputs + 1) / 2 + kTaps - 1);
    const uint8_t* const weights = block(first);
    const size_t channels = p_.channels - first < kChannels ? p_.channels - first : kChannels;
    for (size_t half = 0; half < (channels > 8 ? 2 : 1); ++half) {
      sum_up_rows(weights, half * kVector, outputs);
    }
    const Outputs out{weights,
                      dst + static_cast<ptrdiff_t>(x) * p_.dst_pixel_stride + static_cast<ptrdiff_t>(first),
                      outputs, channels};
    for (size_t r = 0; r < rows; ++r) (this->*put_row_)(out, r);
  }

  /// Writes the planes of 16 channels, `count` pairs of columns from `column` on.
  EDGEQ_NOINLINE void put_planes(size_t first, ptrdiff_t column, size_t count) const {
    uint8_t* to = p_.scratch;
    const ptrdiff_t pixel = p_.src_pixel_stride;
    const ptrdiff_t width = static_cast<ptrdiff_t>(p_.width_in);
    const ptrdiff_t end = column + 2 * static_cast<ptrdiff_t>(count);
    const act_t* row[kRows];
    unroll<static_cast<int>(kRows)>([&](auto r) EDGEQ_UNROLLED { row[r] = rows_[r] + first; });
    const auto put = [&](auto load) EDGEQ_UNROLLED {
      __m128i left[kRows];
      __m128i right[kRows];
      unroll<static_cast<int>(kRows)>([&](auto r) EDGEQ_UNROLLED { load(r, &left[r], &right[r]); });
      put_half(to, [&](auto r) EDGEQ_UNROLLED { return _mm_unpacklo_epi8(left[r], right[r]); });
      put_half(to + kVector, [&](auto r) EDGEQ_UNROLLED { return _mm_unpackhi_epi8(left[r], right[r]); });
      to += kPairBytes;
    };
    const __m128i zero = Vector128::load(p_.zero_pixel + first);
    const auto some = [&](ptrdiff_t until) EDGEQ_UNROLLED {
      for (; column < until; column += 2) {
        put([&](auto r, __m128i* left, __m128i* right) EDGEQ_UNROLLED {
          const act_t* at = row[r] + column * pixel;
          *left = column < 0 || column >= width ? zero : Vector128::load(at);
          *right = column + 1 < 0 || column + 1 >= width ? zero : Vector128::load(at + pixel);
        });
      }
    };
    some(end < 0 ? end : 0);
    for (ptrdiff_t at = column * pixel; column + 1 < width && column < end; column += 2, at += 2 * pixel) {
      put([&](auto r, __m128i* left, __m128i* right) EDGEQ_UNROLLED {
        *left = Vector128::load(row[r] + at);
        *right = Vector128::load(row[r] + at + pixel);
      });
    }
    some(end);
  }

  /// Writes the planes of eight channels of a pair of columns, pair(r) the bytes of row r.
  template <typename Pair>
  static EDGEQ_INLINE void put_half(uint8_t* to, const Pair& pair) {
    __m256i d[kRows];
    unroll<static_cast<int>(kRows)>([&](auto r) EDGEQ_UNROLLED { d[r] = _mm256_cvtepu8_epi16(pair(r)); });
    V::store_all(to, V::sub_words(d[0], d[2]));
    V::store_all(to + 2 * kVector, V::add_words(d[1], d[2]));
    V::store_all(to + 4 * kVector, V::sub_words(d[2], d[1]));
    V::store_all(to + 6 * kVector, V::sub_words(d[1], d[3]));
    if constexpr (kKernel == 5) {
      V::store_all(to + 8 * kVector, V::sub_words(d[3], d[4]));
      V::store_all(to + 10 * kVector, d[4]);
      V::store_all(to + 12 * kVector, V::sub_words(d[4], d[5]));
    }
  }

  // The steps of the tiles are written out: in the compilers' own order more is alive than registers hold.

  static EDGEQ_INLINE void add_product(__m256i taps, __m256i pair, __m256i& sum) {
    __m256i term;
    __asm__(
        "vpmaddwd %[pair], %[taps], %[term]\n\t"
        "vpaddd %[term], %[sum], %[sum]"
        : [sum] "+x"(sum), [term] "=&x"(term)
        : [taps] "x"(taps), [pair] "x"(pair));
  }
  static EDGEQ_INLINE void subtract_product(__m256i taps, __m256i pair, __m256i& sum) {
    __m256i term;
    __asm__(
        "vpmaddwd %[pair], %[taps], %[term]\n\t"
        "vpsubd %[term], %[sum], %[sum]"
        : [sum] "+x"(sum), [term] "=&x"(term)
        : [taps] "x"(taps), [pair] "x"(pair));
  }

  /// Calls step(c, t, taps, pair) for the products of a plane: output column c takes tap pair t times `pair`.
  template <int kPlane, int kColumns, typename Step, typename Last>
  static EDGEQ_INLINE void multiply(const uint8_t* weights, const uint8_t* columns, const Step& step,
                                    const Last& last) {
    constexpr int kPairs = kTaps + kColumns / 2 - 1;
    __m256i pairs[kPairs];
    unroll<kPairs>([&](auto j) EDGEQ_UNROLLED {
      pairs[j] = V::load(columns + 2 * kPlane * kVector + j * kPairBytes);
      V::keep_in_register(pairs[j]);
    });
    unroll<2>([&](auto odd) EDGEQ_UNROLLED {
      unroll<kTaps>([&](auto t) EDGEQ_UNROLLED {
        __m256i taps = V::load(weights + ((2 * kPlane + odd) * kTaps + t) * 2 * kVector);
        V::keep_in_register(taps);
        unroll<kColumns / 2>([&](auto j) EDGEQ_UNROLLED {
          step(std::integral_constant<int, 2 * j + odd>(), t, taps, pairs[j + t]);
        });
      });
      unroll<kColumns / 2>([&](auto j) EDGEQ_UNROLLED { last(std::integral_constant<int, 2 * j + odd>()); });
    });
  }

  template <int kColumns>
  static EDGEQ_INLINE void sum_up(const uint8_t* block, const uint8_t* columns, __m256i (&upper)[kColumns],
                                  __m256i (&lower)[kColumns]) {
    const uint8_t* const weights = block + DepthwisePlanes::kHeads;
    __m256i sums[kColumns];
    const auto above = [&](auto c, auto, __m256i taps, __m256i pair)
                           EDGEQ_UNROLLED { add_product(taps, pair, upper[c]); };
    const auto below = [&](auto c, auto, __m256i taps, __m256i pair)
                           EDGEQ_UNROLLED { subtract_product(taps, pair, lower[c]); };
    const auto sum = [&](auto c, auto t, __m256i taps, __m256i pair) EDGEQ_UNROLLED {
      if constexpr (t == 0) {
        __asm__("vpmaddwd %[pair], %[taps], %[sum]"
                : [sum] "=x"(sums[c])
                : [taps] "x"(taps), [pair] "x"(pair));
      } else {
        add_product(taps, pair, sums[c]);
      }
    };
    const auto nothing = [](auto) EDGEQ_UNROLLED {};
    unroll<kColumns>([&](auto c) EDGEQ_UNROLLED { upper[c] = V::load(block); });
    multiply<1, kColumns>(weights, columns, above, [&](auto c) EDGEQ_UNROLLED {
      V::keep_in_register(upper[c]);
      lower[c] = upper[c];
      V::keep_in_register(lower[c]);
    });
    multiply<0, kColumns>(weights, columns, above, nothing);
    const auto difference = [&](auto c) EDGEQ_UNROLLED {
      upper[c] = V::add(upper[c], sums[c]);
      lower[c] = V::sub(lower[c], sums[c]);
      V::keep_in_register(upper[c]);
      V::keep_in_register(lower[c]);
    };
    multiply<2, kColumns>(weights, columns, sum, difference);
    multiply<3, kColumns>(weights, columns, below, nothing);
    if constexpr (kKernel == 5) {
      multiply<4, kColumns>(weights, columns, above, nothing);
      multiply<5, kColumns>(weights, columns, sum, [&](auto c) EDGEQ_UNROLLED {
        upper[c] = V::add(upper[c], sums[c]);
        lower[c] = V::add(lower[c], sums[c]);
        V::keep_in_register(upper[c]);
        V::keep_in_register(lower[c]);
      });
      multiply<6, kColumns>(weights, columns, below, nothing);
    }
  }

  /// Sums of eight channels of both rows, [row][output][2 halves][8], to scratch. Their own loop: a tile's
  /// sums fill the registers, and what becomes of them next takes both halves.
  EDGEQ_NOINLINE void sum_up_rows(const uint8_t* block, size_t half, size_t count) const {
    const uint8_t* columns = p_.scratch + half;
    uint8_t* to = sums_ + half;
    const size_t row_bytes = sums_bytes_;
    const auto tile = [&](auto columns_at_a_time) EDGEQ_UNROLLED {
      constexpr int kColumns = columns_at_a_time;
      __m256i upper[kColumns];
      __m256i lower[kColumns];
      sum_up<kColumns>(block + half, columns, upper, lower);
      unroll<kColumns>([&](auto i) EDGEQ_UNROLLED {
        V::store_all(to + 2 * i * kVector, upper[i]);
        V::store_all(to + row_bytes + 2 * i * kVector, lower[i]);
      });
    };
    for (; count > 2; count -= count < 4 ? count : 4, columns += 2 * kPairBytes, to += 8 * kVector) {
      tile(std::integral_constant<int, 4>());
    }
    if (count > 0) tile(std::integral_constant<int, 2>());
  }

  /// Requantizes and stores row `row`. kPlain: codes have no zero point and any value, so that saturation
  /// clamps them.
  template <bool kPlain>
  EDGEQ_NOINLINE void put_row(const Outputs& out, size_t row) const {
    const ptrdiff_t pixel = p_.dst_pixel_stride;
    act_t* dst = out.dst + static_cast<ptrdiff_t>(row) * p_.dst_row_stride;
    uint8_t* from = sums_ + row * sums_bytes_;
    const uint8_t* const block = out.block;
    if (large_) finish_doubled(out, from);
    size_t count = out.count;
    if (out.channels == kChannels) {
      for (; count >= 2; count -= 2, from += 4 * kVector, dst += 2 * pixel) {
        __m128i codes[2];
        put_codes<kPlain>(block, from, codes);
        Vector128::store_all(dst, codes[0]);
        Vector128::store_all(dst + pixel, codes[1]);
      }
    }
    for (; count > 0; --count, from += 2 * kVector, dst += pixel) {
      __m128i codes[2];
      put_codes<kPlain>(block, from, codes);
      Vector128::store(dst, codes[0], out.channels);
    }
  }

  /// Sums of which the biases have been left out.
  void finish_doubled(const Outputs& out, uint8_t* sums) const {
    for (size_t i = 0; i < 2 * out.count; ++i, sums += kVector) {
      const __m256i bias = V::load(out.block + (4 + i % 2) * kVector);
      V::store_all(sums, V::add(V::template shift_right_signed<1>(V::load(sums)), bias));
    }
  }

  /// Requantizes two outputs.
  template <bool kPlain>
  EDGEQ_INLINE void put_codes(const uint8_t* block, const uint8_t* sums, __m128i (&codes)[2]) const {
    __m256 value[4];
    unroll<4>([&](auto i) EDGEQ_UNROLLED {
      const __m256 scale = V::load_float(block + (2 + i % 2) * kVector);
      value[i] = V::mul(V::to_float(V::load(sums + i * kVector)), scale);
    });
    if (__builtin_expect(large_, 0)) {
      const __m256 highest = upper_bound<V>(p_.range);
      unroll<4>([&](auto i) EDGEQ_UNROLLED { value[i] = V::min(value[i], highest); });
    }
    __m256i words[2];
    unroll<2>([&](auto i) EDGEQ_UNROLLED {
      words[i] = V::pack_dwords(V::round(value[2 * i]), V::round(value[2 * i + 1]));
      if constexpr (!kPlain) words[i] = V::add_saturated_words(words[i], zp_);
    });
    __m256i bytes = V::pack_words(words[0], words[1]);
    if constexpr (!kPlain) bytes = V::min_bytes(V::max_bytes(bytes, least_), most_);
    V::order_packed_halves(bytes, &codes[0], &codes[1]);
  }

  const DepthwiseParams p_;
  const DepthwisePlanes layout_;
  const size_t chunk_;   // outputs
  uint8_t* const sums_;  // of two rows
  const size_t sums_bytes_;
  PutRow put_row_;
  const __m256i zp_;     // words
  const __m256i least_;  // bytes
  const __m256i most_;   // bytes
  bool large_;           // sums may overflow when doubled, or results before the clamp
  const act_t* zero_row_ = nullptr;
  const act_t* rows_[kRows] = {};
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_X86_AVX2_MINIMAL_H_
