#ifndef EDGEQ_OPS_BINARY_H_
#define EDGEQ_OPS_BINARY_H_

#include "kernels/elementwise/elementwise.h"
#include "ops/op.h"

namespace edgeq {

/// What add, sub and mul share: operands a, b (one of them may be a constant) that broadcast as in numpy.
inline Fusions binary_fusions(const NodeView&) { return Fusions{true, false, false}; }

Status check_binary(const NodeView& view, BinaryOp op);
Result<std::unique_ptr<Step>> prepare_binary(const Lowered& lowered, BinaryOp op, Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_BINARY_H_
