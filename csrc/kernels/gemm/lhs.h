#ifndef EDGEQ_KERNELS_GEMM_LHS_H_
#define EDGEQ_KERNELS_GEMM_LHS_H_

#include "kernels/gemm/gemm.h"

// Functions that every variant's file compiles for itself (static: a copy built with one level's flags must
// never serve another level).

namespace edgeq {

/// Address of row i for tap t.
static inline const act_t* lhs_row(const GemmLhs& lhs, size_t t, size_t i) {
  if (lhs.pixel_offset == nullptr) return lhs.base + static_cast<ptrdiff_t>(i) * lhs.row_stride;
  const int32_t offset = lhs.pixel_offset[lhs.row_index[i] + lhs.tap_index[t]];
  return offset < 0 ? lhs.zero_row : lhs.base + offset;
}

/// Where panel p of packed weights starts, and its width. `group_bytes` = padded k * taps * kr-group bytes a
/// channel.
static inline size_t panel_width(size_t n, size_t panel, size_t nr, size_t nr_step) {
  const size_t left = n - panel * nr;
  return left >= nr ? nr : (left + nr_step - 1) / nr_step * nr_step;
}

/// The part of the epilogue after requantization, for one value: table, then residual addition.
static inline int32_t finish_value(const GemmParams& params, int32_t q, size_t i, size_t j) {
  if (params.table != nullptr) q = params.table[static_cast<uint8_t>(q)];
  const GemmResidual& residual = params.residual;
  if (residual.src != nullptr) {
    const int32_t other =
        residual.src[static_cast<ptrdiff_t>(i) * residual.row_stride + static_cast<ptrdiff_t>(j)];
    q = add_quantized(q, residual.zp_acc, residual.multiplier_acc, other, residual.zp_src,
                      residual.multiplier_src, residual.range);
  }
  return q;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_LHS_H_
