#ifndef EDGEQ_KERNELS_GEMM_UNPACKED_H_
#define EDGEQ_KERNELS_GEMM_UNPACKED_H_

#include <cstddef>

// Panels of 4-bit weights unpacked to the 8-bit form in scratch: what the VNNI kernels do where there are
// enough rows to share the work among. Selection needs the size: plain C++.

namespace edgeq {

/// A panel that is larger than this stays packed: its depth makes the unpacking of a group small beside the
/// multiplications by it, and scratch of this size and the rows of a tile stay in the second-level cache.
constexpr size_t kMaxUnpackedPanel = 96 * 1024;

/// Fewest rows that share an unpacked panel.
constexpr size_t kMinUnpackedRows = 12;

/// Bytes of an unpacked panel of `width` output channels; `groups` of four input channels, all taps.
static inline size_t unpacked_panel_bytes(size_t width, size_t groups) { return width * (8 + 4 * groups); }

/// Scratch of a kernel with panels of `nr` output channels: room for one panel, or none where panels stay
/// packed.
static inline size_t unpacked_scratch(size_t nr, size_t k, size_t taps) {
  const size_t bytes = unpacked_panel_bytes(nr, taps * ((k + 3) / 4));
  return bytes <= kMaxUnpackedPanel ? bytes : 0;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_UNPACKED_H_
