#ifndef EDGEQ_OPS_MODEL_H_
#define EDGEQ_OPS_MODEL_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/act.h"
#include "base/requantize.h"

// A model as the file holds it (docs/format.md), its pointers into the file's own bytes. Only the reader
// (runtime/model_file.h) makes one, and only after it has checked every offset and every operator.

namespace edgeq {

constexpr int kMaxRank = 6;

enum class DataType : uint8_t { kInt8 = 1, kInt4 = 2, kInt32 = 3, kFloat32 = 4, kInt64 = 5 };

/// "int8", "int4", ...
const char* data_type_name(DataType type);

struct Tensor {
  std::string_view name;
  DataType type = DataType::kInt8;
  int rank = 0;
  bool constant = false;
  int bits = 0;                 // of the codes: 4, 8 or 32; 0 when not quantized
  int32_t dims[kMaxRank] = {};  // the batch axis of an activation is 1 here
  int quant_axis = -1;          // -1: per tensor
  int32_t zero_point = 0;
  uint32_t scale_count = 0;
  const float* scales = nullptr;  // [scale_count]
  const uint8_t* data = nullptr;  // the value of a constant
  uint64_t bytes = 0;             // of the value
  int64_t elements = 1;           // at batch 1

  /// Size of the last axis; 1 when that is the batch axis.
  int64_t channels() const { return rank == 0 ? 1 : dims[rank - 1]; }
  /// Rows of `channels()` elements in one image.
  int64_t pixels() const { return elements / channels(); }
  /// Bytes of an element as the engine holds an activation.
  int64_t element_size() const { return type == DataType::kFloat32 ? 4 : 1; }
  bool quantized() const { return scale_count > 0; }
  float scale() const { return scales[0]; }
  int32_t code_min() const { return bits == 4 ? -8 : -128; }
  int32_t code_max() const { return bits == 4 ? 7 : 127; }
  int32_t zero_act() const { return act_from_code(zero_point); }
};

struct Node {
  uint16_t op = 0;  // the file's code; ops.inc has them
  std::string_view name;
  std::vector<int32_t> inputs;  // tensors; -1: absent
  int32_t output = -1;
  std::vector<int32_t> attributes;
};

/// What the caller gives or gets.
struct End {
  int32_t tensor = -1;
  bool nchw = false;  // the caller's array has its channels on axis 1, the tensor on its last
};

/// How the file says that images become input 0: x = (pixel - mean) / std in float32, on the 0..255 scale.
struct Preprocessing {
  enum class Channels : uint8_t { kRgb, kBgr, kGray };
  bool present = false;
  Channels channels = Channels::kRgb;
  std::vector<float> mean;  // one, or one a channel
  std::vector<float> std;
};

/// What turns logits into calibrated probabilities and says when to ask somebody else (docs/guard.md).
struct Guard {
  bool present = false;
  float temperature = 1;  // positive: logits are divided by it
  float margin = 0;       // in 0..1: an input whose two highest probabilities differ by less is deferred
};

struct Model {
  std::vector<Tensor> tensors;
  std::vector<Node> nodes;
  std::vector<End> inputs;
  std::vector<End> outputs;
  Preprocessing preprocessing;
  Guard guard;
};

/// One node with its tensors at hand.
struct NodeView {
  const Model& model;
  const Node& node;

  int input_count() const { return static_cast<int>(node.inputs.size()); }
  bool has_input(int index) const { return index < input_count() && node.inputs[index] >= 0; }
  const Tensor& input(int index) const { return model.tensors[node.inputs[index]]; }
  const Tensor& output() const { return model.tensors[node.output]; }
  int32_t attribute(int index) const { return node.attributes[index]; }
};

/// Range of an output whose fused activation has the code bounds `lo` and `hi`, in the act domain.
inline OutputRange output_range(const Tensor& y, int32_t lo, int32_t hi) {
  return OutputRange{y.zero_act(), act_from_code(lo), act_from_code(hi)};
}

/// Range of an output without a fused activation.
inline OutputRange output_range(const Tensor& y) { return output_range(y, y.code_min(), y.code_max()); }

}  // namespace edgeq

#endif  // EDGEQ_OPS_MODEL_H_
