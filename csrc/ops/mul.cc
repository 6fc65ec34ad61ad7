#include "ops/binary.h"

namespace edgeq {
namespace {

Status check(const NodeView& view) { return check_binary(view, BinaryOp::kMul); }

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  return prepare_binary(lowered, BinaryOp::kMul, target);
}

}  // namespace

extern const OpDef k_op_mul;
const OpDef k_op_mul = {6, "mul", check, binary_fusions, prepare};

}  // namespace edgeq
