#ifndef EDGEQ_OPS_PHASE_STEP_H_
#define EDGEQ_OPS_PHASE_STEP_H_

#include <memory>

#include "kernels/winograd/phases.h"
#include "ops/epilogue.h"
#include "ops/op.h"
#include "ops/window.h"

namespace edgeq {

/// The kernel of stride 2 over few channels for a convolution of these weights, or null where it is none, or
/// a matrix product is thought faster.
const PhaseVariant* phase_variant_of(const Lowered& lowered, const Window& window, const Epilogue& epilogue,
                                     const Target& target);

/// Prepares it for the node's inputs x, w and optional bias.
Result<std::unique_ptr<Step>> prepare_phases(const Lowered& lowered, const Window& window,
                                             const PhaseVariant& variant, const Epilogue& epilogue,
                                             Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_PHASE_STEP_H_
