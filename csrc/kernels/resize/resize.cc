#include "kernels/resize/resize.h"

namespace edgeq {

#define EDGEQ_RESIZE_KERNEL(isa, name, op) void name(const ResizeParams&);
#include "kernels/resize/kernels.inc"
#undef EDGEQ_RESIZE_KERNEL

namespace {

constexpr ResizeVariant kResizeVariants[] = {
#define EDGEQ_RESIZE_KERNEL(isa, name, op) {#name, Isa::isa, ResizeOp::op, &name},
#include "kernels/resize/kernels.inc"
#undef EDGEQ_RESIZE_KERNEL
};

}  // namespace

std::vector<const ResizeVariant*> resize_variants(IsaSet isas) {
  return runnable(kResizeVariants, sizeof kResizeVariants / sizeof kResizeVariants[0],
                  isas.with(Isa::kScalar));
}

const ResizeVariant* select_resize(ResizeOp op, IsaSet isas) {
  for (const ResizeVariant* variant : resize_variants(isas)) {
    if (variant->op == op) return variant;
  }
  return nullptr;
}

}  // namespace edgeq
