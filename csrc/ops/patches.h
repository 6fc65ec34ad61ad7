#ifndef EDGEQ_OPS_PATCHES_H_
#define EDGEQ_OPS_PATCHES_H_

#include <cstdint>

#include "base/act.h"
#include "ops/window.h"

namespace edgeq {

/// The windows of an image with few channels, laid out one after another: pixel (oy, ox) of the output has
/// the kernel_h * kernel_w * channels bytes of its window side by side, in the order of OHWI weights.
///
/// Such a convolution (a network's first layer) has so little depth in one tap that finding the tap's pixels
/// costs more than multiplying them, and a tap of three channels fills three of the four bytes of a dot
/// product. Gathered, all taps are one depth: 27 bytes fill 7 groups of four where 9 taps took 9.
struct PatchGeometry {
  Window window;
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;  // of dense pixels: the next pixel is `channels` bytes on

  int64_t row_bytes() const { return window.kernel_w * channels; }
  int64_t depth() const { return window.kernel_h * row_bytes(); }
  /// Bytes from one gathered window to the next.
  int64_t stride() const { return (depth() + 3) / 4 * 4; }
};

/// Longest window row that is gathered, in bytes, and most rows of a window.
constexpr int64_t kMaxPatchRow = 64;
constexpr int64_t kMaxPatchRows = 16;

/// Whether gathering is possible (dense pixels, short rows, no dilation along a row) and likely to pay.
bool gathers_patches(const Window& window, int64_t channels, int64_t pixel_stride);

/// Gathers output pixels [first, first + count) of one image into dst, g.stride() bytes apart. Bytes between
/// and up to kReadSlack bytes after the windows get any value.
///
/// Args:
///   zero_row: g.row_bytes() bytes of the input's zero point, and kReadSlack more that are readable.
void gather_patches(const PatchGeometry& g, const act_t* image, const act_t* zero_row, int64_t first,
                    int64_t count, act_t* dst);

}  // namespace edgeq

#endif  // EDGEQ_OPS_PATCHES_H_
