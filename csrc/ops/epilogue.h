#ifndef EDGEQ_OPS_EPILOGUE_H_
#define EDGEQ_OPS_EPILOGUE_H_

#include "base/act.h"
#include "base/requantize.h"
#include "kernels/gemm/gemm.h"
#include "ops/op.h"

namespace edgeq {

/// What follows the accumulator: its range, and the table and residual addition that were fused.
struct Epilogue {
  OutputRange range = {0, 0, 0};
  bool has_table = false;
  act_t table[256] = {};
  bool has_residual = false;
  GemmResidual residual;  // its src and row_stride filled in per run
  int64_t residual_stride = 0;
};

/// The epilogue of a lowered node whose own output is clamped to codes lo to hi.
Epilogue make_epilogue(const Lowered& lowered, int32_t lo, int32_t hi);

/// (s_x * s_w[c]) / s_y for each of `count` output channels, in that order.
std::vector<float> output_multipliers(const Tensor& x, const Tensor& w, const Tensor& y, int64_t count);

}  // namespace edgeq

#endif  // EDGEQ_OPS_EPILOGUE_H_
