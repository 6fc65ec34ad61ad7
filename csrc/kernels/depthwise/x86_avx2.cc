#include "kernels/depthwise/x86_quads.h"

// Without VNNI: W8 multiplies pairs of rows as 16-bit words (vpmaddwd), because vpmaddubsw would saturate
// (2 * 255 * 127 = 64,770 > 32,767). W4 multiplies the bytes themselves: see ByteEngine.

namespace edgeq {
namespace {

/// Pairs of rows as words: the even vectors of a column hold rows 0 and 1, the odd ones rows 2 and 3.
template <typename V>
struct WordEngine {
  using Vec = V;
  using Int = typename V::Int;
  struct Column {
    Int pair[2][4];
  };
  struct Sums {
    Int acc[4];
  };
  static constexpr size_t kQuadBytes = 8 * V::kBytes;
  static constexpr bool kPrepared = true;

  /// Each quad (four bytes a channel) becomes two pairs of words a channel: all first pairs, then all second
  /// ones.
  static void prepare(const uint8_t* from, size_t quads, uint8_t* to) {
    for (size_t quad = 0; quad < quads; ++quad) {
      int16_t* words = reinterpret_cast<int16_t*>(to + quad * kQuadBytes);
      for (size_t channel = 0; channel < V::kBytes; ++channel, from += 4) {
        for (size_t half = 0; half < 2; ++half) {
          words[half * 2 * V::kBytes + 2 * channel] = static_cast<int8_t>(from[2 * half]);
          words[half * 2 * V::kBytes + 2 * channel + 1] = static_cast<int8_t>(from[2 * half + 1]);
        }
      }
    }
  }
  static EDGEQ_INLINE void widen_pair(Int a, Int b, Int (&pair)[4]) {
    const Int low = V::low_bytes(a, b);
    const Int high = V::high_bytes(a, b);
    pair[0] = V::low_bytes(low, V::zero());
    pair[1] = V::high_bytes(low, V::zero());
    pair[2] = V::low_bytes(high, V::zero());
    pair[3] = V::high_bytes(high, V::zero());
  }
  static EDGEQ_INLINE void interleave(const uint8_t* r0, const uint8_t* r1, const uint8_t* r2,
                                      const uint8_t* r3, Column& column) {
    widen_pair(V::load(r0), V::load(r1), column.pair[0]);
    widen_pair(V::load(r2), V::load(r3), column.pair[1]);
  }
  static EDGEQ_INLINE void start(Sums& sums, const uint8_t* bias) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums.acc[v] = V::load(bias + v * V::kBytes);
  }
  static EDGEQ_INLINE void accumulate(Sums& sums, const Column& column, const uint8_t* weights) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const Int products =
            V::madd_words(column.pair[half][v], V::load(weights + (4 * half + v) * V::kBytes));
        sums.acc[v] = V::add(sums.acc[v], products);
      }
    }
  }
  static EDGEQ_INLINE void totals(const Sums& sums, const uint8_t*, Int (&acc)[4]) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[v] = sums.acc[v];
  }
};

/// Pairs of rows as bytes, for 4-bit weights.
///
/// Each pair sum is at most 2 * 255 * 8 = 4,080, so the int16 lanes hold 8 of them, those of 4 quads, before
/// they must be widened (8 * 4,080 = 32,640 < 32,767). A 3x3 kernel needs 3 quads: one widening at its end.
template <typename V>
struct ByteEngine {
  using Vec = V;
  using Int = typename V::Int;
  struct Column {
    Int pair[2][2];
  };
  struct Sums {
    Int words[2];
    Int acc[4];
    int quads;
  };
  static constexpr size_t kQuadBytes = 4 * V::kBytes;
  static constexpr bool kPrepared = true;

  /// Each quad becomes two pairs of bytes a channel, the channels in the order of the byte interleaving: lane
  /// by lane the lower 8 channels in one vector, the upper 8 in the next. In the quads' order those are
  /// vectors 0, 1 and 2, 3.
  static void prepare(const uint8_t* from, size_t quads, uint8_t* to) {
    constexpr size_t kDwords = V::kBytes / 4;
    for (size_t quad = 0; quad < quads; ++quad, from += kQuadBytes, to += kQuadBytes) {
      for (size_t v = 0; v < 4; ++v) {
        for (size_t d = 0; d < kDwords; ++d) {
          const uint8_t* taps = from + (v * kDwords + d) * 4;
          const size_t channel = d / 4 * 8 + v % 2 * 4 + d % 4;
          for (size_t half = 0; half < 2; ++half) {
            std::memcpy(to + (2 * half + v / 2) * V::kBytes + 2 * channel, taps + 2 * half, 2);
          }
        }
      }
    }
  }
  static EDGEQ_INLINE void interleave(const uint8_t* r0, const uint8_t* r1, const uint8_t* r2,
                                      const uint8_t* r3, Column& column) {
    const Int a = V::load(r0);
    const Int b = V::load(r1);
    const Int c = V::load(r2);
    const Int d = V::load(r3);
    column.pair[0][0] = V::low_bytes(a, b);
    column.pair[0][1] = V::high_bytes(a, b);
    column.pair[1][0] = V::low_bytes(c, d);
    column.pair[1][1] = V::high_bytes(c, d);
  }
  static EDGEQ_INLINE void start(Sums& sums, const uint8_t* bias) {
    sums.quads = 0;
    sums.words[0] = sums.words[1] = V::zero();
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums.acc[v] = V::load(bias + v * V::kBytes);
  }
  /// Adds the words of lanes' lower and upper halves, sign-extended, to the dwords.
  static EDGEQ_INLINE void widen(const Int (&words)[2], Int (&acc)[4]) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const Int low = V::template shift_right_signed<16>(V::low_words(words[i], words[i]));
      const Int high = V::template shift_right_signed<16>(V::high_words(words[i], words[i]));
      acc[2 * i] = V::add(acc[2 * i], low);
      acc[2 * i + 1] = V::add(acc[2 * i + 1], high);
    }
  }
  static EDGEQ_INLINE void accumulate(Sums& sums, const Column& column, const uint8_t* weights) {
    if (sums.quads == 4) {
      widen(sums.words, sums.acc);
      sums.words[0] = sums.words[1] = V::zero();
      sums.quads = 0;
    }
    ++sums.quads;
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const Int products =
            V::madd_bytes(column.pair[half][i], V::load(weights + (2 * half + i) * V::kBytes));
        sums.words[i] = V::add_words(sums.words[i], products);
      }
    }
  }
  static EDGEQ_INLINE void totals(const Sums& sums, const uint8_t*, Int (&acc)[4]) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[v] = sums.acc[v];
    widen(sums.words, acc);
  }
};

template <template <typename> class Engine, int kBits>
void run_depthwise(const DepthwiseParams& p, size_t row_begin, size_t row_end) {
  const uint8_t* packed = p.packed;
  for (size_t first = 0; first < p.channels && row_begin < row_end;) {
    const size_t width = depthwise_block_width(p.channels - first, 32);
    if (width == 32) {
      run_block<Engine<Vector256>, kBits>(p, row_begin, row_end, first, packed);
    } else {
      run_block<Engine<Vector128>, kBits>(p, row_begin, row_end, first, packed);
    }
    packed += block_bytes(p, width, kBits);
    first += width;
  }
}

}  // namespace

void depthwise_u8s8c_u8_2x32x2_avx2(const DepthwiseParams& p, size_t r0, size_t r1) {
  run_depthwise<WordEngine, 8>(p, r0, r1);
}
void depthwise_u8s4c_u8_2x32x2_avx2(const DepthwiseParams& p, size_t r0, size_t r1) {
  run_depthwise<ByteEngine, 4>(p, r0, r1);
}

}  // namespace edgeq
