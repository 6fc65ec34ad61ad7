#ifndef EDGEQ_OPS_DEPTHWISE_STEP_H_
#define EDGEQ_OPS_DEPTHWISE_STEP_H_

#include <memory>

#include "ops/epilogue.h"
#include "ops/op.h"
#include "ops/window.h"

namespace edgeq {

/// Prepares a convolution with one filter a channel for the node's inputs x, w and optional bias.
Result<std::unique_ptr<Step>> prepare_depthwise(const Lowered& lowered, const Window& window,
                                                const Epilogue& epilogue, Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_DEPTHWISE_STEP_H_
