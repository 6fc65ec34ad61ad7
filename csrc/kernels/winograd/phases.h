#ifndef EDGEQ_KERNELS_WINOGRAD_PHASES_H_
#define EDGEQ_KERNELS_WINOGRAD_PHASES_H_

#include <cstddef>
#include <cstdint>

#include "base/act.h"
#include "base/cpu_features.h"
#include "base/int4.h"
#include "base/requantize.h"
#include "kernels/winograd/transformed.h"

namespace edgeq {

/// Convolution of stride 2 over an image of few channels, the 7x7 first layer of a ResNet, by Winograd's
/// minimal filtering. A square of 2x2 pixels, one of each phase of the stride, is a pixel of 4 * k channels
/// to it: over squares the window moves by one, and is of 4x4 squares where the kernel is of up to 8x8
/// pixels. Taps beyond the kernel are zero.
///
///   y(row, column, j) = bias(j) + sum over ky < kernel_h, kx < kernel_w, c < k of
///       (rows[2 * row + ky][(2 * column + kx - pad_left) * k + c] - zero) * weight(j, ky, kx, c)
///
/// and then requantization and the table, as in gemm.h; `zero` stands for columns outside [0, width_in).
///
/// F(3x3, 4x4): nine outputs from 36 products instead of 144. It has the six points of F(4x4, 3x3), and so
/// its B^T (winograd.h); the filters have a tap more, and the outputs a row less:
///
///         | 6   0   0   0 |
///         | 4   4   4   4 |            | 1  1  1  1  1  0 |
///   H  =  | 4  -4   4  -4 |   24 A^T = | 0  1 -1  2 -2  0 |
///         | 1   2   4   8 |            | 0  1  1  4  4  2 |
///         | 1  -2   4  -8 |
///         | 0   0   0  12 |
///
/// The magnitudes of a row of H add up to 16 at most: an element of H g H^T is within 256 * 127 = 32,512. The
/// rest is as there; 128 times the magnitudes of a channel's weights, of which there are 256 at most, are
/// below 2^22.
///
/// Filters are transformed when they are packed: there are few of them.
struct PhaseParams {
  static constexpr size_t kRows = 3;          // output rows of a call
  static constexpr size_t kImageRows = 12;    // that they read
  static constexpr size_t kMostChannels = 4;  // of the image
  static constexpr size_t kMostTaps = 8;      // of the kernel, in a direction

  size_t k = 0;  // channels of the image, dense
  size_t n = 0;  // output channels
  size_t width_in = 0;
  size_t width_out = 0;
  size_t pad_left = 0;
  /// [kImageRows]: all of width_in * k bytes, and kReadSlack more that are readable. What they hold beyond
  /// the window of the last row that is stored does not matter.
  const act_t* const* rows = nullptr;
  const uint8_t* packed = nullptr;
  act_t* const* dst = nullptr;  // [kRows]
  size_t rows_out = kRows;      // that are stored
  ptrdiff_t dst_pixel_stride = 0;
  int32_t zero = 0;  // the input's zero point
  OutputRange range = {0, 0, 0};
  const act_t* table = nullptr;  // 256 entries or null
  bool large_scales = true;      // as of a GemmParams
  uint8_t* scratch = nullptr;    // phase_scratch_bytes(k)
};

struct PhaseVariant {
  const char* name;
  Isa isa;
  /// Computes output rows [0, rows_out).
  void (*run)(const PhaseParams& params);
};

/// What selection looks at.
struct PhaseShape {
  size_t kernel_h;
  size_t kernel_w;
  size_t k;
  size_t n;
  int weight_bits;
};

/// The best variant that `isas` can run, or null.
const PhaseVariant* phase_variant(IsaSet isas);

/// The variant for a convolution of stride 2 without dilation, or null where a matrix product is thought
/// faster.
const PhaseVariant* select_phases(const PhaseShape& shape, IsaSet isas);

/// Outputs of a panel: two vectors of 256 bits.
constexpr size_t kPhasePanel = 16;

/// Blocks of three rows and columns of outputs, and filters of a panel, in the layout that the kernels for
/// x86 multiply: an element's 2 * k pairs of channels are not padded.
///
///   panel: | bias int32 [16] | scale float32 [16] | 36 elements of int16 [2 * k pairs][16][2] |
static inline WinogradLayout phase_layout(size_t k) {
  WinogradLayout layout{};
  layout.pairs = 2 * k;
  layout.steps = layout.pairs;
  layout.element_bytes = 16 * sizeof(int16_t);  // a vector, whatever k is
  layout.block_bytes = odd_lines(layout.element_bytes * WinogradLayout::kElements);
  layout.blocks = 64;
  layout.filter_bytes = layout.pairs * kPhasePanel * 2 * sizeof(int16_t);
  layout.panel_bytes =
      kPhasePanel * (sizeof(int32_t) + sizeof(float)) + layout.filter_bytes * WinogradLayout::kElements;
  return layout;
}

/// A few blocks more than are used: kernels multiply whole tiles.
static inline size_t phase_scratch_bytes(size_t k) {
  const WinogradLayout layout = phase_layout(k);
  return layout.block_bytes * (layout.blocks + 4);
}

static inline size_t phase_panels(size_t n) { return (n + kPhasePanel - 1) / kPhasePanel; }

static inline size_t phase_packed_bytes(size_t k, size_t n) {
  return phase_layout(k).panel_bytes * phase_panels(n);
}

/// Packs weights [n][kernel_h][kernel_w][k] (OHWI), bias [n] (null: zeros) and scale [n]; zp_in in the act
/// domain.
void phase_pack(const PhaseShape& shape, WeightView weights, const int32_t* bias, const float* scale,
                int32_t zp_in, uint8_t* packed);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_WINOGRAD_PHASES_H_
