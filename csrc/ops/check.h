#ifndef EDGEQ_OPS_CHECK_H_
#define EDGEQ_OPS_CHECK_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/status.h"
#include "ops/model.h"

namespace edgeq {

/// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

/// An error about the content of a file.
template <typename... Args>
Status bad_model(const char* pattern, Args... args) {
  if constexpr (sizeof...(args) == 0) {
    return Status::invalid_model(pattern);
  } else {
    return Status::invalid_model(format(pattern, args...));
  }
}

/// "[-1, 7, 7, 960]"; the batch axis of an activation is -1.
std::string shape_text(const Tensor& tensor);

/// The node has between `min` and `max` inputs, all of the first `min` present.
Status expect_inputs(const NodeView& view, int min, int max);
Status expect_attributes(const NodeView& view, int count);

/// The tensor is an int8 activation with one scale. `what` names it in the message ("x", "the output").
Status expect_quantized_activation(const Tensor& tensor, const char* what);

/// The output is an int8 activation with exactly these dimensions (the batch as 1).
Status expect_output_shape(const NodeView& view, std::initializer_list<int64_t> dims);
Status expect_output_shape(const NodeView& view, const int64_t* dims, int rank);

/// x and y have the same type and the same quantization, bit for bit.
Status expect_same_quantization(const Tensor& x, const Tensor& y);

/// lo <= hi, both codes of `y`.
Status expect_code_range(const Tensor& y, int32_t lo, int32_t hi);

/// A multiplier that float32 arithmetic cannot turn into infinity or NaN: finite and at most 1e30 (an
/// accumulator is below 2^32).
Status expect_multiplier(float multiplier);

/// Weights [O, ...] (int8 or packed int4, at least rank 2, per tensor or per output channel) and an optional
/// bias int32 [O] as inputs 1 and 2 for input x: kinds, no weight of -128 or -8, multipliers, and that no
/// accumulator leaves 32 bits.
Status expect_weights(const NodeView& view, int weight_rank);

}  // namespace edgeq

#endif  // EDGEQ_OPS_CHECK_H_
