#ifndef EDGEQ_OPS_TUNING_H_
#define EDGEQ_OPS_TUNING_H_

#include <string>
#include <utility>
#include <vector>

#include "ops/op.h"

namespace edgeq {

/// The candidate that the target's tuning names for this shape, else `chosen`. A name that is no candidate
/// (of another version, or above a cap) counts for nothing. Notes the choice in `info`.
template <typename Variant>
const Variant* tuned(const std::vector<const Variant*>& candidates, const Variant* chosen, std::string shape,
                     const Target& target, StepInfo& info) {
  for (const Variant* variant : candidates) info.candidates.push_back(variant->name);
  if (target.tuning != nullptr) {
    const auto found = target.tuning->find(shape);
    for (const Variant* variant : candidates) {
      if (found != target.tuning->end() && found->second == variant->name) chosen = variant;
    }
  }
  info.shape = std::move(shape);
  return chosen;
}

}  // namespace edgeq

#endif  // EDGEQ_OPS_TUNING_H_
