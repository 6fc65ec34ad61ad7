#include "kernels/gemm/arm64_neondot_tile.h"

#if defined(__clang__)
// Clang folds distances into addresses where the pointer itself is left alone.
#undef EDGEQ_ORDER
#define EDGEQ_ORDER(pointer, sum) asm volatile("" : "+w"(sum) : : "memory")
#endif

namespace edgeq {
namespace {

/// Dot products of four channels, of one row by four output channels: a register of rows holds four rows'
/// four channels, and each instruction takes one of them.
struct NeonDot {
  static constexpr size_t kKr = 4;
  static constexpr bool kTwice = false;
  static constexpr size_t kLeastRows = 1;

  static EDGEQ_INLINE int8_t* interleave(const int8_t* const (&row)[kArm64TileRows], size_t units,
                                         int8_t* to) {
    return interleave_units(row[0], row[1], row[2], row[3], row[4], row[5], units, to);
  }

  /// `count` whole tiles, one below the other: steps `lhs` past their rows and `dst` past their codes
  /// (kMemory: their sums).
  template <Finish kFinish, typename Element>
  static EDGEQ_INLINE void whole_tiles(const Tiles& tiles, const SmallRange& range, size_t count,
                                       const int8_t*& lhs, Element*& dst, ptrdiff_t stride) {
    run_whole_tiles<kFinish>(tiles, range, count, lhs, dst, stride);
  }

  template <int kRows, int kVectors>
  struct Sums {
    int32x4_t at[kRows][kVectors];

    EDGEQ_INLINE void start(const int32_t* bias) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        // Loading again takes half the instructions of copying registers.
        asm("" : "+r"(bias));
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) at[r][v] = vld1q_s32(bias + 4 * v);
      }
    }

    template <int kLane>
    EDGEQ_INLINE void add_row(int r, const int8x16_t (&w)[kVectors], int8x16_t rows) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) at[r][v] = vdotq_laneq_s32(at[r][v], w[v], rows, kLane);
    }

    /// Adds the products of group kGroup: `four` holds it of rows 0 to 3; r4 and r5 a unit of one row each.
    template <int kGroup>
    EDGEQ_INLINE void multiply_group(int8x16_t four, int8x16_t r4, int8x16_t r5, const int8_t*& w) {
      int8x16_t b[kVectors];
      load_registers(w, b);
      w += 16 * kVectors;
      EDGEQ_ORDER(w, at[kRows - 1][kVectors - 1]);
      add_row<0>(0, b, four);
      if constexpr (kRows > 1) add_row<1>(1, b, four);
      if constexpr (kRows > 2) {
        add_row<2>(2, b, four);
        add_row<3>(3, b, four);
      }
      if constexpr (kRows > 4) {
        add_row<kGroup>(4, b, r4);
        add_row<kGroup>(5, b, r5);
      }
    }

    /// Adds the products of the first kChannels of a unit, and moves past it.
    template <int kChannels>
    EDGEQ_INLINE void multiply(const int8_t*& a, const int8_t*& w) {
      // Each pair of registers by itself: none is free in the middle of a unit.
      int8x16_t last_rows[2] = {};
      if constexpr (kRows > 4) load_registers(a, last_rows);
      a += 32;
      EDGEQ_ORDER(a, at[kRows - 1][kVectors - 1]);
      int8x16_t first[2];
      load_registers(a, first);
      a += 32;
      EDGEQ_ORDER(a, at[kRows - 1][kVectors - 1]);
      multiply_group<0>(first[0], last_rows[0], last_rows[1], w);
      if constexpr (kChannels > 4) multiply_group<1>(first[1], last_rows[0], last_rows[1], w);
      if constexpr (kChannels > 8) {
        EDGEQ_ORDER(a, at[kRows - 1][kVectors - 1]);
        int8x16_t second[2];
        load_registers(a, second);
        multiply_group<2>(second[0], last_rows[0], last_rows[1], w);
        if constexpr (kChannels > 12) multiply_group<3>(second[1], last_rows[0], last_rows[1], w);
      }
      a += 32;
      EDGEQ_ORDER(a, at[kRows - 1][kVectors - 1]);
    }

    /// Codes of each row, from the first byte of its register on.
    template <Finish kFinish>
    EDGEQ_INLINE void codes(const float* scale, const SmallProducts& small, int8x16_t (&q)[kRows]) const {
      constexpr int kRowsOfQuad = kVectors == 1 ? 4 : kVectors == 2 ? 2 : 1;
      float32x4_t s[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) s[v] = vld1q_f32(scale + 4 * v);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r += kRowsOfQuad) {
        // Where rows or vectors are missing the last one stands in.
        const auto row = [&](int i) { return r + i < kRows ? r + i : kRows - 1; };
        if constexpr (kVectors == 1) {
          q[r] = requantize_small<kFinish>(at[row(0)][0], at[row(1)][0], at[row(2)][0], at[row(3)][0], s[0],
                                           s[0], s[0], s[0], small);
        } else if constexpr (kVectors == 2) {
          q[r] = requantize_small<kFinish>(at[r][0], at[r][1], at[row(1)][0], at[row(1)][1], s[0], s[1], s[0],
                                           s[1], small);
        } else {
          constexpr int kLast = kVectors - 1;
          q[r] = requantize_small<kFinish>(at[r][0], at[r][1], at[r][2], at[r][kLast], s[0], s[1], s[2],
                                           s[kLast], small);
        }
        constexpr int kRowBytes = 16 / kRowsOfQuad;
        if constexpr (kRowsOfQuad > 1) {
          if (r + 1 < kRows) q[r + 1] = vextq_s8(q[r], q[r], kRowBytes);
        }
        if constexpr (kRowsOfQuad > 2) {
          if (r + 2 < kRows) q[r + 2] = vextq_s8(q[r], q[r], 2 * kRowBytes % 16);
          if (r + 3 < kRows) q[r + 3] = vextq_s8(q[r], q[r], 3 * kRowBytes % 16);
        }
      }
    }

    template <typename Visit>
    EDGEQ_INLINE void each(Visit visit) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < kVectors; ++i) visit(at[r][i]);
      }
    }

    EDGEQ_INLINE void store(int32_t* to) const {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) vst1q_s32(to + 16 * r + 4 * v, at[r][v]);
      }
    }
  };
};

}  // namespace

void gemm_s8s8c_s8_6x16x4_neondot(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_gemm<NeonDot, 8>(p, r0, r1, p0, p1);
}
void gemm_s8s4c_s8_6x16x4_neondot(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_gemm<NeonDot, 4>(p, r0, r1, p0, p1);
}

}  // namespace edgeq
