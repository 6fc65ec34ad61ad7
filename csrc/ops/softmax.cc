#include "kernels/softmax/softmax.h"

#include <cstring>

#include "ops/check.h"
#include "ops/op.h"

// Softmax by the file's table of exponentials, float32 out.

namespace edgeq {
namespace {

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 2, 2));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 1));
  const Tensor& x = view.input(0);
  const Tensor& table = view.input(1);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  if (y.type != DataType::kFloat32) return bad_model("its output must be float32");
  if (!table.constant || table.type != DataType::kInt64 || table.rank != 1 || table.dims[0] != 256) {
    return bad_model("its table must be a constant int64 of shape [256]");
  }
  constexpr int64_t kOne = int64_t{1} << 40;
  for (int i = 0; i < 256; ++i) {
    int64_t entry;
    std::memcpy(&entry, table.data + 8 * i, sizeof entry);
    if (entry < 0 || entry > kOne || (i == 0 && entry != kOne)) {
      return bad_model("entry %d of its table is %lld; it must lie in 0 to 2^40, the first being 2^40", i,
                       static_cast<long long>(entry));
    }
  }
  const int32_t axis = view.attribute(0);
  if (axis < 1 || axis >= x.rank)
    return bad_model("axis %d is not behind the batch of %s", axis, shape_text(x).c_str());
  if (x.dims[axis] > 1 << 22) return bad_model("it has more than 2^22 classes");
  int64_t dims[kMaxRank];
  for (int i = 0; i < x.rank; ++i) dims[i] = x.dims[i];
  return expect_output_shape(view, dims, x.rank);
}

class SoftmaxStep final : public Step {
 public:
  const SoftmaxVariant* variant = nullptr;
  AlignedBuffer table;
  int64_t outer = 1;  // an image is [outer][classes][inner]
  int64_t classes = 1;
  int64_t inner = 1;
  int64_t channels = 1;
  int64_t pixel_stride = 1;
  bool direct = true;  // over the channels

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * outer * inner;
    work.cost = batch * info.work * 8;
    return work;
  }

  size_t scratch_bytes() const override { return direct ? 0 : static_cast<size_t>(classes) + kReadSlack; }

  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch) const override {
    SoftmaxParams params;
    params.table = reinterpret_cast<const uint64_t*>(table.data());
    params.channels = static_cast<size_t>(classes);
    float* y = reinterpret_cast<float*>(io.out);
    if (direct) {
      params.rows = static_cast<size_t>(range.row_end - range.row_begin);
      params.src = reinterpret_cast<const act_t*>(io.in[0]) + range.row_begin * pixel_stride;
      params.src_row_stride = pixel_stride;
      params.dst = y + range.row_begin * classes;
      params.dst_row_stride = classes;
      variant->run(params);
      return;
    }
    params.rows = 1;
    params.src = reinterpret_cast<const act_t*>(scratch);
    params.dst_channel_stride = inner;
    for (int64_t row = range.row_begin; row < range.row_end; ++row) {
      const int64_t first = row / inner * classes * inner + row % inner;
      for (int64_t c = 0; c < classes; ++c) {
        const int64_t element = first + c * inner;
        scratch[c] = io.in[0][element / channels * pixel_stride + element % channels];
      }
      params.dst = y + first;
      variant->run(params);
    }
  }
};

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = view.input(0);
  auto step = std::make_unique<SoftmaxStep>();
  step->variant = select_softmax(target.isas);
  const int axis = view.attribute(0);
  step->classes = x.dims[axis];
  for (int i = 1; i < axis; ++i) step->outer *= x.dims[i];
  for (int i = axis + 1; i < x.rank; ++i) step->inner *= x.dims[i];
  step->channels = x.channels();
  step->pixel_stride = lowered.in_stride[0];
  step->direct = axis == x.rank - 1;
  EDGEQ_RETURN_IF_ERROR(target.budget->take(step->scratch_bytes(), "the scratch of a softmax"));
  EDGEQ_RETURN_IF_ERROR(allocate(step->table, 256 * sizeof(uint64_t), "a table", *target.budget));
  std::memcpy(step->table.data(), view.input(1).data, 256 * sizeof(uint64_t));
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.work = x.elements;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace

extern const OpDef k_op_softmax;
const OpDef k_op_softmax = {17, "softmax", check, no_fusions, prepare};

}  // namespace edgeq
