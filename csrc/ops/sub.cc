#include "ops/binary.h"

namespace edgeq {
namespace {

Status check(const NodeView& view) { return check_binary(view, BinaryOp::kSub); }

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  return prepare_binary(lowered, BinaryOp::kSub, target);
}

}  // namespace

extern const OpDef k_op_sub;
const OpDef k_op_sub = {5, "sub", check, binary_fusions, prepare};

}  // namespace edgeq
