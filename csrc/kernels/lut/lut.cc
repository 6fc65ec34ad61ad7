#include "kernels/lut/lut.h"

namespace edgeq {

#define EDGEQ_LUT_KERNEL(isa, name) void name(const LutParams&);
#include "kernels/lut/kernels.inc"
#undef EDGEQ_LUT_KERNEL

namespace {

constexpr LutVariant kLutVariants[] = {
#define EDGEQ_LUT_KERNEL(isa, name) {#name, Isa::isa, &name},
#include "kernels/lut/kernels.inc"
#undef EDGEQ_LUT_KERNEL
};

}  // namespace

std::vector<const LutVariant*> lut_variants(IsaSet isas) {
  return runnable(kLutVariants, sizeof kLutVariants / sizeof kLutVariants[0], isas.with(Isa::kScalar));
}

const LutVariant* select_lut(IsaSet isas) { return lut_variants(isas).front(); }

}  // namespace edgeq
