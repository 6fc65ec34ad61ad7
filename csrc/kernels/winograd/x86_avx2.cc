#include "kernels/gemm/lhs.h"
#include "kernels/gemm/x86_avx2_tile.h"
#include "kernels/winograd/transformed.h"
#include "kernels/winograd/winograd.h"

// Without VNNI, 8-bit weights are multiplied in 16 bits anyway (gemm/x86_avx2.cc), where the transformed
// blocks and filters of Winograd's method fit exactly: 2.25 times fewer multiplications at the same rate.
//
// Blocks of 2x2 outputs are the rows of 16 matrix products, one for each element of the 4x4 transforms. Some
// blocks are transformed into scratch, and the filters of a panel beside them; then six blocks at a time go
// through all 16 products, and their sums, 6 KiB in the first-level cache, through the transformation back
// and the epilogue.

namespace edgeq {
namespace {

/// One call: rows [row_begin, row_end) of panels [panel_begin, panel_end).
class Convolution {
 public:
  Convolution(const WinogradParams& params, int bits, size_t row_begin, size_t row_end, size_t panel_begin,
              size_t panel_end)
      : p_(params),
        bits_(bits),
        layout_(winograd_layout(params.k, params.n, bits, kMr)),
        channel_bytes_(8 + 9 * layout_.pairs * (bits == 4 ? 1 : 2)),
        row_begin_(row_begin),
        row_end_(row_end),
        panel_begin_(panel_begin),
        panel_end_(panel_end),
        blocks_across_((params.width_out + 1) / 2),
        epilogue_(params.range, params.table, params.residual, has_large_scale()) {}

  void run() const {
    const size_t total = (row_end_ - row_begin_ + 1) / 2 * blocks_across_;
    const bool all = panel_end_ - panel_begin_ <= layout_.panels;
    // Shared out evenly, in rounds and in tiles: none is left with a block or two.
    const size_t rounds = (total + layout_.blocks - 1) / layout_.blocks;
    for (size_t round = 0; round < rounds; ++round) {
      const size_t first = total * round / rounds;
      const size_t last = total * (round + 1) / rounds;
      for (size_t b = first; b < last; ++b) put_block(b, p_.scratch + (b - first) * layout_.block_bytes);
      for (size_t panel = panel_begin_; panel < panel_end_; ++panel) {
        const bool full = panel_width(p_.n, panel, kNr, 8) == kNr;
        uint8_t* filters = p_.scratch + layout_.block_bytes * layout_.blocks;
        if (all) filters += (panel - panel_begin_) * layout_.panel_bytes;
        if (round == 0 || !all) full ? put_filters<2>(panel, filters) : put_filters<1>(panel, filters);
        full ? run_panel<2>(first, last, panel, filters) : run_panel<1>(first, last, panel, filters);
      }
    }
  }

 private:
  const uint8_t* header(size_t panel) const { return p_.packed + panel * kNr * channel_bytes_; }

  bool has_large_scale() const {
    bool large = false;
    for (size_t panel = panel_begin_; panel < panel_end_; ++panel) {
      large |= any_large_scale(header(panel), panel_width(p_.n, panel, kNr, 8));
    }
    return large;
  }

  /// 2 G times three vectors.
  static EDGEQ_INLINE void transform_filter(__m256i g0, __m256i g1, __m256i g2, __m256i (&out)[4]) {
    const __m256i ends = _mm256_add_epi16(g0, g2);
    out[0] = _mm256_add_epi16(g0, g0);
    out[1] = _mm256_add_epi16(ends, g1);
    out[2] = _mm256_sub_epi16(ends, g1);
    out[3] = _mm256_add_epi16(g2, g2);
  }

  /// Writes (2 G) g (2 G)^T of a vector of filters, its 16 elements `step` bytes apart.
  static EDGEQ_INLINE void put_filter(const __m256i (&g)[9], size_t step, uint8_t* to) {
    __m256i columns[3][4];
    unroll<3>([&](auto x) EDGEQ_UNROLLED { transform_filter(g[x], g[3 + x], g[6 + x], columns[x]); });
    unroll<4>([&](auto y) EDGEQ_UNROLLED {
      __m256i row[4];
      transform_filter(columns[0][y], columns[1][y], columns[2][y], row);
      unroll<4>([&](auto x) EDGEQ_UNROLLED { store(to + (4 * y + x) * step, row[x]); });
    });
  }

  /// Transforms the filters of a panel.
  template <int kVectors>
  void put_filters(size_t panel, uint8_t* to) const {
    const uint8_t* w = header(panel) + 8 * kVectors * 8;
    const size_t element = layout_.filter_bytes;
    if (bits_ == 8) {
      const size_t tap = layout_.pairs * kVectors * 16;
      for (size_t i = 0; i < layout_.pairs * kVectors; ++i) {
        __m256i g[9];
        unroll<9>([&](auto t) EDGEQ_UNROLLED { g[t] = Vector256::widen_signed_bytes(w + t * tap + 16 * i); });
        put_filter(g, element, to + i * kVectorBytes);
      }
    } else {
      // 16 bytes hold a vector of an even pair in their low nibbles, and that of the next pair in the high
      // ones.
      const __m256i eight = _mm256_set1_epi16(8);
      const size_t tap = layout_.pairs * kVectors * 8;
      for (size_t pair = 0; pair < layout_.pairs; pair += 2) {
        for (size_t v = 0; v < kVectors; ++v) {
          __m256i even[9];
          __m256i odd[9];
          unroll<9>([&](auto t) EDGEQ_UNROLLED {
            // Nibbles hold the weight + 8.
            const __m256i raw = _mm256_cvtepu8_epi16(_mm_loadu_si128(
                reinterpret_cast<const __m128i*>(w + t * tap + (pair / 2 * kVectors + v) * 16)));
            even[t] = _mm256_sub_epi16(_mm256_and_si256(raw, _mm256_set1_epi16(0x0F)), eight);
            odd[t] = _mm256_sub_epi16(_mm256_srli_epi16(raw, 4), eight);
          });
          put_filter(even, element, to + (pair * kVectors + v) * kVectorBytes);
          put_filter(odd, element, to + ((pair + 1) * kVectors + v) * kVectorBytes);
        }
      }
    }
  }

  /// Blocks [first, last), which are in scratch, times a panel.
  template <int kVectors>
  void run_panel(size_t first, size_t last, size_t panel, const uint8_t* filters) const {
    const size_t tiles = (last - first + kMr - 1) / kMr;
    size_t done = first;
    for (size_t tile = 0; tile < tiles; ++tile) {
      const size_t end = first + (last - first) * (tile + 1) / tiles;
      const uint8_t* source = p_.scratch + (done - first) * layout_.block_bytes;
      run_tile<kVectors>(source, done, end - done, panel, filters);
      done = end;
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

  /// B^T of four vectors.
  static EDGEQ_INLINE void transform(__m256i d0, __m256i d1, __m256i d2, __m256i d3, __m256i (&out)[4]) {
    out[0] = _mm256_sub_epi16(d0, d2);
    out[1] = _mm256_add_epi16(d1, d2);
    out[2] = _mm256_sub_epi16(d2, d1);
    out[3] = _mm256_sub_epi16(d1, d3);
  }

  /// Writes B^T d B of a block.
  void put_block(size_t block, uint8_t* to) const {
    const act_t* pixel[4][4];
    find_pixels(block, pixel);
    const size_t element = layout_.element_bytes;
    for (size_t c = 0; c < p_.k; c += 16) {
      __m256i columns[4][4];
      unroll<4>([&](auto j) EDGEQ_UNROLLED {
        const auto widened = [&](size_t i) EDGEQ_UNROLLED {
          return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pixel[i][j] + c)));
        };
        transform(widened(0), widened(1), widened(2), widened(3), columns[j]);
      });
      unroll<4>([&](auto i) EDGEQ_UNROLLED {
        __m256i row[4];
        transform(columns[0][i], columns[1][i], columns[2][i], columns[3][i], row);
        unroll<4>([&](auto j) EDGEQ_UNROLLED { store(to + (4 * i + j) * element + 2 * c, row[j]); });
      });
    }
  }

  /// The 16 products of kBlocks blocks with a panel: int32 [kBlocks][16][8 * kVectors].
  template <int kBlocks, int kVectors>
  static void multiply(const uint8_t* source, const WinogradLayout& layout, const uint8_t* w, size_t steps,
                       uint8_t* sums) {
    for (int e = 0; e < 16; ++e) {
      const uint8_t* upper = source;
      const uint8_t* lower = source + 3 * layout.block_bytes;
      __m256i acc[kBlocks][kVectors];
      unroll<kBlocks>([&](auto r) EDGEQ_UNROLLED {
        unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { acc[r][v] = _mm256_setzero_si256(); });
      });
      const uint8_t* filter = w;
      for (size_t s = 0; s < steps; ++s) {
        __m256i b[kVectors];
        unroll<kVectors>([&](auto v) EDGEQ_UNROLLED { b[v] = load(filter + v * kVectorBytes); });
        unroll<kBlocks>([&](auto r) EDGEQ_UNROLLED {
          add_words<kVectors>((r < 3 ? upper : lower) + r % 3 * layout.block_bytes, b, acc[r]);
        });
        upper += 4;
        lower += 4;
        filter += kVectors * kVectorBytes;
      }
      w += layout.filter_bytes;
      unroll<kBlocks>([&](auto r) EDGEQ_UNROLLED {
        unroll<kVectors>(
            [&](auto v) EDGEQ_UNROLLED { store(sums + (16 * r * kVectors + v) * kVectorBytes, acc[r][v]); });
      });
      sums += kVectors * kVectorBytes;
      source += layout.element_bytes;
    }
  }

  template <int kVectors>
  void run_tile(const uint8_t* source, size_t block, size_t count, size_t panel,
                const uint8_t* filters) const {
    using Multiply = void (*)(const uint8_t*, const WinogradLayout&, const uint8_t*, size_t, uint8_t*);
    static constexpr Multiply kMultiply[kMr] = {multiply<1, kVectors>, multiply<2, kVectors>,
                                                multiply<3, kVectors>, multiply<4, kVectors>,
                                                multiply<5, kVectors>, multiply<6, kVectors>};
    alignas(64) uint8_t sums[kMr * 16 * kVectors * kVectorBytes];
    kMultiply[count - 1](source, layout_, filters, layout_.pairs, sums);
    Place at;
    at.header = header(panel);
    const size_t channel = panel * kNr;
    at.columns = p_.n - channel < kNr ? p_.n - channel : kNr;
    at.dst_stride = p_.dst_pixel_stride;
    at.residual_stride = p_.residual.row_stride;
    for (size_t i = 0; i < count; ++i) {
      const ptrdiff_t y = static_cast<ptrdiff_t>(row_of(block + i));
      const ptrdiff_t x = static_cast<ptrdiff_t>(column_of(block + i));
      at.dst = p_.dst + y * p_.dst_row_stride + x * p_.dst_pixel_stride + channel;
      at.residual = epilogue_.residual == nullptr
                        ? nullptr
                        : p_.residual.src + y * p_.residual_row_stride + x * p_.residual.row_stride + channel;
      const bool both_rows = static_cast<size_t>(y) + 1 < row_end_;
      if (static_cast<size_t>(x) + 1 < p_.width_out) {
        put_outputs<2, kVectors>(sums + i * 16 * kVectors * kVectorBytes, at, both_rows);
      } else {
        put_outputs<1, kVectors>(sums + i * 16 * kVectors * kVectorBytes, at, both_rows);
      }
    }
  }

  /// A^T m A of a block, a quarter of it with the bias, and its epilogue.
  template <int kColumns, int kVectors>
  __attribute__((noinline)) void put_outputs(const uint8_t* sums, Place at, bool both_rows) const {
    __m256i out[2][kColumns][kVectors];
    unroll<kVectors>([&](auto v) EDGEQ_UNROLLED {
      __m256i rows[2][4];
      unroll<4>([&](auto j) EDGEQ_UNROLLED {
        const auto sum = [&](size_t i) EDGEQ_UNROLLED {
          return load(sums + ((4 * i + j) * kVectors + v) * kVectorBytes);
        };
        const __m256i plus = _mm256_add_epi32(sum(1), sum(2));
        const __m256i minus = _mm256_sub_epi32(sum(1), sum(2));
        rows[0][j] = _mm256_add_epi32(plus, sum(0));
        rows[1][j] = _mm256_sub_epi32(minus, sum(3));
      });
      const __m256i bias = load(at.header + v * kVectorBytes);
      unroll<2>([&](auto i) EDGEQ_UNROLLED {
        const auto finish = [&](__m256i four_times) EDGEQ_UNROLLED {
          return _mm256_add_epi32(_mm256_srai_epi32(four_times, 2), bias);
        };
        out[i][0][v] = finish(_mm256_add_epi32(_mm256_add_epi32(rows[i][0], rows[i][1]), rows[i][2]));
        out[i][kColumns - 1][v] =
            kColumns == 1 ? out[i][0][v]
                          : finish(_mm256_sub_epi32(_mm256_sub_epi32(rows[i][1], rows[i][2]), rows[i][3]));
      });
    });
    finish_tile<kColumns, kVectors>(epilogue_, at, out[0]);
    if (!both_rows) return;
    at.dst += p_.dst_row_stride;
    if (at.residual != nullptr) at.residual += p_.residual_row_stride;
    finish_tile<kColumns, kVectors>(epilogue_, at, out[1]);
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
  const TileEpilogue epilogue_;
};

}  // namespace

void winograd_u8s8c_u8_6x16x2_avx2(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  if (r0 < r1 && p0 < p1) Convolution(p, 8, r0, r1, p0, p1).run();
}

void winograd_u8s4c_u8_6x16x2_avx2(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  if (r0 < r1 && p0 < p1) Convolution(p, 4, r0, r1, p0, p1).run();
}

}  // namespace edgeq
