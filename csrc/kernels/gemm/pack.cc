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

// Elements that are read at a time: whole group pairs of every variant.
constexpr size_t kChunk = 512;

/// Reads `count` weights from element `first` on, and zeros up to kChunk; returns their sum.
int32_t read_chunk(WeightView weights, size_t first, size_t count, int8_t (&chunk)[kChunk]) {
  if (weights.bits == 8) {
    std::memcpy(chunk, weights.data + weights.first + first, count);
  } else {
    for (size_t i = 0; i < count; ++i) chunk[i] = weights.at(first + i);
  }
  std::memset(chunk + count, 0, kChunk - count);
  int32_t sum = 0;
  for (size_t i = 0; i < kChunk; ++i) sum += chunk[i];
  return sum;
}

/// Scatters the groups of one channel's chunk: `out` is where its first group lies, the next is `step` bytes
/// on.
template <size_t kKr>
void scatter(const int8_t* chunk, size_t groups, int bits, size_t step, uint8_t* out) {
  if (bits == 8) {
    for (size_t g = 0; g < groups; ++g) std::memcpy(out + g * step, chunk + g * kKr, kKr);
    return;
  }
  for (size_t pair = 0; pair < groups / 2; ++pair) {
    const int8_t* even = chunk + 2 * pair * kKr;
    for (size_t r = 0; r < kKr; ++r) out[pair * step + r] = int4_pack(even[r], even[kKr + r]);
  }
}

void scatter(size_t kr, const int8_t* chunk, size_t groups, int bits, size_t step, uint8_t* out) {
  switch (kr) {
    case 1:
      scatter<1>(chunk, groups, bits, step, out);
      break;
    case 2:
      scatter<2>(chunk, groups, bits, step, out);
      break;
    case 4:
      scatter<4>(chunk, groups, bits, step, out);
      break;
    default:
      scatter<8>(chunk, groups, bits, step, out);
      break;
  }
}

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
  const size_t nr = static_cast<size_t>(variant.nr);
  const size_t kr = static_cast<size_t>(variant.kr);
  const size_t groups = groups_of_tap(variant, k);
  const size_t divisor = variant.weight_bits == 4 ? 2 : 1;
  const size_t bytes = gemm_packed_bytes(variant, n, k, taps);
  std::memset(packed, 0, bytes);
  for (size_t panel = 0; panel * nr < n; ++panel) {
    const size_t first = panel * nr;
    const size_t width = panel_width(n, panel, nr, static_cast<size_t>(variant.nr_step));
    const size_t step = width * kr;
    uint8_t* out = packed + width * (sizeof(int32_t) + sizeof(float));
    for (size_t j = 0; j < width && first + j < n; ++j) {
      int32_t sum = 0;
      for (size_t t = 0; t < taps; ++t) {
        const size_t row = ((first + j) * taps + t) * k;
        for (size_t c = 0; c < k; c += kChunk) {
          int8_t chunk[kChunk];
          const size_t count = k - c < kChunk ? k - c : kChunk;
          sum = wrapping_add(sum, read_chunk(weights, row + c, count, chunk));
          const size_t first_group = c / kr;
          const size_t left = groups - first_group;
          const size_t chunk_groups = left < kChunk / kr ? left : kChunk / kr;
          scatter(kr, chunk, chunk_groups, variant.weight_bits, step,
                  out + (t * groups + first_group) / divisor * step + j * kr);
        }
      }
      const int32_t folded = wrapping_add(bias == nullptr ? 0 : bias[first + j], wrapping_mul(-zp_lhs, sum));
      std::memcpy(packed + j * sizeof(int32_t), &folded, sizeof folded);
      std::memcpy(packed + width * sizeof(int32_t) + j * sizeof(float), scale + first + j, sizeof(float));
    }
    packed += panel_bytes(variant, width, k, taps);
  }
}

}  // namespace edgeq
