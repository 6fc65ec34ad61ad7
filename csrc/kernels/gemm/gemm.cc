#include "kernels/gemm/gemm.h"

#include <cmath>

#include "kernels/gemm/amx_blocking.h"
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

size_t gemm_no_scratch(const GemmShape&) { return 0; }

size_t gemm_widened_scratch(const GemmShape& shape) {
  return widened_layout(shape.k, shape.taps, shape.weight_bits, shape.direct, 6).bytes();
}

template <size_t kNr>
size_t gemm_unpacked_scratch(const GemmShape& shape) {
  return unpacked_scratch(kNr, shape.k, shape.taps);
}

size_t gemm_amx_scratch(const GemmShape& s) {
  return amx_scratch_bytes(amx_blocking(s.n, s.k, s.taps, s.weight_bits, s.direct));
}

constexpr GemmVariant kVariants[] = {
#define EDGEQ_GEMM_KERNEL(isa, name, mr, nr, kr, nr_step, bits, max_depth, scratch) \
  {#name, Isa::isa, mr, nr, kr, nr_step, bits, max_depth, &name, &scratch},
#include "kernels/gemm/kernels.inc"
#undef EDGEQ_GEMM_KERNEL
};

constexpr size_t kVariantCount = sizeof kVariants / sizeof kVariants[0];

/// Relative time of a shape: for each tile the larger of its multiply instructions and its loads, and a fixed
/// part for entering the tile and its epilogue. Vectors are counted in units of nr_step channels.
double predicted_cost(const GemmVariant& variant, const GemmShape& shape) {
  const size_t mr = static_cast<size_t>(variant.mr);
  const size_t nr = static_cast<size_t>(variant.nr);
  const size_t step = static_cast<size_t>(variant.nr_step);
  const double groups = static_cast<double>(gemm_padded_k(variant, shape.k) * shape.taps) / variant.kr;
  const auto tile = [&](size_t rows, size_t channels) {
    const double vectors = static_cast<double>((channels + step - 1) / step);
    const double multiplies = static_cast<double>(rows) * vectors;
    const double loads = static_cast<double>(rows) + vectors;
    // Fewer than about 10 chains do not hide the latency of the multiply-accumulate instruction.
    double group = multiplies > loads * 0.6 ? multiplies : loads * 0.6;
    if (group < 5.0) group = 5.0;
    // The epilogue takes about four instructions a vector; a row of three vectors takes two stores.
    const double stores = static_cast<double>(rows) * (vectors == 3.0 ? 2.0 : 1.0);
    return groups * group + 4.0 * static_cast<double>(shape.taps) + 4.0 * multiplies + 2.0 * stores + 12.0;
  };
  const size_t full_panels = shape.n / nr;
  const size_t left_channels = shape.n % nr;
  const size_t full_tiles = shape.m / mr;
  const size_t left_rows = shape.m % mr;
  double cost = 0.0;
  for (int tail_rows = 0; tail_rows < 2; ++tail_rows) {
    const size_t rows = tail_rows == 0 ? mr : left_rows;
    const double tiles = tail_rows == 0 ? static_cast<double>(full_tiles) : (left_rows > 0 ? 1.0 : 0.0);
    if (tiles == 0.0) continue;
    cost += tiles * static_cast<double>(full_panels) * tile(rows, nr);
    if (left_channels > 0) cost += tiles * tile(rows, left_channels);
  }
  return cost;
}

/// Time of an AMX kernel in the same unit. Nobody has measured these kernels: the rates are those of plain
/// loops of tile instructions.
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
  // Storing and loading the sums, and the epilogue.
  cycles += rows * column_tiles * 4.0;
  // Finding the rows, and copying most of them.
  if (!shape.direct) cycles += rows * (3.0 * static_cast<double>(shape.taps) + 1.5 * blocks);
  // Widening a block takes about as long as storing it.
  if (shape.weight_bits == 4)
    cycles += column_tiles * blocks * 20.0 * (1.0 + row_tiles / static_cast<double>(b.row_block_tiles));
  // Configuring and releasing the tiles.
  cycles += 400.0;
  // CPUs with AMX do two of the 512-bit multiply-accumulates that predicted_cost counts in a cycle.
  return 2.0 * cycles;
}

}  // namespace

std::vector<const GemmVariant*> gemm_variants(IsaSet isas) {
  return runnable(kVariants, kVariantCount, isas.with(Isa::kScalar));
}

const GemmVariant* select_gemm(const GemmShape& shape, IsaSet isas) {
  const GemmVariant* best = nullptr;
  double best_cost = 0.0;
  bool has_vectors = false;
  Isa vectors = Isa::kScalar;
  for (const GemmVariant* variant : gemm_variants(isas)) {
    if (variant->weight_bits != shape.weight_bits) continue;
    if (variant->max_depth != 0 && gemm_padded_k(*variant, shape.k) * shape.taps > variant->max_depth)
      continue;
    // Levels come best first: a lower one is looked at only when no higher one takes the shape. But tiles pay
    // only for enough rows and depth, so that they are compared with the best level of vectors.
    const bool tiles = variant->isa == Isa::kAmxInt8;
    if (!tiles && has_vectors && variant->isa != vectors) break;
    if (!tiles) {
      has_vectors = true;
      vectors = variant->isa;
    }
    const double cost = tiles ? amx_cost(shape) : predicted_cost(*variant, shape);
    if (best == nullptr || cost < best_cost) {
      best = variant;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace edgeq
