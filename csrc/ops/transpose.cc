#include "ops/check.h"
#include "ops/copy_step.h"

// Permutation of the axes behind the batch.

namespace edgeq {
namespace {

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, x.rank));
  EDGEQ_RETURN_IF_ERROR(expect_same_quantization(x, y));
  uint32_t seen = 0;
  int64_t dims[kMaxRank];
  for (int axis = 0; axis < x.rank; ++axis) {
    const int32_t from = view.attribute(axis);
    if (from < 0 || from >= x.rank || (axis == 0) != (from == 0) || (seen >> from & 1u) != 0) {
      return bad_model("its attributes are no permutation of %d axes that keeps the batch", x.rank);
    }
    seen |= 1u << from;
    dims[axis] = x.dims[from];
  }
  return expect_output_shape(view, dims, x.rank);
}

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  const std::vector<int64_t> src_strides = axis_strides(x, lowered.in_stride[0]);
  const std::vector<int64_t> dst_strides = axis_strides(y, lowered.out_stride);
  StridedCopy copy;
  for (int axis = 1; axis < y.rank; ++axis) {
    copy.axes.push_back({y.dims[axis], src_strides[view.attribute(axis) - 1], dst_strides[axis - 1]});
  }
  copy.src_image_stride = x.pixels() * lowered.in_stride[0];
  copy.dst_image_stride = y.pixels() * lowered.out_stride;
  return make_copy_step({copy}, y.element_size(), y.elements, target);
}

}  // namespace

extern const OpDef k_op_transpose;
const OpDef k_op_transpose = {14, "transpose", check, no_fusions, prepare};

}  // namespace edgeq
