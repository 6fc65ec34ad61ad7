#include "kernels/elementwise/elementwise.h"

namespace edgeq {
namespace {

template <typename Statement>
void for_each_pair(const BinaryParams& p, Statement statement) {
  for (size_t i = 0; i < p.rows; ++i) {
    const ptrdiff_t row = static_cast<ptrdiff_t>(i);
    const act_t* a = p.a + row * p.a_row_stride;
    const act_t* b = p.b + row * p.b_row_stride;
    act_t* dst = p.dst + row * p.dst_row_stride;
    for (size_t c = 0; c < p.channels; ++c) {
      const int32_t left = a[p.a_step == 0 ? 0 : c];
      const int32_t right = b[p.b_step == 0 ? 0 : c];
      dst[c] = static_cast<act_t>(statement(left, right));
    }
  }
}

}  // namespace

void add_scalar(const BinaryParams& p) {
  for_each_pair(p, [&p](int32_t a, int32_t b) {
    return add_quantized(a, p.zp_a, p.multiplier_a, b, p.zp_b, p.multiplier_b, p.range);
  });
}

void sub_scalar(const BinaryParams& p) {
  for_each_pair(p, [&p](int32_t a, int32_t b) {
    return sub_quantized(a, p.zp_a, p.multiplier_a, b, p.zp_b, p.multiplier_b, p.range);
  });
}

void mul_scalar(const BinaryParams& p) {
  for_each_pair(
      p, [&p](int32_t a, int32_t b) { return mul_quantized(a, p.zp_a, b, p.zp_b, p.multiplier_a, p.range); });
}

}  // namespace edgeq
