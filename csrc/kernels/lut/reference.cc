#include "kernels/lut/lut.h"

namespace edgeq {

void lut_scalar(const LutParams& p) {
  const size_t step = p.per_channel ? 256 : 0;
  for (size_t i = 0; i < p.rows; ++i) {
    const uint8_t* src = p.src + static_cast<ptrdiff_t>(i) * p.src_row_stride;
    uint8_t* dst = p.dst + static_cast<ptrdiff_t>(i) * p.dst_row_stride;
    const uint8_t* table = p.table;
    for (size_t c = 0; c < p.channels; ++c, table += step) {
      dst[c] = table[src[p.reversed ? p.channels - 1 - c : c]];
    }
  }
}

}  // namespace edgeq
