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
  return window;
}

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 9));
  const Window window = window_of(view);
  EDGEQ_RETURN_IF_ERROR(check_pool(view, window));
  if (view.attribute(8) != 0 && view.attribute(8) != 1) {
    return bad_model("count_include_pad is %d, not 0 or 1", view.attribute(8));
  }
  return expect_multiplier(view.input(0).scale() / view.output().scale());
}

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  return prepare_pool(lowered, window_of(lowered.view), PoolOp::kAverage, lowered.view.attribute(8) == 1,
                      target);
}

}  // namespace

extern const OpDef k_op_avg_pool;
const OpDef k_op_avg_pool = {9, "avg_pool", check, no_fusions, prepare};

}  // namespace edgeq
