#include "kernels/depthwise/arm_blocks.h"

// Byte products are added up as int16 and widened as seldom as they allow: two products of 8-bit weights (2 *
// 127 * 128 = 32,512) and 36 of 4-bit ones (36 * 7 * 128 = 32,256) fit.
//
// 3x3 kernels keep a window of the input in registers and read each pixel of a row once. All others copy the
// rows of their window into scratch, a block's channels of each pixel beside those of the next, and padding
// with them: each row once, since the window's rows take turns.

namespace edgeq {
namespace {

/// Products of a block's channels, or sums of some.
struct Products {
  int16x8_t half[kLanes / 8];
};

// With intrinsics GCC 12 copies lower halves and sums to other registers.

EDGEQ_INLINE Products multiply(Bytes a, Bytes b) {
#if defined(__aarch64__)
  Products products;
  __asm__("smull %0.8h, %1.8b, %2.8b" : "=w"(products.half[0]) : "w"(a), "w"(b));
  products.half[1] = vmull_high_s8(a, b);
  return products;
#else
  return Products{{vmull_s8(a, b)}};
#endif
}

EDGEQ_INLINE void multiply_add(Products& sum, Bytes a, Bytes b) {
#if defined(__aarch64__)
  __asm__("smlal %0.8h, %1.8b, %2.8b" : "+w"(sum.half[0]) : "w"(a), "w"(b));
  __asm__("smlal2 %0.8h, %1.16b, %2.16b" : "+w"(sum.half[1]) : "w"(a), "w"(b));
#else
  sum.half[0] = vmlal_s8(sum.half[0], a, b);
#endif
}

/// Products of two taps.
EDGEQ_INLINE Products multiply_pair(Bytes a, Bytes b, Bytes c, Bytes d) {
#if defined(__aarch64__)
  Products products;
  __asm__(
      "smull %0.8h, %2.8b, %3.8b\n\t"
      "smull2 %1.8h, %2.16b, %3.16b\n\t"
      "smlal %0.8h, %4.8b, %5.8b\n\t"
      "smlal2 %1.8h, %4.16b, %5.16b"
      : "=&w"(products.half[0]), "=&w"(products.half[1])
      : "w"(a), "w"(b), "w"(c), "w"(d));
  return products;
#else
  Products products = multiply(a, b);
  multiply_add(products, c, d);
  return products;
#endif
}

/// Products of nine taps of 4-bit weights: 9 * 7 * 128 = 8,064 at most. One statement, because GCC 12 moves
/// sums from register to register between several.
template <typename In>
EDGEQ_INLINE Products multiply_nine(const In& in, const Bytes (&w)[9]) {
#if defined(__aarch64__)
  Products products;
#define EDGEQ_TAP(a, w) "smlal %0.8h, " a ".8b, " w ".8b\n\tsmlal2 %1.8h, " a ".16b, " w ".16b\n\t"
  __asm__(
      "smull %0.8h, %2.8b, %11.8b\n\t"
      "smull2 %1.8h, %2.16b, %11.16b\n\t"  //
      EDGEQ_TAP("%3", "%12") EDGEQ_TAP("%4", "%13") EDGEQ_TAP("%5", "%14") EDGEQ_TAP("%6", "%15")
          EDGEQ_TAP("%7", "%16") EDGEQ_TAP("%8", "%17") EDGEQ_TAP("%9", "%18") EDGEQ_TAP("%10", "%19")
      : "=&w"(products.half[0]), "=&w"(products.half[1])
      : "w"(in(0)), "w"(in(1)), "w"(in(2)), "w"(in(3)), "w"(in(4)), "w"(in(5)), "w"(in(6)), "w"(in(7)),
        "w"(in(8)), "w"(w[0]), "w"(w[1]), "w"(w[2]), "w"(w[3]), "w"(w[4]), "w"(w[5]), "w"(w[6]), "w"(w[7]),
        "w"(w[8]));
#undef EDGEQ_TAP
  return products;
#else
  Products products = multiply(in(0), w[0]);
#pragma GCC unroll 8
  for (int t = 1; t < 9; ++t) multiply_add(products, in(t), w[t]);
  return products;
#endif
}

EDGEQ_INLINE Sums add_products(const Sums& sums, const Products& products) {
  Sums result;
#pragma GCC unroll 2
  for (int i = 0; i < kLanes / 8; ++i) {
    result.part[2 * i] = vaddw_s16(sums.part[2 * i], vget_low_s16(products.half[i]));
#if defined(__aarch64__)
    result.part[2 * i + 1] = vaddw_high_s16(sums.part[2 * i + 1], products.half[i]);
#else
    result.part[2 * i + 1] = vaddw_s16(sums.part[2 * i + 1], vget_high_s16(products.half[i]));
#endif
  }
  return result;
}

#if defined(__aarch64__)
/// Codes of products (kRelu), where biases and scales are in registers: the addends alone are read.
EDGEQ_INLINE Bytes relu_codes(const Products& products, const Sums& biases, const Sums& scales,
                              const int32_t* addends, float32x4_t magic) {
  int16x8_t low = products.half[0];
  int16x8_t high = products.half[1];
  int32x4_t a, b, c;
  Bytes codes;
  __asm__(
      "saddw2 %4.4s, %7.4s, %1.8h\n\t"
      "saddw2 %5.4s, %9.4s, %2.8h\n\t"
      "ldp %q0, %q3, [%15]\n\t"
      "saddw %1.4s, %6.4s, %1.4h\n\t"
      "saddw %2.4s, %8.4s, %2.4h\n\t"
      "fmla %3.4s, %4.4s, %11.4s\n\t"
      "fmla %0.4s, %1.4s, %10.4s\n\t"
      "ldp %q1, %q4, [%15, #32]\n\t"
      "fadd %3.4s, %3.4s, %14.4s\n\t"
      "fadd %0.4s, %0.4s, %14.4s\n\t"
      "fmla %4.4s, %5.4s, %13.4s\n\t"
      "fmla %1.4s, %2.4s, %12.4s\n\t"
      "uzp1 %0.8h, %0.8h, %3.8h\n\t"
      "fadd %4.4s, %4.4s, %14.4s\n\t"
      "fadd %1.4s, %1.4s, %14.4s\n\t"
      "sqxtn %0.8b, %0.8h\n\t"
      "uzp1 %1.8h, %1.8h, %4.8h\n\t"
      "sqxtn2 %0.16b, %1.8h"
      : "=&w"(codes), "+w"(low), "+w"(high), "=&w"(a), "=&w"(b), "=&w"(c)
      : "w"(biases.part[0]), "w"(biases.part[1]), "w"(biases.part[2]), "w"(biases.part[3]),
        "w"(scales.part[0]), "w"(scales.part[1]), "w"(scales.part[2]), "w"(scales.part[3]), "w"(magic),
        "r"(addends), "m"(*reinterpret_cast<const int32_t (*)[kLanes]>(addends)));
  return codes;
}
#endif

/// Products that fit into an int16.
constexpr int most_products(int bits) { return bits == 4 ? 36 : 2; }

EDGEQ_INLINE Bytes low_nibbles(Bytes both) {
#if defined(__aarch64__)
  return vshrq_n_s8(vshlq_n_s8(both, 4), 4);
#else
  return vshr_n_s8(vshl_n_s8(both, 4), 4);
#endif
}

EDGEQ_INLINE Bytes high_nibbles(Bytes both) {
#if defined(__aarch64__)
  return vshrq_n_s8(both, 4);
#else
  return vshr_n_s8(both, 4);
#endif
}

/// The weights of kTaps taps in registers.
template <int kTaps, int kBits>
EDGEQ_INLINE void load_weights(const int8_t* from, Bytes (&weights)[kTaps]) {
#pragma GCC unroll 25
  for (int t = 0; t < kTaps; ++t) {
    if (kBits == 8) {
      weights[t] = load_bytes(from + t * kLanes);
    } else if (t % 2 == 0) {
      const Bytes both = load_bytes(from + t / 2 * kLanes);
      weights[t] = low_nibbles(both);
      if (t + 1 < kTaps) weights[t + 1] = high_nibbles(both);
    }
  }
}

/// Rows of a 3x3 kernel.
template <int kStride, int kBits, bool kRelu>
EDGEQ_NOINLINE void rows3(const Call<kLanes>& call, const Block& block, size_t row_begin, size_t row_end) {
  constexpr int kOld = 3 - kStride;
  const DepthwiseParams& p = call.p;
  Bytes weights[9];
  load_weights<9, kBits>(block.weights, weights);
  const Requantize<kRelu> requantize(p.range);
  const int32_t* const bias = block.bias;
  const ptrdiff_t pixel = p.src_pixel_stride;
  const ptrdiff_t step = call.output_step;
  // With 8-bit weights the loops have no registers left for biases and scales.
  constexpr bool kKeepsConstants = kRelu && kBits == 4;
  [[maybe_unused]] const Sums biases = kKeepsConstants ? load_sums<0>(bias) : Sums{};
  [[maybe_unused]] const Sums scales = kKeepsConstants ? load_sums<kLanes>(bias) : Sums{};
  const Turns turns = Turns::of<kStride>(p);
  for (size_t y = row_begin; y < row_end; ++y) {
    const int8_t* row[3];
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) row[k] = call.input(y * p.stride_h + static_cast<size_t>(k), block.first);
    int8_t* dst = call.output(y, block.first);

    using Columns = Bytes[3][3];  // columns of three pixels, one below the other
    const auto emit = [&](const Columns& window, int first) EDGEQ_LAMBDA {
      const auto in = [&](int t) EDGEQ_LAMBDA { return window[(first + t) % 3][t / 3]; };
#if defined(__aarch64__)
      if constexpr (kKeepsConstants) {
        store_bytes(dst, relu_codes(multiply_nine(in, weights), biases, scales, bias + 2 * kLanes,
                                    requantize.magic()));
        dst += step;
        return;
      }
#endif
      Sums sums = load_sums<0>(bias);
      if constexpr (kBits == 4) {
        sums = add_products(sums, multiply_nine(in, weights));
      } else {
#pragma GCC unroll 4
        for (int t = 0; t < 8; t += 2)
          sums = add_products(sums, multiply_pair(in(t), weights[t], in(t + 1), weights[t + 1]));
        sums = add_products(sums, multiply(in(8), weights[8]));
      }
      store_bytes(dst, requantize(sums, bias));
      dst += step;
    };

    size_t x = size_t{0} - p.pad_left;  // the next output's first column, huge if negative
    const auto read = [&](Bytes(&column)[3], size_t at) EDGEQ_LAMBDA {
      const bool inside = at < p.width_in;
      const ptrdiff_t offset = static_cast<ptrdiff_t>(at) * pixel;
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k)
        column[k] = load_bytes(inside ? row[k] + offset : p.zero_pixel + block.first);
    };
    // Each part has a window of its own: that of the turns would be written to memory for the last part.
    size_t left = turns.before;
    for (bool last = false;; last = true) {
      if (left > 0) {
        Columns window;
#pragma GCC unroll 2
        for (size_t i = 0; i < kOld; ++i) read(window[i], x + i);
        do {
#pragma GCC unroll 2
          for (size_t i = kOld; i < 3; ++i) read(window[i], x + i);
          emit(window, 0);
#pragma GCC unroll 2
          for (int i = 0; i < kOld; ++i) {
#pragma GCC unroll 3
            for (int k = 0; k < 3; ++k) window[i][k] = window[kStride + i][k];
          }
          x += kStride;
        } while (--left > 0);
      }
      if (last) break;
      if (turns.turns > 0) {
        Columns window;
#pragma GCC unroll 2
        for (size_t i = 0; i < kOld; ++i) read(window[i], x + i);
        ptrdiff_t offset = static_cast<ptrdiff_t>(x + kOld) * pixel;
        const auto next = [&](int column) EDGEQ_LAMBDA {
#pragma GCC unroll 3
          for (int k = 0; k < 3; ++k) window[column][k] = load_bytes(row[k] + offset);
          offset += pixel;
        };
        size_t turn = turns.turns;
        do {
          if constexpr (kStride == 1) {
            next(2);
            emit(window, 0);
            next(0);
            emit(window, 1);
            next(1);
            emit(window, 2);
          } else {
            next(1);
            next(2);
            emit(window, 0);
            next(0);
            next(1);
            emit(window, 2);
            next(2);
            next(0);
            emit(window, 1);
          }
        } while (--turn > 0);
        x += 3 * kStride * turns.turns;
      }
      left = turns.after;
    }
    call.finish(y);
  }
}

/// Copies a block's channels of padded input row `row`, padding included.
EDGEQ_NOINLINE void copy_row(const Call<kLanes>& call, const Block& block, size_t row, int8_t* to) {
  const DepthwiseParams& p = call.p;
  const Bytes zero = load_bytes(p.zero_pixel + block.first);
  const size_t padded = call.padded_width();
  const int8_t* from = p.rows[row];
  size_t x = 0;
  const auto pad = [&](size_t end) EDGEQ_LAMBDA {
    for (; x < end; ++x, to += kLanes) store_bytes(to, zero);
  };
  if (from != nullptr) {
    const size_t begin = p.pad_left < padded ? p.pad_left : padded;
    const size_t end = begin + p.width_in < padded ? begin + p.width_in : padded;
    pad(begin);
    from += block.first;
    for (; x < end; ++x, to += kLanes, from += p.src_pixel_stride) store_bytes(to, load_bytes(from));
  }
  pad(padded);
}

/// A window of copied rows at an output's first column.
struct Window {
  const int8_t* columns;
  size_t row_bytes;
  size_t span;  // rows that take turns
  size_t slot;  // of the window's first
};

/// Reads two vectors that lie beside each other.
EDGEQ_INLINE void load_two(const int8_t* from, Bytes& first, Bytes& second) {
#if defined(__aarch64__)
  __asm__("ldp %q0, %q1, [%2]"
          : "=w"(first), "=w"(second)
          : "r"(from), "m"(*reinterpret_cast<const int8_t (*)[2 * kLanes]>(from)));
#else
  first = load_bytes(from);
  second = load_bytes(from + kLanes);
#endif
}

/// Sums of kOutputs outputs of a 5x5 kernel, the first one's first column at `row` of each row.
template <int kStride, int kBits, int kOutputs>
EDGEQ_INLINE void sum_five(const int8_t* const (&row)[5], const int8_t* weights, const int32_t* bias,
                           Sums (&sums)[kOutputs]) {
  Products products[kOutputs];
  const auto at = [&](int tap, int o)
                      EDGEQ_LAMBDA { return row[tap / 5] + (tap % 5 + o * kStride) * kLanes; };
  if (kBits == 8) {
#pragma GCC unroll 4
    for (int o = 0; o < kOutputs; ++o) sums[o] = load_sums<0>(bias);
  }
#pragma GCC unroll 12
  for (int t = 0; t < 24; t += 2) {
    Bytes weight[2];
    load_two(weights + t * kLanes, weight[0], weight[1]);
#pragma GCC unroll 4
    for (int o = 0; o < kOutputs; ++o) {
      Bytes in[2];
      if (t % 5 != 4) {
        load_two(at(t, o), in[0], in[1]);
      } else {
        in[0] = load_bytes(at(t, o));
        in[1] = load_bytes(at(t + 1, o));
      }
      if (kBits == 8 || t == 0) {
        products[o] = multiply_pair(in[0], weight[0], in[1], weight[1]);
      } else {
        multiply_add(products[o], in[0], weight[0]);
        multiply_add(products[o], in[1], weight[1]);
      }
      if (kBits == 8) sums[o] = add_products(sums[o], products[o]);
    }
  }
  const Bytes weight = load_bytes(weights + 24 * kLanes);
#pragma GCC unroll 4
  for (int o = 0; o < kOutputs; ++o) {
    const Bytes in = load_bytes(at(24, o));
    if (kBits == 8) {
      sums[o] = add_products(sums[o], multiply(in, weight));
    } else {
      // All 25 products fit.
      multiply_add(products[o], in, weight);
      sums[o] = add_products(load_sums<0>(bias), products[o]);
    }
  }
}

/// Sums of kOutputs adjacent outputs of any kernel.
template <int kBits, int kOutputs>
EDGEQ_INLINE void sum_taps(const DepthwiseParams& p, const Window& window, const int8_t* weights,
                           const int32_t* bias, Sums (&sums)[kOutputs]) {
#pragma GCC unroll 4
  for (int o = 0; o < kOutputs; ++o) sums[o] = load_sums<0>(bias);
  const ptrdiff_t step = static_cast<ptrdiff_t>(p.dilation_w) * kLanes;
  const ptrdiff_t stride = static_cast<ptrdiff_t>(p.stride_w) * kLanes;
  Products products[kOutputs] = {};
  int held = 0;
  size_t slot = window.slot;
  for (size_t ky = 0; ky < p.kernel_h; ++ky) {
    const int8_t* in = window.columns + slot * window.row_bytes;
    slot += p.dilation_h;
    if (slot >= window.span) slot -= window.span;
    for (size_t kx = 0; kx < p.kernel_w; ++kx, in += step, weights += kLanes) {
      const Bytes weight = load_bytes(weights);
#pragma GCC unroll 4
      for (int o = 0; o < kOutputs; ++o) multiply_add(products[o], load_bytes(in + o * stride), weight);
      if (++held == most_products(kBits)) {
#pragma GCC unroll 4
        for (int o = 0; o < kOutputs; ++o) {
          sums[o] = add_products(sums[o], products[o]);
          products[o] = Products{};
        }
        held = 0;
      }
    }
  }
#pragma GCC unroll 4
  for (int o = 0; o < kOutputs; ++o) sums[o] = add_products(sums[o], products[o]);
}

/// Rows of a 5x5 kernel (kStride 1 or 2) or of any (kStride 0).
template <int kStride, int kBits, bool kRelu>
EDGEQ_NOINLINE void rows_copied(const Call<kLanes>& call, const Block& block, size_t row_begin,
                                size_t row_end) {
  constexpr int kOutputs = kBits == 4 && kLanes == 16 ? 4 : 2;
  const DepthwiseParams& p = call.p;
  const int32_t* const bias = block.bias;
  const int8_t* weights = block.weights;
  if (kBits == 4) {
    int8_t* to = call.weights();
    weights = to;
    const int8_t* from = block.weights;
    for (size_t t = 0; t < p.kernel_h * p.kernel_w; t += 2, from += kLanes, to += 2 * kLanes) {
      const Bytes both = load_bytes(from);
      store_bytes(to, low_nibbles(both));
      store_bytes(to + kLanes, high_nibbles(both));
    }
  }
  const Requantize<kRelu> requantize(p.range);
  const ptrdiff_t stride = static_cast<ptrdiff_t>(p.stride_w) * kLanes;
  const ptrdiff_t step = call.output_step;
  Window window;
  window.span = (p.kernel_h - 1) * p.dilation_h + 1;
  window.row_bytes = call.padded_width() * kLanes;
  int8_t* const columns = call.columns();
  size_t copied = 0;
  for (size_t y = row_begin; y < row_end; ++y) {
    const size_t top = y * p.stride_h;
    for (size_t row = copied < top ? top : copied; row < top + window.span; ++row)
      copy_row(call, block, row, columns + row % window.span * window.row_bytes);
    copied = top + window.span;
    window.slot = top % window.span;
    window.columns = columns;
    const int8_t* row[5] = {};
    if (kStride != 0) {
#pragma GCC unroll 5
      for (size_t k = 0; k < 5; ++k) row[k] = columns + (window.slot + k) % 5 * window.row_bytes;
    }
    int8_t* dst = call.output(y, block.first);
    const auto emit = [&](auto& sums) EDGEQ_LAMBDA {
      constexpr int kCount = static_cast<int>(sizeof sums / sizeof sums[0]);
      if constexpr (kStride != 0) {
        sum_five<kStride, kBits>(row, weights, bias, sums);
#pragma GCC unroll 5
        for (const int8_t*& each : row) each += kCount * kStride * kLanes;
      } else {
        sum_taps<kBits>(p, window, weights, bias, sums);
        window.columns += kCount * stride;
      }
#pragma GCC unroll 4
      for (int o = 0; o < kCount; ++o, dst += step) store_bytes(dst, requantize(sums[o], bias));
    };
    size_t left = p.width_out;
    for (; left >= kOutputs; left -= kOutputs) {
      Sums sums[kOutputs];
      emit(sums);
    }
    for (; left > 0; --left) {
      Sums sums[1];
      emit(sums);
    }
    call.finish(y);
  }
}

template <int kBits>
void depthwise_neon(const DepthwiseParams& p, size_t row_begin, size_t row_end) {
  const DepthwiseShape shape = shape_of(p, kBits);
  const Call<kLanes> call(p, shape);
  const auto run = [&](auto* any, auto* relu) {
    call.run(any, relu, depthwise_block_bytes(shape), row_begin, row_end);
  };
  const bool square = p.kernel_h == p.kernel_w && p.dilation_h == 1 && p.dilation_w == 1;
  if (square && p.kernel_w == 3 && p.stride_w == 1) {
    run(&rows3<1, kBits, false>, &rows3<1, kBits, kHasRelu>);
  } else if (square && p.kernel_w == 3 && p.stride_w == 2) {
    run(&rows3<2, kBits, false>, &rows3<2, kBits, kHasRelu>);
  } else if (square && p.kernel_w == 5 && p.stride_w == 1) {
    run(&rows_copied<1, kBits, false>, &rows_copied<1, kBits, kHasRelu>);
  } else if (square && p.kernel_w == 5 && p.stride_w == 2) {
    run(&rows_copied<2, kBits, false>, &rows_copied<2, kBits, kHasRelu>);
  } else {
    run(&rows_copied<0, kBits, false>, &rows_copied<0, kBits, false>);
  }
}

}  // namespace

#if defined(__aarch64__)
void depthwise_s8s8c_s8_1x16x1_neon(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_neon<8>(p, r0, r1);
}
void depthwise_s8s4c_s8_1x16x1_neon(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_neon<4>(p, r0, r1);
}
#else
void depthwise_s8s8c_s8_1x8x1_neon(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_neon<8>(p, r0, r1);
}
void depthwise_s8s4c_s8_1x8x1_neon(const DepthwiseParams& p, size_t r0, size_t r1) {
  depthwise_neon<4>(p, r0, r1);
}
#endif

}  // namespace edgeq
