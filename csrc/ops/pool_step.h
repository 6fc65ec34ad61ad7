#ifndef EDGEQ_OPS_POOL_STEP_H_
#define EDGEQ_OPS_POOL_STEP_H_

#include "kernels/pool/pool.h"
#include "ops/op.h"
#include "ops/window.h"

namespace edgeq {

/// What max_pool and avg_pool share: x and the output are rank 4, the window fits, and every window has a tap
/// inside the image.
Status check_pool(const NodeView& view, const Window& window);

/// Prepares a window pool. `count_padding`: an average divides by the window's size everywhere.
Result<std::unique_ptr<Step>> prepare_pool(const Lowered& lowered, const Window& window, PoolOp op,
                                           bool count_padding, Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_POOL_STEP_H_
