#include "kernels/peak/peak.h"

namespace edgeq {

#define EDGEQ_PEAK_KERNEL(isa, name, macs) void name(const PeakParams&);
#include "kernels/peak/kernels.inc"
#undef EDGEQ_PEAK_KERNEL

namespace {

constexpr PeakVariant kVariants[] = {
#define EDGEQ_PEAK_KERNEL(isa, name, macs) {#name, Isa::isa, &name, macs},
#include "kernels/peak/kernels.inc"
#undef EDGEQ_PEAK_KERNEL
};

}  // namespace

std::vector<const PeakVariant*> peak_variants(IsaSet isas) {
  return runnable(kVariants, sizeof kVariants / sizeof kVariants[0], isas.with(Isa::kScalar));
}

}  // namespace edgeq
