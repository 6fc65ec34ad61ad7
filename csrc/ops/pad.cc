#include "ops/pad.h"

#include <cstring>

#include "kernels/copy/copy.h"
#include "ops/check.h"
#include "ops/copy_step.h"

// A constant border. Where a convolution follows and the border is its zero point, the plan folds the pad
// into it; else the output is filled and the input copied into its place.

namespace edgeq {
namespace {

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 2 * x.rank + 1));
  EDGEQ_RETURN_IF_ERROR(expect_same_quantization(x, y));
  int64_t dims[kMaxRank];
  for (int axis = 0; axis < x.rank; ++axis) {
    const int64_t before = view.attribute(axis);
    const int64_t after = view.attribute(x.rank + axis);
    if (before < 0 || after < 0 || (axis == 0 && before + after != 0)) {
      return bad_model("pads %lld and %lld do not fit axis %d", static_cast<long long>(before),
                       static_cast<long long>(after), axis);
    }
    dims[axis] = x.dims[axis] + before + after;
  }
  const int32_t code = view.attribute(2 * x.rank);
  EDGEQ_RETURN_IF_ERROR(expect_code_range(y, code, code));
  return expect_output_shape(view, dims, x.rank);
}

class FillAndCopyStep final : public Step {
 public:
  std::unique_ptr<Step> copy;
  int64_t pixels = 1, channels = 1, out_stride = 1;
  uint8_t value = 0;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch;
    work.cost = batch * info.work;
    return work;
  }

  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch) const override {
    for (int64_t image = range.row_begin; image < range.row_end; ++image) {
      uint8_t* out = io.out + image * pixels * out_stride;
      for (int64_t i = 0; i < pixels; ++i) std::memset(out + i * out_stride, value, channels);
    }
    const int64_t pieces = copy->work(1).rows;
    copy->run(io, {range.row_begin * pieces, range.row_end * pieces, 0, 1}, scratch);
  }
};

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  const std::vector<int64_t> src_strides = axis_strides(x, lowered.in_stride[0]);
  const std::vector<int64_t> dst_strides = axis_strides(y, lowered.out_stride);
  StridedCopy copy;
  for (int axis = 1; axis < x.rank; ++axis) {
    copy.axes.push_back({x.dims[axis], src_strides[axis - 1], dst_strides[axis - 1]});
    copy.dst_offset += view.attribute(axis) * dst_strides[axis - 1];
  }
  copy.src_image_stride = x.pixels() * lowered.in_stride[0];
  copy.dst_image_stride = y.pixels() * lowered.out_stride;
  auto step = std::make_unique<FillAndCopyStep>();
  step->copy = make_copy_step({copy}, 1, y.elements, target);
  step->pixels = y.pixels();
  step->channels = y.channels();
  step->out_stride = lowered.out_stride;
  step->value = static_cast<uint8_t>(act_from_code(view.attribute(2 * x.rank)));
  step->info = step->copy->info;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace

bool spatial_pads(const NodeView& view, int32_t* pads) {
  const Tensor& x = view.input(0);
  if (x.rank != 4 || view.attribute(3) != 0 || view.attribute(7) != 0) return false;
  if (view.attribute(8) != x.zero_point) return false;
  pads[0] = view.attribute(1);
  pads[1] = view.attribute(2);
  pads[2] = view.attribute(5);
  pads[3] = view.attribute(6);
  return true;
}

extern const OpDef k_op_pad;
const OpDef k_op_pad = {15, "pad", check, no_fusions, prepare};

}  // namespace edgeq
