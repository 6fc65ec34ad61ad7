#include "kernels/quantize/quantize.h"

namespace edgeq {

#define EDGEQ_QUANTIZE_KERNEL(isa, name) void name(const QuantizeParams&);
#define EDGEQ_DEQUANTIZE_KERNEL(isa, name) void name(const DequantizeParams&);
#define EDGEQ_RECODE_KERNEL(isa, name) void name(const RecodeParams&);
#include "kernels/quantize/kernels.inc"
#undef EDGEQ_QUANTIZE_KERNEL
#undef EDGEQ_DEQUANTIZE_KERNEL
#undef EDGEQ_RECODE_KERNEL

namespace {

constexpr QuantizeVariant kQuantizeVariants[] = {
#define EDGEQ_QUANTIZE_KERNEL(isa, name) {#name, Isa::isa, &name},
#define EDGEQ_DEQUANTIZE_KERNEL(isa, name)
#define EDGEQ_RECODE_KERNEL(isa, name)
#include "kernels/quantize/kernels.inc"
#undef EDGEQ_QUANTIZE_KERNEL
#undef EDGEQ_DEQUANTIZE_KERNEL
#undef EDGEQ_RECODE_KERNEL
};

constexpr DequantizeVariant kDequantizeVariants[] = {
#define EDGEQ_QUANTIZE_KERNEL(isa, name)
#define EDGEQ_DEQUANTIZE_KERNEL(isa, name) {#name, Isa::isa, &name},
#define EDGEQ_RECODE_KERNEL(isa, name)
#include "kernels/quantize/kernels.inc"
#undef EDGEQ_QUANTIZE_KERNEL
#undef EDGEQ_DEQUANTIZE_KERNEL
#undef EDGEQ_RECODE_KERNEL
};

constexpr RecodeVariant kRecodeVariants[] = {
#define EDGEQ_QUANTIZE_KERNEL(isa, name)
#define EDGEQ_DEQUANTIZE_KERNEL(isa, name)
#define EDGEQ_RECODE_KERNEL(isa, name) {#name, Isa::isa, &name},
#include "kernels/quantize/kernels.inc"
#undef EDGEQ_QUANTIZE_KERNEL
#undef EDGEQ_DEQUANTIZE_KERNEL
#undef EDGEQ_RECODE_KERNEL
};

}  // namespace

std::vector<const QuantizeVariant*> quantize_variants(IsaSet isas) {
  return runnable(kQuantizeVariants, sizeof kQuantizeVariants / sizeof kQuantizeVariants[0],
                  isas.with(Isa::kScalar));
}

const QuantizeVariant* select_quantize(IsaSet isas) { return quantize_variants(isas).front(); }

std::vector<const DequantizeVariant*> dequantize_variants(IsaSet isas) {
  return runnable(kDequantizeVariants, sizeof kDequantizeVariants / sizeof kDequantizeVariants[0],
                  isas.with(Isa::kScalar));
}

const DequantizeVariant* select_dequantize(IsaSet isas) { return dequantize_variants(isas).front(); }

std::vector<const RecodeVariant*> recode_variants(IsaSet isas) {
  return runnable(kRecodeVariants, sizeof kRecodeVariants / sizeof kRecodeVariants[0],
                  isas.with(Isa::kScalar));
}

const RecodeVariant* select_recode(IsaSet isas) { return recode_variants(isas).front(); }

}  // namespace edgeq
