#ifndef EDGEQ_KERNELS_ELEMENTWISE_ELEMENTWISE_H_
#define EDGEQ_KERNELS_ELEMENTWISE_ELEMENTWISE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/act.h"
#include "base/requantize.h"
#include "kernels/variant.h"

namespace edgeq {

/// dst(i, c) = a(i, c) op b(i, c) for i < rows, c < channels, by the statements of base/requantize.h:
///
///   kAdd, kSub: add_quantized / sub_quantized with multiplier_a = s_a / s_out, multiplier_b = s_b / s_out
///   kMul:       mul_quantized with multiplier_a = (s_a * s_b) / s_out; multiplier_b is not looked at
///
/// x(i, c) = x[i * row_stride + c * step], step 0 or 1. Broadcasting: row_stride 0 with step 1 repeats one
/// row (a per-channel operand; one call an image), row_stride 0 with step 0 repeats one value. dst may be a
/// or b itself when their strides are equal.
struct BinaryParams {
  size_t rows = 0;
  size_t channels = 0;
  const act_t* a = nullptr;
  ptrdiff_t a_row_stride = 0;
  int a_step = 1;
  int32_t zp_a = 0;
  const act_t* b = nullptr;
  ptrdiff_t b_row_stride = 0;
  int b_step = 1;
  int32_t zp_b = 0;
  act_t* dst = nullptr;
  ptrdiff_t dst_row_stride = 0;
  float multiplier_a = 0.0f;
  float multiplier_b = 0.0f;
  OutputRange range = {0, 0, 0};
};

enum class BinaryOp : uint8_t { kAdd, kSub, kMul };

struct BinaryVariant {
  const char* name;
  Isa isa;
  BinaryOp op;
  void (*run)(const BinaryParams& params);
};

/// All variants that `isas` can run, best first within an op.
std::vector<const BinaryVariant*> binary_variants(IsaSet isas);
const BinaryVariant* select_binary(BinaryOp op, IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_ELEMENTWISE_ELEMENTWISE_H_
