#ifndef EDGEQ_OPS_PAD_H_
#define EDGEQ_OPS_PAD_H_

#include "ops/model.h"

namespace edgeq {

/// Whether a (checked) pad node only pads height and width with the zero point, so that a convolution can do
/// it; `pads` then holds top, left, bottom, right.
bool spatial_pads(const NodeView& view, int32_t* pads);

}  // namespace edgeq

#endif  // EDGEQ_OPS_PAD_H_
