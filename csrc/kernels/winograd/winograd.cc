#include "kernels/winograd/winograd.h"

#include "kernels/gemm/pack.h"
#include "kernels/variant.h"
#include "kernels/winograd/transformed.h"

namespace edgeq {

#define EDGEQ_WINOGRAD_KERNEL(isa, name, mr, nr, kr, nr_step, bits, scratch) \
  void name(const WinogradParams&, size_t, size_t, size_t, size_t);
#include "kernels/winograd/kernels.inc"
#undef EDGEQ_WINOGRAD_KERNEL

namespace {

size_t winograd_no_scratch(size_t, size_t) { return 0; }

[[maybe_unused]] size_t winograd_words_scratch(size_t k, size_t n) {
  // The packed form of 4-bit weights has the more pairs.
  return winograd_layout(k, n, 4, 6).bytes();
}

constexpr WinogradVariant kVariants[] = {
#define EDGEQ_WINOGRAD_KERNEL(isa, name, mr, nr, kr, nr_step, bits, scratch) \
  {#name, Isa::isa, mr, nr, kr, nr_step, bits, &name, &scratch},
#include "kernels/winograd/kernels.inc"
#undef EDGEQ_WINOGRAD_KERNEL
};

constexpr size_t kVariantCount = sizeof kVariants / sizeof kVariants[0];

/// The matrix product whose packed form this is.
GemmVariant product_of(const WinogradVariant& variant) {
  return {variant.name,    variant.isa,         variant.mr, variant.nr, variant.kr,
          variant.nr_step, variant.weight_bits, 0,          nullptr,    nullptr};
}

}  // namespace

std::vector<const WinogradVariant*> winograd_variants(IsaSet isas) {
  return runnable(kVariants, kVariantCount, isas.with(Isa::kScalar));
}

const WinogradVariant* select_winograd(const WinogradShape& shape, IsaSet isas) {
  // The scalar variants are there to be compared with. Above AVX2 there is an instruction for bytes.
  if (isas.best() != Isa::kAvx2 || shape.k > kWinogradMaxDepth) return nullptr;
  // Cycles of both ways, fitted to measurements. A step of a 6x16 tile takes 7.5 cycles for two channels of
  // 16 bits, 8.4 for four of a 4-bit product; the transformation of a block's sums and their epilogue 70 a
  // panel, that of a block's input 45 for 16 channels, that of filters 40 for a pair of them and 16 outputs.
  const double outputs = static_cast<double>(shape.height_out * shape.width_out);
  const double blocks = static_cast<double>((shape.height_out + 1) / 2 * ((shape.width_out + 1) / 2));
  const double panels = static_cast<double>((shape.n + 15) / 16);
  const double pairs = static_cast<double>((shape.k + 1) / 2);
  const double vectors = static_cast<double>((shape.k + 15) / 16);
  const double winograd =
      blocks * (panels * (16 * pairs * 7.5 / 6 + 70) + vectors * 45) + panels * pairs * 40;
  const double step = shape.weight_bits == 4 ? 8.4 / 2 : 7.5;
  const double depth = static_cast<double>(9 * shape.k);
  const double product = outputs * (panels * (depth / 2 * step / 6 + 5) + 9 * vectors * 2);
  if (winograd > 0.9 * product) return nullptr;
  for (const WinogradVariant* variant : winograd_variants(isas)) {
    if (variant->isa == Isa::kAvx2 && variant->weight_bits == shape.weight_bits) return variant;
  }
  return nullptr;
}

size_t winograd_packed_bytes(const WinogradVariant& variant, size_t n, size_t k) {
  return gemm_packed_bytes(product_of(variant), n, k, 9);
}

void winograd_pack(const WinogradVariant& variant, size_t n, size_t k, WeightView weights,
                   const int32_t* bias, const float* scale, int32_t zp_in, uint8_t* packed) {
  gemm_pack(product_of(variant), n, k, 9, weights, bias, scale, zp_in, packed);
}

}  // namespace edgeq
