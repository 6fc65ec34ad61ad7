#ifndef EDGEQ_KERNELS_LUT_X86_WIDE_H_
#define EDGEQ_KERNELS_LUT_X86_WIDE_H_

// Table look-up for one vector width; Lookup is a vector type that is built from a table and maps bytes. Only
// x86_*.cc include it.

#include "kernels/lut/lut.h"
#include "kernels/x86_vectors.h"

namespace edgeq {

void lut_scalar(const LutParams&);

namespace {

template <typename Lookup>
void lut(const LutParams& p) {
  if (p.per_channel) {  // Every byte has its own table: there is nothing to share between lanes.
    lut_scalar(p);
    return;
  }
  const Lookup lookup(p.table);
  const ptrdiff_t channels = static_cast<ptrdiff_t>(p.channels);
  const bool dense = p.src_row_stride == channels && p.dst_row_stride == channels;
  const size_t rows = dense ? 1 : p.rows;
  const size_t count = dense ? p.rows * p.channels : p.channels;
  for (size_t i = 0; i < rows; ++i) {
    const uint8_t* src = p.src + static_cast<ptrdiff_t>(i) * p.src_row_stride;
    uint8_t* dst = p.dst + static_cast<ptrdiff_t>(i) * p.dst_row_stride;
    for (size_t c = 0; c < count; c += Lookup::kBytes) {
      Lookup::store(dst + c, lookup(Lookup::load(src + c)), count - c);
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_LUT_X86_WIDE_H_
