#include "kernels/arm_vectors.h"

// Windows, by the vectors of arm_vectors.h.
#include "kernels/pool/windows.h"

namespace edgeq {
namespace {

/// Sixteen sums of bytes in 16 bits: of at most 256 bytes, 256 * -128 = -32,768.
struct ShortSums {
  static constexpr size_t kMostBytes = 256;
  int16x8_t low, high;

  static EDGEQ_INLINE ShortSums zero() { return {vdupq_n_s16(0), vdupq_n_s16(0)}; }
  EDGEQ_INLINE void add(int8x16_t bytes) {
    low = vaddw_s8(low, vget_low_s8(bytes));
    high = vaddw_s8(high, vget_high_s8(bytes));
  }
  EDGEQ_INLINE void add(const ShortSums& other) {
    low = vaddq_s16(low, other.low);
    high = vaddq_s16(high, other.high);
  }
};

/// Sixteen sums in 32 bits.
struct Sums {
  int32x4_t sum[4];

  explicit EDGEQ_INLINE Sums(int32_t initial) {
    for (int32x4_t& four : sum) four = vdupq_n_s32(initial);
  }
  EDGEQ_INLINE void add(const ShortSums& shorts) {
    sum[0] = vaddw_s16(sum[0], vget_low_s16(shorts.low));
    sum[1] = vaddw_s16(sum[1], vget_high_s16(shorts.low));
    sum[2] = vaddw_s16(sum[2], vget_low_s16(shorts.high));
    sum[3] = vaddw_s16(sum[3], vget_high_s16(shorts.high));
  }
  EDGEQ_INLINE void finish(float multiplier, OutputRange range, act_t* dst, size_t count) const {
    const float32x4_t scale = vdupq_n_f32(multiplier);
    store_first(dst,
                requantize(sum[0], sum[1], sum[2], sum[3], scale, scale, scale, scale, RangeVectors(range)),
                count);
  }
};

/// Columns and outputs of an average.
template <typename V>
struct Average {
  using Column = ShortSums;

  static EDGEQ_INLINE Column outside() { return Column::zero(); }
  static EDGEQ_INLINE Column column(const WindowRows& rows, ptrdiff_t offset) {
    Column sums = Column::zero();
    for (size_t r = 0; r < rows.count; ++r) sums.add(V::load(rows.row[r] + offset));
    return sums;
  }
  static EDGEQ_INLINE void merge(Column& into, const Column& column) { into.add(column); }
  static EDGEQ_INLINE void finish(const PoolParams& p, const Column& shorts, size_t taps, size_t divisor,
                                  act_t* dst, size_t count) {
    Sums sums(-static_cast<int32_t>(taps) * p.zp_in);
    sums.add(shorts);
    sums.finish(p.multiplier[divisor], p.range, dst, count);
  }
};

/// Any window, pixel by pixel.
void average_each(const PoolParams& p) {
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t x = 0; x < p.width_out; ++x) {
      act_t* dst = row_out(p, y) + static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
      for (size_t first = 0; first < p.channels; first += 16) {
        Sums sums(0);
        ShortSums shorts = ShortSums::zero();
        size_t inside = 0;
        visit_window(p, y, x, [&](const act_t* pixel) {
          shorts.add(Bytes16::load(pixel + first));
          if (++inside % ShortSums::kMostBytes != 0) return;
          sums.add(shorts);
          shorts = ShortSums::zero();
        });
        sums.add(shorts);
        const int32x4_t zp_sum = vdupq_n_s32(static_cast<int32_t>(inside) * p.zp_in);
        for (int32x4_t& four : sums.sum) four = vsubq_s32(four, zp_sum);
        sums.finish(p.multiplier[p.count_h[y] * p.count_w[x]], p.range, dst + first, p.channels - first);
      }
    }
  }
}

}  // namespace

void max_pool_neon(const PoolParams& p) { max_pool<Bytes16, Bytes16>(p); }

void average_pool_neon(const PoolParams& p) {
  if (fits_tile(p) && p.kernel_h * p.kernel_w <= ShortSums::kMostBytes)
    return pool_tiles<Bytes16, Average>(p);
  average_each(p);
}

void mean_neon(const MeanParams& p) {
  for (size_t first = 0; first < p.channels; first += 16) {
    // pixels < 2^23 and |zp| at most 128: the product fits.
    Sums sums(-static_cast<int32_t>(p.pixels) * p.zp_in);
    const act_t* from = p.src + first;
    for (size_t rest = p.pixels; rest > 0;) {
      // Two sets of sums: an addition waits for the one before it.
      const size_t run = rest < 2 * ShortSums::kMostBytes ? rest : 2 * ShortSums::kMostBytes;
      ShortSums even = ShortSums::zero(), odd = ShortSums::zero();
      for (size_t i = 0; i < run / 2; ++i, from += 2 * p.pixel_stride) {
        even.add(Bytes16::load(from));
        odd.add(Bytes16::load(from + p.pixel_stride));
      }
      if (run % 2 != 0) {
        even.add(Bytes16::load(from));
        from += p.pixel_stride;
      }
      sums.add(even);
      sums.add(odd);
      rest -= run;
    }
    sums.finish(p.multiplier, p.range, p.dst + first, p.channels - first);
  }
}

}  // namespace edgeq
