#include "kernels/gemm/arm64_neoni8mm_tile.h"

namespace edgeq {
namespace {

/// Products of two rows by two output channels, eight channels deep: a sum's register holds a block of 2 x 2.
struct NeonI8mm {
  static constexpr size_t kKr = 8;
  static constexpr bool kTwice = true;
  static constexpr size_t kLeastRows = 2;

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
    static constexpr int kPairs = kRows / 2;
    static constexpr int kBlocks = 2 * kVectors;
    int32x4_t at[kPairs][kBlocks];

    EDGEQ_INLINE void start(const int32_t* bias) {
#pragma GCC unroll 8
      for (int r = 0; r < kPairs; ++r) {
        asm("" : "+r"(bias));
#pragma GCC unroll 8
        for (int b = 0; b < kBlocks; ++b) at[r][b] = vld1q_s32(bias + 4 * b);
      }
    }

    /// Half the output channels of a unit.
    template <int kHalf>
    EDGEQ_INLINE void multiply_half(const int8x16_t (&rows)[kPairs], const int8_t*& w) {
      int8x16_t b[kVectors];
      load_registers(w, b);
      w += 16 * kVectors;
      EDGEQ_ORDER(w, at[kPairs - 1][kHalf == 0 ? kBlocks - 1 : kVectors - 1]);
#pragma GCC unroll 4
      for (int r = 0; r < kPairs; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          at[r][kHalf * kVectors + v] = vmmlaq_s32(at[r][kHalf * kVectors + v], rows[r], b[v]);
        }
      }
    }

    /// A group's products: `last` holds it of rows 4 and 5, `first` of the other pairs.
    EDGEQ_INLINE void multiply_group(const int8x16_t (&first)[2], int8x16_t last, const int8_t*& w) {
      int8x16_t rows[kPairs];
      rows[0] = first[0];
      if constexpr (kPairs > 1) rows[1] = first[1];
      if constexpr (kPairs > 2) rows[2] = last;
      multiply_half<0>(rows, w);
      multiply_half<1>(rows, w);
    }

    /// Adds the products of the first kChannels of a unit, and moves past it.
    template <int kChannels>
    EDGEQ_INLINE void multiply(const int8_t*& a, const int8_t*& w) {
      int8x16_t last[2] = {};
      if constexpr (kPairs > 2) load_registers(a, last);
      a += 32;
      EDGEQ_ORDER(a, at[kPairs - 1][kBlocks - 1]);
      int8x16_t first[2];
      load_registers(a, first);
      a += 32;
      EDGEQ_ORDER(a, at[kPairs - 1][kBlocks - 1]);
      multiply_group(first, last[0], w);
      if constexpr (kChannels > 8) {
        load_registers(a, first);
        multiply_group(first, last[1], w);
      }
      a += 32;
      EDGEQ_ORDER(a, at[kPairs - 1][kBlocks - 1]);
    }

    /// Codes of four blocks; where there are fewer the last one stands in.
    template <Finish kFinish, int kFirst>
    EDGEQ_INLINE int8x16_t quad(int r, const float* scale, const SmallProducts& small) const {
      constexpr int kThird = kFirst + 2 < kBlocks ? kFirst + 2 : kFirst;
      return requantize_small<kFinish>(at[r][kFirst], at[r][kFirst + 1], at[r][kThird], at[r][kThird + 1],
                                       vld1q_f32(scale + 4 * kFirst), vld1q_f32(scale + 4 * kFirst + 4),
                                       vld1q_f32(scale + 4 * kThird), vld1q_f32(scale + 4 * kThird + 4),
                                       small);
    }

    /// Codes of each row, from the first byte of its register on: pairs of codes of two rows alternate until
    /// they are bytes.
    template <Finish kFinish>
    EDGEQ_INLINE void codes(const float* scale, const SmallProducts& small, int8x16_t (&q)[kRows]) const {
#pragma GCC unroll 4
      for (int r = 0; r < kPairs; ++r) {
        int8x16_t half[2];
        half[0] = quad<kFinish, 0>(r, scale, small);
        half[1] = half[0];
        if constexpr (kBlocks > 4) half[1] = quad<kFinish, 4>(r, scale, small);
        const int16x8_t low = vreinterpretq_s16_s8(half[0]);
        const int16x8_t high = vreinterpretq_s16_s8(half[1]);
        q[2 * r] = vreinterpretq_s8_s16(vuzp1q_s16(low, high));
        q[2 * r + 1] = vreinterpretq_s8_s16(vuzp2q_s16(low, high));
      }
    }

    template <typename Visit>
    EDGEQ_INLINE void each(Visit visit) {
#pragma GCC unroll 8
      for (int r = 0; r < kPairs; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < kBlocks; ++i) visit(at[r][i]);
      }
    }

    EDGEQ_INLINE void store(int32_t* to) const {
#pragma GCC unroll 8
      for (int r = 0; r < kPairs; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const int64x2_t left = vreinterpretq_s64_s32(at[r][2 * v]);
          const int64x2_t right = vreinterpretq_s64_s32(at[r][2 * v + 1]);
          vst1q_s32(to + 32 * r + 4 * v, vreinterpretq_s32_s64(vzip1q_s64(left, right)));
          vst1q_s32(to + 32 * r + 16 + 4 * v, vreinterpretq_s32_s64(vzip2q_s64(left, right)));
        }
      }
    }
  };
};

}  // namespace

void gemm_s8s8c_s8_6x16x8_neoni8mm(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_gemm<NeonI8mm, 8>(p, r0, r1, p0, p1);
}
void gemm_s8s4c_s8_6x16x8_neoni8mm(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_gemm<NeonI8mm, 4>(p, r0, r1, p0, p1);
}

}  // namespace edgeq
