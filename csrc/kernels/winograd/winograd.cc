#include "kernels/winograd/winograd.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/gemm/pack.h"
#include "kernels/variant.h"
#include "kernels/winograd/lanes.h"
#include "kernels/winograd/transformed.h"

namespace edgeq {

#define EDGEQ_WINOGRAD_KERNEL(isa, name, block, mr, nr, kr, nr_step, bits, scratch) \
  void name(const WinogradParams&, size_t, size_t, size_t, size_t);
#include "kernels/winograd/kernels.inc"
#undef EDGEQ_WINOGRAD_KERNEL

namespace {

size_t winograd_no_scratch(size_t, size_t) { return 0; }

[[maybe_unused]] size_t winograd_words_scratch(size_t k, size_t n) {
  // The packed form of 4-bit weights has the more pairs.
  return winograd_layout(k, n, 4, 6, 1, 32).bytes();
}

[[maybe_unused]] size_t winograd_words512_scratch(size_t k, size_t n) {
  return winograd_layout(k, n, 4, 8, 2, 64).bytes();
}

[[maybe_unused]] size_t winograd_lanes_scratch(size_t k, size_t n) { return winograd_lanes(k, n).bytes(); }

constexpr WinogradVariant kVariants[] = {
#define EDGEQ_WINOGRAD_KERNEL(isa, name, block, mr, nr, kr, nr_step, bits, scratch) \
  {#name, Isa::isa, block, mr, nr, kr, nr_step, bits, &name, &scratch},
#include "kernels/winograd/kernels.inc"
#undef EDGEQ_WINOGRAD_KERNEL
};

// 4 * 255 * kMostOfTwo <= 2^31 - 1; 128 * kMostOfFour < 2^25 (winograd.h).
constexpr size_t kMostOfTwo = 2105376;
constexpr size_t kMostOfFour = 262143;

constexpr size_t kVariantCount = sizeof kVariants / sizeof kVariants[0];

/// The matrix product whose packed form this is.
GemmVariant product_of(const WinogradVariant& variant) {
  return {variant.name,    variant.isa,         variant.mr, variant.nr, variant.kr,
          variant.nr_step, variant.weight_bits, 0,          nullptr,    nullptr};
}

#if EDGEQ_ARCH_X86

size_t all_note_bytes(const WinogradVariant&, size_t, size_t) { return 0; }

void put_all_notes(const WinogradVariant&, size_t, size_t, WeightView, uint8_t*) {}

/// Cycles of Winograd's method by blocks of 4x4 outputs. `step`: of two channels of all blocks with a panel
/// of `nr`; `back`: of a block's sums and their epilogue, `block`: of its input, 64 bytes of words, `filter`:
/// of those of two channels with a panel.
double cycles_of_blocks(const WinogradShape& shape, size_t nr, double step, double back, double block,
                        double filter) {
  const double blocks = static_cast<double>((shape.height_out + 3) / 4 * ((shape.width_out + 3) / 4));
  const double panels = static_cast<double>((shape.n + nr - 1) / nr);
  const double pairs = static_cast<double>((shape.k + 1) / 2);
  const double vectors = static_cast<double>((shape.k + 31) / 32);
  return blocks * (panels * (36 * pairs * step + back) + vectors * block) + panels * pairs * filter;
}

/// Whether Winograd's method takes less time than the product, AVX2. Cycles of both ways, fitted to
/// measurements. A step of a 6x16 tile takes 7.5 cycles for two channels of 16 bits, 8.4 for four of a 4-bit
/// product.
bool avx2_is_faster(const WinogradShape& shape) {
  const double winograd = cycles_of_blocks(shape, 16, 1.33, 290, 150, 150);
  const double outputs = static_cast<double>(shape.height_out * shape.width_out);
  const double panels = static_cast<double>((shape.n + 15) / 16);
  const double step = shape.weight_bits == 4 ? 8.4 / 2 : 7.5;
  const double depth = static_cast<double>(9 * shape.k);
  const double product =
      outputs * (panels * (depth / 2 * step / 6 + 5) + 9 * static_cast<double>((shape.k + 15) / 16) * 2);
  return winograd <= 0.9 * product;
}

/// The same with AVX-512: a dot product of bytes or words a cycle.
bool avx512vnni_is_faster(const WinogradShape& shape) {
  const double winograd = cycles_of_blocks(shape, 32, 1.65, 480, 200, 300);
  const double outputs = static_cast<double>(shape.height_out * shape.width_out);
  const double vectors = static_cast<double>((shape.n + 15) / 16);
  const double product = outputs * vectors * (9 * static_cast<double>((shape.k + 3) / 4) * 1.04 + 3);
  return winograd <= 0.9 * product;
}

#else

/// Magnitudes of the 16 elements of a transformed filter (arm_neon.cc), whose taps lie `step` apart.
void put_magnitudes(WeightView filter, size_t step, int32_t (&to)[16]) {
  int32_t columns[3][4];
  const auto transform = [](int32_t g0, int32_t g1, int32_t g2, int32_t* out) {
    out[0] = g0;
    out[1] = g0 + g1 + g2;
    out[2] = g0 - g1 + g2;
    out[3] = g2;
  };
  for (size_t x = 0; x < 3; ++x)
    transform(filter.at(x * step), filter.at((3 + x) * step), filter.at((6 + x) * step), columns[x]);
  for (size_t y = 0; y < 4; ++y) transform(columns[0][y], columns[1][y], columns[2][y], to + 4 * y);
  for (int32_t& element : to) element = element < 0 ? -element : element;
}

/// Writes the notes of a panel of `width` channels. An element of a transformed block is within [-510, 510],
/// but [-512, 508] where it is a sum in both dimensions: filters whose magnitudes add up to 64 at most make
/// sums of 64 * 510 = 32,640, and 63 make 63 * 512 = 32,256.
void put_notes(WeightView weights, size_t width, size_t k, uint8_t* notes) {
  constexpr size_t kPlain = 5;  // the element that is a sum in both dimensions
  const size_t pairs = (k + 1) / 2;
  std::vector<std::vector<uint8_t> > runs(16);
  bool fit[16];
  std::fill(fit, fit + 16, true);
  int32_t sums[16][WinogradLanes::kChannels] = {};
  size_t length[16] = {};
  const auto end_run = [&](size_t e, size_t pair) {
    runs[e].push_back(static_cast<uint8_t>(length[e] + pair % 2 * kWinogradRunPairs));
    length[e] = 0;
  };
  for (size_t i = 0; i < pairs; ++i) {
    int32_t here[16][WinogradLanes::kChannels] = {};
    for (size_t j = 0; j < width; ++j) {
      for (size_t c = 2 * i; c < 2 * i + 2 && c < k; ++c) {
        if (c == 0) continue;  // 32 bits hold its products
        int32_t magnitudes[16];
        put_magnitudes(weights.from(j * 9 * k + c), k, magnitudes);
        for (size_t e = 0; e < 16; ++e) here[e][j] += magnitudes[e];
      }
    }
    for (size_t e = 0; e < 16; ++e) {
      const int32_t most = e == kPlain ? 63 : 64;
      bool joins = length[e] != 0 && length[e] != kWinogradRunPairs;
      for (size_t j = 0; j < width; ++j) {
        fit[e] = fit[e] && here[e][j] <= most;
        joins = joins && sums[e][j] + here[e][j] <= most;
      }
      for (size_t j = 0; j < width; ++j) sums[e][j] = here[e][j] + (joins ? sums[e][j] : 0);
      if (!joins && i != 0) end_run(e, i - 1);
      ++length[e];
      if (i + 1 == pairs) end_run(e, i);
    }
  }
  std::memset(notes, 0, winograd_note_bytes(k));
  const uint8_t* const end = notes + winograd_note_bytes(k);
  for (size_t e = 0; e < 16; ++e, ++notes) {
    // The elements behind it have a byte at least.
    if (!fit[e] || runs[e].size() + 16 - e > static_cast<size_t>(end - notes)) continue;
    notes = std::copy(runs[e].begin(), runs[e].end(), notes);
  }
}

/// Whether notes of 4-bit weights stand behind the panels (lanes.h).
bool has_notes(const WinogradVariant& variant) {
  return variant.isa == Isa::kNeon && variant.weight_bits == 4;
}

size_t all_note_bytes(const WinogradVariant& variant, size_t n, size_t k) {
  return has_notes(variant) ? winograd_panels(variant, n) * winograd_note_bytes(k) : 0;
}

void put_all_notes(const WinogradVariant& variant, size_t n, size_t k, WeightView weights, uint8_t* notes) {
  if (!has_notes(variant)) return;
  for (size_t panel = 0; panel < winograd_panels(variant, n); ++panel, notes += winograd_note_bytes(k)) {
    const size_t first = panel * WinogradLanes::kChannels;
    const size_t width = n - first < WinogradLanes::kChannels ? n - first : WinogradLanes::kChannels;
    put_notes(weights.from(first * 9 * k), width, k, notes);
  }
}

/// Whether Winograd's method takes less time than the product, plain NEON of 64 bits.
bool neon_is_faster(const WinogradShape& shape) {
  // Executed instructions of both ways, fitted to counts. Of eight channels, a block takes 16 multiplications
  // a panel for each of the 16 products, or of 4-bit weights 8 and about 1.2 that widen; loads and branches,
  // 6 or 8, are shared among a tile. Its input is transformed in 117, a filter in 50 or 40. A block's sums
  // are stored, transformed back and finished in 310 a panel.
  const WinogradLanes lanes = winograd_lanes(shape.k, shape.n);
  const double outputs = static_cast<double>(shape.height_out * shape.width_out);
  const double blocks = static_cast<double>((shape.height_out + 1) / 2 * ((shape.width_out + 1) / 2));
  const double tiles = std::ceil(blocks / WinogradLanes::kBlocks);
  const double panels =
      static_cast<double>((shape.n + WinogradLanes::kChannels - 1) / WinogradLanes::kChannels);
  const double groups = static_cast<double>(lanes.groups);
  const double rounds = lanes.panels > 1 ? 1.0 : std::ceil(tiles / static_cast<double>(lanes.tiles));
  const bool narrow = shape.weight_bits == 4;
  const double of_block = 16 * (narrow ? 9.2 : 16.0);
  const double of_tile = 16 * (narrow ? 8.0 : 6.0);
  const double winograd = panels * (blocks * (of_block * groups + 310) + tiles * of_tile * groups) +
                          blocks * groups * 117 + rounds * panels * 8 * groups * (narrow ? 40 : 50);
  const double width = static_cast<double>((shape.n + 3) / 4 * 4);
  const double step = narrow ? 0.165 : 0.187;
  const double product = outputs * 9 * width * (static_cast<double>(shape.k) * step + 0.94);
  // Multiplications are a larger part of Winograd's method, and are what an out-of-order core waits for.
  return winograd <= 0.85 * product;
}

#endif

}  // namespace

size_t winograd_most(const WinogradVariant& variant) { return variant.block == 4 ? kMostOfFour : kMostOfTwo; }

bool winograd_takes(const WinogradVariant& variant, size_t n, size_t k, WeightView weights) {
  const size_t depth = 9 * k;
  const size_t most = winograd_most(variant);
  if (depth * (weights.bits == 4 ? 7 : 127) <= most) return true;
  for (size_t j = 0; j < n; ++j) {
    size_t sum = 0;
    for (size_t i = 0; i < depth; ++i) {
      const int32_t weight = weights.at(j * depth + i);
      sum += static_cast<size_t>(weight < 0 ? -weight : weight);
    }
    if (sum > most) return false;
  }
  return true;
}

std::vector<const WinogradVariant*> winograd_variants(IsaSet isas) {
  return runnable(kVariants, kVariantCount, isas.with(Isa::kScalar));
}

const WinogradVariant* select_winograd(const WinogradShape& shape, IsaSet isas) {
  // The scalar variants are there to be compared with. Above these levels, and between, there is an
  // instruction for bytes that is worth more.
  Isa level = isas.best();
  if (level == Isa::kAvx512Vbmi) level = Isa::kAvx512Vnni;
  bool (*is_faster)(const WinogradShape&) = nullptr;
#if EDGEQ_ARCH_X86
  if (level == Isa::kAvx512Vnni) is_faster = avx512vnni_is_faster;
  if (level == Isa::kAvx2) is_faster = avx2_is_faster;
#else
  if (level == Isa::kNeon) is_faster = neon_is_faster;
#endif
  // Products of few channels gather whole windows, which the models of cost do not know.
  constexpr size_t kFewest = 8;
  if (is_faster == nullptr || shape.k < kFewest || !is_faster(shape)) return nullptr;
  for (const WinogradVariant* variant : winograd_variants(isas)) {
    if (variant->isa == level && variant->weight_bits == shape.weight_bits) return variant;
  }
  return nullptr;
}

size_t winograd_packed_bytes(const WinogradVariant& variant, size_t n, size_t k) {
  return gemm_packed_bytes(product_of(variant), n, k, 9) + all_note_bytes(variant, n, k);
}

void winograd_pack(const WinogradVariant& variant, size_t n, size_t k, WeightView weights,
                   const int32_t* bias, const float* scale, int32_t zp_in, uint8_t* packed) {
  // Blocks of 4x4 outputs are made of activations less 128.
  const int32_t zp = variant.block == 4 ? zp_in - 128 : zp_in;
  gemm_pack(product_of(variant), n, k, 9, weights, bias, scale, zp, packed);
  put_all_notes(variant, n, k, weights, packed + gemm_packed_bytes(product_of(variant), n, k, 9));
}

}  // namespace edgeq
