#ifndef EDGEQ_KERNELS_DEPTHWISE_ARM_BLOCKS_H_
#define EDGEQ_KERNELS_DEPTHWISE_ARM_BLOCKS_H_

// What the depthwise kernels of every Arm level share: the walk over blocks of channels and over rows, rows
// of padding, and the way of an output from its sums to memory. Only arm_*.cc and arm64_*.cc include it.

#include "kernels/arm_vectors.h"
#include "kernels/depthwise/depthwise.h"
#include "kernels/depthwise/pack.h"

// Inlined before loops are unrolled, so that arrays of vectors become registers.
#define EDGEQ_LAMBDA __attribute__((always_inline))

namespace edgeq {
namespace {

#if defined(__aarch64__)
using Bytes = int8x16_t;
EDGEQ_INLINE Bytes load_bytes(const int8_t* from) { return vld1q_s8(from); }
EDGEQ_INLINE void store_bytes(int8_t* to, Bytes a) { vst1q_s8(to, a); }
EDGEQ_INLINE Bytes repeat_byte(int8_t a) { return vdupq_n_s8(a); }
#else
using Bytes = int8x8_t;
EDGEQ_INLINE Bytes load_bytes(const int8_t* from) { return vld1_s8(from); }
EDGEQ_INLINE void store_bytes(int8_t* to, Bytes a) { vst1_s8(to, a); }
EDGEQ_INLINE Bytes repeat_byte(int8_t a) { return vdup_n_s8(a); }
#endif

/// Channels of a block: a vector of bytes.
constexpr int kLanes = static_cast<int>(kDepthwiseBlock);
constexpr int kQuarters = kLanes / 4;
static_assert(sizeof(Bytes) == kLanes, "a block of channels fills a vector");

/// Sums of a block's channels.
struct Sums {
  int32x4_t part[kQuarters];
};

DepthwiseShape shape_of(const DepthwiseParams& p, int weight_bits) {
  return {p.channels, p.kernel_h,   p.kernel_w,   p.stride_h,
          p.stride_w, p.dilation_h, p.dilation_w, weight_bits};
}

// The compiler would keep biases and scales in registers, of which the inner loops have none left.

#if defined(__aarch64__)

/// Reads eight words, kAt words from `from`. GCC 12 tears such pairs apart.
template <int kAt>
EDGEQ_INLINE void load_pair(const int32_t* from, int32x4_t& low, int32x4_t& high) {
  __asm__ volatile("ldp %q0, %q1, [%2, %3]" : "=w"(low), "=w"(high) : "r"(from), "i"(kAt * 4), "m"(*from));
}

#endif

/// Reads kLanes words, kAt words from a block's biases.
template <int kAt>
EDGEQ_INLINE Sums load_sums(const int32_t* bias) {
  Sums sums;
#if defined(__aarch64__)
  load_pair<kAt>(bias, sums.part[0], sums.part[1]);
  load_pair<kAt + 8>(bias, sums.part[2], sums.part[3]);
#else
  __asm__("" : "+r"(bias));
#pragma GCC unroll 4
  for (int i = 0; i < kQuarters; ++i) sums.part[i] = vld1q_s32(bias + kAt + 4 * i);
#endif
  return sums;
}

/// One block of channels.
struct Block {
  const int32_t* bias;  // [channels], the scales' bits behind them and, where kRelu holds, the addends'
  const int8_t* weights;
  size_t first;  // channel
};

/// How a row's outputs are computed where a window of three columns stays in registers: in three parts. Only
/// the second part's new columns are known to lie in the image; in it three outputs make a turn, after which
/// every column of the window is back in its place.
struct Turns {
  template <int kStride>
  static EDGEQ_INLINE Turns of(const DepthwiseParams& p) {
    // The first output's first new column.
    const ptrdiff_t x = 3 - kStride - static_cast<ptrdiff_t>(p.pad_left);
    const size_t outside = x < 0 ? (static_cast<size_t>(-x) + kStride - 1) / kStride : 0;
    Turns turns;
    turns.before = outside < p.width_out ? outside : p.width_out;
    const ptrdiff_t inside =
        static_cast<ptrdiff_t>(p.width_in) - x - static_cast<ptrdiff_t>(turns.before) * kStride;
    const size_t most = (p.width_out - turns.before) / 3;
    const size_t fit = inside < 0 ? 0 : static_cast<size_t>(inside) / (3 * kStride);
    turns.turns = fit < most ? fit : most;
    turns.after = p.width_out - turns.before - 3 * turns.turns;
    return turns;
  }

  size_t before;
  size_t turns;
  size_t after;
};

// A ReLU's codes, of which nothing is cut off: the range is that of int8 and the zero point -128. Where
// pack.h says that sums and results stay small too (all but odd layers), an output takes fewer instructions:
//
//   Sums begin from bias + the bits of 2^23. A sum acc >= 0 then is the bits of the float32 2^23 + acc, and
//   one fused multiply-add with the addend -2^23 * scale, which is exact, rounds acc * scale once as the rule
//   does. A negative sum is the bits of 2^23 + acc / 2 (below 2^23 the last bit is worth a half): what comes
//   out is not positive, as it should be, and clamped to the same code.
//
//   Adding 1.5 * 2^23 - 128 rounds to nearest even (round_half_even; an even addend keeps ties on even sums),
//   the low 16 bits of the sum are the integer, and narrowing with saturation clamps.
//
// Armv7 has no such multiply-add.
#if defined(__aarch64__)
constexpr bool kHasRelu = true;
#else
constexpr bool kHasRelu = false;
#endif

/// What a block's sums begin with, scales, and addends (kRelu), [kLength] each.
template <int kLength>
struct Constants {
  Constants(const int32_t* bias, const float* scale) {
#pragma GCC unroll 4
    for (int i = 0; i < kLength; i += 4) {
      const float32x4_t factor = vld1q_f32(scale + i);
      vst1q_s32(words + i, vaddq_s32(vld1q_s32(bias + i), vdupq_n_s32(0x4B000000)));
      vst1q_s32(words + kLength + i, vreinterpretq_s32_f32(factor));
      const float32x4_t addend = vmulq_f32(factor, vdupq_n_f32(-8388608.0f));
      vst1q_s32(words + 2 * kLength + i, vreinterpretq_s32_f32(addend));
    }
  }

  int32_t words[3 * kLength];
};

/// Requantizes whole blocks.
template <bool kRelu>
class Requantize {
 public:
  explicit EDGEQ_INLINE Requantize(OutputRange range)
      : range_(range), magic_(vdupq_n_f32(12582912.0f - 128.0f)) {}

  EDGEQ_INLINE Bytes operator()(const Sums& sums, const int32_t* bias) const {
    float32x4_t value[kQuarters];
#if defined(__aarch64__)
    if constexpr (kRelu) {
      multiply_half<0>(sums, bias, value);
      multiply_half<2>(sums, bias, value);
      return codes(value);
    }
#endif
    const Sums scale = load_sums<kLanes>(bias);
#pragma GCC unroll 4
    for (int i = 0; i < kQuarters; ++i)
      value[i] = vmulq_f32(vcvtq_f32_s32(sums.part[i]), vreinterpretq_f32_s32(scale.part[i]));
    return codes(value);
  }

#if defined(__aarch64__)
  /// Products of two of the sums (kRelu). As with load_pair: the compiler would move each vector once more.
  template <int kFirst>
  static EDGEQ_INLINE void multiply_half(const Sums& sums, const int32_t* bias,
                                         float32x4_t (&value)[kQuarters]) {
    float32x4_t scale[2];
    __asm__(
        "ldp %q0, %q1, [%6, %7]\n\t"
        "ldp %q2, %q3, [%6, %8]\n\t"
        "fmla %0.4s, %4.4s, %2.4s\n\t"
        "fmla %1.4s, %5.4s, %3.4s"
        : "=&w"(value[kFirst]), "=&w"(value[kFirst + 1]), "=&w"(scale[0]), "=&w"(scale[1])
        : "w"(sums.part[kFirst]), "w"(sums.part[kFirst + 1]), "r"(bias), "i"((2 * kLanes + 4 * kFirst) * 4),
          "i"((kLanes + 4 * kFirst) * 4), "m"(*reinterpret_cast<const int32_t (*)[3 * kLanes]>(bias)));
  }
#endif

  EDGEQ_INLINE float32x4_t magic() const { return magic_; }

  /// Has the compiler find a register for the loop that follows, rather than one for the whole function.
  EDGEQ_INLINE void keep() { __asm__("" : "+w"(magic_)); }

  EDGEQ_INLINE Bytes codes(const float32x4_t (&value)[kQuarters]) const {
#if defined(__aarch64__)
    if constexpr (kRelu) {
      int16x8_t word[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        word[i] = vuzp1q_s16(vreinterpretq_s16_f32(vaddq_f32(value[2 * i], magic_)),
                             vreinterpretq_s16_f32(vaddq_f32(value[2 * i + 1], magic_)));
      }
      Bytes result;  // GCC 12 would copy the lower half
      __asm__(
          "sqxtn %0.8b, %1.8h\n\t"
          "sqxtn2 %0.16b, %2.8h"
          : "=&w"(result)
          : "w"(word[0]), "w"(word[1]));
      return result;
    }
    return round_to_range(value[0], value[1], value[2], value[3], range_);
#else
    return vget_low_s8(round_to_range(value[0], value[1], value[0], value[1], range_));
#endif
  }

 private:
  const RangeVectors range_;
  float32x4_t magic_;
};

/// One call: where rows are and where outputs go. Blocks have kWidth channels.
template <int kWidth>
class Call {
 public:
  Call(const DepthwiseParams& params, const DepthwiseShape& shape)
      : p(params), scratch_(shape, params.width_out) {
    whole_ = params.channels >= kWidth;
    output_step = whole_ ? params.dst_pixel_stride : kWidth;
    uint32_t small;
    std::memcpy(&small, params.packed, sizeof small);
    const OutputRange& range = params.range;
    small_ = small != 0 && range.min == -128 && range.max == 127;
    relu_ = kHasRelu && small_ && range.zp == -128;
  }

  /// Whether results are small (pack.h), and saturation is the whole clamp.
  bool small() const { return small_; }

  using Function = void(const Call&, const Block&, size_t row_begin, size_t row_end);

  /// Calls one of the functions, the second where kRelu holds, for each block of channels.
  EDGEQ_INLINE void run(Function* any, Function* relu, size_t block_bytes, size_t row_begin,
                        size_t row_end) const {
    if (row_begin >= row_end) return;
    fill_zero_row(row_begin, row_end);
    const uint8_t* packed = p.packed + kDepthwiseHeader;
    for (size_t first = 0; first < p.channels; first += kWidth, packed += block_bytes) {
      Block block;
      block.first = depthwise_block_first(first, p.channels, kWidth);
      block.bias = reinterpret_cast<const int32_t*>(packed);
      block.weights = reinterpret_cast<const int8_t*>(packed + 8 * kWidth);
      if (relu_ && relu != any) {
        const Constants<kWidth> constants(block.bias, reinterpret_cast<const float*>(block.bias + kWidth));
        block.bias = constants.words;
        relu(*this, block, row_begin, row_end);
      } else {
        any(*this, block, row_begin, row_end);
      }
    }
    if (p.table != nullptr) look_up(row_begin, row_end);
  }

  /// The padded input row `row` at channel `first`.
  EDGEQ_INLINE const int8_t* input(size_t row, size_t first) const {
    const int8_t* at = p.rows[row];
    return (at == nullptr ? zero_row() : at) + first;
  }

  /// Where output row y of a block goes, `output_step` from pixel to pixel: to dst, unless there are fewer
  /// channels than a block has. Then two rows wait in the scratch for finish().
  EDGEQ_INLINE int8_t* output(size_t y, size_t first) const {
    if (whole_) return p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride + first;
    return codes(y);
  }

  EDGEQ_INLINE void finish(size_t y) const {
    if (!whole_) store_few(y);
  }

  int8_t* columns() const { return reinterpret_cast<int8_t*>(p.scratch + scratch_.columns); }
  int8_t* weights() const { return reinterpret_cast<int8_t*>(p.scratch + scratch_.weights); }
  size_t padded_width() const { return scratch_.padded_width; }

  const DepthwiseParams& p;
  ptrdiff_t output_step;

 private:
  int8_t* zero_row() const { return reinterpret_cast<int8_t*>(p.scratch + scratch_.zero_row); }
  int8_t* codes(size_t y) const {
    return reinterpret_cast<int8_t*>(p.scratch + scratch_.codes) + y % 2 * p.width_out * kWidth;
  }

  EDGEQ_NOINLINE void store_few(size_t y) const {
    const int8_t* from = codes(y);
    int8_t* to = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride;
    for (size_t x = 0; x < p.width_out; ++x, from += kWidth, to += p.dst_pixel_stride) {
      const int8x8_t low = vld1_s8(from);
      store_first(to, vcombine_s8(low, kWidth == 16 ? vld1_s8(from + kWidth - 8) : low), p.channels);
    }
  }

  /// Rows of padding are read like any other.
  EDGEQ_NOINLINE void fill_zero_row(size_t row_begin, size_t row_end) const {
    const size_t last = (row_end - 1) * p.stride_h + (p.kernel_h - 1) * p.dilation_h;
    for (size_t i = row_begin * p.stride_h; i <= last; ++i) {
      if (p.rows[i] != nullptr) continue;
      std::memset(zero_row(), p.zero_pixel[0],
                  (p.width_in - 1) * static_cast<size_t>(p.src_pixel_stride) + p.channels + kWidth);
      return;
    }
  }

  /// Replaces the codes of whole rows by the table's entries.
  EDGEQ_NOINLINE void look_up(size_t row_begin, size_t row_end) const {
    LutParams lut;
    lut.rows = p.width_out;
    lut.channels = p.channels;
    lut.src_row_stride = lut.dst_row_stride = p.dst_pixel_stride;
    if (p.dst_pixel_stride == static_cast<ptrdiff_t>(p.channels)) {
      lut.channels *= lut.rows;
      lut.rows = 1;
    }
    lut.table = reinterpret_cast<const uint8_t*>(p.table);
    for (size_t y = row_begin; y < row_end; ++y) {
      lut.dst = reinterpret_cast<uint8_t*>(p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride);
      lut.src = lut.dst;
      p.lut->run(lut);
    }
  }

  const DepthwiseBlockScratch scratch_;
  bool whole_;
  bool small_;
  bool relu_;
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_ARM_BLOCKS_H_
