#ifndef EDGEQ_KERNELS_LUT_LUT_H_
#define EDGEQ_KERNELS_LUT_LUT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/act.h"
#include "kernels/variant.h"

namespace edgeq {

/// dst(i, c) = table[256 * c * per_channel + src(i, from(c))] for i < rows, c < channels; the source byte is
/// the index as unsigned, from(c) = c, or channels - 1 - c when `reversed`. Per channel it also turns a uint8
/// image into activations (the normalisation is in the table), reversed an RGB image into BGR ones. x(i, c) =
/// x[i * row_stride + c]. dst may be src itself unless `reversed`.
struct LutParams {
  size_t rows = 0;
  size_t channels = 0;
  const uint8_t* src = nullptr;
  ptrdiff_t src_row_stride = 0;
  uint8_t* dst = nullptr;
  ptrdiff_t dst_row_stride = 0;
  const uint8_t* table = nullptr;  // 256 entries, or [channels][256]
  bool per_channel = false;
  bool reversed = false;
};

using LutVariant = Variant<LutParams>;

std::vector<const LutVariant*> lut_variants(IsaSet isas);
const LutVariant* select_lut(IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_LUT_LUT_H_
