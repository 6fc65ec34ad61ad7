#include "ops/check.h"
#include "ops/gemm_step.h"

// A fully connected layer over the last axis.

namespace edgeq {
namespace {

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 2, 3));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 2));
  const Tensor& x = view.input(0);
  const Tensor& w = view.input(1);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(y, "the output"));
  EDGEQ_RETURN_IF_ERROR(expect_weights(view, 2));
  if (x.rank < 2 || w.dims[1] != x.dims[x.rank - 1]) {
    return bad_model("weights %s do not fit an input of shape %s", shape_text(w).c_str(),
                     shape_text(x).c_str());
  }
  EDGEQ_RETURN_IF_ERROR(expect_code_range(y, view.attribute(0), view.attribute(1)));
  int64_t dims[kMaxRank];
  for (int axis = 0; axis < x.rank; ++axis) dims[axis] = x.dims[axis];
  dims[x.rank - 1] = w.dims[0];
  return expect_output_shape(view, dims, x.rank);
}

Fusions fusions(const NodeView&) { return Fusions{true, true, false}; }

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  GemmGeometry geometry;
  geometry.m = lowered.x->pixels();
  geometry.n = view.input(1).dims[0];
  geometry.k = view.input(1).dims[1];
  return prepare_gemm(lowered, geometry, make_epilogue(lowered, view.attribute(0), view.attribute(1)),
                      target);
}

}  // namespace

extern const OpDef k_op_linear;
const OpDef k_op_linear = {3, "linear", check, fusions, prepare};

}  // namespace edgeq
