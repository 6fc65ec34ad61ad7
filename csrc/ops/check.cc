#include "ops/check.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/int4.h"

namespace edgeq {

std::string format(const char* pattern, ...) {
  char text[512];
  va_list args;
  va_start(args, pattern);
  std::vsnprintf(text, sizeof text, pattern, args);
  va_end(args);
  return text;
}

const char* data_type_name(DataType type) {
  switch (type) {
    case DataType::kInt8:
      return "int8";
    case DataType::kInt4:
      return "int4";
    case DataType::kInt32:
      return "int32";
    case DataType::kFloat32:
      return "float32";
    case DataType::kInt64:
      return "int64";
  }
  return "unknown";
}

std::string shape_text(const Tensor& tensor) {
  std::string text = "[";
  for (int axis = 0; axis < tensor.rank; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(axis == 0 && !tensor.constant ? -1 : tensor.dims[axis]);
  }
  return text + "]";
}

Status expect_inputs(const NodeView& view, int min, int max) {
  if (view.input_count() < min || view.input_count() > max) {
    return bad_model("it has %d inputs; the operator takes %d to %d", view.input_count(), min, max);
  }
  for (int i = 0; i < min; ++i) {
    if (!view.has_input(i)) return bad_model("input %d is absent, but the operator needs it", i);
  }
  return Status();
}

Status expect_attributes(const NodeView& view, int count) {
  if (static_cast<int>(view.node.attributes.size()) != count) {
    return bad_model("it has %d attributes; the operator takes %d",
                     static_cast<int>(view.node.attributes.size()), count);
  }
  return Status();
}

Status expect_quantized_activation(const Tensor& tensor, const char* what) {
  if (tensor.constant || tensor.type != DataType::kInt8 || !tensor.quantized() || tensor.quant_axis != -1) {
    return bad_model("%s must be a quantized int8 activation", what);
  }
  return Status();
}

Status expect_output_shape(const NodeView& view, const int64_t* dims, int rank) {
  const Tensor& y = view.output();
  bool same = y.rank == rank;
  for (int axis = 0; same && axis < rank; ++axis) same = y.dims[axis] == dims[axis];
  if (same) return Status();
  std::string inferred = "[";
  for (int axis = 0; axis < rank; ++axis) {
    inferred += axis == 0 ? "-1" : ", " + std::to_string(dims[axis]);
  }
  return bad_model("its output is declared as %s, but its inputs and attributes give %s]",
                   shape_text(y).c_str(), inferred.c_str());
}

Status expect_output_shape(const NodeView& view, std::initializer_list<int64_t> dims) {
  return expect_output_shape(view, dims.begin(), static_cast<int>(dims.size()));
}

Status expect_same_quantization(const Tensor& x, const Tensor& y) {
  const bool same = x.type == y.type && x.quantized() == y.quantized() && x.bits == y.bits &&
                    x.zero_point == y.zero_point && (!x.quantized() || x.scale() == y.scale());
  if (!same) return bad_model("its input and output must have the same type and quantization");
  return Status();
}

Status expect_code_range(const Tensor& y, int32_t lo, int32_t hi) {
  if (lo > hi || lo < y.code_min() || hi > y.code_max()) {
    return bad_model("the code bounds %d to %d do not lie within %d to %d", lo, hi, y.code_min(),
                     y.code_max());
  }
  return Status();
}

Status expect_multiplier(float multiplier) {
  if (!(std::fabs(multiplier) <= 1e30f)) {
    return bad_model("its scales give a multiplier of %g, which is not a sane number", multiplier);
  }
  return Status();
}

namespace {

/// Whether one of the packed 4-bit values is -8.
bool has_lowest_int4(const uint8_t* packed, uint64_t bytes) {
  // A nibble of 8 becomes 0, and of the sixteen nibbles of a word the lowest that is 0 borrows from its
  // neighbour: its top bit is set after the subtraction and was clear before. Borrows reach nibbles above
  // such a one only.
  constexpr uint64_t kOnes = 0x1111111111111111u;
  constexpr uint64_t kTops = 0x8888888888888888u;
  uint64_t found = 0;
  uint64_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, packed + i, sizeof word);
    word ^= kTops;
    found |= (word - kOnes) & ~word & kTops;
  }
  for (; i < bytes; ++i) found |= (packed[i] & 0x0F) == 0x08 || (packed[i] & 0xF0) == 0x80;
  return found != 0;
}

bool has_lowest_weight(const Tensor& w) {
  return w.type == DataType::kInt8 ? std::memchr(w.data, 0x80, w.bytes) != nullptr
                                   : has_lowest_int4(w.data, w.bytes);
}

int64_t largest_magnitude_sum(const Tensor& w, int64_t channels, int64_t depth) {
  int64_t largest = 0;
  for (int64_t o = 0; o < channels; ++o) {
    const size_t first = static_cast<size_t>(o * depth);
    const size_t last = first + static_cast<size_t>(depth);
    int64_t sum = 0;
    if (w.type == DataType::kInt4) {
      size_t i = first;
      for (; i + 8 <= last; i += 8) sum += int4_magnitudes(int4_word(w.data, i));
      sum += int4_magnitudes(int4_word(w.data, i, last - i));
    } else {
      const int8_t* codes = reinterpret_cast<const int8_t*>(w.data);
      for (size_t i = first; i < last; ++i) sum += std::abs(static_cast<int>(codes[i]));
    }
    largest = sum > largest ? sum : largest;
  }
  return largest;
}

}  // namespace

Status expect_weights(const NodeView& view, int weight_rank) {
  const Tensor& x = view.input(0);
  const Tensor& w = view.input(1);
  const Tensor& y = view.output();
  if (!w.constant || (w.type != DataType::kInt8 && w.type != DataType::kInt4) || w.rank != weight_rank) {
    return bad_model("its weights must be a constant of type int8 or int4 and rank %d", weight_rank);
  }
  if (!w.quantized() || w.zero_point != 0 || (w.quant_axis != -1 && w.quant_axis != 0)) {
    return bad_model(
        "its weights must have zero point 0 and scales per tensor or per output channel (axis 0)");
  }
  if (w.elements == 0) return bad_model("its weights are empty");
  const int64_t channels = w.dims[0];
  const int64_t depth = w.elements / channels;
  if (has_lowest_weight(w)) {
    return bad_model("a weight has the code %d, outside the symmetric range",
                     w.type == DataType::kInt4 ? -8 : -128);
  }
  int64_t largest_bias = 0;
  if (view.has_input(2)) {
    const Tensor& bias = view.input(2);
    if (!bias.constant || bias.type != DataType::kInt32 || bias.rank != 1 || bias.dims[0] != channels ||
        bias.scale_count != w.scale_count) {
      return bad_model(
          "its bias must be a constant int32 vector of %lld elements with as many scales as the weights",
          static_cast<long long>(channels));
    }
    for (uint32_t c = 0; c < w.scale_count; ++c) {
      if (bias.scales[c] != x.scale() * w.scales[c]) {
        return bad_model("scale %u of its bias is not s_x * s_w", c);
      }
    }
    const int32_t* values = reinterpret_cast<const int32_t*>(bias.data);
    for (int64_t o = 0; o < channels; ++o) {
      const int64_t magnitude = std::llabs(static_cast<long long>(values[o]));
      largest_bias = magnitude > largest_bias ? magnitude : largest_bias;
    }
  }
  for (uint32_t c = 0; c < w.scale_count; ++c) {
    EDGEQ_RETURN_IF_ERROR(expect_multiplier((x.scale() * w.scales[c]) / y.scale()));
  }
  // |acc| <= |bias| + max |q_x - z_x| * sum |q_w|. The sum is computed only where the quick bound (every
  // weight as large as its type allows) does not settle it.
  const int64_t reach_up = x.code_max() - x.zero_point;
  const int64_t reach_down = x.zero_point - x.code_min();
  const int64_t reach = reach_up > reach_down ? reach_up : reach_down;
  const int64_t room = INT32_MAX - largest_bias;
  if (reach * depth * (w.type == DataType::kInt4 ? 7 : 127) > room &&
      reach * largest_magnitude_sum(w, channels, depth) > room) {
    return bad_model("its accumulators could leave 32 bits");
  }
  return Status();
}

}  // namespace edgeq
