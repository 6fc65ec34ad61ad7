#ifndef EDGEQ_RUNTIME_PLAN_H_
#define EDGEQ_RUNTIME_PLAN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "ops/op.h"

namespace edgeq {

/// Where an activation lies: pixel i of image 0 begins at byte offset + i * stride of its buffer.
struct ValueRef {
  int buffer = -1;  // -1: none (a constant or an absent input)
  int64_t offset = 0;
  int64_t stride = 0;
};

/// One piece of the arena, alive from step `first` to step `last` (graph inputs from -1, outputs to the end).
struct Buffer {
  int64_t bytes_per_image = 0;
  int first = 0;
  int last = 0;
};

struct PlannedStep {
  std::unique_ptr<Step> step;
  std::vector<ValueRef> inputs;
  ValueRef output;
  bool shares_buffer = false;  // an input and the output are slices of one buffer
};

/// What became of a node of the file.
struct Layer {
  std::string name;
  std::string op;
  std::vector<int64_t> shape;  // of its output, the batch as -1
  int bits = 0;                // of its output's codes
  int step = -1;               // which step computes it; -1: none, it costs nothing
  int part = -1;               // which of the step's parts, when that is a chain
  bool primary = false;        // the step is named after this node; else it was fused into it
};

/// What the session keeps of an activation once the file is gone.
struct Activation {
  std::string name;
  std::vector<int64_t> shape;  // the batch as -1
  bool is_float = false;
  int bits = 0;
  float scale = 0;
  int32_t zero_point = 0;
  int64_t pixels = 1;
  int64_t channels = 1;
  ValueRef at;  // buffer -1: fused away
};

struct PlanEnd {
  int activation = -1;
  bool nchw = false;
};

struct Plan {
  std::vector<PlannedStep> steps;
  std::vector<Buffer> buffers;
  std::vector<Layer> layers;
  std::vector<Activation> activations;  // graph inputs, then in execution order
  std::vector<PlanEnd> inputs;
  std::vector<PlanEnd> outputs;
  size_t scratch_bytes = 0;  // one thread's
};

/// Lowers a checked model to steps for one CPU: fuses epilogues and pads into the products before them, makes
/// reshapes, channel slices and concatenations views or in-place writes where that is possible, prepares
/// (packs) every step and states which buffers live when.
///
/// Args:
///   keep_all: No fusion, and every activation keeps its own content to the end of a run.
Result<Plan> make_plan(const Model& model, bool keep_all, Target& target);

/// Offsets of the buffers in one arena for a batch size.
struct ArenaLayout {
  std::vector<uint64_t> offset;  // a buffer
  uint64_t bytes = 0;
};

/// The better of two orders of placing them; buffers are 64-byte aligned and end in kReadSlack spare bytes.
/// An error when the arena would exceed `limit`.
Result<ArenaLayout> layout_arena(const std::vector<Buffer>& buffers, int64_t batch, uint64_t limit);

}  // namespace edgeq

#endif  // EDGEQ_RUNTIME_PLAN_H_
