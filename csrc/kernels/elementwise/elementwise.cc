#include "kernels/elementwise/elementwise.h"

namespace edgeq {

#define EDGEQ_BINARY_KERNEL(isa, name, op) void name(const BinaryParams&);
#include "kernels/elementwise/kernels.inc"
#undef EDGEQ_BINARY_KERNEL

namespace {

constexpr BinaryVariant kBinaryVariants[] = {
#define EDGEQ_BINARY_KERNEL(isa, name, op) {#name, Isa::isa, BinaryOp::op, &name},
#include "kernels/elementwise/kernels.inc"
#undef EDGEQ_BINARY_KERNEL
};

}  // namespace

std::vector<const BinaryVariant*> binary_variants(IsaSet isas) {
  return runnable(kBinaryVariants, sizeof kBinaryVariants / sizeof kBinaryVariants[0],
                  isas.with(Isa::kScalar));
}

const BinaryVariant* select_binary(BinaryOp op, IsaSet isas) {
  for (const BinaryVariant* variant : binary_variants(isas)) {
    if (variant->op == op) return variant;
  }
  return nullptr;
}

}  // namespace edgeq
