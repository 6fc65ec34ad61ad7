#ifndef EDGEQ_OPS_WINDOW_H_
#define EDGEQ_OPS_WINDOW_H_

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "ops/op.h"

namespace edgeq {

/// A sliding window over height and width.
struct Window {
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t dilation_h = 1, dilation_w = 1;

  int64_t span_h() const { return dilation_h * (kernel_h - 1) + 1; }
  int64_t span_w() const { return dilation_w * (kernel_w - 1) + 1; }
  int64_t padded_h(int64_t height) const { return height + pad_top + pad_bottom; }
  int64_t padded_w(int64_t width) const { return width + pad_left + pad_right; }
  int64_t out_h(int64_t height) const { return (padded_h(height) - span_h()) / stride_h + 1; }
  int64_t out_w(int64_t width) const { return (padded_w(width) - span_w()) / stride_w + 1; }
  /// One tap, every pixel, no padding: the input itself is the matrix.
  bool pointwise() const {
    return kernel_h == 1 && kernel_w == 1 && stride_h == 1 && stride_w == 1 && pad_top == 0 &&
           pad_left == 0 && pad_bottom == 0 && pad_right == 0;
  }
};

/// Checks ranges, that the window fits and that the padded image is not absurdly larger than the image (at
/// most 16 times its pixels and a million more: a map of it is built).
Status check_window(const Window& window, int64_t height, int64_t width);

/// The map of a convolution over images of height x width pixels, `pixel_stride` bytes apart; shared.
Result<std::shared_ptr<const PixelMap>> pixel_map(const Window& window, int64_t height, int64_t width,
                                                  int64_t pixel_stride, Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_WINDOW_H_
