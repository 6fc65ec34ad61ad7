#ifndef EDGEQ_KERNELS_GEMM_X86_VNNI_H_
#define EDGEQ_KERNELS_GEMM_X86_VNNI_H_

// The one shape of the VNNI kernels, for 512-bit and 256-bit vectors and both encodings. Only x86_*vnni.cc
// include it, each with its own vector type V.

#include "kernels/gemm/x86_tile.h"

namespace edgeq {
namespace {

/// kRows x (kVectors * V::kLanes) outputs, all accumulators in registers.
template <typename V, int kBits, int kRows, int kVectors>
void run_vnni_tile(const GemmParams& p, const Tile& tile) {
  using Int = typename V::Int;
  constexpr int kVectorBytes = V::kLanes * 4;
  // A matrix-vector product has too few chains to hide the latency of the multiply-accumulate: two sets then.
  constexpr int kSets = kRows == 1 ? 2 : 1;
  Int acc[kSets][kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      acc[0][r][v] = kBits == 8 ? V::load(tile.panel + v * kVectorBytes) : V::zero();
      if (kSets == 2) acc[kSets - 1][r][v] = V::zero();
    }
  }
  const uint8_t* w = tile.panel + kVectors * kVectorBytes * 2;
  for (size_t t = 0; t < p.taps; ++t) {
    const uint8_t* a[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) a[r] = lhs_row(p.lhs, t, tile.row + r);
    if (kBits == 8) {
      size_t g = 0;
      if (kSets == 2) {
        for (; g + 2 <= tile.groups; g += 2) {
#pragma GCC unroll 2
          for (int s = 0; s < kSets; ++s) {
            const Int x = V::broadcast(a[0] + 4 * g + 4 * s);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
              acc[s][0][v] = V::dot(acc[s][0][v], x, V::load(w + (s * kVectors + v) * kVectorBytes));
            }
          }
          w += 2 * kVectors * kVectorBytes;
        }
      }
      for (; g < tile.groups; ++g) {
        Int b[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) b[v] = V::load(w + v * kVectorBytes);
        w += kVectors * kVectorBytes;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Int x = V::broadcast(a[r] + 4 * g);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) acc[0][r][v] = V::dot(acc[0][r][v], x, b[v]);
        }
      }
    } else {
      const Int high = V::set1_byte(0xF0);
      for (size_t g = 0; g < tile.groups; g += 2) {
        // A nibble in the upper half of a byte is 16 times its value: no sign extension. Sums are then 16
        // times too large, and stay below 2^31 up to a depth of max_depth = 65,792: 16 * 255 * 8 * 65,792 =
        // 2,147,450,880.
        Int raw[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) raw[v] = V::load(w + v * kVectorBytes);
        w += kVectors * kVectorBytes;
        Int b[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) b[v] = V::bit_and(V::template shift_left<4>(raw[v]), high);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Int x = V::broadcast(a[r] + 4 * g);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) acc[0][r][v] = V::dot(acc[0][r][v], x, b[v]);
        }
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) b[v] = V::bit_and(raw[v], high);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Int x = V::broadcast(a[r] + 4 * g + 4);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) acc[kSets - 1][r][v] = V::dot(acc[kSets - 1][r][v], x, b[v]);
        }
      }
    }
    // All sums are in registers here. Without this the compiler keeps a copy of each in memory for the
    // epilogue, and writes it in every round of the loop above.
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) V::keep_in_register(acc[0][r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Int& sum = acc[0][r][v];
      if (kSets == 2) sum = V::add(sum, acc[kSets - 1][r][v]);
      // The division by 16 is exact; the bias joins after it, because 16 times a bias may not fit.
      if (kBits == 4)
        sum = V::add(V::template shift_right_signed<4>(sum), V::load(tile.panel + v * kVectorBytes));
    }
  }
  finish_tile<V, kRows, kVectors>(p, tile, acc[0]);
}

template <typename V, int kBits>
struct VnniKernel {
  template <int kRows, int kVectors>
  static void run(const GemmParams& p, const Tile& tile) {
    run_vnni_tile<V, kBits, kRows, kVectors>(p, tile);
  }
};

template <typename V, int kBits, int kRows, int kVectors>
void run_gemm(const GemmParams& p, size_t row_begin, size_t row_end, size_t panel_begin, size_t panel_end) {
  size_t groups = (p.k + 3) / 4;
  if (kBits == 4) groups = (groups + 1) / 2 * 2;
  run_tiles<V, VnniKernel<V, kBits>, kRows, kVectors>(p, row_begin, row_end, panel_begin, panel_end, groups,
                                                      8 + p.taps * groups * kBits / 2);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_X86_VNNI_H_
