#ifndef EDGEQ_OPS_OP_H_
#define EDGEQ_OPS_OP_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/cpu_features.h"
#include "base/pages.h"
#include "base/status.h"
#include "ops/model.h"

namespace edgeq {

/// Work that a step can be cut into: any partition of [0, rows) x [0, columns) gives the same bytes.
///
/// A row is the smallest piece that the step computes on its own: a pixel for matrix products and elementwise
/// operators, a row of pixels for windows. Columns are panels of output channels; 1 where they do not split.
struct Work {
  int64_t rows = 1;
  int64_t row_grain = 1;  // cut points are multiples of it, for speed
  int64_t columns = 1;
  int64_t cost = 0;       // about how many elementary operations in all, to decide whether to split
  bool overlaps = false;  // parts repeat work at their borders: no more of them than threads
};

struct WorkRange {
  int64_t row_begin;
  int64_t row_end;
  int64_t column_begin;
  int64_t column_end;
};

/// Where the operands of a step lie for one run: in[i] is the first byte of the step's input i (null when it
/// is a constant or absent), `out` that of the output. Strides were fixed at preparation.
struct StepIo {
  const uint8_t* const* in;
  uint8_t* out;
  int64_t batch;
};

/// What a step tells about itself.
struct StepInfo {
  std::string kernel;  // name of the kernel variant; "" when the step only moves pointers
  Isa isa = Isa::kScalar;
  int weight_bits = 0;       // 0: no weights
  int64_t bytes_packed = 0;  // weights as the kernel holds them, with bias and multipliers
  int64_t macs = 0;          // multiply-accumulates at batch 1
  std::string shape;         // by what the kernel was chosen, as a key of Target::tuning; "" without choice
  std::vector<const char*> candidates;  // the kernels that the choice was between
  int64_t work = 0;                     // elementary operations at batch 1: macs, or elements read
};

class RowStep;

/// One prepared operator (or a fused chain of them): immutable, shared by all threads.
class Step {
 public:
  virtual ~Step() = default;
  virtual Work work(int64_t batch) const = 0;
  /// Computes one part of the work. `scratch` is this thread's own, 64-byte aligned.
  virtual void run(const StepIo& io, const WorkRange& range, uint8_t* scratch) const = 0;
  /// Bytes of scratch that `run` needs.
  virtual size_t scratch_bytes() const { return 0; }
  /// The step as one over rows of pixels (ops/row_step.h), or null when it is none.
  virtual const RowStep* row_step() const { return nullptr; }

  StepInfo info;
  std::vector<StepInfo> parts;  // of a chain of steps: what each tells; info then has the sums
};

/// Counts what preparation allocates, so that a small hostile file cannot ask for much.
class MemoryBudget {
 public:
  /// Args:
  ///   slab: Where `allocate` takes memory from as long as it has some; null: every buffer has its own.
  explicit MemoryBudget(uint64_t limit, Slab* slab = nullptr) : left_(limit), limit_(limit), slab_(slab) {}

  /// Takes `bytes` off; an error naming `what` when they are not there.
  Status take(uint64_t bytes, std::string_view what);
  uint64_t left() const { return left_; }
  uint64_t limit() const { return limit_; }
  Slab* slab() const { return slab_; }

 private:
  uint64_t left_;
  uint64_t limit_;
  Slab* slab_;
};

/// Where the pixels of a padded image lie: GemmLhs::pixel_offset and its two index arrays.
struct PixelMap {
  std::vector<int32_t> pixel_offset;
  std::vector<int32_t> row_index;
  std::vector<int32_t> tap_index;
};

/// For which CPU, within which memory; what preparation shares between steps.
struct Target {
  IsaSet isas;
  MemoryBudget* budget;
  /// Pixel maps by all that they depend on (ops/window.h): layers of one geometry share one.
  std::map<std::vector<int64_t>, std::shared_ptr<const PixelMap>> pixel_maps;
  /// Kernels that were measured to be the fastest, by StepInfo::shape; null: the cost model chooses.
  const std::map<std::string, std::string>* tuning = nullptr;
  /// Whether the model lies in a mapped file, whose pages need not stay in memory.
  bool mapped_file = false;

  /// Says that the first `elements` of a constant have been packed: their pages of the file leave the memory.
  void packed(const Tensor& constant, size_t elements) const;
};

/// A node with what the plan decided about it.
struct Lowered {
  explicit Lowered(const NodeView& node) : view(node) {}

  NodeView view;
  std::vector<int64_t> in_stride;  // bytes from pixel to pixel, one an input; 0 for constants
  int64_t out_stride = 0;
  int32_t extra_pads[4] = {0, 0, 0, 0};  // top, left, bottom, right: from a pad node that was folded in
  const Tensor* x = nullptr;             // the input that is read: input 0, or that of the folded pad
  // The fused epilogue, in this order. The output of the step is that of the last one.
  const Node* table = nullptr;     // a lut of one table
  const Node* residual = nullptr;  // an add; its other operand is the step's last input
  int residual_operand = -1;       // which operand of the add (0 or 1) is the other one
  // channel_shuffle: the concatenation in front of it, whose inputs the step reads, or null.
  const Node* concat = nullptr;
  // concat: which inputs have to be copied (the others were written in place).
  std::vector<bool> copy_input;
};

/// What an operator may absorb.
struct Fusions {
  bool table = false;
  bool residual = false;
  bool pad = false;
};

/// One operator. `check` proves that everything about a node is sound, so that `prepare` and `run` need not:
/// operand kinds, attributes, shapes inferred again and compared with the declared ones, quantization,
/// table contents, and that no accumulator leaves 32 bits. Its messages say what is wrong; the caller adds
/// the node's name.
struct OpDef {
  uint16_t code;
  const char* name;
  Status (*check)(const NodeView& node);
  Fusions (*fusions)(const NodeView& node);
  /// Null for an operator that the plan never makes a step of.
  Result<std::unique_ptr<Step>> (*prepare)(const Lowered& lowered, Target& target);
};

/// The operator of that code, or null.
const OpDef* find_op(uint16_t code);

/// Every operator, in the order of ops.inc.
const std::vector<const OpDef*>& all_ops();

/// No fusion at all.
inline Fusions no_fusions(const NodeView&) { return {}; }

/// Allocates through the budget, in its slab where that has room.
Status allocate(AlignedBuffer& buffer, uint64_t bytes, std::string_view what, MemoryBudget& budget);

/// A file's int8 table as the kernels index it: by the act byte as unsigned, act bytes inside.
void table_to_act(const uint8_t* codes, uint8_t* table);

}  // namespace edgeq

#endif  // EDGEQ_OPS_OP_H_
