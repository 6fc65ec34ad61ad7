#include "kernels/depthwise/depthwise.h"

#include "kernels/depthwise/pack.h"
#include "kernels/variant.h"

namespace edgeq {

#define EDGEQ_DEPTHWISE_KERNEL(isa, name, bits, takes, layout, scratch) \
  void name(const DepthwiseParams&, size_t, size_t);
#include "kernels/depthwise/kernels.inc"
#undef EDGEQ_DEPTHWISE_KERNEL

namespace {

bool takes_all(const DepthwiseShape&) { return true; }

size_t no_scratch(const DepthwiseShape&, size_t, size_t) { return 0; }

// The quad kernels keep the pointers of 16 input rows.
bool takes_quads(const DepthwiseShape& shape) { return shape.kernel_h <= 15; }

/// The weights of one block as bytes, widened and shifted for the second output row, and both again in the
/// form that the engine multiplies (at most 256 bytes a quad).
size_t quads_scratch(const DepthwiseShape& shape, size_t, size_t) {
  return 4 * ((shape.kernel_h + 3) / 4) * shape.kernel_w * 256;
}

constexpr DepthwiseVariant kVariants[] = {
#define EDGEQ_DEPTHWISE_KERNEL(isa, name, bits, takes, layout, scratch) \
  {#name, Isa::isa, bits, &takes, &name, &depthwise_##layout##_bytes, &depthwise_##layout##_pack, &scratch},
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
