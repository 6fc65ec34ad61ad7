#ifndef EDGEQ_KERNELS_WINOGRAD_X86_AVX2_PHASES_H_
#define EDGEQ_KERNELS_WINOGRAD_X86_AVX2_PHASES_H_

// Convolution of stride 2 over squares of 2x2 pixels (phases.h). Only x86_avx2.cc includes it.
//
// A row of blocks is 36 matrix products, as in x86_blocks.h; its filters, already transformed, go through the
// first-level cache panel by panel, while the blocks wait in the second.

#include "kernels/winograd/phases.h"
#include "kernels/winograd/x86_blocks.h"

namespace edgeq {
namespace {

template <typename Words, size_t kMr>
class PhaseConvolution {
 public:
  explicit PhaseConvolution(const PhaseParams& params) : p_(params), layout_(phase_layout(params.k)) {
    output_.dst_row_stride = p_.dst_pixel_stride;
    output_.range = p_.range;
    output_.table = p_.table;
    output_.large_scales = p_.large_scales;
    constexpr int8_t kNone = -1;
    static constexpr int8_t kOrders[PhaseParams::kMostChannels][16] = {
        {0, 1, 8, 9, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone},
        {0, 1, 2, 3, 8, 9, 10, 11, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone},
        {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, kNone, kNone, kNone, kNone},
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
    order_ = Vector128::load(kOrders[p_.k - 1]);
  }

  void run() {
    const size_t total = (p_.width_out + kBlock - 1) / kBlock;
    const size_t rounds = (total + layout_.blocks - 1) / layout_.blocks;
    for (size_t round = 0; round < rounds; ++round) {
      const size_t first = total * round / rounds;
      const size_t last = total * (round + 1) / rounds;
      for (size_t b = first; b < last; ++b) put_block(b, p_.scratch + (b - first) * layout_.block_bytes);
      for (size_t panel = 0; panel < phase_panels(p_.n); ++panel) run_panel(first, last, panel);
    }
  }

 private:
  using V = Vector256;
  using Int = __m256i;
  static constexpr size_t kBlock = PhaseParams::kRows;  // outputs of a block, in each direction
  static constexpr size_t kVectorBytes = V::kBytes;

  /// Writes B^T d B of a block, of activations less 128.
  EDGEQ_NOINLINE void put_block(size_t block, uint8_t* to) const {
    constexpr size_t kPixels = 2 * kWindow;
    static_assert(kPixels == PhaseParams::kImageRows);
    constexpr size_t kMostBytes = kPixels * PhaseParams::kMostChannels;
    const ptrdiff_t left = static_cast<ptrdiff_t>(2 * kBlock * block) - static_cast<ptrdiff_t>(p_.pad_left);
    const ptrdiff_t width = static_cast<ptrdiff_t>(p_.width_in);
    // Columns of the image, of which a block at its edge has fewer.
    const ptrdiff_t begin = left < 0 ? 0 : left;
    const ptrdiff_t end = left + ptrdiff_t{kPixels} < width ? left + ptrdiff_t{kPixels} : width;
    const act_t* rows[kPixels];
    act_t padded[kPixels][kMostBytes + 8];
    for (size_t i = 0; i < kPixels; ++i) {
      rows[i] = p_.rows[i] + static_cast<size_t>(begin) * p_.k;
      if (end - begin == ptrdiff_t{kPixels}) continue;
      std::memset(padded[i], p_.zero, sizeof padded[i]);
      if (begin < end) {
        std::memcpy(padded[i] + static_cast<size_t>(begin - left) * p_.k, rows[i],
                    static_cast<size_t>(end - begin) * p_.k);
      }
      rows[i] = padded[i];
    }
    Int columns[kWindow][kWindow];
    for (size_t j = 0; j < kWindow; ++j) {
      Int d[kWindow];
      Int out[kWindow];
      unroll<kWindow>([&](auto i) EDGEQ_UNROLLED {
        const __m128 top =
            _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows[2 * i] + 2 * j * p_.k)));
        const __m128 both = _mm_loadh_pi(top, reinterpret_cast<const __m64*>(rows[2 * i + 1] + 2 * j * p_.k));
        d[i] = _mm256_cvtepu8_epi16(Vector128::shuffle(_mm_castps_si128(both), order_));
      });
      transform_input<V>(d, out);
      unroll<kWindow>([&](auto i) EDGEQ_UNROLLED { columns[i][j] = out[i]; });
    }
    put_inputs<V>(columns, kVectorBytes, to);
  }

  /// Blocks [first, last), which are in scratch, times a panel.
  void run_panel(size_t first, size_t last, size_t panel) {
    const size_t tiles = (last - first + kMr - 1) / kMr;
    alignas(64) uint8_t sums[kMr * kSumBytes<V>];
    Tile at{};
    at.panel = p_.packed + panel * layout_.panel_bytes;
    at.column = panel * kPhasePanel;
    at.columns = p_.n - at.column < kPhasePanel ? p_.n - at.column : kPhasePanel;
    const uint8_t* filters = at.panel + kPhasePanel * (sizeof(int32_t) + sizeof(float));
    size_t block = first;
    for (size_t tile = 0; tile < tiles; ++tile) {
      const size_t end = first + (last - first) * (tile + 1) / tiles;
      multiply_blocks<V, Words, kMr>(end - block, p_.scratch + (block - first) * layout_.block_bytes, layout_,
                                     filters, sums);
      for (const uint8_t* here = sums; block < end; ++block, here += kSumBytes<V>)
        put_outputs(here, block, at);
    }
  }

  /// A^T m A of a block, and its epilogue. `at` is the tile's panel.
  EDGEQ_NOINLINE void put_outputs(const uint8_t* sums, size_t block, const Tile& at) {
    Int columns[kBlock][kVectors][kWindow];
    transform_columns<V>(sums, columns);
    const size_t x = block * kBlock;
    const size_t across = p_.width_out - x < kBlock ? p_.width_out - x : kBlock;
    for (size_t i = 0; i < p_.rows_out; ++i) {
      Int out[kBlock][kVectors];
      transform_row<V>(columns[i], at.panel, out);
      output_.dst = p_.dst[i] + static_cast<ptrdiff_t>(x) * p_.dst_pixel_stride;
      if (across < kBlock || p_.large_scales || p_.table != nullptr) {
        finish_in_memory<V, kBlock, kVectors>(output_, at, out, across);
      } else {
        store_tile<V, kBlock, kVectors, false, Finish::kClamp>(output_, at, out);
      }
    }
  }

  const PhaseParams& p_;
  const WinogradLayout layout_;
  __m128i order_;      // which bytes of two rows of a square become words
  GemmParams output_;  // what the epilogue reads, its pointers those of three outputs in a row
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_WINOGRAD_X86_AVX2_PHASES_H_
