#include "ops/check.h"
#include "ops/op.h"

// Another shape for the same elements: always an alias, never a step. The plan keeps such a tensor dense.

namespace edgeq {
namespace {

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 0));
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_same_quantization(x, y));
  if (x.elements != y.elements) {
    return bad_model("shapes %s and %s have different numbers of elements", shape_text(x).c_str(),
                     shape_text(y).c_str());
  }
  return Status();
}

}  // namespace

extern const OpDef k_op_reshape;
const OpDef k_op_reshape = {13, "reshape", check, no_fusions, nullptr};

}  // namespace edgeq
