#ifndef EDGEQ_KERNELS_COPY_COPY_H_
#define EDGEQ_KERNELS_COPY_COPY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/variant.h"

namespace edgeq {

/// dst[sum of i_d * dst_stride[d]] = src[sum of i_d * src_stride[d]] for all i_d < size[d], d < 4, bytes.
/// Slices, concatenation and transposes are choices of sizes and strides. Strides may be 0 or negative. The
/// two sides do not overlap.
struct CopyParams {
  size_t size[4] = {1, 1, 1, 1};
  const uint8_t* src = nullptr;
  ptrdiff_t src_stride[4] = {0, 0, 0, 0};
  uint8_t* dst = nullptr;
  ptrdiff_t dst_stride[4] = {0, 0, 0, 0};
};

using CopyVariant = Variant<CopyParams>;

std::vector<const CopyVariant*> copy_variants(IsaSet isas);
const CopyVariant* select_copy(IsaSet isas);

/// dst[i * dst_row_stride + c * groups + g] = src[g][i * src_row_stride[g] + c] for i < rows, c < channels,
/// g < groups: a channel shuffle, whose groups may lie in one tensor or in several, so that the concatenation
/// in front of it need not be made.
struct InterleaveParams {
  size_t rows = 0;
  size_t channels = 0;  // of a group
  size_t groups = 0;
  const uint8_t* const* src = nullptr;
  const ptrdiff_t* src_row_stride = nullptr;
  uint8_t* dst = nullptr;
  ptrdiff_t dst_row_stride = 0;
};

using InterleaveVariant = Variant<InterleaveParams>;

std::vector<const InterleaveVariant*> interleave_variants(IsaSet isas);
const InterleaveVariant* select_interleave(IsaSet isas);

/// One NHWC image with a border of `value` around it: dst is (top + height + bottom) x (left + width +
/// right).
struct PadParams {
  size_t height = 0;
  size_t width = 0;
  size_t channels = 0;
  const uint8_t* src = nullptr;
  ptrdiff_t src_pixel_stride = 0;
  ptrdiff_t src_row_stride = 0;
  uint8_t* dst = nullptr;
  ptrdiff_t dst_pixel_stride = 0;
  ptrdiff_t dst_row_stride = 0;
  size_t top = 0;
  size_t bottom = 0;
  size_t left = 0;
  size_t right = 0;
  size_t channels_before = 0;  // channels of border before and after the image's own
  size_t channels_after = 0;
  uint8_t value = 0;
};

using PadVariant = Variant<PadParams>;

std::vector<const PadVariant*> pad_variants(IsaSet isas);
const PadVariant* select_pad(IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_COPY_COPY_H_
