#include "kernels/winograd/phases.h"

#include <cstring>

namespace edgeq {

#if defined(EDGEQ_HAVE_AVX2)
void phases_u8s8c_u8_6x16x2_avx2(const PhaseParams& params);
#endif

namespace {

/// H times four taps, `step` apart, into six elements, `to_step` apart.
void transform(const int32_t* g, size_t step, int32_t* to, size_t to_step) {
  const int32_t g0 = g[0];
  const int32_t g1 = g[step];
  const int32_t g2 = g[2 * step];
  const int32_t g3 = g[3 * step];
  to[0] = 6 * g0;
  to[to_step] = 4 * (g0 + g1 + g2 + g3);
  to[2 * to_step] = 4 * (g0 - g1 + g2 - g3);
  to[3 * to_step] = g0 + 2 * g1 + 4 * g2 + 8 * g3;
  to[4 * to_step] = g0 - 2 * g1 + 4 * g2 - 8 * g3;
  to[5 * to_step] = 12 * g3;
}

}  // namespace

const PhaseVariant* phase_variant([[maybe_unused]] IsaSet isas) {
#if defined(EDGEQ_HAVE_AVX2)
  static constexpr PhaseVariant kAvx2 = {"phases_u8s8c_u8_6x16x2_avx2", Isa::kAvx2,
                                         &phases_u8s8c_u8_6x16x2_avx2};
  if (isas.has(Isa::kAvx2)) return &kAvx2;
#endif
  return nullptr;
}

const PhaseVariant* select_phases(const PhaseShape& shape, IsaSet isas) {
  // A product takes kernel_h * kernel_w * k / 2 multiplications for a vector of outputs, this 8 * k and about
  // as long again. Four-bit weights and dot products of bytes are twice as fast there.
  constexpr size_t kFewestTaps = 100;
  const PhaseVariant* variant = phase_variant(isas);
  if (variant == nullptr || isas.best() != variant->isa || shape.weight_bits != 8 ||
      shape.k > PhaseParams::kMostChannels || shape.kernel_h > PhaseParams::kMostTaps ||
      shape.kernel_w > PhaseParams::kMostTaps || shape.kernel_h * shape.kernel_w * shape.k < kFewestTaps ||
      shape.n < kPhasePanel) {
    return nullptr;
  }
  return variant;
}

void phase_pack(const PhaseShape& shape, WeightView weights, const int32_t* bias, const float* scale,
                int32_t zp_in, uint8_t* packed) {
  const WinogradLayout layout = phase_layout(shape.k);
  const size_t depth = shape.kernel_h * shape.kernel_w * shape.k;
  std::memset(packed, 0, phase_packed_bytes(shape.k, shape.n));
  for (size_t j = 0; j < shape.n; ++j) {
    const size_t lane = j % kPhasePanel;
    uint8_t* const panel = packed + j / kPhasePanel * layout.panel_bytes;
    const WeightView filter = weights.from(j * depth);
    uint32_t sum = 0;
    for (size_t i = 0; i < depth; ++i) sum += static_cast<uint32_t>(filter.at(i));
    // Blocks are made of activations less 128.
    const uint32_t offset =
        (bias == nullptr ? 0 : static_cast<uint32_t>(bias[j])) - static_cast<uint32_t>(zp_in - 128) * sum;
    std::memcpy(panel + lane * sizeof offset, &offset, sizeof offset);
    std::memcpy(panel + (kPhasePanel + lane) * sizeof(float), scale + j, sizeof(float));
    uint8_t* const elements = panel + kPhasePanel * (sizeof(int32_t) + sizeof(float));
    for (size_t word = 0; word < 4 * shape.k; ++word) {
      // In the order of a square's two rows.
      const size_t bottom = word / (2 * shape.k);
      const size_t right = word / shape.k % 2;
      int32_t taps[16] = {};
      for (size_t t = 0; t < 16; ++t) {
        const size_t ky = t / 4 * 2 + bottom;
        const size_t kx = t % 4 * 2 + right;
        if (ky >= shape.kernel_h || kx >= shape.kernel_w) continue;
        taps[t] = filter.at((ky * shape.kernel_w + kx) * shape.k + word % shape.k);
      }
      int32_t columns[6 * 4];
      int32_t out[36];
      for (size_t x = 0; x < 4; ++x) transform(taps + x, 4, columns + x, 4);
      for (size_t y = 0; y < 6; ++y) transform(columns + 4 * y, 1, out + 6 * y, 1);
      for (size_t e = 0; e < WinogradLayout::kElements; ++e) {
        const int16_t value = static_cast<int16_t>(out[e]);
        std::memcpy(elements + e * layout.filter_bytes +
                        ((word / 2 * kPhasePanel + lane) * 2 + word % 2) * sizeof value,
                    &value, sizeof value);
      }
    }
  }
}

}  // namespace edgeq
