#include "kernels/gemm/pack.h"

#include <cstring>

#include "base/requantize.h"
#include "kernels/gemm/lhs.h"

namespace edgeq {
namespace {

size_t groups_of_tap(const GemmVariant& variant, size_t k) {
  const size_t kr = static_cast<size_t>(variant.kr);
  const size_t groups = (k + kr - 1) / kr;
  return variant.weight_bits == 4 ? (groups + 1) / 2 * 2 : groups;
}

size_t panel_bytes(const GemmVariant& variant, size_t width, size_t k, size_t taps) {
  const size_t weights = width * gemm_padded_k(variant, k) * taps;
  return width * (sizeof(int32_t) + sizeof(float)) + (variant.weight_bits == 4 ? weights / 2 : weights);
}

/// The weight (j, t, c) or zero outside of the tensor.
struct PaddedWeights {
  WeightView view;
  size_t n;
  size_t k;
  size_t taps;

  int8_t at(size_t j, size_t t, size_t c) const {
    return j < n && c < k ? view.at((j * taps + t) * k + c) : int8_t{0};
  }
};

}  // namespace

size_t gemm_padded_k(const GemmVariant& variant, size_t k) {
  return groups_of_tap(variant, k) * static_cast<size_t>(variant.kr);
}

size_t gemm_packed_bytes(const GemmVariant& variant, size_t n, size_t k, size_t taps) {
  size_t bytes = 0;
  const size_t nr = static_cast<size_t>(variant.nr);
  const size_t full = n / nr;
  bytes = full * panel_bytes(variant, nr, k, taps);
  if (full * nr < n) {
    bytes += panel_bytes(variant, panel_width(n, full, nr, static_cast<size_t>(variant.nr_step)), k, taps);
  }
  return bytes;
}

void gemm_pack(const GemmVariant& variant, size_t n, size_t k, size_t taps, WeightView weights,
               const int32_t* bias, const float* scale, int32_t zp_lhs, uint8_t* packed) {
  const PaddedWeights padded{weights, n, k, taps};
  const size_t nr = static_cast<size_t>(variant.nr);
  const size_t kr = static_cast<size_t>(variant.kr);
  const size_t groups = groups_of_tap(variant, k);
  for (size_t panel = 0; panel * nr < n; ++panel) {
    const size_t first = panel * nr;
    const size_t width = panel_width(n, panel, nr, static_cast<size_t>(variant.nr_step));
    uint8_t* out_weights = packed + width * (sizeof(int32_t) + sizeof(float));
    for (size_t j = 0; j < width; ++j) {
      int32_t folded = 0;
      float multiplier = 0.0f;
      if (first + j < n) {
        int32_t sum = 0;
        for (size_t e = 0; e < taps * k; ++e) sum = wrapping_add(sum, weights.at((first + j) * taps * k + e));
        folded = wrapping_add(bias == nullptr ? 0 : bias[first + j], wrapping_mul(-zp_lhs, sum));
        multiplier = scale[first + j];
      }
      std::memcpy(packed + j * sizeof(int32_t), &folded, sizeof folded);
      std::memcpy(packed + width * sizeof(int32_t) + j * sizeof(float), &multiplier, sizeof multiplier);
    }
    for (size_t t = 0; t < taps; ++t) {
      if (variant.weight_bits == 8) {
        for (size_t g = 0; g < groups; ++g) {
          for (size_t j = 0; j < width; ++j) {
            for (size_t r = 0; r < kr; ++r) {
              *out_weights++ = static_cast<uint8_t>(padded.at(first + j, t, g * kr + r));
            }
          }
        }
      } else {
        for (size_t g = 0; g < groups; g += 2) {
          for (size_t j = 0; j < width; ++j) {
            for (size_t r = 0; r < kr; ++r) {
              *out_weights++ =
                  int4_pack(padded.at(first + j, t, g * kr + r), padded.at(first + j, t, (g + 1) * kr + r));
            }
          }
        }
      }
    }
    packed = out_weights;
  }
}

}  // namespace edgeq
