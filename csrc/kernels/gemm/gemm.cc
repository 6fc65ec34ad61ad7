#include "kernels/gemm/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/gemm/amx_blocking.h"
#include "kernels/gemm/arm64_blocking.h"
#include "kernels/gemm/neon_blocks.h"
#include "kernels/gemm/pack.h"
#include "kernels/gemm/unpacked.h"
#include "kernels/gemm/widened.h"
#include "kernels/variant.h"

namespace edgeq {

#define EDGEQ_GEMM_KERNEL(isa, name, mr, nr, kr, nr_step, bits, max_depth, scratch) \
  void name(const GemmParams&, size_t, size_t, size_t, size_t);
#include "kernels/gemm/kernels.inc"
#undef EDGEQ_GEMM_KERNEL

namespace {

// Each architecture's variants use some of these.
[[maybe_unused]] size_t gemm_no_scratch(const GemmShape&) { return 0; }

template <size_t kMr>
size_t gemm_widened_scratch(const GemmShape& shape) {
  return widened_layout(shape.k, shape.taps, shape.weight_bits, shape.direct, kMr).bytes();
}

template <size_t kNr>
size_t gemm_unpacked_scratch(const GemmShape& shape) {
  return unpacked_scratch(kNr, shape.k, shape.taps);
}

template <int kBits>
size_t gemm_arm64_scratch(const GemmShape& shape) {
  return arm64_blocking(arm64_depth(shape.k, shape.taps), kBits).bytes;
}

[[maybe_unused]] size_t gemm_amx_scratch(const GemmShape& s) {
  return amx_scratch_bytes(amx_blocking(s.n, s.k, s.taps, s.weight_bits, s.direct));
}

[[maybe_unused]] size_t gemm_neon_scratch(const GemmShape& s) {
  return neon_blocks(s.k, s.taps, s.weight_bits).bytes();
}

[[maybe_unused]] size_t gemm_lanes_scratch(const GemmShape& s) { return lane_blocks(s.k, s.taps).bytes(); }

constexpr GemmVariant kVariants[] = {
#define EDGEQ_GEMM_KERNEL(isa, name, mr, nr, kr, nr_step, bits, max_depth, scratch) \
  {#name, Isa::isa, mr, nr, kr, nr_step, bits, max_depth, &name, &scratch},
#include "kernels/gemm/kernels.inc"
#undef EDGEQ_GEMM_KERNEL
};

constexpr size_t kVariantCount = sizeof kVariants / sizeof kVariants[0];

/// Time of a shape on vectors of `nr_step` channels, in multiply-accumulates of one such vector, which are
/// cycles where a core does one in a cycle. It is within 10 % of what AVX-512 kernels take on 9 in 10 of the
/// products of eight networks, from 196 rows of 16 channels to 49 of 2048.
///
/// A row of a panel takes its products; for each vector its share of a quad's epilogue, of which the
/// multiplication by the scale cannot hide behind products and about half an instruction more does not
/// (x86_tile.h); and its part of entering a tile. One row alone also waits for every group's weights. 4-bit
/// weights are unpacked once for all rows. Weights come once through the caches: that binds where there is
/// one row, at about 25 bytes a cycle from the last level.
double predicted_cost(const GemmVariant& variant, const GemmShape& shape) {
  constexpr double kEpilogue = 1.5;   // a vector of a row
  constexpr double kRow = 0.8;        // a row of a panel
  constexpr double kPanel = 60.0;     // entering a panel
  constexpr double kUnpacking = 2.0;  // a vector of a group
  constexpr double kBytesPerCycle = 25.0;
  constexpr double kBiasAndScale = 8.0;  // bytes a channel
  constexpr size_t kLeastChannels = 8;   // half a last vector of 512 bits, or one of 256
  const size_t nr = static_cast<size_t>(variant.nr);
  const double rows = static_cast<double>(shape.m);
  const double depth = static_cast<double>(gemm_padded_k(variant, shape.k) * shape.taps);
  const double groups = depth / variant.kr;
  double cycles = 0.0;
  for (size_t first = 0; first < shape.n; first += nr) {
    const size_t channels = shape.n - first < nr ? shape.n - first : nr;
    const size_t eights = (channels + kLeastChannels - 1) / kLeastChannels;
    const double vectors = static_cast<double>(eights * kLeastChannels) / variant.nr_step;
    const double products = groups * (shape.m == 1 ? vectors + 1.0 : vectors);
    cycles += rows * (products + kEpilogue * vectors + kRow) + kPanel;
    if (shape.weight_bits == 4 && shape.m > 1) cycles += kUnpacking * groups * vectors;
  }
  const double bytes = static_cast<double>(shape.n) * (depth * variant.weight_bits / 8.0 + kBiasAndScale);
  const double streaming = bytes / kBytesPerCycle;
  return cycles > streaming ? cycles : streaming;
}

/// Cycles of the AVX2 kernels of 8-bit weights, fitted to measurements within 2 % (x86_avx2.cc). The one that
/// halves the multiplications has smaller tiles, and must sum up every row first.
double avx2_words_cost(const GemmVariant& variant, const GemmShape& shape) {
  const bool crossed = variant.mr == 4;
  const size_t k = gemm_padded_k(variant, shape.k);
  const double depth = static_cast<double>(k * shape.taps);
  const double taps = static_cast<double>(shape.taps);
  // A row of a panel of 16 channels, and of a last one of 8.
  const size_t rest = shape.n % 16;
  const double panels = static_cast<double>(shape.n / 16 + (rest > 8 ? 1 : 0));
  const double full = crossed ? 0.557 * depth + 6.1 : 0.633 * depth + 4.4;
  const double half = crossed ? 0.344 * depth + 4.6 : 0.335 * depth + 4.7;
  double row = crossed ? 0.113 * depth + 7.4 * taps : 0.065 * depth + 4.6 * taps;
  if (crossed && k % 16 != 0) row += 5.6 * taps;
  const bool has_half = rest != 0 && rest <= 8;
  return static_cast<double>(shape.m) * (panels * full + (has_half ? half : 0.0) + row);
}

/// Instructions of a plain NEON kernel: those of the products and loads for each place of the depth, and
/// those around them, a tile. Tiles by lanes have no sums to add up at the end, but widen every operand.
double neon_cost(const GemmVariant& variant, const GemmShape& shape) {
  const bool narrow = shape.weight_bits == 4;
  const bool lanes = variant.kr == 1;
  const auto tiles = [](size_t count, int size) {
    return static_cast<double>((count + static_cast<size_t>(size) - 1) / static_cast<size_t>(size));
  };
  const double depth = static_cast<double>((shape.k + 7) / 8 * 8 * shape.taps);
  // Tiles by lanes have eight rows, or four or one for the rest.
  const size_t rest = shape.m % 8;
  const double last = rest == 0 ? 0.0 : rest == 1 ? 0.17 : rest <= 4 ? 0.53 : 1.0;
  const double rows =
      lanes ? static_cast<double>(shape.m / 8) + last : static_cast<double>(shape.m) / variant.mr;
  const double weights = depth * static_cast<double>(shape.n);
  const double place = lanes ? 17.0 : narrow ? 2.3 : 3.3;
  const double tile = lanes ? 195.0 : narrow ? 60.0 : 50.0;
  // The last panel by lanes may be half of one.
  const size_t rest_columns = lanes ? shape.n % 16 : 0;
  const double half = rest_columns != 0 && rest_columns <= 8 ? 0.4 : 0.0;
  const double unpacking = lanes ? 0.3 : narrow ? 0.4 : 0.0;
  double cost = rows * (tiles(shape.n, variant.nr) - half) * (place * depth + tile) + unpacking * weights;
  // Widening a tile's rows; and its sums, for about every 80 places of the depth.
  if (lanes) cost += rows * (3.0 * depth + 60.0 + 0.75 * (depth - 80.0) * tiles(shape.n, variant.nr));
  return cost;
}

/// Time of an AMX kernel in the same unit: CPUs with AMX do two of the 512-bit multiply-accumulates that
/// predicted_cost counts in a cycle. Nobody has measured these kernels: the rates are those of plain loops of
/// tile instructions.
double amx_cost(const GemmShape& shape) {
  // Tiles that are mostly padding: not what the rates were measured on.
  if (shape.m < 16 || shape.k * shape.taps < 32) return HUGE_VAL;
  const AmxBlocking b = amx_blocking(shape.n, shape.k, shape.taps, shape.weight_bits, shape.direct);
  const double rows = static_cast<double>(shape.m);
  const double blocks = static_cast<double>(b.total_blocks());
  const double row_tiles = static_cast<double>((shape.m + kAmxTileRows - 1) / kAmxTileRows);
  const double column_tiles = static_cast<double>((shape.n + kAmxColumns / 2 - 1) / (kAmxColumns / 2));
  // A product of two tiles takes 16 cycles at best. With tiles loaded from the first-level cache 16 to 33
  // were measured, and the unit is shared with the core's other thread: 22. From the second level the loads
  // bind.
  const bool near = blocks * kAmxBlockDepth * 2 * kAmxColumns <= 40 * 1024;
  double cycles = row_tiles * column_tiles * blocks * (near ? 22.0 : 28.0);
  // Storing the sums and loading them again. The rest of the epilogue is that of the vectors' kernels.
  cycles += rows * column_tiles * 1.25;
  const double epilogue = rows * column_tiles * 1.5;
  // Finding the rows, and copying most of them.
  if (!shape.direct) cycles += rows * (3.0 * static_cast<double>(shape.taps) + 1.5 * blocks);
  // Widening a block takes about as long as storing it.
  if (shape.weight_bits == 4)
    cycles += column_tiles * blocks * 20.0 * (1.0 + row_tiles / static_cast<double>(b.row_block_tiles));
  // Configuring and releasing the tiles.
  cycles += 400.0;
  return 2.0 * cycles + epilogue;
}

/// Costs compare variants of one level, and AMX with vectors.
double cost_of(const GemmVariant& variant, const GemmShape& shape) {
  if (variant.isa == Isa::kAmxInt8) return amx_cost(shape);
  if (variant.isa == Isa::kNeon) return neon_cost(variant, shape);
  // A single row takes the same way in both.
  if (variant.isa == Isa::kAvx2 && shape.weight_bits == 8 && shape.m > 1)
    return avx2_words_cost(variant, shape);
  return predicted_cost(variant, shape);
}

}  // namespace

bool any_large_scale(const float* scale, size_t count) {
  // Not a number is large.
  return !std::all_of(scale, scale + count, [](float one) { return std::fabs(one) < 1.0f; });
}

std::vector<const GemmVariant*> gemm_variants(IsaSet isas) {
  return runnable(kVariants, kVariantCount, isas.with(Isa::kScalar));
}

const GemmVariant* find_gemm(const char* name, IsaSet isas) {
  for (const GemmVariant* variant : gemm_variants(isas)) {
    if (std::strcmp(variant->name, name) == 0) return variant;
  }
  return nullptr;
}

bool gemm_takes(const GemmVariant& variant, const GemmShape& shape) {
  return variant.weight_bits == shape.weight_bits &&
         (variant.max_depth == 0 || gemm_padded_k(variant, shape.k) * shape.taps <= variant.max_depth);
}

std::vector<const GemmVariant*> gemm_candidates(const GemmShape& shape, IsaSet isas) {
  std::vector<const GemmVariant*> result;
  for (const GemmVariant* variant : gemm_variants(isas)) {
    if (gemm_takes(*variant, shape) && (variant->isa != Isa::kScalar || result.empty()))
      result.push_back(variant);
  }
  return result;
}

const GemmVariant* select_gemm(const GemmShape& shape, IsaSet isas) {
  const GemmVariant* best = nullptr;
  double best_cost = 0.0;
  bool has_vectors = false;
  Isa vectors = Isa::kScalar;
  for (const GemmVariant* variant : gemm_variants(isas)) {
    if (!gemm_takes(*variant, shape)) continue;
    // Levels come best first: a lower one is looked at only when no higher one takes the shape. But tiles pay
    // only for enough rows and depth, so that they are compared with the best level of vectors.
    const bool tiles = variant->isa == Isa::kAmxInt8;
    if (!tiles && has_vectors && variant->isa != vectors) break;
    if (!tiles) {
      has_vectors = true;
      vectors = variant->isa;
    }
    const double cost = cost_of(*variant, shape);
    if (best == nullptr || cost < best_cost) {
      best = variant;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace edgeq
