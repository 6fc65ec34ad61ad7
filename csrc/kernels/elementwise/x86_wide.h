#ifndef EDGEQ_KERNELS_ELEMENTWISE_X86_WIDE_H_
#define EDGEQ_KERNELS_ELEMENTWISE_X86_WIDE_H_

// Add, sub and mul for one vector width. Only x86_*.cc include it.

#include "kernels/elementwise/elementwise.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

/// float32(value - zp) of V::kLanes elements from `from` on, or of one element repeated.
template <typename V>
EDGEQ_INLINE typename V::Float centered(const uint8_t* from, bool repeat, typename V::Int zp) {
  return V::to_float(V::sub(repeat ? V::set1_dword(*from) : V::widen_bytes(from), zp));
}

template <typename V, BinaryOp kOp>
void binary_row(const BinaryParams& p, const act_t* a, const act_t* b, act_t* dst, size_t count) {
  const auto zp_a = V::set1_dword(p.zp_a);
  const auto zp_b = V::set1_dword(p.zp_b);
  const auto multiplier_a = V::set1(p.multiplier_a);
  const auto multiplier_b = V::set1(p.multiplier_b);
  const auto hi = upper_bound<V>(p.range);
  const bool repeat_a = p.a_step == 0;
  const bool repeat_b = p.b_step == 0;
  for (size_t i = 0; i < count; i += V::kBytes) {
    typename V::Int q[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const size_t at = i + static_cast<size_t>(v * V::kLanes);
      // Lanes past the end read the slack of the inputs; a whole vector past it is not read.
      const size_t from = at < count ? at : i;
      const auto left = centered<V>(repeat_a ? a : a + from, repeat_a, zp_a);
      const auto right = centered<V>(repeat_b ? b : b + from, repeat_b, zp_b);
      typename V::Float value;
      if (kOp == BinaryOp::kMul) {
        // The product of two differences is below 2^16: exact in float32, and equal to the integer one
        // converted.
        value = V::mul(V::mul(left, right), multiplier_a);
      } else if (kOp == BinaryOp::kAdd) {
        value = V::plus(V::mul(left, multiplier_a), V::mul(right, multiplier_b));
      } else {
        value = V::minus(V::mul(left, multiplier_a), V::mul(right, multiplier_b));
      }
      q[v] = round_below<V>(value, hi);
    }
    const auto codes = V::order_packed(pack_codes<V>(q[0], q[1], q[2], q[3], p.range));
    V::store(dst + i, codes, count - i);
  }
}

template <typename V, BinaryOp kOp>
void binary(const BinaryParams& p) {
  const ptrdiff_t channels = static_cast<ptrdiff_t>(p.channels);
  const bool dense = p.dst_row_stride == channels &&
                     (p.a_row_stride == channels || (p.a_step == 0 && p.a_row_stride == 0)) &&
                     (p.b_row_stride == channels || (p.b_step == 0 && p.b_row_stride == 0)) &&
                     (p.a_step == 1 || p.a_row_stride == 0) && (p.b_step == 1 || p.b_row_stride == 0);
  const size_t rows = dense ? 1 : p.rows;
  const size_t count = dense ? p.rows * p.channels : p.channels;
  for (size_t i = 0; i < rows; ++i) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(i);
    binary_row<V, kOp>(p, p.a + row * p.a_row_stride, p.b + row * p.b_row_stride,
                       p.dst + row * p.dst_row_stride, count);
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_ELEMENTWISE_X86_WIDE_H_
