#include "kernels/softmax/softmax.h"

namespace edgeq {

#define EDGEQ_SOFTMAX_KERNEL(isa, name) void name(const SoftmaxParams&);
#include "kernels/softmax/kernels.inc"
#undef EDGEQ_SOFTMAX_KERNEL

namespace {

constexpr SoftmaxVariant kSoftmaxVariants[] = {
#define EDGEQ_SOFTMAX_KERNEL(isa, name) {#name, Isa::isa, &name},
#include "kernels/softmax/kernels.inc"
#undef EDGEQ_SOFTMAX_KERNEL
};

}  // namespace

std::vector<const SoftmaxVariant*> softmax_variants(IsaSet isas) {
  return runnable(kSoftmaxVariants, sizeof kSoftmaxVariants / sizeof kSoftmaxVariants[0],
                  isas.with(Isa::kScalar));
}

const SoftmaxVariant* select_softmax(IsaSet isas) { return softmax_variants(isas).front(); }

}  // namespace edgeq
