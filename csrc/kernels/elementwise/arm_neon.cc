#include "kernels/arm_vectors.h"
#include "kernels/elementwise/elementwise.h"

namespace edgeq {
namespace {

EDGEQ_INLINE float32x4_t to_float(int16x4_t a) { return vcvtq_f32_s32(vmovl_s16(a)); }

/// The statement's value of four pairs of differences from the zero points.
template <BinaryOp kOp>
EDGEQ_INLINE float32x4_t value(int16x4_t a, int16x4_t b, float32x4_t multiplier_a, float32x4_t multiplier_b) {
  // The product of two differences is below 2^16: float32 has it exactly.
  if (kOp == BinaryOp::kMul) return vmulq_f32(vcvtq_f32_s32(vmull_s16(a, b)), multiplier_a);
  const float32x4_t left = vmulq_f32(to_float(a), multiplier_a);
  const float32x4_t right = vmulq_f32(to_float(b), multiplier_b);
  return kOp == BinaryOp::kAdd ? vaddq_f32(left, right) : vsubq_f32(left, right);
}

/// What the statement takes besides the operands.
struct Constants {
  explicit EDGEQ_INLINE Constants(const BinaryParams& p)
      : zp_a(vdup_n_s8(static_cast<int8_t>(p.zp_a))),
        zp_b(vdup_n_s8(static_cast<int8_t>(p.zp_b))),
        multiplier_a(vdupq_n_f32(p.multiplier_a)),
        multiplier_b(vdupq_n_f32(p.multiplier_b)),
        range(p.range) {}

  int8x8_t zp_a, zp_b;
  float32x4_t multiplier_a, multiplier_b;
  RangeVectors range;
};

// Three conversions and roundings for each operand and lane, as the statement has them: some 50 instructions
// for 16 sums.
template <BinaryOp kOp>
EDGEQ_INLINE int8x16_t block(int8x16_t a, int8x16_t b, const Constants& k) {
  const int16x8_t a0 = vsubl_s8(vget_low_s8(a), k.zp_a), a1 = vsubl_s8(vget_high_s8(a), k.zp_a);
  const int16x8_t b0 = vsubl_s8(vget_low_s8(b), k.zp_b), b1 = vsubl_s8(vget_high_s8(b), k.zp_b);
  return round_to_range(value<kOp>(vget_low_s16(a0), vget_low_s16(b0), k.multiplier_a, k.multiplier_b),
                        value<kOp>(vget_high_s16(a0), vget_high_s16(b0), k.multiplier_a, k.multiplier_b),
                        value<kOp>(vget_low_s16(a1), vget_low_s16(b1), k.multiplier_a, k.multiplier_b),
                        value<kOp>(vget_high_s16(a1), vget_high_s16(b1), k.multiplier_a, k.multiplier_b),
                        k.range);
}

/// dst = a op b for `count` bytes. A step of 0 repeats the first sixteen bytes of an operand.
template <BinaryOp kOp>
EDGEQ_NOINLINE void combine(const BinaryParams& p, const int8_t* a, ptrdiff_t step_a, const int8_t* b,
                            ptrdiff_t step_b, int8_t* dst, size_t count) {
  const Constants constants(p);
  for (; count >= 16; count -= 16, a += step_a, b += step_b, dst += 16) {
    vst1q_s8(dst, block<kOp>(vld1q_s8(a), vld1q_s8(b), constants));
  }
  if (count > 0) store_first(dst, block<kOp>(vld1q_s8(a), vld1q_s8(b), constants), count);
}

/// An operand's rows. A value that repeats is read from sixteen copies of it, without a step, so that one
/// loop serves all ways of broadcasting.
struct Operand {
  const act_t* from;
  ptrdiff_t row_stride;
  int step;
  int8_t repeated[16];

  ptrdiff_t bytes_a_block() const { return step == 0 ? 0 : 16; }
  /// Whether the rows follow each other as one.
  bool dense(ptrdiff_t channels) const { return row_stride == (step == 0 ? 0 : channels); }
  const int8_t* row(size_t i) {
    const act_t* first = from + static_cast<ptrdiff_t>(i) * row_stride;
    if (step != 0) return first;
    vst1q_s8(repeated, vdupq_n_s8(*first));
    return repeated;
  }
};

template <BinaryOp kOp>
void binary(const BinaryParams& p) {
  Operand a{p.a, p.a_row_stride, p.a_step, {}};
  Operand b{p.b, p.b_row_stride, p.b_step, {}};
  const ptrdiff_t channels = static_cast<ptrdiff_t>(p.channels);
  const bool one = a.dense(channels) && b.dense(channels) && p.dst_row_stride == channels;
  const size_t rows = one ? 1 : p.rows;
  const size_t count = one ? p.rows * p.channels : p.channels;
  for (size_t i = 0; i < rows; ++i) {
    combine<kOp>(p, a.row(i), a.bytes_a_block(), b.row(i), b.bytes_a_block(),
                 p.dst + static_cast<ptrdiff_t>(i) * p.dst_row_stride, count);
  }
}

}  // namespace

void add_neon(const BinaryParams& p) { binary<BinaryOp::kAdd>(p); }
void sub_neon(const BinaryParams& p) { binary<BinaryOp::kSub>(p); }
void mul_neon(const BinaryParams& p) { binary<BinaryOp::kMul>(p); }

}  // namespace edgeq
