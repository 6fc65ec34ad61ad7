#ifndef EDGEQ_KERNELS_DEPTHWISE_X86_QUADS_H_
#define EDGEQ_KERNELS_DEPTHWISE_X86_QUADS_H_

// Depthwise convolution on columns of four interleaved rows, for every vector width and instruction set. Only
// x86_*.cc include it, each with its own engine E: how a column is interleaved and multiplied.
//
// One column of the input, four rows of it, interleaved byte by byte and then word by word, has for each
// channel the four rows' bytes in one dword; one VNNI instruction then does four taps of a vector of
// channels. The dwords come in the order that the interleaving leaves (pack.h), and packing the four result
// vectors undoes it. Without VNNI the engine stops at pairs of rows.
//
// Two output rows of stride 1 share their columns: the second one's taps lie one row lower, which is the same
// weights shifted by a byte (pack.h, set 1). A kernel of 3 rows fills three of the four bytes, so that the
// second row costs no interleaving at all.
//
// A block of few channels fills the vector with pieces of several stretches of the output row, which are
// computed as if they were more channels.
//
// An engine has: Vec, the vector type. A Half is one half of the channels (those of one half of every 128-bit
// lane) of a column, two vectors: pair() of two rows, join() of two pairs. A half has 2 / kDwords
// parts: start() begins the Sums of a part from the biases, multiply() adds the products of the part's
// kSteps vectors of a half (number index()), and totals() yields its kDwords dword vectors. Before the
// products of each quad, before() may make room.

#include <cstring>
#include <type_traits>

#include "kernels/depthwise/depthwise.h"
#include "kernels/depthwise/pack.h"
#include "kernels/lut/lut.h"
#include "kernels/x86_vectors.h"

// Inlined before loops are unrolled, so that arrays of vectors become registers.
#define EDGEQ_LAMBDA __attribute__((always_inline))

namespace edgeq {
namespace {

constexpr size_t kMaxRows = 16;
constexpr int kMaxPieces = 4;
constexpr int kHalfVectors = 2;  // of one half of the channels of a column
constexpr int kTileOutputs = 2;  // that a 3x3 and a 5x5 kernel compute together

/// Bytes of one quad's weights, or of one column.
template <typename V>
constexpr size_t kQuadBytes = 2 * kHalfVectors * V::kBytes;

/// What the tiles of one block of channels need.
struct Frame {
  const uint8_t* bias;                 // packed
  const uint8_t* scale;                // packed
  const uint8_t* weights[2];           // of the first and the second output row
  size_t count;                        // channels that exist
  ptrdiff_t output_step;               // bytes from output to output
  ptrdiff_t row_step;                  // and from output row to output row
  ptrdiff_t piece_offset[kMaxPieces];  // and from the first stretch to each
  int pieces;
  bool whole;  // whole vectors are stored
  bool large;  // results may overflow before the clamp
  bool plain;  // codes 0 .. 255 with real zero at 0: packing with saturation does it all
  OutputRange range;
  uint8_t* words;  // of one half of a row's channels, where the kernel has two passes
  // Kernels of any shape.
  size_t kernel_w;
  size_t groups;
  ptrdiff_t stride_step;  // bytes of columns from output to output
  ptrdiff_t tap_step;     // from tap to tap
  ptrdiff_t group_step;   // from group to group
};

/// Where the columns of one block of channels come from.
struct Source {
  const uint8_t* row[kMaxRows];  // the first column of each row of the window, at the block's first channel
  ptrdiff_t pixel;               // bytes from column to column
  ptrdiff_t offset[kMaxPieces];  // bytes from the first stretch to each
  ptrdiff_t start[kMaxPieces];   // columns from the first stretch to each
  ptrdiff_t inside;              // columns [0, inside) lie in the image, of all stretches
  ptrdiff_t width;               // columns of the image
  const uint8_t* zero;           // a pixel of padding
};

/// Keeps `a` in a register where the compiler would rather read memory for each use: a 512-bit load takes as
/// long as a multiplication.
template <typename T>
EDGEQ_INLINE void keep(T& a) {
  __asm__("" : "+v"(a));
}

#if !defined(__AVX512VL__) || !defined(__AVX512BW__)

/// The first `count` bytes of a vector, at most 32. Out of line, because most channels come in multiples
/// of 16.
__attribute__((noinline)) void store_bytes(uint8_t* to, __m256i a, size_t count) {
  __m128i part = _mm256_castsi256_si128(a);
  if (count >= 16) {
    Vector128::store_all(to, part);
    part = _mm256_extracti128_si256(a, 1);
    to += 16;
    if (count == 32) {
      Vector128::store_all(to, part);
      return;
    }
  }
  if (count & 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), part);
    part = _mm_unpackhi_epi64(part, part);
    to += 8;
  }
  if (count & 4) {
    const int32_t dword = _mm_cvtsi128_si32(part);
    std::memcpy(to, &dword, 4);
    part = _mm_srli_si128(part, 4);
    to += 4;
  }
  const int32_t rest = _mm_cvtsi128_si32(part);
  if (count & 2) {
    const int16_t word = static_cast<int16_t>(rest);
    std::memcpy(to, &word, 2);
    to += 2;
  }
  if (count & 1) *to = static_cast<uint8_t>(count & 2 ? rest >> 16 : rest);
}

#endif

/// A vector of the pieces at from[0], from[1], ...
template <int kPieces>
EDGEQ_INLINE __m256i load_pieces(Vector256, const uint8_t* const* from) {
  if constexpr (kPieces == 1) return Vector256::load(from[0]);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(Vector128::load(from[0])), Vector128::load(from[1]),
                                 1);
}

/// Stores the channels that exist of each piece to its own stretch.
template <int kPieces>
EDGEQ_INLINE void store_pieces(Vector256, uint8_t* to, __m256i a, const Frame& f) {
#if defined(__AVX512VL__) && defined(__AVX512BW__)
  const __mmask32 mask = _bzhi_u32(~0u, static_cast<unsigned>(f.count));
  if constexpr (kPieces == 1) {
    _mm256_mask_storeu_epi8(to, mask, a);
  } else {
    _mm_mask_storeu_epi8(to, static_cast<__mmask16>(mask), _mm256_castsi256_si128(a));
    _mm_mask_storeu_epi8(to + f.piece_offset[1], static_cast<__mmask16>(mask),
                         _mm256_extracti128_si256(a, 1));
  }
#else
  if constexpr (kPieces == 1) {
    if (f.count == 32) {
      Vector256::store_all(to, a);
    } else {
      store_bytes(to, a, f.count);
    }
  } else if (f.count == 16) {
    Vector128::store_all(to, _mm256_castsi256_si128(a));
    Vector128::store_all(to + f.piece_offset[1], _mm256_extracti128_si256(a, 1));
  } else {
    store_bytes(to, a, f.count);
    store_bytes(to + f.piece_offset[1], _mm256_permute4x64_epi64(a, 0xEE), f.count);
  }
#endif
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)

template <int kPieces>
EDGEQ_INLINE __m512i load_pieces(Vector512, const uint8_t* const* from) {
  if constexpr (kPieces == 1) {
    return Vector512::load(from[0]);
  } else if constexpr (kPieces == 2) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(Vector256::load(from[0])), Vector256::load(from[1]), 1);
  } else {
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(Vector128::load(from[0])),
                                                Vector128::load(from[1]), 1);
    const __m512i three = _mm512_inserti32x4(_mm512_castsi256_si512(low), Vector128::load(from[2]), 2);
    return _mm512_inserti32x4(three, Vector128::load(from[3]), 3);
  }
}

template <int kPieces>
EDGEQ_INLINE void store_pieces(Vector512, uint8_t* to, __m512i a, const Frame& f) {
  if constexpr (kPieces == 1) {
    _mm512_mask_storeu_epi8(to, _bzhi_u64(~uint64_t{0}, static_cast<unsigned>(f.count)), a);
  } else if constexpr (kPieces == 2) {
    const __mmask32 mask = _bzhi_u32(~0u, static_cast<unsigned>(f.count));
    _mm256_mask_storeu_epi8(to, mask, _mm512_castsi512_si256(a));
    _mm256_mask_storeu_epi8(to + f.piece_offset[1], mask, _mm512_extracti64x4_epi64(a, 1));
  } else {
    const __mmask16 mask = static_cast<__mmask16>(_bzhi_u32(~0u, static_cast<unsigned>(f.count)));
    _mm_mask_storeu_epi8(to, mask, _mm512_castsi512_si128(a));
    _mm_mask_storeu_epi8(to + f.piece_offset[1], mask, _mm512_extracti32x4_epi32(a, 1));
    _mm_mask_storeu_epi8(to + f.piece_offset[2], mask, _mm512_extracti32x4_epi32(a, 2));
    _mm_mask_storeu_epi8(to + f.piece_offset[3], mask, _mm512_extracti32x4_epi32(a, 3));
  }
}

#endif  // AVX-512

/// Column x of row `row`; padding where it lies outside the image (which kInside excludes).
template <typename V, int kPieces>
__attribute__((noinline)) typename V::Int load_column_outside(const Source& source, int row, ptrdiff_t x) {
  const uint8_t* at = source.row[row] + x * source.pixel;
  const uint8_t* from[kPieces];
#pragma GCC unroll 4
  for (int j = 0; j < kPieces; ++j) {
    const size_t column = static_cast<size_t>(x + source.start[j]);  // huge if negative
    from[j] = column < static_cast<size_t>(source.width) ? at + source.offset[j] : source.zero;
  }
  return load_pieces<kPieces>(V{}, from);
}

template <typename V, int kPieces, bool kInside>
EDGEQ_INLINE typename V::Int load_column(const Source& source, int row, ptrdiff_t x) {
  if constexpr (!kInside) return load_column_outside<V, kPieces>(source, row, x);
  const uint8_t* at = source.row[row] + x * source.pixel;
  const uint8_t* from[kPieces];
  from[0] = at;
#pragma GCC unroll 4
  for (int j = 1; j < kPieces; ++j) from[j] = at + source.offset[j];
  auto column = load_pieces<kPieces>(V{}, from);
  keep(column);
  return column;
}

/// Reads and interleaves columns x to x + kColumns of four rows from row `first` (of three: the fourth has no
/// weights).
template <typename E, int kPieces, int kColumns, int kUsed>
EDGEQ_INLINE void fetch(const Source& source, int first, ptrdiff_t x, typename E::Column* columns) {
  using V = typename E::Vec;
  const auto all = [&](auto inside) EDGEQ_LAMBDA {
#pragma GCC unroll 8
    for (int i = 0; i < kColumns; ++i) {
      typename V::Int row[4];
#pragma GCC unroll 4
      for (int k = 0; k < kUsed; ++k)
        row[k] = load_column<V, kPieces, decltype(inside)::value>(source, first + k, x + i);
      if (kUsed == 3) row[3] = row[2];
      columns[i].half[0] = E::join(E::template pair<0>(row[0], row[1]), E::template pair<0>(row[2], row[3]));
      columns[i].half[1] = E::join(E::template pair<1>(row[0], row[1]), E::template pair<1>(row[2], row[3]));
    }
  };
  if (__builtin_expect(x >= 0 && x + kColumns <= source.inside, 1)) {
    all(std::true_type{});
  } else {
    all(std::false_type{});
  }
}

/// One half of the channels of kOutputs adjacent outputs of kRows rows: their sums, requantized but for the
/// zero point, as words. for_quads(quad) calls quad(vector_of, number) for each quad of an output, where
/// vector_of(output, index) is a vector of the half of that output's column.
template <typename E, int kOutputs, int kRows, typename ForQuads>
EDGEQ_INLINE void sum_half(const Frame& f, int half, const ForQuads& for_quads,
                           typename E::Vec::Int (&words)[kOutputs * kRows]) {
  using V = typename E::Vec;
  using Int = typename V::Int;
  using Float = typename V::Float;
  constexpr int kCount = kOutputs * kRows;
  // Sums are chains of multiplications: of one and two outputs, those of both dword vectors run beside each
  // other.
  constexpr int kParts = kCount <= 2 ? 2 / E::kDwords : 1;
  Int q[2][kCount];
#pragma GCC unroll 2
  for (int first = 0; first < 2 / E::kDwords; first += kParts) {
    typename E::Sums sums[kParts][kCount];
#pragma GCC unroll 2
    for (int p = 0; p < kParts; ++p) {
      sums[p][0] = E::start(f.bias + 2 * half * V::kBytes, first + p);
#pragma GCC unroll 8
      for (int i = 1; i < kCount; ++i) sums[p][i] = sums[p][0];
    }
    for_quads([&](const auto& vector_of, int quad) EDGEQ_LAMBDA {
#pragma GCC unroll 2
      for (int p = 0; p < kParts; ++p) {
#pragma GCC unroll 8
        for (int i = 0; i < kCount; ++i) E::before(sums[p][i], quad);
#pragma GCC unroll 2
        for (int step = 0; step < E::kSteps; ++step) {
          const int index = E::index(first + p, step);
          const int at = quad * static_cast<int>(kQuadBytes<V>) + (half * kHalfVectors + index) * V::kBytes;
#pragma GCC unroll 2
          for (int r = 0; r < kRows; ++r) {
            Int weights = V::load(f.weights[r] + at);
            if (kOutputs > 1) keep(weights);
#pragma GCC unroll 8
            for (int o = 0; o < kOutputs; ++o)
              E::multiply(sums[p][r * kOutputs + o], vector_of(o, index), weights);
          }
        }
      }
    });
#pragma GCC unroll 2
    for (int p = 0; p < kParts; ++p) {
      Int acc[E::kDwords][kCount];
      E::totals(sums[p], f.bias + 2 * half * V::kBytes, acc);
#pragma GCC unroll 2
      for (int d = 0; d < E::kDwords; ++d) {
        Float scale = V::load_float(f.scale + (2 * half + first + p + d) * V::kBytes);
        if (kCount > 1) keep(scale);
        Float value[kCount];
#pragma GCC unroll 8
        for (int i = 0; i < kCount; ++i) value[i] = V::mul(V::to_float(acc[d][i]), scale);
        if (__builtin_expect(f.large, 0)) {
          const Float hi = upper_bound<V>(f.range);
#pragma GCC unroll 8
          for (int i = 0; i < kCount; ++i) value[i] = V::min(value[i], hi);
        }
#pragma GCC unroll 8
        for (int i = 0; i < kCount; ++i) q[first + p + d][i] = V::round(value[i]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) words[i] = V::pack_dwords(q[0][i], q[1][i]);
}

/// Packs both halves' words to codes and stores them; with no pieces always as whole vectors.
template <typename E, int kPieces, int kOutputs, int kRows>
EDGEQ_INLINE void store_codes(const Frame& f, const typename E::Vec::Int* low,
                              const typename E::Vec::Int* high, uint8_t* dst) {
  using V = typename E::Vec;
  using Int = typename V::Int;
  constexpr int kCount = kRows * kOutputs;
  Int codes[kCount];
  if (f.plain) {
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) codes[i] = V::pack_words(low[i], high[i]);
  } else {
    const Int zp = V::set1_word(f.range.zp);
    const Int least = V::set1_byte(f.range.min);
    const Int most = V::set1_byte(f.range.max);
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      const Int bytes =
          V::pack_words(V::add_saturated_words(low[i], zp), V::add_saturated_words(high[i], zp));
      codes[i] = V::min_bytes(V::max_bytes(bytes, least), most);
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
      uint8_t* to = dst + r * f.row_step + o * f.output_step;
      if (kPieces == 0 || f.whole) {
        V::store_all(to, codes[r * kOutputs + o]);
      } else if constexpr (kPieces > 0) {
        store_pieces<kPieces>(V{}, to, codes[r * kOutputs + o], f);
      }
    }
  }
}

/// The columns of a 3x3 kernel that kOutputs adjacent outputs need, by halves of the channels.
template <typename E, int kStride, int kOutputs>
struct Columns3 {
  static constexpr int kOld = 3 - kStride;  // shared with the outputs before
  static constexpr int kNew = kOutputs * kStride;
  typename E::Half half[2][kOld + kNew];
};

/// Columns x to x + kColumns of kUsed rows.
template <typename V, int kPieces, int kColumns, int kUsed>
EDGEQ_INLINE void load_columns(const Source& source, ptrdiff_t x, typename V::Int (&rows)[kColumns][4]) {
  const auto all = [&](auto inside) EDGEQ_LAMBDA {
#pragma GCC unroll 8
    for (int i = 0; i < kColumns; ++i) {
#pragma GCC unroll 4
      for (int k = 0; k < kUsed; ++k) {
        rows[i][k] = load_column<V, kPieces, decltype(inside)::value>(source, k, x + i);
      }
    }
  };
  if (__builtin_expect(x >= 0 && x + kColumns <= source.inside, 1)) {
    all(std::true_type{});
  } else {
    all(std::false_type{});
  }
#pragma GCC unroll 8
  for (int i = 0; i < kColumns; ++i) {
    if (kUsed == 3) rows[i][3] = rows[i][2];  // has no weights
  }
}

template <typename E, int kHalf>
EDGEQ_INLINE typename E::Half interleave(const typename E::Vec::Int (&row)[4]) {
  return E::join(E::template pair<kHalf>(row[0], row[1]), E::template pair<kHalf>(row[2], row[3]));
}

/// kOutputs outputs of kRows rows of a 3x3 kernel, the new columns of the first being x.
template <typename E, int kPieces, int kStride, int kOutputs, int kRows, int kOf>
EDGEQ_INLINE void emit3(const Frame& f, const Source& source, ptrdiff_t x, Columns3<E, kStride, kOf>& columns,
                        uint8_t* dst) {
  using V = typename E::Vec;
  constexpr int kOld = 3 - kStride;
  constexpr int kNew = kOutputs * kStride;
  typename V::Int rows[kNew][4];
  load_columns<V, kPieces, kNew, kRows + 2>(source, x, rows);
  typename V::Int words[2][kOutputs * kRows];
  const auto half = [&](auto number) EDGEQ_LAMBDA {
    constexpr int kHalf = decltype(number)::value;
    auto& column = columns.half[kHalf];
#pragma GCC unroll 8
    for (int i = 0; i < kNew; ++i) column[kOld + i] = interleave<E, kHalf>(rows[i]);
    const auto quads = [&](const auto& quad) EDGEQ_LAMBDA {
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
        quad([&](int o, int index) EDGEQ_LAMBDA { return column[o * kStride + kx].vectors[index]; }, kx);
      }
    };
    sum_half<E, kOutputs, kRows>(f, kHalf, quads, words[kHalf]);
#pragma GCC unroll 2
    for (int i = 0; i < kOld; ++i) column[i] = column[kNew + i];
  };
  half(std::integral_constant<int, 0>{});
  half(std::integral_constant<int, 1>{});
  store_codes<E, kPieces, kOutputs, kRows>(f, words[0], words[1], dst);
}

/// A row, or two, of a 3x3 kernel, the first output's first column being x. The columns stay in registers,
/// each interleaved once.
template <typename E, int kPieces, int kStride, int kRows>
__attribute__((noinline)) void run3(const Frame& f, const Source& source, ptrdiff_t x, size_t outputs,
                                    uint8_t* dst) {
  using V = typename E::Vec;
  constexpr int kOutputs = kTileOutputs;
  using Columns = Columns3<E, kStride, kOutputs>;
  Columns columns;
  typename V::Int rows[Columns::kOld][4];
  load_columns<V, kPieces, Columns::kOld, kRows + 2>(source, x, rows);
#pragma GCC unroll 2
  for (int i = 0; i < Columns::kOld; ++i) {
    columns.half[0][i] = interleave<E, 0>(rows[i]);
    columns.half[1][i] = interleave<E, 1>(rows[i]);
  }
  x += Columns::kOld;
  for (; outputs >= kOutputs; outputs -= kOutputs) {
    emit3<E, kPieces, kStride, kOutputs, kRows>(f, source, x, columns, dst);
    x += Columns::kNew;
    dst += kOutputs * f.output_step;
  }
  if (kOutputs > 1 && outputs > 0) emit3<E, kPieces, kStride, 1, kRows>(f, source, x, columns, dst);
}

/// The columns of a 5x5 kernel that kOutputs adjacent outputs need, one half of the channels.
template <typename E, int kStride, int kOutputs>
struct Columns5 {
  static constexpr int kOld = 5 - kStride;  // shared with the outputs before
  static constexpr int kNew = kOutputs * kStride;
  typename E::Half below[kOld + kNew];    // rows 0 to 3
  typename E::Half across[kOutputs + 1];  // four columns of row 4, from each output's first
  // Pairs of columns of row 4 that the next `across` are made of: stride 1: those of columns 1 and 2, and
  // column 3; stride 2: that of column 2.
  typename E::Pair pair[3 - kStride];
  typename E::Vec::Int last;
};

/// Reads the columns from x that outputs need: the old ones (kFirst), else the new ones of kOutputs outputs.
template <typename E, int kPieces, int kStride, int kOutputs, int kHalf, bool kFirst>
EDGEQ_INLINE void fetch5(const Source& source, ptrdiff_t x, Columns5<E, kStride, kOutputs>& columns) {
  using V = typename E::Vec;
  using Int = typename V::Int;
  using Columns = Columns5<E, kStride, kOutputs>;
  constexpr int kBelow = kFirst ? Columns::kOld : Columns::kNew;
  // Row 4 is read one column ahead at stride 2: its pairs begin at even columns.
  constexpr int kAcross = kFirst ? 4 : Columns::kNew;
  constexpr int kAhead = kFirst ? 0 : kStride - 1;
  const auto all = [&](auto inside) EDGEQ_LAMBDA {
    constexpr bool kInside = decltype(inside)::value;
#pragma GCC unroll 8
    for (int i = 0; i < kBelow; ++i) {
      Int row[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) row[k] = load_column<V, kPieces, kInside>(source, k, x + i);
      columns.below[kFirst ? i : Columns::kOld + i] =
          E::join(E::template pair<kHalf>(row[0], row[1]), E::template pair<kHalf>(row[2], row[3]));
    }
    const auto row4 = [&](int i) EDGEQ_LAMBDA {
      return load_column<V, kPieces, kInside>(source, 4, x + kAhead + i);
    };
    if constexpr (kFirst) {
      const Int middle[2] = {row4(1), row4(2)};
      const Int right = row4(3);
      columns.across[0] =
          E::join(E::template pair<kHalf>(row4(0), middle[0]), E::template pair<kHalf>(middle[1], right));
      if constexpr (kStride == 1) {
        columns.pair[0] = E::template pair<kHalf>(middle[0], middle[1]);
        columns.pair[1] = E::template pair<kHalf>(middle[1], right);
        columns.last = right;
      } else {
        columns.pair[0] = E::template pair<kHalf>(middle[1], right);
      }
    } else {
#pragma GCC unroll 4
      for (int o = 0; o < kOutputs; ++o) {
        if constexpr (kStride == 1) {
          const Int next = row4(o);
          const auto right = E::template pair<kHalf>(columns.last, next);
          columns.across[o + 1] = E::join(columns.pair[0], right);
          columns.pair[0] = columns.pair[1];
          columns.pair[1] = right;
          columns.last = next;
        } else {
          const Int next = row4(2 * o);
          const auto right = E::template pair<kHalf>(next, row4(2 * o + 1));
          columns.across[o + 1] = E::join(columns.pair[0], right);
          columns.pair[0] = right;
        }
      }
    }
  };
  if (__builtin_expect(x >= 0 && x + kAhead + kAcross <= source.inside, 1)) {
    all(std::true_type{});
  } else {
    all(std::false_type{});
  }
}

/// One half of the channels of kOutputs outputs. The first half's words wait in memory for the second's.
template <typename E, int kPieces, int kStride, int kOutputs, int kOf, int kHalf>
EDGEQ_INLINE void emit5(const Frame& f, const Columns5<E, kStride, kOf>& columns, uint8_t* words,
                        uint8_t* dst) {
  using V = typename E::Vec;
  typename V::Int sums[kOutputs];
  const auto quads = [&](const auto& quad) EDGEQ_LAMBDA {
#pragma GCC unroll 5
    for (int kx = 0; kx < 5; ++kx) {
      quad([&](int o, int index) EDGEQ_LAMBDA { return columns.below[o * kStride + kx].vectors[index]; }, kx);
    }
#pragma GCC unroll 2
    for (int a = 0; a < 2; ++a) {
      quad([&](int o, int index) EDGEQ_LAMBDA { return columns.across[o + a].vectors[index]; }, 5 + a);
    }
  };
  sum_half<E, kOutputs, 1>(f, kHalf, quads, sums);
  if constexpr (kHalf == 0) {
#pragma GCC unroll 4
    for (int o = 0; o < kOutputs; ++o) V::store_all(words + o * V::kBytes, sums[o]);
  } else {
    typename V::Int low[kOutputs];
#pragma GCC unroll 4
    for (int o = 0; o < kOutputs; ++o) low[o] = V::load(words + o * V::kBytes);
    store_codes<E, kPieces, kOutputs, 1>(f, low, sums, dst);
  }
}

template <typename E, int kPieces, int kStride, int kHalf>
EDGEQ_INLINE void run5_half(const Frame& f, const Source& source, ptrdiff_t x, size_t outputs, uint8_t* dst) {
  using V = typename E::Vec;
  constexpr int kOutputs = kTileOutputs;
  using Columns = Columns5<E, kStride, kOutputs>;
  uint8_t* words = f.words;
  Columns columns;
  fetch5<E, kPieces, kStride, kOutputs, kHalf, true>(source, x, columns);
  x += Columns::kOld;
  for (; outputs >= kOutputs; outputs -= kOutputs) {
    fetch5<E, kPieces, kStride, kOutputs, kHalf, false>(source, x, columns);
    x += Columns::kNew;
    emit5<E, kPieces, kStride, kOutputs, kOutputs, kHalf>(f, columns, words, dst);
    words += kOutputs * V::kBytes;
    dst += kOutputs * f.output_step;
#pragma GCC unroll 4
    for (int i = 0; i < Columns::kOld; ++i) columns.below[i] = columns.below[Columns::kNew + i];
    columns.across[0] = columns.across[kOutputs];
  }
  if (kOutputs > 1 && outputs > 0) {
    Columns5<E, kStride, 1> rest;
#pragma GCC unroll 4
    for (int i = 0; i < Columns::kOld; ++i) rest.below[i] = columns.below[i];
    rest.across[0] = columns.across[0];
    rest.pair[0] = columns.pair[0];
    if constexpr (kStride == 1) {
      rest.pair[1] = columns.pair[1];
      rest.last = columns.last;
    }
    fetch5<E, kPieces, kStride, 1, kHalf, false>(source, x, rest);
    emit5<E, kPieces, kStride, 1, 1, kHalf>(f, rest, words, dst);
  }
}

/// A row of a 5x5 kernel, the first output's first column being x: first the lower half of the channels of
/// each 16, then the upper one. The columns of both would not fit into 32 registers.
template <typename E, int kPieces, int kStride>
__attribute__((noinline)) void run5(const Frame& f, const Source& source, ptrdiff_t x, size_t outputs,
                                    uint8_t* dst) {
  run5_half<E, kPieces, kStride, 0>(f, source, x, outputs, dst);
  run5_half<E, kPieces, kStride, 1>(f, source, x, outputs, dst);
}

template <typename E>
EDGEQ_INLINE void store_half(const typename E::Half& half, uint8_t* to) {
  using V = typename E::Vec;
#pragma GCC unroll 4
  for (int i = 0; i < kHalfVectors; ++i) V::store_all(to + i * V::kBytes, half.vectors[i]);
}

/// Interleaves columns x to x + count of four rows from row `first` into memory.
template <typename E, int kPieces>
__attribute__((noinline)) void feed(const Source& source, int first, ptrdiff_t x, size_t count, uint8_t* to) {
  constexpr int kHalfBytes = kHalfVectors * E::Vec::kBytes;
  for (; count > 0; --count, ++x, to += 2 * kHalfBytes) {
    typename E::Column column;
    fetch<E, kPieces, 1, 4>(source, first, x, &column);
    store_half<E>(column.half[0], to);
    store_half<E>(column.half[1], to + kHalfBytes);
  }
}

/// kOutputs adjacent outputs of kRows rows of any kernel from columns in memory; `columns` are those of the
/// first output. Stores whole vectors: one function for all widths of a block.
template <typename E, int kOutputs, int kRows>
__attribute__((noinline)) void tile(const Frame& f, const uint8_t* columns, uint8_t* dst) {
  using V = typename E::Vec;
  typename V::Int words[2][kOutputs * kRows];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const auto quads = [&](const auto& quad) EDGEQ_LAMBDA {
      int number = 0;
      for (size_t g = 0; g < f.groups; ++g) {
        const uint8_t* column = columns + static_cast<ptrdiff_t>(g) * f.group_step;
        for (size_t kx = 0; kx < f.kernel_w; ++kx, column += f.tap_step) {
          quad(
              [&](int o, int index) EDGEQ_LAMBDA {
                return V::load(column + o * f.stride_step + (half * kHalfVectors + index) * V::kBytes);
              },
              number++);
        }
      }
    };
    sum_half<E, kOutputs, kRows>(f, half, quads, words[half]);
  }
  store_codes<E, 0, kOutputs, kRows>(f, words[0], words[1], dst);
}

using Run = void(const Frame&, const Source&, ptrdiff_t, size_t, uint8_t*);
using Feed = void(const Source&, int, ptrdiff_t, size_t, uint8_t*);
using Tile = void(const Frame&, const uint8_t*, uint8_t*);

/// The functions for one kind of kernel and number of stretches.
struct Functions {
  Run* run[2];  // of one and two output rows; null where there are tiles
  Feed* feed;
  Tile* tiles[2][2];  // of two outputs and one, of one and two rows
};

template <typename E, int kPieces>
Functions select_functions(const DepthwiseShape& shape) {
  Functions f{};
  const bool dense = shape.dilation_h == 1 && shape.dilation_w == 1 && shape.kernel_h == shape.kernel_w;
  if (dense && shape.kernel_w == 3 && shape.stride_w == 1) {
    f.run[0] = &run3<E, kPieces, 1, 1>;
    f.run[1] = &run3<E, kPieces, 1, 2>;
  } else if (dense && shape.kernel_w == 3 && shape.stride_w == 2) {
    f.run[0] = &run3<E, kPieces, 2, 1>;
  } else if (dense && shape.kernel_w == 5 && shape.stride_w == 1) {
    f.run[0] = &run5<E, kPieces, 1>;
  } else if (dense && shape.kernel_w == 5 && shape.stride_w == 2) {
    f.run[0] = &run5<E, kPieces, 2>;
  } else {
    f.feed = &feed<E, kPieces>;
    f.tiles[0][0] = &tile<E, 2, 1>;
    f.tiles[0][1] = &tile<E, 1, 1>;
    f.tiles[1][0] = &tile<E, 2, 2>;
    f.tiles[1][1] = &tile<E, 1, 2>;
  }
  return f;
}

/// One call.
template <typename E>
class Depthwise {
  using V = typename E::Vec;
  static constexpr size_t kColumnBytes = kQuadBytes<V>;

 public:
  explicit Depthwise(const DepthwiseParams& params, int weight_bits)
      : p_(params),
        shape_{params.channels, params.kernel_h,   params.kernel_w,   params.stride_h,
               params.stride_w, params.dilation_h, params.dilation_w, weight_bits},
        quads_(shape_),
        scratch_(shape_, quads_, params.width_out, V::kBytes) {
    columns_ = params.scratch + scratch_.columns;
    codes_ = params.scratch + scratch_.codes;
    widened_ = params.scratch + scratch_.weights;
    uint32_t large;
    std::memcpy(&large, params.packed, sizeof large);
    frame_.large = large != 0;
    frame_.range = params.range;
    frame_.plain = only_saturates(params.range);
    frame_.words = columns_;
    source_.pixel = params.src_pixel_stride;
    source_.width = static_cast<ptrdiff_t>(params.width_in);
    zero_row_ = params.scratch + scratch_.zero_row;
    frame_.kernel_w = params.kernel_w;
    frame_.groups = quads_.groups;
    frame_.stride_step = static_cast<ptrdiff_t>(params.stride_w * kColumnBytes);
    frame_.tap_step = static_cast<ptrdiff_t>(params.dilation_w * kColumnBytes);
    frame_.group_step = static_cast<ptrdiff_t>(scratch_.chunk_columns * kColumnBytes);
  }

  void run(size_t row_begin, size_t row_end) {
    // Rows of padding are read like any other.
    fill_zero_row(p_, row_begin, row_end, V::kBytes, p_.scratch + scratch_.zero_row);
    const size_t quads_bytes = quads_.count * kQuadBytes<V> * static_cast<size_t>(shape_.weight_bits) / 8;
    const uint8_t* packed = p_.packed + kDepthwiseHeader;
    for (size_t first = 0; first < p_.channels && row_begin < row_end;) {
      const size_t width = depthwise_block_width(p_.channels - first, V::kBytes);
      start_block(first, width, packed, quads_bytes);
      packed += 8 * V::kBytes + quads_.sets * quads_bytes;
      for (size_t y = row_begin; y < row_end;) {
        const size_t rows = quads_.sets == 2 && y + 1 < row_end ? 2 : 1;
        run_rows(y, rows, first);
        y += rows;
      }
      first += width;
    }
  }

 private:
  void start_block(size_t first, size_t width, const uint8_t* packed, size_t quads_bytes) {
    const size_t pieces = V::kBytes / width;
    frame_.bias = packed;
    frame_.scale = packed + 4 * V::kBytes;
    const uint8_t* weights = packed + 8 * V::kBytes;
    if (shape_.weight_bits == 4) {
      widen(weights, quads_.sets * quads_bytes);
      weights = widened_;
    }
    frame_.weights[0] = weights;
    frame_.weights[1] = weights + quads_.count * kQuadBytes<V>;
    frame_.pieces = static_cast<int>(pieces);
    frame_.count = p_.channels - first < width ? p_.channels - first : width;
    stretch_ = (p_.width_out + pieces - 1) / pieces;
    source_.zero = reinterpret_cast<const uint8_t*>(p_.zero_pixel) + first;
    for (size_t j = 0; j < pieces; ++j) {
      // The last stretches begin where they still end inside the row, and compute some outputs again.
      const size_t start = j * stretch_ < p_.width_out - stretch_ ? j * stretch_ : p_.width_out - stretch_;
      source_.start[j] = static_cast<ptrdiff_t>(start * p_.stride_w);
      source_.offset[j] = source_.start[j] * p_.src_pixel_stride;
      frame_.piece_offset[j] = static_cast<ptrdiff_t>(start) * p_.dst_pixel_stride;
    }
    source_.inside = source_.width - source_.start[pieces - 1];
    if (pieces == 1) {
      functions_ = select_functions<E, 1>(shape_);
    } else if (pieces == 2) {
      functions_ = select_functions<E, 2>(shape_);
    } else if constexpr (V::kBytes == 64) {
      functions_ = select_functions<E, 4>(shape_);
    }
  }

  /// Sign-extends the nibbles of a block.
  void widen(const uint8_t* from, size_t bytes) {
    using Int = typename V::Int;
    alignas(16) static constexpr int8_t kSigned[16] = {0,  1,  2,  3,  4,  5,  6,  7,
                                                       -8, -7, -6, -5, -4, -3, -2, -1};
    const Int table = V::repeat128(kSigned);
    const Int nibbles = V::set1_byte(0x0F);
    uint8_t* to = widened_;
    for (size_t i = 0; i < bytes; i += V::kBytes, to += 2 * V::kBytes) {
      const Int both = V::load(from + i);
      V::store_all(to, V::shuffle(table, V::bit_and(both, nibbles)));
      V::store_all(to + V::kBytes, V::shuffle(table, V::bit_and(V::template shift_right<4>(both), nibbles)));
    }
  }

  /// Output row y, or y and y + 1, of one block.
  void run_rows(size_t y, size_t rows, size_t first) {
    const size_t used = p_.kernel_h + rows - 1;
    for (size_t i = 0; i < (used + 3) / 4 * 4; ++i) {
      // The weights of rows beyond the last are zero: any row will do.
      const act_t* at = p_.rows[y * p_.stride_h + (i < used ? i : used - 1) * p_.dilation_h];
      source_.row[i] = at == nullptr ? zero_row_ : reinterpret_cast<const uint8_t*>(at) + first;
    }
    uint8_t* row = reinterpret_cast<uint8_t*>(p_.dst) + static_cast<ptrdiff_t>(y) * p_.dst_row_stride + first;
    const ptrdiff_t pad = static_cast<ptrdiff_t>(p_.pad_left);
    for (size_t begin = 0; begin < stretch_; begin += scratch_.chunk) {
      const size_t outputs = stretch_ - begin < scratch_.chunk ? stretch_ - begin : scratch_.chunk;
      const ptrdiff_t column = static_cast<ptrdiff_t>(begin * p_.stride_w) - pad;
      uint8_t* dst = row + static_cast<ptrdiff_t>(begin) * p_.dst_pixel_stride;
      // Codes wait in memory for the table, and where tiles store whole vectors but fewer channels exist.
      const bool wait = p_.table != nullptr || (functions_.run[0] == nullptr && frame_.count < V::kBytes);
      uint8_t* to = wait ? codes_ : dst;
      if (!wait) {
        frame_.output_step = p_.dst_pixel_stride;
        frame_.row_step = p_.dst_row_stride;
        frame_.whole = frame_.count == V::kBytes;
      } else {
        frame_.output_step = V::kBytes;
        frame_.row_step = static_cast<ptrdiff_t>(outputs * V::kBytes);
        frame_.whole = true;
      }
      if (functions_.run[0] != nullptr) {
        functions_.run[rows - 1](frame_, source_, column, outputs, to);
      } else {
        run_tiles(column, rows, outputs, to);
      }
      if (p_.table != nullptr) look_up_codes(rows, outputs);
      if (wait) place_codes(dst, rows, outputs);
    }
  }

  void run_tiles(ptrdiff_t column, size_t rows, size_t outputs, uint8_t* to) {
    const size_t overlap = (p_.kernel_w - 1) * p_.dilation_w;
    size_t fed = 0;
    for (size_t x = 0; x < outputs;) {
      const size_t now = outputs - x >= 2 ? 2 : 1;
      const size_t want = (x + now - 1) * p_.stride_w + overlap + 1;
      for (size_t g = 0; g < quads_.groups; ++g) {
        functions_.feed(source_, static_cast<int>(4 * g), column + static_cast<ptrdiff_t>(fed), want - fed,
                        columns_ + (g * scratch_.chunk_columns + fed) * kColumnBytes);
      }
      fed = want;
      functions_.tiles[rows - 1][2 - now](frame_, columns_ + x * p_.stride_w * kColumnBytes,
                                          to + static_cast<ptrdiff_t>(x) * frame_.output_step);
      x += now;
    }
  }

  /// Replaces the codes of `rows` times `outputs` vectors by the table's entries.
  void look_up_codes(size_t rows, size_t outputs) const {
    LutParams lut;
    lut.rows = 1;
    lut.channels = rows * outputs * V::kBytes;
    lut.src = codes_;
    lut.src_row_stride = lut.dst_row_stride = static_cast<ptrdiff_t>(lut.channels);
    lut.dst = codes_;
    lut.table = reinterpret_cast<const uint8_t*>(p_.table);
    p_.lut->run(lut);
  }

  /// Stores the codes of `rows` times `outputs` vectors where they belong.
  void place_codes(uint8_t* dst, size_t rows, size_t outputs) const {
    if (frame_.pieces == 1) {
      copy_codes<1>(dst, rows, outputs);
    } else if (frame_.pieces == 2) {
      copy_codes<2>(dst, rows, outputs);
    } else if constexpr (V::kBytes == 64) {
      copy_codes<4>(dst, rows, outputs);
    }
  }

  template <int kPieces>
  void copy_codes(uint8_t* dst, size_t rows, size_t outputs) const {
    const uint8_t* from = codes_;
    for (size_t r = 0; r < rows; ++r, dst += p_.dst_row_stride) {
      uint8_t* to = dst;
      for (size_t x = 0; x < outputs; ++x, from += V::kBytes, to += p_.dst_pixel_stride) {
        store_pieces<kPieces>(V{}, to, V::load(from), frame_);
      }
    }
  }

  const DepthwiseParams p_;
  const DepthwiseShape shape_;
  const DepthwiseQuads quads_;
  const DepthwiseScratch scratch_;
  uint8_t* columns_;
  uint8_t* codes_;
  uint8_t* widened_;
  Functions functions_ = {};
  Frame frame_ = {};
  size_t stretch_ = 0;
  Source source_ = {};
  const uint8_t* zero_row_;
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_X86_QUADS_H_
