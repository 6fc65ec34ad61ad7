#ifndef EDGEQ_KERNELS_COPY_ROWS_H_
#define EDGEQ_KERNELS_COPY_ROWS_H_

// Copies and channel shuffles by runs of bytes, for every architecture. Included after x86_bytes.h or
// arm_bytes.h.

#include "kernels/copy/copy.h"

namespace edgeq {

void copy_scalar(const CopyParams&);
void interleave_scalar(const InterleaveParams&);

namespace {

/// Rows of bytes, and transposes of the two innermost axes (a permutation that moves the channels);
/// everything else as the reference does it.
inline void copy_rows(const CopyParams& p) {
  const bool rows = p.src_stride[3] == 1 && p.dst_stride[3] == 1;
  const bool columns_first = p.src_stride[2] == 1 && p.dst_stride[3] == 1;
  const bool columns_last = p.src_stride[3] == 1 && p.dst_stride[2] == 1;
  if (!rows && !columns_first && !columns_last) {
    copy_scalar(p);
    return;
  }
  for (size_t i0 = 0; i0 < p.size[0]; ++i0) {
    for (size_t i1 = 0; i1 < p.size[1]; ++i1) {
      const ptrdiff_t index0 = static_cast<ptrdiff_t>(i0);
      const ptrdiff_t index1 = static_cast<ptrdiff_t>(i1);
      const uint8_t* src = p.src + index0 * p.src_stride[0] + index1 * p.src_stride[1];
      uint8_t* dst = p.dst + index0 * p.dst_stride[0] + index1 * p.dst_stride[1];
      if (rows) {
        for (size_t i2 = 0; i2 < p.size[2]; ++i2, src += p.src_stride[2], dst += p.dst_stride[2]) {
          copy_row(src, p.size[3], dst);
        }
      } else if (columns_first) {
        transpose_bytes(src, p.src_stride[3], p.size[3], p.size[2], dst, p.dst_stride[2]);
      } else {
        transpose_bytes(src, p.src_stride[2], p.size[2], p.size[3], dst, p.dst_stride[3]);
      }
    }
  }
}

/// Two groups, as nearly every network has them, at the speed of the stores; three and four by 16 channels;
/// more of one tensor as a transpose, and the rest as the reference does it.
inline void interleave_rows(const InterleaveParams& p) {
  const bool wide = p.channels >= 16;
  bool even = p.groups > 1;  // whether the groups lie at even distances
  const auto address = [&](size_t g) { return reinterpret_cast<uintptr_t>(p.src[g]); };
  for (size_t g = 2; g < p.groups; ++g) even &= address(g) - address(g - 1) == address(1) - address(0);
  for (size_t g = 1; g < p.groups; ++g) even &= p.src_row_stride[g] == p.src_row_stride[0];
  if (p.groups != 1 && !even && !(wide && p.groups <= 4)) {
    interleave_scalar(p);
    return;
  }
  uint8_t* dst = p.dst;
  if (p.groups == 2 && wide) {
    const ptrdiff_t channels = static_cast<ptrdiff_t>(p.channels);
    const uint8_t* a = p.src[0];
    const uint8_t* b = p.src[1];
    const ptrdiff_t stride_a = p.src_row_stride[0], stride_b = p.src_row_stride[1];
    const bool one = stride_a == channels && stride_b == channels && p.dst_row_stride == 2 * channels;
    const size_t rows = one ? 1 : p.rows;
    const size_t count = one ? p.rows * p.channels : p.channels;
    for (size_t i = 0; i < rows; ++i, a += stride_a, b += stride_b, dst += p.dst_row_stride) {
      interleave2(a, b, count, dst);
    }
    return;
  }
  for (size_t i = 0; i < p.rows; ++i, dst += p.dst_row_stride) {
    const auto src = [&](size_t g) { return p.src[g] + static_cast<ptrdiff_t>(i) * p.src_row_stride[g]; };
    // Blocks of 16 channels, the last of which overlaps the one before it.
    const auto by_16 = [&](auto interleave) {
      for (size_t c = 0; c + 16 < p.channels; c += 16) interleave(c);
      interleave(p.channels - 16);
    };
    if (p.groups == 1) {
      copy_row(src(0), p.channels, dst);
    } else if (p.groups == 3 && wide) {
      by_16([&](size_t c) { interleave3(src(0) + c, src(1) + c, src(2) + c, dst + 3 * c); });
    } else if (p.groups == 4 && wide) {
      by_16([&](size_t c) { interleave4(src(0) + c, src(1) + c, src(2) + c, src(3) + c, dst + 4 * c); });
    } else {
      transpose_bytes(src(0), src(1) - src(0), p.groups, p.channels, dst, static_cast<ptrdiff_t>(p.groups));
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_COPY_ROWS_H_
