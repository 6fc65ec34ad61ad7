#include "ops/check.h"
#include "ops/copy_step.h"

// Output channel i * groups + g is input channel g * (channels / groups) + i.

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

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const Tensor& x = lowered.view.input(0);
  const int64_t groups = lowered.view.attribute(0);
  const int64_t per_group = x.channels() / groups;
  StridedCopy copy;
  copy.axes = {
      {x.pixels(), lowered.in_stride[0], lowered.out_stride}, {per_group, 1, groups}, {groups, per_group, 1}};
  copy.src_image_stride = x.pixels() * lowered.in_stride[0];
  copy.dst_image_stride = x.pixels() * lowered.out_stride;
  return make_copy_step({copy}, 1, x.elements, target);
}

}  // namespace

extern const OpDef k_op_channel_shuffle;
const OpDef k_op_channel_shuffle = {18, "channel_shuffle", check, no_fusions, prepare};

}  // namespace edgeq
