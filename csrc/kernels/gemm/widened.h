#ifndef EDGEQ_KERNELS_GEMM_WIDENED_H_
#define EDGEQ_KERNELS_GEMM_WIDENED_H_

#include <cstddef>

// Rows widened to int16 in scratch, for instruction sets that multiply 16-bit numbers: all taps of a row one
// after the other. A block of rows is widened once and serves every panel.

namespace edgeq {

/// int16 elements from row to row: the depth, a vector that the last store may write beyond it, whole
/// vectors.
static inline size_t widened_stride(size_t depth) { return (depth + 16 + 15) / 16 * 16; }

/// Rows of one block: as many as stay in the second-level cache, whole tiles of `mr`, at least one tile.
static inline size_t widened_rows(size_t depth, size_t mr) {
  const size_t rows = 128 * 1024 / (2 * widened_stride(depth));
  return rows < mr ? mr : rows / mr * mr;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_WIDENED_H_
