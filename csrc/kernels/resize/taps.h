#ifndef EDGEQ_KERNELS_RESIZE_TAPS_H_
#define EDGEQ_KERNELS_RESIZE_TAPS_H_

// What the bilinear kernels of every architecture share. Only <arch>_*.cc files and their headers include it.

#include "kernels/resize/resize.h"

namespace edgeq {
namespace {

/// The two source rows of an output row.
struct SourceRows {
  const act_t* row[2];
  const ResizeTap& tap;

  SourceRows(const ResizeParams& p, size_t y)
      : row{p.src + p.tap_y[y].index_0 * p.src_row_stride, p.src + p.tap_y[y].index_1 * p.src_row_stride},
        tap(p.tap_y[y]) {}
};

// Enlargements by 2, 4, 8 and 16 have weights that are multiples of 2048 / 16: a and b sixteenths, whose sum
// of products S = sum a * b * x makes (2^14 * S + 2^21) >> 22 = (S + 128) >> 8.
constexpr int kCoarse = 2048 / 16;

inline bool all_coarse(const ResizeTap* taps, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    if (taps[i].weight_1 % kCoarse != 0) return false;
  }
  return true;
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_RESIZE_TAPS_H_
