#include "ops/check.h"
#include "ops/pool_step.h"

namespace edgeq {
namespace {

Window window_of(const NodeView& view) {
  Window window;
  window.kernel_h = view.attribute(0);
  window.kernel_w = view.attribute(1);
  window.stride_h = view.attribute(2);
  window.stride_w = view.attribute(3);
  window.pad_top = view.attribute(4);
  window.pad_left = view.attribute(5);
  window.pad_bottom = view.attribute(6);
  window.pad_right = view.attribute(7);
  window.dilation_h = view.attribute(8);
  window.dilation_w = view.attribute(9);
  return window;
}

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 10));
  EDGEQ_RETURN_IF_ERROR(check_pool(view, window_of(view)));
  return expect_same_quantization(view.input(0), view.output());
}

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  return prepare_pool(lowered, window_of(lowered.view), PoolOp::kMax, false, target);
}

}  // namespace

extern const OpDef k_op_max_pool;
const OpDef k_op_max_pool = {8, "max_pool", check, no_fusions, prepare};

}  // namespace edgeq
