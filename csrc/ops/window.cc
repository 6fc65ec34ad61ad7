#include "ops/window.h"

#include "ops/check.h"

namespace edgeq {

Status check_window(const Window& w, int64_t height, int64_t width) {
  constexpr int64_t kLimit = 1 << 24;
  const int64_t positive[] = {w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w};
  for (int64_t value : positive) {
    if (value < 1 || value > kLimit) {
      return bad_model("kernel sizes, strides and dilations must lie in 1 to %lld (got %lld)",
                       static_cast<long long>(kLimit), static_cast<long long>(value));
    }
  }
  const int64_t pads[] = {w.pad_top, w.pad_left, w.pad_bottom, w.pad_right};
  for (int64_t value : pads) {
    if (value < 0 || value > kLimit) {
      return bad_model("padding must lie in 0 to %lld (got %lld)", static_cast<long long>(kLimit),
                       static_cast<long long>(value));
    }
  }
  // All values are below 2^25, so that neither the spans (below 2^50) nor the sums overflow.
  if (w.span_h() > w.padded_h(height) || w.span_w() > w.padded_w(width)) {
    return bad_model("a window of %lld x %lld does not fit the padded image of %lld x %lld",
                     static_cast<long long>(w.span_h()), static_cast<long long>(w.span_w()),
                     static_cast<long long>(w.padded_h(height)), static_cast<long long>(w.padded_w(width)));
  }
  const int64_t padded = w.padded_h(height) * w.padded_w(width);  // below 2^52
  if (padded > INT32_MAX || padded > (1 << 20) + 16 * height * width) {
    return bad_model("its padding makes %lld x %lld of an image of %lld x %lld",
                     static_cast<long long>(w.padded_h(height)), static_cast<long long>(w.padded_w(width)),
                     static_cast<long long>(height), static_cast<long long>(width));
  }
  return Status();
}

Result<std::shared_ptr<const PixelMap>> pixel_map(const Window& w, int64_t height, int64_t width,
                                                  int64_t pixel_stride, Target& target) {
  const std::vector<int64_t> key = {w.kernel_h, w.kernel_w,   w.stride_h,  w.stride_w,   w.pad_top,
                                    w.pad_left, w.pad_bottom, w.pad_right, w.dilation_h, w.dilation_w,
                                    height,     width,        pixel_stride};
  auto& shared = target.pixel_maps[key];
  if (shared) return shared;
  const int64_t padded_h = w.padded_h(height);
  const int64_t padded_w = w.padded_w(width);
  const int64_t out_h = w.out_h(height);
  const int64_t out_w = w.out_w(width);
  const int64_t entries = padded_h * padded_w + out_h * out_w + w.kernel_h * w.kernel_w;
  if (entries > INT32_MAX) return bad_model("its padded image has more than 2^31 - 1 pixels");
  EDGEQ_RETURN_IF_ERROR(target.budget->take(4 * static_cast<uint64_t>(entries), "a map of pixels"));
  auto map = std::make_shared<PixelMap>();
  map->pixel_offset.assign(padded_h * padded_w, -1);
  for (int64_t y = 0; y < height; ++y) {
    int32_t* row = map->pixel_offset.data() + (y + w.pad_top) * padded_w + w.pad_left;
    for (int64_t x = 0; x < width; ++x) row[x] = static_cast<int32_t>((y * width + x) * pixel_stride);
  }
  map->row_index.reserve(out_h * out_w);
  for (int64_t y = 0; y < out_h; ++y) {
    for (int64_t x = 0; x < out_w; ++x) {
      map->row_index.push_back(static_cast<int32_t>(y * w.stride_h * padded_w + x * w.stride_w));
    }
  }
  map->tap_index.reserve(w.kernel_h * w.kernel_w);
  for (int64_t y = 0; y < w.kernel_h; ++y) {
    for (int64_t x = 0; x < w.kernel_w; ++x) {
      map->tap_index.push_back(static_cast<int32_t>(y * w.dilation_h * padded_w + x * w.dilation_w));
    }
  }
  shared = std::move(map);
  return shared;
}

}  // namespace edgeq
