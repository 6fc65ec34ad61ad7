#include "ops/check.h"
#include "ops/copy_step.h"

// Every stride-th element of each axis from a beginning. Contiguous channels of all pixels are no step at
// all: the plan makes such an output a view.

namespace edgeq {
namespace {

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 2 * x.rank));
  EDGEQ_RETURN_IF_ERROR(expect_same_quantization(x, y));
  if (y.rank != x.rank) return bad_model("its output has rank %d, its input %d", y.rank, x.rank);
  for (int axis = 0; axis < x.rank; ++axis) {
    const int64_t begin = view.attribute(axis);
    const int64_t stride = view.attribute(x.rank + axis);
    const int64_t last = begin + (y.dims[axis] - 1) * stride;
    if (begin < 0 || stride < 1 || last >= x.dims[axis] || (axis == 0 && stride != 1)) {
      return bad_model("begin %lld, stride %lld and %d elements do not fit axis %d of %s",
                       static_cast<long long>(begin), static_cast<long long>(stride), y.dims[axis], axis,
                       shape_text(x).c_str());
    }
  }
  return Status();
}

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  const std::vector<int64_t> src_strides = axis_strides(x, lowered.in_stride[0]);
  const std::vector<int64_t> dst_strides = axis_strides(y, lowered.out_stride);
  StridedCopy copy;
  for (int axis = 1; axis < x.rank; ++axis) {
    copy.axes.push_back(
        {y.dims[axis], src_strides[axis - 1] * view.attribute(x.rank + axis), dst_strides[axis - 1]});
    copy.src_offset += view.attribute(axis) * src_strides[axis - 1];
  }
  copy.src_image_stride = x.pixels() * lowered.in_stride[0];
  copy.dst_image_stride = y.pixels() * lowered.out_stride;
  return make_copy_step({copy}, y.element_size(), y.elements, target);
}

}  // namespace

extern const OpDef k_op_slice;
const OpDef k_op_slice = {12, "slice", check, no_fusions, prepare};

}  // namespace edgeq
