#ifndef EDGEQ_KERNELS_GEMM_ARM64_BLOCKING_H_
#define EDGEQ_KERNELS_GEMM_ARM64_BLOCKING_H_

#include <cstddef>

// What the scratch of the kernels with dot products holds: a block of rows, interleaved tile by tile, for all
// panels; the constants of one panel; and, of 4-bit weights, one panel as bytes. Selection needs the size:
// plain C++.

namespace edgeq {

constexpr size_t kArm64TileRows = 6;
constexpr size_t kArm64TileColumns = 16;

struct Arm64Blocking {
  size_t tile_bytes;       // interleaved rows of one tile
  size_t rows;             // of a block, whole tiles
  size_t unpacked_offset;  // in scratch
  size_t bytes;            // of scratch
};

/// Bias and scale of one panel, each value at most twice.
constexpr size_t kArm64ConstantBytes = 4 * kArm64TileColumns * 4;

/// Args:
///   depth: Bytes of an interleaved row, padded for the variant.
static inline Arm64Blocking arm64_blocking(size_t depth, int weight_bits) {
  // A block lies in the second-level cache, and each tile of it passes through the first-level one beside the
  // weights of a panel. What is done once for a block and a panel, above all unpacking 4-bit weights (about
  // what two rows take), is shared by its rows: where they are deep, more than the usual size is worth it.
  constexpr size_t kUsualBytes = 64 * 1024;
  constexpr size_t kMostBytes = 256 * 1024;
  const size_t enough_rows = weight_bits == 4 ? 100 : 36;
  const size_t usual = kUsualBytes / depth;
  const size_t most = kMostBytes / depth;
  size_t rows = most < enough_rows ? most : enough_rows;
  if (rows < usual) rows = usual;
  rows = rows / kArm64TileRows * kArm64TileRows;
  if (rows < kArm64TileRows) rows = kArm64TileRows;
  Arm64Blocking blocking;
  blocking.tile_bytes = kArm64TileRows * depth;
  blocking.rows = rows;
  blocking.unpacked_offset = (kArm64ConstantBytes + rows * depth + 63) / 64 * 64;
  blocking.bytes = blocking.unpacked_offset + (weight_bits == 4 ? kArm64TileColumns * depth : 0);
  return blocking;
}

/// Channels of a row that are interleaved with those of the others at a time.
constexpr size_t kArm64Unit = 16;

/// Depth of the interleaved rows: each tap in whole units.
static inline size_t arm64_depth(size_t k, size_t taps) {
  return taps * ((k + kArm64Unit - 1) / kArm64Unit * kArm64Unit);
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_ARM64_BLOCKING_H_
