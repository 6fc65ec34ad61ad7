#include "ops/channel_shuffle.h"

#include "kernels/copy/copy.h"
#include "ops/check.h"
#include "ops/op.h"

// Output channel i * groups + g is input channel g * (channels / groups) + i. The plan leaves a concatenation
// in front of it out where every group lies in one of its inputs: what the concatenation would copy is read
// once.

namespace edgeq {
namespace {

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 1));
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_same_quantization(x, y));
  const int32_t groups = view.attribute(0);
  if (x.rank < 2 || groups < 1 || x.channels() % groups != 0) {
    return bad_model("%d groups do not divide the channels of %s", groups, shape_text(x).c_str());
  }
  int64_t dims[kMaxRank];
  for (int axis = 0; axis < x.rank; ++axis) dims[axis] = x.dims[axis];
  return expect_output_shape(view, dims, x.rank);
}

class ShuffleStep final : public Step {
 public:
  /// Where the channels of a group lie in the pixels of an input.
  struct Group {
    int input;
    int64_t first;
    int64_t stride;
  };
  const InterleaveVariant* variant = nullptr;
  std::vector<Group> groups;
  int64_t pixels = 1;
  int64_t per_group = 1;
  int64_t out_stride = 1;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * pixels;
    work.cost = batch * info.work;
    return work;
  }

  size_t scratch_bytes() const override {
    return groups.size() * (sizeof(const uint8_t*) + sizeof(ptrdiff_t));
  }

  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch) const override {
    const uint8_t** src = reinterpret_cast<const uint8_t**>(scratch);
    ptrdiff_t* strides = reinterpret_cast<ptrdiff_t*>(src + groups.size());
    for (size_t g = 0; g < groups.size(); ++g) {
      src[g] = io.in[groups[g].input] + range.row_begin * groups[g].stride + groups[g].first;
      strides[g] = groups[g].stride;
    }
    InterleaveParams params;
    params.rows = static_cast<size_t>(range.row_end - range.row_begin);
    params.channels = static_cast<size_t>(per_group);
    params.groups = groups.size();
    params.src = src;
    params.src_row_stride = strides;
    params.dst = io.out + range.row_begin * out_stride;
    params.dst_row_stride = out_stride;
    variant->run(params);
  }
};

/// The inputs that the step reads: those of the concatenation in front of it, or its own.
std::vector<const Tensor*> sources_of(const Lowered& lowered) {
  if (lowered.concat == nullptr) return {&lowered.view.input(0)};
  std::vector<const Tensor*> sources;
  for (int32_t input : lowered.concat->inputs) sources.push_back(&lowered.view.model.tensors[input]);
  return sources;
}

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const Tensor& y = lowered.view.output();
  const int64_t groups = lowered.view.attribute(0);
  auto step = std::make_unique<ShuffleStep>();
  step->variant = select_interleave(target.isas);
  step->pixels = y.pixels();
  step->per_group = y.channels() / groups;
  step->out_stride = lowered.out_stride;
  EDGEQ_RETURN_IF_ERROR(target.budget->take(static_cast<uint64_t>(groups) * sizeof(ShuffleStep::Group),
                                            "the groups of a shuffle"));
  const std::vector<const Tensor*> sources = sources_of(lowered);
  for (size_t i = 0; i < sources.size(); ++i) {
    for (int64_t first = 0; first < sources[i]->channels(); first += step->per_group) {
      step->groups.push_back({static_cast<int>(i), first, lowered.in_stride[i]});
    }
  }
  EDGEQ_RETURN_IF_ERROR(target.budget->take(step->scratch_bytes(), "the scratch of a shuffle"));
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.work = y.elements;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace

bool absorbs_concat(const NodeView& shuffle, const NodeView& concat) {
  const Tensor& x = shuffle.input(0);
  if (concat.attribute(0) != x.rank - 1) return false;
  const int64_t per_group = x.channels() / shuffle.attribute(0);
  for (int i = 0; i < concat.input_count(); ++i) {
    if (concat.input(i).constant || concat.input(i).channels() % per_group != 0) return false;
  }
  return true;
}

extern const OpDef k_op_channel_shuffle;
const OpDef k_op_channel_shuffle = {18, "channel_shuffle", check, no_fusions, prepare};

}  // namespace edgeq
