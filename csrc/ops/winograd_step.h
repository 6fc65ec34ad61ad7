#ifndef EDGEQ_OPS_WINOGRAD_STEP_H_
#define EDGEQ_OPS_WINOGRAD_STEP_H_

#include <memory>

#include "kernels/winograd/winograd.h"
#include "ops/epilogue.h"
#include "ops/op.h"
#include "ops/window.h"

namespace edgeq {

/// The Winograd kernel for a convolution of these weights, or null where it is none, or a matrix product is
/// thought faster.
const WinogradVariant* winograd_variant(const Window& window, const Tensor& x, const Tensor& w,
                                        const Target& target);

/// Prepares it for the node's inputs x, w and optional bias.
Result<std::unique_ptr<Step>> prepare_winograd(const Lowered& lowered, const Window& window,
                                               const WinogradVariant& variant, const Epilogue& epilogue,
                                               Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_WINOGRAD_STEP_H_
