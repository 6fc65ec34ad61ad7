#include "ops/check.h"
#include "ops/copy_step.h"

// Concatenation behind the batch. The plan places what it can inside the output beforehand; only the inputs
// named in Lowered::copy_input are moved here.

namespace edgeq {
namespace {

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1000));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 1));
  const Tensor& y = view.output();
  const int axis = view.attribute(0);
  const int rank = view.has_input(0) ? view.input(0).rank : 0;
  if (axis < 1 || axis >= rank)
    return bad_model("axis %d is not behind the batch of a rank %d input", axis, rank);
  int64_t dims[kMaxRank] = {};
  for (int i = 0; i < view.input_count(); ++i) {
    if (!view.has_input(i)) return bad_model("input %d is absent", i);
    const Tensor& x = view.input(i);
    EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "an input"));
    EDGEQ_RETURN_IF_ERROR(expect_same_quantization(x, y));
    if (x.rank != rank) return bad_model("input %d has rank %d, not %d", i, x.rank, rank);
    for (int d = 0; d < rank; ++d) {
      if (d == axis) {
        dims[d] += x.dims[d];
      } else if (i == 0) {
        dims[d] = x.dims[d];
      } else if (dims[d] != x.dims[d]) {
        return bad_model("input %d of shape %s does not fit the first, %s", i, shape_text(x).c_str(),
                         shape_text(view.input(0)).c_str());
      }
    }
  }
  return expect_output_shape(view, dims, rank);
}

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& y = view.output();
  const int axis = view.attribute(0);
  const std::vector<int64_t> dst_strides = axis_strides(y, lowered.out_stride);
  std::vector<StridedCopy> copies;
  int64_t offset = 0;
  int64_t elements = 0;
  for (int i = 0; i < view.input_count(); ++i) {
    const Tensor& x = view.input(i);
    if (lowered.copy_input[i]) {
      const std::vector<int64_t> src_strides = axis_strides(x, lowered.in_stride[i]);
      StridedCopy copy;
      copy.input = i;
      for (int d = 1; d < x.rank; ++d)
        copy.axes.push_back({x.dims[d], src_strides[d - 1], dst_strides[d - 1]});
      copy.dst_offset = offset * dst_strides[axis - 1];
      copy.src_image_stride = x.pixels() * lowered.in_stride[i];
      copy.dst_image_stride = y.pixels() * lowered.out_stride;
      elements += x.elements;
      copies.push_back(std::move(copy));
    }
    offset += x.dims[axis];
  }
  return make_copy_step(std::move(copies), y.element_size(), elements, target);
}

}  // namespace

extern const OpDef k_op_concat;
const OpDef k_op_concat = {11, "concat", check, no_fusions, prepare};

}  // namespace edgeq
