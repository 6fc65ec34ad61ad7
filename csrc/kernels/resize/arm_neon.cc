#include "kernels/arm_bytes.h"
#include "kernels/resize/taps.h"

namespace edgeq {
namespace {

// With coarse weights |S| is at most 16 * 16 * 128 = 32,768, reached on the negative side only: all sums fit
// 16 bits, and the rounding shift adds its 128 without losing a carry.
void coarse_block(const ResizeParams& p, size_t y, size_t first, size_t count) {
  const SourceRows source(p, y);
  const int16_t above = static_cast<int16_t>(source.tap.weight_0 / kCoarse);
  const int16_t below = static_cast<int16_t>(source.tap.weight_1 / kCoarse);
  act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride + first;
  for (size_t x = 0; x < p.width_out; ++x, dst += p.dst_pixel_stride) {
    const ResizeTap& tap = p.tap_x[x];
    const int8x8_t weight_left = vdup_n_s8(static_cast<int8_t>(tap.weight_0 / kCoarse));
    const int8x8_t weight_right = vdup_n_s8(static_cast<int8_t>(tap.weight_1 / kCoarse));
    const ptrdiff_t left = tap.index_0 * p.src_pixel_stride + static_cast<ptrdiff_t>(first);
    const ptrdiff_t right = tap.index_1 * p.src_pixel_stride + static_cast<ptrdiff_t>(first);
    int16x8_t low[2], high[2];
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      const int8x16_t a = vld1q_s8(source.row[r] + left);
      const int8x16_t b = vld1q_s8(source.row[r] + right);
      low[r] = vmlal_s8(vmull_s8(vget_low_s8(a), weight_left), vget_low_s8(b), weight_right);
      high[r] = vmlal_s8(vmull_s8(vget_high_s8(a), weight_left), vget_high_s8(b), weight_right);
    }
    const int16x8_t sum_low = vmlaq_n_s16(vmulq_n_s16(low[0], above), low[1], below);
    const int16x8_t sum_high = vmlaq_n_s16(vmulq_n_s16(high[0], above), high[1], below);
    store_first(dst, vcombine_s8(vrshrn_n_s16(sum_low, 8), vrshrn_n_s16(sum_high, 8)), count);
  }
}

/// A source column blended from its two rows, 2048 times too large: below 2^19.
struct Column {
  int32x4_t blend[4];

  static EDGEQ_INLINE Column of(const SourceRows& source, ptrdiff_t offset) {
    const int16_t above = static_cast<int16_t>(source.tap.weight_0);
    const int16_t below = static_cast<int16_t>(source.tap.weight_1);
    const int8x16_t a = vld1q_s8(source.row[0] + offset), b = vld1q_s8(source.row[1] + offset);
    const int16x8_t a0 = vmovl_s8(vget_low_s8(a)), a1 = vmovl_s8(vget_high_s8(a));
    const int16x8_t b0 = vmovl_s8(vget_low_s8(b)), b1 = vmovl_s8(vget_high_s8(b));
    const auto four = [&](int16x4_t top, int16x4_t bottom) {
      return vmlal_n_s16(vmull_n_s16(top, above), bottom, below);
    };
    return {{four(vget_low_s16(a0), vget_low_s16(b0)), four(vget_high_s16(a0), vget_high_s16(b0)),
             four(vget_low_s16(a1), vget_low_s16(b1)), four(vget_high_s16(a1), vget_high_s16(b1))}};
  }
};

// Any weights: each source column is blended once, in 32 bits, and kept while output pixels lie beside it.
void fine_block(const ResizeParams& p, size_t y, size_t first, size_t count) {
  const SourceRows source(p, y);
  const int32x4_t half = vdupq_n_s32(1 << 21);
  const auto column = [&](int32_t index) {
    return Column::of(source, index * p.src_pixel_stride + static_cast<ptrdiff_t>(first));
  };
  int32_t index_left = p.tap_x[0].index_0, index_right = p.tap_x[0].index_1;
  Column left = column(index_left), right = column(index_right);
  act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride + first;
  for (size_t x = 0; x < p.width_out; ++x, dst += p.dst_pixel_stride) {
    const ResizeTap& tap = p.tap_x[x];
    if (tap.index_0 != index_left) {
      left = tap.index_0 == index_right ? right : column(tap.index_0);
      index_left = tap.index_0;
    }
    if (tap.index_1 != index_right) {
      right = column(tap.index_1);
      index_right = tap.index_1;
    }
    int16x4_t upper[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      // At most 2^22 * 128 + 2^21 < 2^31. Both shifts floor: 16 bits here, the other six below.
      const int32x4_t sum = vmulq_n_s32(left.blend[v], tap.weight_0);
      upper[v] = vaddhn_s32(vmlaq_n_s32(sum, right.blend[v], tap.weight_1), half);
    }
    store_first(dst,
                vcombine_s8(vshrn_n_s16(vcombine_s16(upper[0], upper[1]), 6),
                            vshrn_n_s16(vcombine_s16(upper[2], upper[3]), 6)),
                count);
  }
}

}  // namespace

void resize_nearest_neon(const ResizeParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    const act_t* row = p.src + p.tap_y[y].index_0 * p.src_row_stride;
    act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride;
    for (size_t x = 0; x < p.width_out; ++x, dst += p.dst_pixel_stride) {
      copy_row(reinterpret_cast<const uint8_t*>(row + p.tap_x[x].index_0 * p.src_pixel_stride), p.channels,
               reinterpret_cast<uint8_t*>(dst));
    }
  }
}

void resize_bilinear_neon(const ResizeParams& p) {
  const bool coarse = all_coarse(p.tap_x, 0, p.width_out) && all_coarse(p.tap_y, p.row_begin, p.row_end);
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t first = 0; first < p.channels; first += 16) {
      coarse ? coarse_block(p, y, first, p.channels - first) : fine_block(p, y, first, p.channels - first);
    }
  }
}

}  // namespace edgeq
