#include "kernels/depthwise/arm_blocks.h"

// 3x3 kernels with the dot product, 8 channels and two output rows at a time. A column of input is read as
// pairs of rows, 8 bytes each, and two table lookups make quads of it: the bytes of its rows, channel by
// channel. One dot product then does three taps of four channels. At stride 1 the same quads serve both
// output rows: the second one's weights are those of the first a byte higher. At stride 2 one row of the
// input belongs to both.
//
// The columns of a window stay in registers, each interleaved once.

namespace edgeq {
namespace {

constexpr int kWidth = static_cast<int>(kDepthwiseQuadBlock);
using QuadCall = Call<kWidth>;

/// How sums become codes.
enum class Codes {
  kAny,    // any sums, any range
  kSmall,  // where pack.h says that results are small, and the range is that of int8: Call::small
  kRelu,   // where kRelu holds (arm_blocks.h)
};

/// Indices of the bytes of channels 4 * kHalf .. 4 * kHalf + 3 in two pairs of rows.
template <int kHalf>
EDGEQ_INLINE int8x16_t quad_indices() {
  alignas(16) static constexpr int8_t kFirst[16] = {0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27};
  return vaddq_s8(vld1q_s8(kFirst), vdupq_n_s8(4 * kHalf));
}

// Assembly, since GCC 12 makes several instructions each of a load with a step to the next column and of a
// lookup in two registers, and moves sums from register to register.

/// The quads of a column of three rows; the fourth byte is another's.
EDGEQ_INLINE void read_three(const int8_t* (&row)[5], ptrdiff_t step, int8x16_t first, int8x16_t second,
                             int8x16_t* quads) {
  __asm__ volatile(
      "ld1 {v30.8b}, [%2], %5\n\t"
      "ld1 {v31.8b}, [%4], %5\n\t"
      "ld1 {v30.d}[1], [%3], %5\n\t"
      "tbl %0.16b, {v30.16b, v31.16b}, %6.16b\n\t"
      "tbl %1.16b, {v30.16b, v31.16b}, %7.16b"
      : "=&w"(quads[0]), "=w"(quads[1]), "+r"(row[0]), "+r"(row[1]), "+r"(row[2])
      : "r"(step), "w"(first), "w"(second)
      : "v30", "v31", "memory");
}

/// The quads of a column of four rows.
EDGEQ_INLINE void read_four(const int8_t* (&row)[5], ptrdiff_t step, int8x16_t first, int8x16_t second,
                            int8x16_t* quads) {
  __asm__ volatile(
      "ld1 {v30.8b}, [%2], %6\n\t"
      "ld1 {v31.8b}, [%4], %6\n\t"
      "ld1 {v30.d}[1], [%3], %6\n\t"
      "ld1 {v31.d}[1], [%5], %6\n\t"
      "tbl %0.16b, {v30.16b, v31.16b}, %7.16b\n\t"
      "tbl %1.16b, {v30.16b, v31.16b}, %8.16b"
      : "=&w"(quads[0]), "=w"(quads[1]), "+r"(row[0]), "+r"(row[1]), "+r"(row[2]), "+r"(row[3])
      : "r"(step), "w"(first), "w"(second)
      : "v30", "v31", "memory");
}

/// The quads of a column of five rows: of the first four, and of the last three.
EDGEQ_INLINE void read_five(const int8_t* (&row)[5], ptrdiff_t step, int8x16_t first, int8x16_t second,
                            int8x16_t* quads) {
  __asm__ volatile(
      "ld1 {v29.8b}, [%4], %9\n\t"
      "ld1 {v30.8b}, [%6], %9\n\t"
      "ld1 {v31.8b}, [%8], %9\n\t"
      "ld1 {v29.d}[1], [%5], %9\n\t"
      "ld1 {v30.d}[1], [%7], %9\n\t"
      "tbl %0.16b, {v29.16b, v30.16b}, %10.16b\n\t"
      "tbl %1.16b, {v29.16b, v30.16b}, %11.16b\n\t"
      "tbl %2.16b, {v30.16b, v31.16b}, %10.16b\n\t"
      "tbl %3.16b, {v30.16b, v31.16b}, %11.16b"
      : "=&w"(quads[0]), "=&w"(quads[1]), "=&w"(quads[2]), "=w"(quads[3]), "+r"(row[0]), "+r"(row[1]),
        "+r"(row[2]), "+r"(row[3]), "+r"(row[4])
      : "r"(step), "w"(first), "w"(second)
      : "v29", "v30", "v31", "memory");
}

/// Stores a row's codes, or those of two rows, and steps to the next output.
template <int kRows>
EDGEQ_INLINE void store_codes(int8_t*& dst0, int8_t*& dst1, ptrdiff_t step, int8x16_t codes) {
  __asm__ volatile("st1 {%1.8b}, [%0], %2" : "+r"(dst0) : "w"(codes), "r"(step) : "memory");
  if (kRows == 2) __asm__ volatile("st1 {%1.d}[1], [%0], %2" : "+r"(dst1) : "w"(codes), "r"(step) : "memory");
}

// clang-format off

// The codes of one output of each of two rows where results are small, from sums to memory, in fixed registers:
// biases, and then addends, of both rows come with one load.
#define EDGEQ_DOT_QUAD(sum, quad, taps) "sdot v" #sum ".4s, %[" quad "].16b, %[" taps "].16b\n\t"

// A column of both rows: of quads and weights of the upper one, q and t, and of the lower one.
#define EDGEQ_DOT_COLUMN(x, q, t, q_lower, t_lower)    \
  EDGEQ_DOT_QUAD(24, #q #x "0", #t #x "0")             \
  EDGEQ_DOT_QUAD(25, #q #x "1", #t #x "1")             \
  EDGEQ_DOT_QUAD(26, #q_lower #x "0", #t_lower #x "0") \
  EDGEQ_DOT_QUAD(27, #q_lower #x "1", #t_lower #x "1")

#define EDGEQ_DOT_WINDOWS(q, t, q_lower, t_lower)      \
  "ld1 {v24.4s-v27.4s}, [%[bias]]\n\t"                 \
  EDGEQ_DOT_COLUMN(0, q, t, q_lower, t_lower)          \
  EDGEQ_DOT_COLUMN(1, q, t, q_lower, t_lower)          \
  EDGEQ_DOT_COLUMN(2, q, t, q_lower, t_lower)

#define EDGEQ_RELU_CODES                                \
  "ld1 {v28.4s-v31.4s}, [%[addend]]\n\t"                \
  "fmla v28.4s, v24.4s, %[s0].4s\n\t"                   \
  "fmla v29.4s, v25.4s, %[s1].4s\n\t"                   \
  "fmla v30.4s, v26.4s, %[s0].4s\n\t"                   \
  "fmla v31.4s, v27.4s, %[s1].4s\n\t"                   \
  "fadd v28.4s, v28.4s, %[magic].4s\n\t"                \
  "fadd v29.4s, v29.4s, %[magic].4s\n\t"                \
  "fadd v30.4s, v30.4s, %[magic].4s\n\t"                \
  "fadd v31.4s, v31.4s, %[magic].4s\n\t"                \
  "uzp1 v28.8h, v28.8h, v29.8h\n\t"                     \
  "uzp1 v30.8h, v30.8h, v31.8h\n\t"                     \
  "sqxtn v28.8b, v28.8h\n\t"                            \
  "sqxtn2 v28.16b, v30.8h\n\t"                          \
  "st1 {v28.8b}, [%[dst0]], %[step]\n\t"                \
  "st1 {v28.d}[1], [%[dst1]], %[step]\n\t"

// Rounding by an addition of 1.5 * 2^23 and the zero point leaves codes in the low halves of the words: they fit
// int16. An odd zero point is added in two steps, since ties go to an even sum.
#define EDGEQ_SMALL_CODES                               \
  "scvtf v24.4s, v24.4s\n\t"                            \
  "scvtf v25.4s, v25.4s\n\t"                            \
  "scvtf v26.4s, v26.4s\n\t"                            \
  "scvtf v27.4s, v27.4s\n\t"                            \
  "fmul v24.4s, v24.4s, %[s0].4s\n\t"                   \
  "fmul v25.4s, v25.4s, %[s1].4s\n\t"                   \
  "fmul v26.4s, v26.4s, %[s0].4s\n\t"                   \
  "fmul v27.4s, v27.4s, %[s1].4s\n\t"                   \
  "fadd v24.4s, v24.4s, %[magic].4s\n\t"                \
  "fadd v25.4s, v25.4s, %[magic].4s\n\t"                \
  "fadd v26.4s, v26.4s, %[magic].4s\n\t"                \
  "fadd v27.4s, v27.4s, %[magic].4s\n\t"                \
  "uzp1 v24.8h, v24.8h, v25.8h\n\t"                     \
  "uzp1 v26.8h, v26.8h, v27.8h\n\t"                     \
  "add v24.8h, v24.8h, %[odd].8h\n\t"                   \
  "add v26.8h, v26.8h, %[odd].8h\n\t"                   \
  "sqxtn v24.8b, v24.8h\n\t"                            \
  "sqxtn2 v24.16b, v26.8h\n\t"                          \
  "st1 {v24.8b}, [%[dst0]], %[step]\n\t"                \
  "st1 {v24.d}[1], [%[dst1]], %[step]\n\t"

#define EDGEQ_NAMED_SIX(name, of)                                                          \
  [name##00] "w"(of(0, 0)), [name##01] "w"(of(0, 1)), [name##10] "w"(of(1, 0)),            \
      [name##11] "w"(of(1, 1)), [name##20] "w"(of(2, 0)), [name##21] "w"(of(2, 1))

#define EDGEQ_TWO_ROWS_OPERANDS(...)                                                                       \
  : [dst0] "+r"(dst0), [dst1] "+r"(dst1)                                                                   \
  : [bias] "r"(two_rows), [addend] "r"(two_rows + 2 * kWidth), [s0] "w"(scale[0]), [s1] "w"(scale[1]),     \
    [magic] "w"(magic), [step] "r"(step), __VA_ARGS__                                                      \
  : "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", "memory"

// clang-format on

/// What two rows' codes are rounded with.
struct Rounding {
  explicit EDGEQ_INLINE Rounding(OutputRange range)
      : magic(vdupq_n_f32(12582912.0f + static_cast<float>(range.zp - (range.zp & 1)))),
        odd(vdupq_n_s16(static_cast<int16_t>(range.zp & 1))) {}

  float32x4_t magic;
  int16x8_t odd;  // of kSmall
};

/// kRows output rows from row y. `weights`: of the first row by columns and halves of the channels, then
/// (stride 1) of the second. `padding`: the quads of a column of padding. `two_rows`: biases and, of kRelu,
/// addends, each twice.
template <int kStride, int kRows, Codes kCodes>
EDGEQ_INLINE void rows3(const QuadCall& call, const Block& block, const int8x16_t (&weights)[2][3][2],
                        const float32x4_t (&scale)[2], const int8_t (&padding)[2][16], const Turns& turns,
                        Requantize<kCodes == Codes::kRelu> requantize, Rounding rounding,
                        const int32_t* two_rows, size_t y) {
  requantize.keep();
  // As keep.
  if (kCodes == Codes::kSmall) __asm__("" : "+w"(rounding.magic), "+w"(rounding.odd));
  constexpr bool kRelu = kCodes == Codes::kRelu;
  constexpr int kOld = 3 - kStride;
  constexpr bool kShared = kStride == 1;  // both rows' windows have the same quads
  const DepthwiseParams& p = call.p;
  const int32_t* const bias = block.bias;
  (void)two_rows;
  const int8x16_t first = quad_indices<0>();
  const int8x16_t second = quad_indices<1>();
  const ptrdiff_t pixel = p.src_pixel_stride;
  const ptrdiff_t step = call.output_step;
  const int8_t* row[5];
  const size_t top = y * p.stride_h;
#pragma GCC unroll 5
  for (int k = 0; k < 3 + (kRows - 1) * kStride; ++k)
    row[k] = call.input(top + static_cast<size_t>(k), block.first);
  int8_t* dst0 = call.output(y, block.first);
  int8_t* dst1 = kRows == 2 ? call.output(y + 1, block.first) : nullptr;

  constexpr int kQuads = kRows == 2 && !kShared ? 4 : 2;
  int8x16_t window[3][kQuads];
  const auto next = [&](int column) EDGEQ_LAMBDA {
    if constexpr (kRows == 1) {
      read_three(row, pixel, first, second, window[column]);
    } else if constexpr (kShared) {
      read_four(row, pixel, first, second, window[column]);
    } else {
      read_five(row, pixel, first, second, window[column]);
    }
  };
  const auto emit = [&](int column) EDGEQ_LAMBDA {
    if constexpr (kCodes != Codes::kAny && kRows == 2) {
      const float32x4_t magic = kRelu ? requantize.magic() : rounding.magic;
      const auto quads = [&](int kx, int i) EDGEQ_LAMBDA { return window[(column + kx) % 3][i]; };
      const auto upper = [&](int kx, int i) EDGEQ_LAMBDA { return weights[0][kx][i]; };
      if constexpr (kShared) {
        const auto lower = [&](int kx, int i) EDGEQ_LAMBDA { return weights[1][kx][i]; };
        if constexpr (kRelu) {
          __asm__ volatile(EDGEQ_DOT_WINDOWS(q, u, q, l) EDGEQ_RELU_CODES EDGEQ_TWO_ROWS_OPERANDS(
              EDGEQ_NAMED_SIX(q, quads), EDGEQ_NAMED_SIX(u, upper), EDGEQ_NAMED_SIX(l, lower)));
        } else {
          __asm__ volatile(EDGEQ_DOT_WINDOWS(q, u, q, l) EDGEQ_SMALL_CODES EDGEQ_TWO_ROWS_OPERANDS(
              EDGEQ_NAMED_SIX(q, quads), EDGEQ_NAMED_SIX(u, upper),
              EDGEQ_NAMED_SIX(l, lower), [odd] "w"(rounding.odd)));
        }
      } else {
        const auto below = [&](int kx, int i) EDGEQ_LAMBDA { return window[(column + kx) % 3][2 + i]; };
        if constexpr (kRelu) {
          __asm__ volatile(EDGEQ_DOT_WINDOWS(q, u, b, u) EDGEQ_RELU_CODES EDGEQ_TWO_ROWS_OPERANDS(
              EDGEQ_NAMED_SIX(q, quads), EDGEQ_NAMED_SIX(u, upper), EDGEQ_NAMED_SIX(b, below)));
        } else {
          __asm__ volatile(EDGEQ_DOT_WINDOWS(q, u, b, u) EDGEQ_SMALL_CODES EDGEQ_TWO_ROWS_OPERANDS(
              EDGEQ_NAMED_SIX(q, quads), EDGEQ_NAMED_SIX(u, upper),
              EDGEQ_NAMED_SIX(b, below), [odd] "w"(rounding.odd)));
        }
      }
      return;
    }
    float32x4_t value[4];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      const auto quads = [&](int kx, int i)
                             EDGEQ_LAMBDA { return window[(column + kx) % 3][kShared ? i : 2 * r + i]; };
      const auto& taps = weights[kShared ? r : 0];
      int32x4_t sum[2];
      __asm__(
          "ldp %q0, %q1, [%2]\n\t"
          "sdot %0.4s, %3.16b, %9.16b\n\t"
          "sdot %1.4s, %4.16b, %10.16b\n\t"
          "sdot %0.4s, %5.16b, %11.16b\n\t"
          "sdot %1.4s, %6.16b, %12.16b\n\t"
          "sdot %0.4s, %7.16b, %13.16b\n\t"
          "sdot %1.4s, %8.16b, %14.16b"
          : "=&w"(sum[0]), "=&w"(sum[1])
          : "r"(bias), "w"(quads(0, 0)), "w"(quads(0, 1)), "w"(quads(1, 0)), "w"(quads(1, 1)),
            "w"(quads(2, 0)), "w"(quads(2, 1)), "w"(taps[0][0]), "w"(taps[0][1]), "w"(taps[1][0]),
            "w"(taps[1][1]), "w"(taps[2][0]), "w"(taps[2][1]),
            "m"(*reinterpret_cast<const int32_t (*)[kWidth]>(bias)));
      if constexpr (kRelu) {
        __asm__(
            "ldp %q0, %q1, [%4, %7]\n\t"
            "fmla %0.4s, %2.4s, %5.4s\n\t"
            "fmla %1.4s, %3.4s, %6.4s"
            : "=&w"(value[2 * r]), "=&w"(value[2 * r + 1])
            : "w"(sum[0]), "w"(sum[1]), "r"(bias), "w"(scale[0]), "w"(scale[1]), "i"(2 * kWidth * 4),
              "m"(*reinterpret_cast<const int32_t (*)[3 * kWidth]>(bias)));
      } else {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) value[2 * r + i] = vmulq_f32(vcvtq_f32_s32(sum[i]), scale[i]);
      }
    }
    if (kRows == 1) value[2] = value[3] = value[0];
    store_codes<kRows>(dst0, dst1, step, requantize.codes(value));
  };

  size_t x = size_t{0} - p.pad_left;  // the next column, huge if negative
  const auto read = [&](int column) EDGEQ_LAMBDA {
    if (x < p.width_in) {
      next(column);
    } else {
#pragma GCC unroll 4
      for (int i = 0; i < kQuads; ++i) window[column][i] = vld1q_s8(padding[i % 2]);
    }
    ++x;
  };
#pragma GCC unroll 2
  for (int i = 0; i < kOld; ++i) read(i);
  size_t left = turns.before;
  for (bool last = false;; last = true) {
    for (; left > 0; --left) {
#pragma GCC unroll 2
      for (int i = 0; i < kStride; ++i) read(kOld + i);
      emit(0);
      if (last && left == 1) break;
#pragma GCC unroll 2
      for (int i = 0; i < kOld; ++i) {
#pragma GCC unroll 4
        for (int k = 0; k < kQuads; ++k) window[i][k] = window[kStride + i][k];
      }
    }
    if (last) break;
    for (size_t turn = turns.turns; turn > 0; --turn) {
      if constexpr (kStride == 1) {
        next(2);
        emit(0);
        next(0);
        emit(1);
        next(1);
        emit(2);
      } else {
        next(1);
        next(2);
        emit(0);
        next(0);
        next(1);
        emit(2);
        next(2);
        next(0);
        emit(1);
      }
    }
    left = turns.after;
    x += 3 * kStride * turns.turns;
  }
  call.finish(y);
  if (kRows == 2) call.finish(y + 1);
}

template <int kStride, int kBits, Codes kCodes>
EDGEQ_NOINLINE void block3(const QuadCall& call, const Block& block, size_t row_begin, size_t row_end) {
  int8x16_t weights[2][3][2];
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; ++kx) {
    if (kBits == 8) {
      weights[0][kx][0] = vld1q_s8(block.weights + 32 * kx);
      weights[0][kx][1] = vld1q_s8(block.weights + 32 * kx + 16);
    } else {
      const int8x16_t both = vld1q_s8(block.weights + 16 * kx);
      weights[0][kx][0] = vshrq_n_s8(vshlq_n_s8(both, 4), 4);
      weights[0][kx][1] = vshrq_n_s8(both, 4);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
      weights[1][kx][i] = vreinterpretq_s8_s32(vshlq_n_s32(vreinterpretq_s32_s8(weights[0][kx][i]), 8));
  }
  const float* scales = reinterpret_cast<const float*>(block.bias + kWidth);
  const float32x4_t scale[2] = {vld1q_f32(scales), vld1q_f32(scales + 4)};
  const Requantize<kCodes == Codes::kRelu> requantize(call.p.range);
  const Rounding rounding(call.p.range);
  const Turns turns = Turns::of<kStride>(call.p);
  alignas(16) int32_t two_rows[4 * kWidth];
  if (kCodes != Codes::kAny) {
    const int32x4x2_t biases = vld1q_s32_x2(block.bias);
    vst1q_s32_x2(two_rows, biases);
    vst1q_s32_x2(two_rows + kWidth, biases);
  }
  if (kCodes == Codes::kRelu) {
    // The addends stand behind biases and scales.
    const int32x4x2_t addends = vld1q_s32_x2(block.bias + 2 * kWidth);
    vst1q_s32_x2(two_rows + 2 * kWidth, addends);
    vst1q_s32_x2(two_rows + 3 * kWidth, addends);
  }
  const int8x8_t zero = vld1_s8(call.p.zero_pixel + block.first);
  const int16x8_t twice = vreinterpretq_s16_s8(vzip1q_s8(vcombine_s8(zero, zero), vcombine_s8(zero, zero)));
  int8_t padding[2][16];
  vst1q_s8(padding[0], vreinterpretq_s8_s16(vzip1q_s16(twice, twice)));
  vst1q_s8(padding[1], vreinterpretq_s8_s16(vzip2q_s16(twice, twice)));
  size_t y = row_begin;
  for (; y + 2 <= row_end; y += 2)
    rows3<kStride, 2, kCodes>(call, block, weights, scale, padding, turns, requantize, rounding, two_rows, y);
  if (y < row_end) {
    rows3<kStride, 1, kCodes>(call, block, weights, scale, padding, turns, requantize, rounding, two_rows, y);
  }
}

template <int kBits>
void depthwise_neondot(const DepthwiseParams& p, size_t row_begin, size_t row_end) {
  const DepthwiseShape shape = shape_of(p, kBits);
  const QuadCall call(p, shape);
  const auto run = [&](auto* any, auto* relu) {
    call.run(any, relu, depthwise_quad_block_bytes(shape), row_begin, row_end);
  };
  if (p.stride_w == 1) {
    run(call.small() ? &block3<1, kBits, Codes::kSmall> : &block3<1, kBits, Codes::kAny>,
        &block3<1, kBits, Codes::kRelu>);
  } else {
    run(call.small() ? &block3<2, kBits, Codes::kSmall> : &block3<2, kBits, Codes::kAny>,
        &block3<2, kBits, Codes::kRelu>);
  }
}

}  // namespace

void depthwise_s8s8c_s8_2x8x4_neondot(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_neondot<8>(p, r0, r1);
}
void depthwise_s8s4c_s8_2x8x4_neondot(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_neondot<4>(p, r0, r1);
}

}  // namespace edgeq
