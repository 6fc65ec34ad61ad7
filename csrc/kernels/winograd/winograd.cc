#include "kernels/winograd/winograd.h"

#include <cmath>

#include "kernels/gemm/pack.h"
#include "kernels/variant.h"
#include "kernels/winograd/lanes.h"
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

[[maybe_unused]] size_t winograd_lanes_scratch(size_t k, size_t n) { return winograd_lanes(k, n).bytes(); }

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

/// Whether Winograd's method takes less time than the product, AVX2.
bool avx2_is_faster(const WinogradShape& shape) {
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
  return winograd <= 0.9 * product;
}

/// The same on plain NEON, 64 bits.
bool neon_is_faster(const WinogradShape& shape) {
  // Executed instructions of both ways, fitted to counts. Of eight channels, a block takes 16 multiplications
  // a panel for each of the 16 products, which share 9 instructions among a tile; its input is transformed
  // in 90, a filter in 62. A block's sums are stored, transformed back and finished in 210 a panel.
  const WinogradLanes lanes = winograd_lanes(shape.k, shape.n);
  const double outputs = static_cast<double>(shape.height_out * shape.width_out);
  const double blocks = static_cast<double>((shape.height_out + 1) / 2 * ((shape.width_out + 1) / 2));
  const double tiles = std::ceil(blocks / WinogradLanes::kBlocks);
  const double panels =
      static_cast<double>((shape.n + WinogradLanes::kChannels - 1) / WinogradLanes::kChannels);
  const double groups = static_cast<double>(lanes.groups);
  const double rounds = lanes.panels > 1 ? 1.0 : std::ceil(tiles / static_cast<double>(lanes.tiles));
  const double winograd = panels * (blocks * (256 * groups + 210) + tiles * 144 * groups) +
                          blocks * groups * 90 + rounds * panels * 8 * groups * 62;
  const double width = static_cast<double>((shape.n + 3) / 4 * 4);
  const double step = shape.weight_bits == 4 ? 0.165 : 0.187;
  const double product = outputs * 9 * width * (static_cast<double>(shape.k) * step + 0.94);
  // Multiplications are a larger part of Winograd's method, and are what an out-of-order core waits for.
  return winograd <= 0.85 * product;
}

}  // namespace

std::vector<const WinogradVariant*> winograd_variants(IsaSet isas) {
  return runnable(kVariants, kVariantCount, isas.with(Isa::kScalar));
}

const WinogradVariant* select_winograd(const WinogradShape& shape, IsaSet isas) {
  // The scalar variants are there to be compared with. Above these levels there is an instruction for bytes.
  const Isa level = isas.best();
  if (shape.k > kWinogradMaxDepth) return nullptr;
  if (level != Isa::kAvx2 && level != Isa::kNeon) return nullptr;
  if (!(level == Isa::kAvx2 ? avx2_is_faster(shape) : neon_is_faster(shape))) return nullptr;
  for (const WinogradVariant* variant : winograd_variants(isas)) {
    if (variant->isa == level && variant->weight_bits == shape.weight_bits) return variant;
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
