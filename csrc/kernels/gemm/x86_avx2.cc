#include "kernels/gemm/gemm.h"
#include "kernels/gemm/lhs.h"
#include "kernels/gemm/pack.h"
#include "kernels/gemm/widened.h"
#include "kernels/gemm/x86_avx2_steps.h"
#include "kernels/gemm/x86_avx2_tile.h"
#include "kernels/x86_ahead.h"

// Without VNNI there are two instructions to build on:
//
//   vpmaddwd    16 products of 16-bit numbers, summed in pairs into 32 bits: exact, 16 MAC.
//   vpmaddubsw  32 products of bytes, summed in pairs into 16 bits with saturation: 32 MAC.
//
// With 8-bit weights a pair sum reaches 2 * 255 * 127 = 64,770 and would saturate, so W8 widens both sides to
// 16 bits and uses vpmaddwd. With 4-bit weights it is at most 2 * 255 * 7 = 3,570: W4 uses vpmaddubsw, adds
// eight or more of them in 16 bits before it must widen, and runs at nearly twice the rate.
//
// In 16 bits there is room for sums, and one multiplication does the work of two (Winograd, A New Algorithm
// for Inner Product, 1968):
//
//   x0 * w0 + x2 * w2 = (x0 + w2) * (x2 + w0) - x0 * x2 - w0 * w2
//
// where x0 * x2 is the same for all channels and w0 * w2 for all rows: sums of both are taken once, and taken
// off where a tile begins. A product of 32 bits is exact, |x + w| <= 255 + 127, and their sums are exact
// modulo 2^32. For 32 MAC that makes one vpmaddwd, two vpaddw and a vpaddd instead of two vpmaddwd and two
// vpaddd: as many instructions, but only two of Zen's four vector pipes multiply, and additions that land
// there keep multiplications waiting: the second form reaches 80 % of four instructions a cycle, the first
// all of them. Cores with one such pipe gain more.
//
// Both sides are brought into the form that the instruction takes once and then used often (widened.h): the
// weights of a panel serve all tiles of a block of rows, the rows of a block serve all panels. A product of
// one row has no reuse; it widens the weights in registers, at the speed of the memory.

namespace edgeq {
namespace {

// Bytes of a block of rows that are walked over all panels before the next: they stay in the first-level
// cache.
constexpr size_t kResidentRows = 12 * 1024;

// ---- W8 ----

struct Words {
  static constexpr int kBits = 8;
  static constexpr bool kCrosses = false;
  static constexpr size_t kStepDepth = 2;  // channels of one step
  // 12 sums, two vectors of weights, one of the row, one product: 16 registers.
  static constexpr int kMr = 6;

  static EDGEQ_INLINE __m256i widen(const act_t* from) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }

  /// Zero-extends `count` bytes to int16, whole vectors of 16.
  static EDGEQ_INLINE void put_row(const act_t* from, size_t count, uint8_t* to) {
    size_t i = 0;
    do {
      store(to + 2 * i, widen(from + i));
      i += 16;
    } while (i < count);
  }

  /// Bytes of the notes of a panel (pack.h).
  static constexpr size_t note_bytes(size_t, size_t) { return 0; }

  /// Sign-extends the weights of a panel.
  template <int kVectors>
  static void put_weights(const uint8_t* from, size_t bytes, uint8_t* to) {
    for (size_t i = 0; i < bytes; i += 16) store(to + 2 * i, Vector256::widen_signed_bytes(from + i));
  }

  /// `count` tiles, one below the other.
  template <int kRows, int kVectors>
  static void tiles(const TileEpilogue& epilogue, Place place, const uint8_t* rows, size_t row_stride,
                    const uint8_t* w, size_t steps, size_t count, Ahead& ahead) {
    for (; count > 0; --count) {
      ahead.fetch();
      __m256i acc[kRows][kVectors];
      unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
        unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { acc[r][v] = load(place.header + v * kVectorBytes); });
      });
      const uint8_t* upper = rows;
      const uint8_t* lower = rows + 3 * row_stride;
      const uint8_t* b_next = w;
      for (size_t left = steps; left > 0; --left) {
        __m256i b[kVectors];
        unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { b[v] = load(b_next + v * kVectorBytes); });
        unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
          add_words<kVectors>((r < 3 ? upper : lower) + r % 3 * row_stride, b, acc[r]);
        });
        upper += 4;
        lower += 4;
        b_next += kVectors * kVectorBytes;
      }
      finish_tile<kRows, kVectors>(epilogue, place, acc);
      rows += kRows * row_stride;
      place.advance(kRows);
    }
  }

  /// One row: widens packed weights in registers.
  template <int kVectors>
  static void vector(const TileEpilogue& epilogue, const Place& place, const uint8_t* row, const uint8_t* w,
                     size_t steps, int32_t) {
    __m256i acc[1][kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) acc[0][v] = load(place.header + v * 32);
#pragma GCC unroll 4
    for (size_t s = 0; s < steps; ++s) {
      const __m256i a = _mm256_set1_epi32(load_dword(row + 4 * s));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const __m256i b = Vector256::widen_signed_bytes(w + v * 16);
        acc[0][v] = _mm256_add_epi32(acc[0][v], _mm256_madd_epi16(a, b));
      }
      w += kVectors * 16;
    }
    finish_tile<1, kVectors>(epilogue, place, acc);
  }
};

// ---- W8, one multiplication for two ----

struct CrossedWords : Words {
  static constexpr bool kCrosses = true;
  // 8 sums, four vectors of weights, two of the row, two sums of both: 16 registers.
  static constexpr int kMr = 4;

  /// Zero-extends `count` bytes and returns the sum of x0 * x2, negative, modulo 2^32. What lies between the
  /// count and the next whole four meets weights of zero, and counts.
  static EDGEQ_INLINE uint32_t put_row(const act_t* from, size_t count, uint8_t* to) {
    __m256i sums = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
      const __m256i x = widen(from + i);
      store(to + 2 * i, x);
      sums = _mm256_sub_epi32(sums, _mm256_madd_epi16(x, _mm256_srli_epi64(x, 32)));
    }
    uint32_t sum = static_cast<uint32_t>(Vector256::sum_dwords(sums));
    if (i < count) {
      store(to + 2 * i, widen(from + i));
      sum += static_cast<uint32_t>(minus_crossed_products<Vector256>(to + 2 * i, count - i));
    }
    return sum;
  }

  /// Sign-extends the weights of a panel and writes behind them what its sums begin with: the bias less the
  /// sum of w0 * w2.
  template <int kVectors>
  static void put_weights(const uint8_t* from, size_t bytes, uint8_t* to) {
    __m256i begin[kVectors];
    unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
      begin[v] = load(from - 2 * kVectors * kVectorBytes + v * kVectorBytes);
    });
    for (size_t steps = bytes / (16 * kVectors); steps > 0; steps = steps < 2 ? 0 : steps - 2) {
      unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
        const __m256i first = Vector256::widen_signed_bytes(from + v * 16);
        __m256i second = _mm256_setzero_si256();
        if (steps > 1) second = Vector256::widen_signed_bytes(from + (kVectors + v) * 16);
        store(to + v * kVectorBytes, first);
        store(to + (kVectors + v) * kVectorBytes, second);
        begin[v] = _mm256_sub_epi32(begin[v], _mm256_madd_epi16(first, second));
      });
      from += 2 * kVectors * 16;
      to += 2 * kVectors * kVectorBytes;
    }
    unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { store(to + v * kVectorBytes, begin[v]); });
  }

  /// `count` tiles, one below the other.
  template <int kRows, int kVectors>
  static void tiles(const TileEpilogue& epilogue, Place place, const uint8_t* rows, size_t row_stride,
                    const uint8_t* w, size_t steps, size_t count, Ahead& ahead) {
    const uint8_t* const sums = w + (steps + 1) / 2 * 2 * kVectors * kVectorBytes;
    for (; count > 0; --count) {
      ahead.fetch();
      __m256i acc[kRows][kVectors];
      const uint8_t* next = rows;
      unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
        next += row_stride;
        const __m256i of_row = _mm256_set1_epi32(load_dword(next - 4));
        unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
          acc[r][v] = _mm256_add_epi32(load(sums + v * kVectorBytes), of_row);
        });
      });
      const uint8_t* upper = rows;
      const uint8_t* lower = rows + 2 * row_stride;
      const uint8_t* b_next = w;
#pragma GCC unroll 2
      for (size_t left = (steps + 1) / 2; left > 0; --left) {
        __m256i b[2 * kVectors];
        unroll<2 * kVectors>([&](auto v) EDGEQ_UNROLLED { b[v] = load(b_next + v * kVectorBytes); });
        unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
          add_crossed<kVectors>((r < 2 ? upper : lower) + r % 2 * row_stride, b, acc[r]);
        });
        upper += 8;
        lower += 8;
        b_next += 2 * kVectors * kVectorBytes;
      }
      finish_tile<kRows, kVectors>(epilogue, place, acc);
      rows += kRows * row_stride;
      place.advance(kRows);
    }
  }
};

// ---- W4 ----

/// Vectors of the even (low nibbles) and the odd group of a pair, as int8.
struct GroupPair {
  __m256i even;
  __m256i odd;
};

EDGEQ_INLINE GroupPair decode(__m256i raw) {
  const __m256i low = _mm256_set1_epi8(0x0F);
  const __m256i eight = _mm256_set1_epi8(8);
  return GroupPair{_mm256_sub_epi8(_mm256_and_si256(raw, low), eight),
                   _mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(raw, 4), low), eight)};
}

struct Nibbles {
  static constexpr int kBits = 4;
  static constexpr bool kCrosses = false;
  static constexpr size_t kStepDepth = 4;
  // 12 sums, two vectors of weights, one of the row, one product: 16 registers.
  static constexpr int kMr = 6;

  static size_t note_bytes(size_t, size_t depth) { return gemm_run_note_bytes(depth); }

  static EDGEQ_INLINE void put_row(const act_t* from, size_t count, uint8_t* to) {
    size_t i = 0;
    do {
      store(to + i, load(from + i));
      i += kVectorBytes;
    } while (i < count);
  }

  /// Decodes the weights of a panel, one group after the other.
  template <int kVectors>
  static void put_weights(const uint8_t* from, size_t bytes, uint8_t* to) {
    for (size_t pairs = bytes / (kVectors * kVectorBytes); pairs > 0; --pairs) {
      unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
        const GroupPair groups = decode(load(from + v * kVectorBytes));
        store(to + v * kVectorBytes, groups.even);
        store(to + (kVectors + v) * kVectorBytes, groups.odd);
      });
      from += kVectors * kVectorBytes;
      to += 2 * kVectors * kVectorBytes;
    }
  }

  /// `count` tiles, one below the other.
  ///
  /// A pair sum of vpmaddubsw is at most 2 * 255 * 7 = 3,570 for weights in [-7, 7], so that the int16 lanes
  /// hold at least nine of them before they must be widened. Most weights are smaller, and activations have
  /// no sign: weights of both signs keep a lane's sum between what either would make alone. The panel's notes
  /// say how long the runs may be, 255 * 128 = 32,640 < 32,767.
  template <int kRows, int kVectors>
  static void tiles(const TileEpilogue& epilogue, Place place, const uint8_t* rows, size_t row_stride,
                    const uint8_t* w, size_t steps, size_t count, Ahead& ahead) {
    const uint8_t* const runs = place.header + 2 * kVectors * kVectorBytes;
    // The 32-bit sums wait in memory: registers hold only what the inner loop adds to. Before the first
    // widening they are the bias, the same for every row.
    alignas(32) uint8_t sums[kRows * kVectors * kVectorBytes];
    for (; count > 0; --count) {
      ahead.fetch();
      const uint8_t* before = place.header;
      size_t before_stride = 0;
      const uint8_t* upper = rows;
      const uint8_t* lower = rows + 3 * row_stride;
      const uint8_t* b_next = w;
      const uint8_t* run = runs;
      __m256i acc[kRows][kVectors];
      for (size_t left = steps;; ++run) {
        unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
          unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { acc[r][v] = _mm256_setzero_si256(); });
        });
        const size_t length = 2 * static_cast<size_t>(*run);
        const uint8_t* run_end = upper + 4 * length;
        do {
          __m256i b[kVectors];
          unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { b[v] = load(b_next + v * kVectorBytes); });
          unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
            add_bytes<kVectors>((r < 3 ? upper : lower) + r % 3 * row_stride, b, acc[r]);
          });
          upper += 4;
          lower += 4;
          b_next += kVectors * kVectorBytes;
        } while (upper != run_end);
        const __m256i ones = _mm256_set1_epi16(1);
        unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
          unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
            acc[r][v] = _mm256_add_epi32(load(before + r * before_stride + v * kVectorBytes),
                                         _mm256_madd_epi16(acc[r][v], ones));
          });
        });
        left -= length;
        if (left == 0) break;
        unroll<kRows>([&](auto r) EDGEQ_UNROLLED {
          unroll<kVectors>(
              [&](auto v) EDGEQ_UNROLLED { store(sums + (r * kVectors + v) * kVectorBytes, acc[r][v]); });
        });
        before = sums;
        before_stride = kVectors * kVectorBytes;
      }
      finish_tile<kRows, kVectors>(epilogue, place, acc);
      rows += kRows * row_stride;
      place.advance(kRows);
    }
  }

  /// One row, `row_sum` the sum of its bytes: widens packed weights in registers.
  ///
  /// There is no time for signs here. With w + 8 in [0, 15] for the weight w, which is its nibble with the
  /// top bit flipped, the sum grows by 8 times the row's. Eight pair sums of vpmaddubsw are then at most 8 *
  /// 2 * 255 * 15 = 61,200 and not negative: they fit into 16 bits that begin at -32,768.
  template <int kVectors>
  static void vector(const TileEpilogue& epilogue, const Place& place, const uint8_t* row, const uint8_t* w,
                     size_t steps, int32_t row_sum) {
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i low = _mm256_set1_epi8(0x0F);
    constexpr size_t kRun = 8;
    const int32_t runs = static_cast<int32_t>((steps + kRun - 1) / kRun);
    const __m256i correction = _mm256_set1_epi32(2 * 32768 * runs - 8 * row_sum);
    __m256i sums[1][kVectors];
    unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
      sums[0][v] = _mm256_add_epi32(load(place.header + v * kVectorBytes), correction);
    });
    while (steps > 0) {
      const size_t run = steps < kRun ? steps : kRun;
      __m256i acc[kVectors];
      unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { acc[v] = _mm256_set1_epi16(-32768); });
      const auto pair = [&](size_t s) EDGEQ_UNROLLED {
        const __m256i even = _mm256_set1_epi32(load_dword(row + 4 * s));
        const __m256i odd = _mm256_set1_epi32(load_dword(row + 4 * s + 4));
        unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
          const __m256i raw = load(w + v * kVectorBytes);
          const __m256i first = _mm256_maddubs_epi16(even, _mm256_and_si256(raw, low));
          const __m256i second = _mm256_maddubs_epi16(odd, _mm256_and_si256(_mm256_srli_epi16(raw, 4), low));
          acc[v] = _mm256_add_epi16(acc[v], _mm256_add_epi16(first, second));
          // Keeps the compiler from summing up in another order, which would take more registers.
          Vector256::keep_in_register(acc[v]);
        });
        w += kVectors * kVectorBytes;
      };
      if (run == kRun) {
        unroll<4>([&](auto i) EDGEQ_UNROLLED { pair(2 * i); });
      } else {
        for (size_t s = 0; s < run; s += 2) pair(s);
      }
      unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
        sums[0][v] = _mm256_add_epi32(sums[0][v], _mm256_madd_epi16(acc[v], ones));
      });
      row += 4 * run;
      steps -= run;
    }
    finish_tile<1, kVectors>(epilogue, place, sums);
  }
};

// ---- loops ----

using TilesFunction = void (*)(const TileEpilogue&, Place, const uint8_t* rows, size_t row_stride,
                               const uint8_t* w, size_t steps, size_t count, Ahead& ahead);

/// Tiles by vectors, less one, and rows, less two: no tile has a single row, because rows are shared out
/// evenly and a product of one row goes another way.
template <typename Kernel, typename RowsLessTwo = std::make_integer_sequence<int, Kernel::kMr - 1>>
struct Tiles;

template <typename Kernel, int... kRowsLessTwo>
struct Tiles<Kernel, std::integer_sequence<int, kRowsLessTwo...>> {
  static constexpr TilesFunction kTable[2][Kernel::kMr - 1] = {
      {Kernel::template tiles<kRowsLessTwo + 2, 1>...}, {Kernel::template tiles<kRowsLessTwo + 2, 2>...}};
};

/// One call: rows [row_begin, row_end) of panels [panel_begin, panel_end).
template <typename Kernel>
class Product {
 public:
  Product(const GemmParams& params, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end)
      : p_(params),
        layout_(
            widened_layout(params.k, params.taps, Kernel::kBits, params.lhs.pixel_offset == nullptr, kMr)),
        panel_bytes_(kNr * kChannelHeader + Kernel::note_bytes(kNr, layout_.depth) + weight_bytes(kNr)),
        row_begin_(row_begin),
        panel_begin_(panel_begin),
        panel_end_(panel_end),
        epilogue_(params.range, params.table, params.residual, params.large_scales) {
    const size_t count = row_end - row_begin;
    tiles_ = (count + kMr - 1) / kMr;
    height_ = count / tiles_;
    higher_ = count % tiles_;
  }

  /// A single row: nothing is used twice.
  void run_vector() const {
    int32_t row_sum = 0;
    if (layout_.row_stride != 0) {
      put_row(0, p_.scratch);
    } else {
      // Into the place of the weights, with zeros behind it.
      std::memcpy(p_.scratch, lhs_row(p_.lhs, 0, row_begin_), p_.k);
      std::memset(p_.scratch + p_.k, 0, layout_.depth - p_.k);
    }
    if (Kernel::kBits == 4) {
      __m128i sums = _mm_setzero_si128();
      for (size_t i = 0; i < layout_.depth; i += 8) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p_.scratch + i));
        sums = _mm_add_epi32(sums, _mm_sad_epu8(bytes, _mm_setzero_si128()));
      }
      row_sum = _mm_cvtsi128_si32(sums);
    }
    for (size_t panel = panel_begin_; panel < panel_end_; ++panel) {
      const size_t width = panel_width(p_.n, panel, kNr, 8);
      const Place at = place(0, panel);
      if (width == kNr) {
        Kernel::template vector<2>(epilogue_, at, p_.scratch, packed_weights(panel), steps(), row_sum);
      } else {
        Kernel::template vector<1>(epilogue_, at, p_.scratch, packed_weights(panel), steps(), row_sum);
      }
    }
  }

  /// Tiles: blocks of rows in scratch, groups of panels in scratch, and within them what stays in the
  /// first-level cache.
  void run_tiles() const {
    const size_t tile_bytes = kMr * (layout_.row_stride == 0 ? layout_.depth : layout_.row_stride);
    const size_t resident = tile_bytes < kResidentRows ? kResidentRows / tile_bytes : 1;
    size_t block = tiles_;
    if (layout_.row_stride != 0) {
      // Where scratch holds all panels, a block of rows goes over all of them and is done with.
      const bool all = panel_end_ - panel_begin_ <= layout_.panels;
      block = all ? resident : layout_.block_rows / kMr;
    }
    size_t kept = panel_end_;  // first panel of the group that is in scratch
    for (size_t tile = 0; tile < tiles_; tile += block) {
      const size_t tile_end = tiles_ - tile < block ? tiles_ : tile + block;
      put_rows(row_of(tile), row_of(tile_end));
      for (size_t panel = panel_begin_; panel < panel_end_; panel += layout_.panels) {
        const size_t panel_end = panel_end_ - panel < layout_.panels ? panel_end_ : panel + layout_.panels;
        const size_t block_row = row_of(tile);
        if (kept != panel) {
          for (size_t i = panel; i < panel_end; ++i) {
            put_weights(i, i - panel);
            Ahead next = ahead(i + 1, tile_end - tile);
            multiply(tile, tile_end, block_row, i, i - panel, next);
          }
          kept = panel;
          continue;
        }
        Ahead nothing;
        for (size_t first = tile; first < tile_end; first += resident) {
          const size_t last = tile_end - first < resident ? tile_end : first + resident;
          for (size_t i = panel; i < panel_end; ++i) multiply(first, last, block_row, i, i - panel, nothing);
        }
      }
    }
  }

 private:
  static constexpr size_t kMr = static_cast<size_t>(Kernel::kMr);
  static constexpr size_t kChannelHeader = sizeof(int32_t) + sizeof(float);  // bias and scale

  size_t steps() const { return layout_.depth / Kernel::kStepDepth; }

  /// First row of a tile, counted from row_begin_. Rows are shared out evenly, so that no tile is left with a
  /// row or two.
  size_t row_of(size_t tile) const { return tile * height_ + (tile < higher_ ? tile : higher_); }

  /// Bytes of the packed weights of `width` channels.
  size_t weight_bytes(size_t width) const { return width * layout_.depth * Kernel::kBits / 8; }

  const uint8_t* header(size_t panel) const { return p_.packed + panel * panel_bytes_; }

  const uint8_t* packed_weights(size_t panel) const {
    const size_t width = panel_width(p_.n, panel, kNr, 8);
    return header(panel) + width * kChannelHeader + Kernel::note_bytes(width, layout_.depth);
  }

  /// The place of the tile at row `row`, counted from row_begin_.
  Place place(size_t row, size_t panel) const {
    const size_t column = panel * kNr;
    const ptrdiff_t i = static_cast<ptrdiff_t>(row_begin_ + row);
    Place at;
    at.header = header(panel);
    at.columns = p_.n - column < kNr ? p_.n - column : kNr;
    at.dst = p_.dst + i * p_.dst_row_stride + column;
    at.dst_stride = p_.dst_row_stride;
    at.residual =
        epilogue_.residual == nullptr ? nullptr : p_.residual.src + i * p_.residual.row_stride + column;
    at.residual_stride = p_.residual.row_stride;
    return at;
  }

  /// Brings row `row`, counted from row_begin_, to `to`.
  void put_row(size_t row, uint8_t* to) const {
    constexpr size_t kElement = Kernel::kBits == 8 ? 2 : 1;
    for (size_t t = 0; t < p_.taps; ++t) {
      Kernel::put_row(lhs_row(p_.lhs, t, row_begin_ + row), layout_.tap_depth,
                      to + t * layout_.tap_depth * kElement);
    }
  }

  /// The same, and behind it what crossed products take off its sums.
  void put_crossed_row(size_t row, uint8_t* to) const {
    uint32_t sum = 0;
    for (size_t t = 0; t < p_.taps; ++t) {
      sum += Kernel::put_row(lhs_row(p_.lhs, t, row_begin_ + row), layout_.tap_depth,
                             to + t * layout_.tap_depth * 2);
    }
    // Where taps end within a four, the next tap's words are in it.
    if (p_.taps > 1 && layout_.tap_depth % 4 != 0) {
      sum = static_cast<uint32_t>(minus_crossed_products<Vector256>(to, layout_.depth));
    }
    std::memcpy(to + layout_.row_stride - sizeof sum, &sum, sizeof sum);
  }

  /// The same for `count` rows of one tap, which follow each other and whose depth is kVectors vectors.
  template <size_t kVectors>
  EDGEQ_INLINE void put_short_rows(const act_t* from, size_t count, uint8_t* to) const {
    for (; count > 0; --count, from += p_.lhs.row_stride, to += layout_.row_stride) {
      unroll<kVectors>([&](auto v)
                           EDGEQ_UNROLLED { store(to + v * kVectorBytes, Words::widen(from + v * 16)); });
    }
  }

  /// Brings rows [first, last) into scratch, unless they are used where they lie.
  void put_rows(size_t first, size_t last) const {
    if (layout_.row_stride == 0) return;
    uint8_t* to = p_.scratch;
    if constexpr (Kernel::kBits == 8 && !Kernel::kCrosses) {
      // First layers and the ends of bottlenecks: where a row is so short, finding it would take most of the
      // time.
      if (p_.taps == 1 && p_.lhs.pixel_offset == nullptr && layout_.tap_depth <= 32) {
        const act_t* const from = lhs_row(p_.lhs, 0, row_begin_ + first);
        if (layout_.tap_depth <= 16) return put_short_rows<1>(from, last - first, to);
        return put_short_rows<2>(from, last - first, to);
      }
    }
    for (size_t i = first; i < last; ++i, to += layout_.row_stride) {
      if constexpr (Kernel::kCrosses) {
        put_crossed_row(i, to);
      } else {
        put_row(i, to);
      }
    }
  }

  /// Brings the weights of panel `panel` into place `slot` of scratch.
  void put_weights(size_t panel, size_t slot) const {
    const size_t width = panel_width(p_.n, panel, kNr, 8);
    if (width == kNr) {
      Kernel::template put_weights<2>(packed_weights(panel), weight_bytes(width), weights(slot));
    } else {
      Kernel::template put_weights<1>(packed_weights(panel), weight_bytes(width), weights(slot));
    }
  }

  /// The weights of panel `panel`, if it is one of the call's, over `tiles` tiles.
  Ahead ahead(size_t panel, size_t tiles) const {
    if (panel >= panel_end_) return Ahead();
    return Ahead(packed_weights(panel), weight_bytes(panel_width(p_.n, panel, kNr, 8)), tiles);
  }

  uint8_t* weights(size_t slot) const {
    return p_.scratch + layout_.row_bytes() + slot * layout_.panel_bytes;
  }

  /// Tiles [first, last) of the block that begins with row `block_row`, times the panel in place `slot`.
  void multiply(size_t first, size_t last, size_t block_row, size_t panel, size_t slot, Ahead& ahead) const {
    const uint8_t* source = p_.scratch;
    size_t stride = layout_.row_stride;
    if (stride == 0) {
      source = lhs_row(p_.lhs, 0, row_begin_ + block_row);
      stride = static_cast<size_t>(p_.lhs.row_stride);
    }
    const auto& run = Tiles<Kernel>::kTable[panel_width(p_.n, panel, kNr, 8) / 8 - 1];
    const size_t row = row_of(first);
    source += (row - block_row) * stride;
    Place at = place(row, panel);
    if (first < higher_) {
      const size_t count = (last < higher_ ? last : higher_) - first;
      run[height_ - 1](epilogue_, at, source, stride, weights(slot), steps(), count, ahead);
      source += count * (height_ + 1) * stride;
      at.advance(count * (height_ + 1));
      first += count;
    }
    if (first < last)
      run[height_ - 2](epilogue_, at, source, stride, weights(slot), steps(), last - first, ahead);
  }

  const GemmParams& p_;
  const WidenedLayout layout_;
  const size_t panel_bytes_;  // packed, of a full panel
  const size_t row_begin_;
  const size_t panel_begin_;
  const size_t panel_end_;
  size_t tiles_;
  size_t height_;  // rows of a tile; the first `higher_` have one more
  size_t higher_;
  const TileEpilogue epilogue_;
};

template <typename Kernel>
void run(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end) {
  if (row_begin >= row_end || panel_begin >= panel_end) return;
  const Product<Kernel> product(p, row_begin, row_end, panel_begin, panel_end);
  if (row_end - row_begin == 1) {
    product.run_vector();
  } else {
    product.run_tiles();
  }
}

}  // namespace

void gemm_u8s8c_u8_6x16x2_avx2(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run<Words>(p, r0, r1, p0, p1);
}

void gemm_u8s8c_u8_4x16x2_avx2(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run<CrossedWords>(p, r0, r1, p0, p1);
}

void gemm_u8s4c_u8_6x16x4_avx2(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run<Nibbles>(p, r0, r1, p0, p1);
}

}  // namespace edgeq
