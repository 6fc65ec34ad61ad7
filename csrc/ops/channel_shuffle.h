#ifndef EDGEQ_OPS_CHANNEL_SHUFFLE_H_
#define EDGEQ_OPS_CHANNEL_SHUFFLE_H_

#include "ops/model.h"

namespace edgeq {

/// Whether a shuffle can read the inputs of the concatenation that it reads: channels are concatenated, and
/// every group of the shuffle lies in one input.
bool absorbs_concat(const NodeView& shuffle, const NodeView& concat);

}  // namespace edgeq

#endif  // EDGEQ_OPS_CHANNEL_SHUFFLE_H_
