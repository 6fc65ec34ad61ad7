#include "kernels/pool/pool.h"

namespace edgeq {

#define EDGEQ_POOL_KERNEL(isa, name, op) void name(const PoolParams&);
#define EDGEQ_MEAN_KERNEL(isa, name) void name(const MeanParams&);
#include "kernels/pool/kernels.inc"
#undef EDGEQ_POOL_KERNEL
#undef EDGEQ_MEAN_KERNEL

namespace {

constexpr PoolVariant kPoolVariants[] = {
#define EDGEQ_POOL_KERNEL(isa, name, op) {#name, Isa::isa, PoolOp::op, &name},
#define EDGEQ_MEAN_KERNEL(isa, name)
#include "kernels/pool/kernels.inc"
#undef EDGEQ_POOL_KERNEL
#undef EDGEQ_MEAN_KERNEL
};

constexpr MeanVariant kMeanVariants[] = {
#define EDGEQ_POOL_KERNEL(isa, name, op)
#define EDGEQ_MEAN_KERNEL(isa, name) {#name, Isa::isa, &name},
#include "kernels/pool/kernels.inc"
#undef EDGEQ_POOL_KERNEL
#undef EDGEQ_MEAN_KERNEL
};

}  // namespace

std::vector<const PoolVariant*> pool_variants(IsaSet isas) {
  return runnable(kPoolVariants, sizeof kPoolVariants / sizeof kPoolVariants[0], isas.with(Isa::kScalar));
}

const PoolVariant* select_pool(PoolOp op, IsaSet isas) {
  for (const PoolVariant* variant : pool_variants(isas)) {
    if (variant->op == op) return variant;
  }
  return nullptr;
}

std::vector<const MeanVariant*> mean_variants(IsaSet isas) {
  return runnable(kMeanVariants, sizeof kMeanVariants / sizeof kMeanVariants[0], isas.with(Isa::kScalar));
}

const MeanVariant* select_mean(IsaSet isas) { return mean_variants(isas).front(); }

}  // namespace edgeq
