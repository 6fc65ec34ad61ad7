#ifndef EDGEQ_KERNELS_SOFTMAX_SOFTMAX_H_
#define EDGEQ_KERNELS_SOFTMAX_SOFTMAX_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/act.h"
#include "kernels/variant.h"

namespace edgeq {

/// Softmax over the channels of each row, by a table of exponentials in fixed point (from the file: the
/// device needs no libm):
///
///   d(i, c)   = max over c of src(i, c) - src(i, c)                 in 0..255
///   sum(i)    = sum over c of table[d(i, c)]                        exact, uint64
///   dst(i, c) = float32(float64(table[d(i, c)]) / float64(sum(i)))
///
/// table[0] is 2^40 (exp(0)); every entry is at most that, so 2^23 channels cannot overflow the sum. The
/// conversions of table entries to float64 are exact; that of the sum rounds to nearest even. dst(i, c) =
/// dst[i * dst_row_stride + c * dst_channel_stride], strides in elements. A sum of zero does not occur: the
/// maximum itself has d = 0.
struct SoftmaxParams {
  size_t rows = 0;
  size_t channels = 0;
  const act_t* src = nullptr;
  ptrdiff_t src_row_stride = 0;
  float* dst = nullptr;
  ptrdiff_t dst_row_stride = 0;
  ptrdiff_t dst_channel_stride = 1;
  const uint64_t* table = nullptr;  // 256 entries
};

using SoftmaxVariant = Variant<SoftmaxParams>;

std::vector<const SoftmaxVariant*> softmax_variants(IsaSet isas);
const SoftmaxVariant* select_softmax(IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_SOFTMAX_SOFTMAX_H_
