#include "ops/binary.h"

namespace edgeq {
namespace {

Status check(const NodeView& view) { return check_binary(view, BinaryOp::kAdd); }

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  return prepare_binary(lowered, BinaryOp::kAdd, target);
}

}  // namespace

extern const OpDef k_op_add;
const OpDef k_op_add = {4, "add", check, binary_fusions, prepare};

}  // namespace edgeq
