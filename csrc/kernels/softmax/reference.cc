#include "kernels/softmax/softmax.h"

namespace edgeq {

void softmax_scalar(const SoftmaxParams& p) {
  for (size_t i = 0; i < p.rows; ++i) {
    const act_t* src = p.src + static_cast<ptrdiff_t>(i) * p.src_row_stride;
    float* dst = p.dst + static_cast<ptrdiff_t>(i) * p.dst_row_stride;
    int32_t highest = src[0];
    for (size_t c = 1; c < p.channels; ++c) highest = src[c] > highest ? src[c] : highest;
    uint64_t sum = 0;
    for (size_t c = 0; c < p.channels; ++c) sum += p.table[highest - src[c]];
    const double total = static_cast<double>(sum);
    for (size_t c = 0; c < p.channels; ++c) {
      dst[static_cast<ptrdiff_t>(c) * p.dst_channel_stride] =
          static_cast<float>(static_cast<double>(p.table[highest - src[c]]) / total);
    }
  }
}

}  // namespace edgeq
