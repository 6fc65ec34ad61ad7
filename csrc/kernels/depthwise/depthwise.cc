#include "kernels/depthwise/depthwise.h"

#include "kernels/depthwise/pack.h"
#include "kernels/variant.h"

namespace edgeq {

#define EDGEQ_DEPTHWISE_KERNEL(isa, name, bits, takes, layout) \
  void name(const DepthwiseParams&, size_t, size_t);
#include "kernels/depthwise/kernels.inc"
#undef EDGEQ_DEPTHWISE_KERNEL

namespace {

bool takes_all(const DepthwiseShape&) { return true; }

size_t no_scratch(const DepthwiseShape&, size_t, size_t) { return 0; }

constexpr DepthwiseVariant kVariants[] = {
#define EDGEQ_DEPTHWISE_KERNEL(isa, name, bits, takes, layout)                                         \
  {#name,      Isa::isa, bits, &takes, &name, &depthwise_##layout##_bytes, &depthwise_##layout##_pack, \
   &no_scratch},
#include "kernels/depthwise/kernels.inc"
#undef EDGEQ_DEPTHWISE_KERNEL
};

constexpr size_t kVariantCount = sizeof kVariants / sizeof kVariants[0];

}  // namespace

std::vector<const DepthwiseVariant*> depthwise_variants(IsaSet isas) {
  return runnable(kVariants, kVariantCount, isas.with(Isa::kScalar));
}

const DepthwiseVariant* select_depthwise(const DepthwiseShape& shape, IsaSet isas) {
  for (const DepthwiseVariant* variant : depthwise_variants(isas)) {
    if (variant->weight_bits == shape.weight_bits && variant->takes(shape)) return variant;
  }
  return nullptr;
}

}  // namespace edgeq
