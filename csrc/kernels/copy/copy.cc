#include "kernels/copy/copy.h"

namespace edgeq {

#define EDGEQ_COPY_KERNEL(isa, name) void name(const CopyParams&);
#define EDGEQ_INTERLEAVE_KERNEL(isa, name) void name(const InterleaveParams&);
#define EDGEQ_PAD_KERNEL(isa, name) void name(const PadParams&);
#include "kernels/copy/kernels.inc"
#undef EDGEQ_COPY_KERNEL
#undef EDGEQ_INTERLEAVE_KERNEL
#undef EDGEQ_PAD_KERNEL

namespace {

constexpr CopyVariant kCopyVariants[] = {
#define EDGEQ_COPY_KERNEL(isa, name) {#name, Isa::isa, &name},
#define EDGEQ_INTERLEAVE_KERNEL(isa, name)
#define EDGEQ_PAD_KERNEL(isa, name)
#include "kernels/copy/kernels.inc"
#undef EDGEQ_COPY_KERNEL
#undef EDGEQ_INTERLEAVE_KERNEL
#undef EDGEQ_PAD_KERNEL
};

constexpr InterleaveVariant kInterleaveVariants[] = {
#define EDGEQ_COPY_KERNEL(isa, name)
#define EDGEQ_INTERLEAVE_KERNEL(isa, name) {#name, Isa::isa, &name},
#define EDGEQ_PAD_KERNEL(isa, name)
#include "kernels/copy/kernels.inc"
#undef EDGEQ_COPY_KERNEL
#undef EDGEQ_INTERLEAVE_KERNEL
#undef EDGEQ_PAD_KERNEL
};

constexpr PadVariant kPadVariants[] = {
#define EDGEQ_COPY_KERNEL(isa, name)
#define EDGEQ_INTERLEAVE_KERNEL(isa, name)
#define EDGEQ_PAD_KERNEL(isa, name) {#name, Isa::isa, &name},
#include "kernels/copy/kernels.inc"
#undef EDGEQ_COPY_KERNEL
#undef EDGEQ_INTERLEAVE_KERNEL
#undef EDGEQ_PAD_KERNEL
};

}  // namespace

std::vector<const CopyVariant*> copy_variants(IsaSet isas) {
  return runnable(kCopyVariants, sizeof kCopyVariants / sizeof kCopyVariants[0], isas.with(Isa::kScalar));
}

const CopyVariant* select_copy(IsaSet isas) { return copy_variants(isas).front(); }

std::vector<const InterleaveVariant*> interleave_variants(IsaSet isas) {
  return runnable(kInterleaveVariants, sizeof kInterleaveVariants / sizeof kInterleaveVariants[0],
                  isas.with(Isa::kScalar));
}

const InterleaveVariant* select_interleave(IsaSet isas) { return interleave_variants(isas).front(); }

std::vector<const PadVariant*> pad_variants(IsaSet isas) {
  return runnable(kPadVariants, sizeof kPadVariants / sizeof kPadVariants[0], isas.with(Isa::kScalar));
}

const PadVariant* select_pad(IsaSet isas) { return pad_variants(isas).front(); }

}  // namespace edgeq
