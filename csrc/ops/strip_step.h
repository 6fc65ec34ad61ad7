#ifndef EDGEQ_OPS_STRIP_STEP_H_
#define EDGEQ_OPS_STRIP_STEP_H_

#include <memory>
#include <vector>

#include "ops/row_step.h"

namespace edgeq {

// Consecutive steps over an image, run a strip of output rows at a time: expansion, depthwise window and
// projection of an inverted residual, say. What lies between two of them never exists as a whole: it is a
// ring of as many rows as the next step's window reaches, in the thread's own scratch memory.
//
//   input, whole      | expand |  ring of 6 rows  | 3x3 depthwise |  4 rows  | project |  output, whole
//
// Every row is computed once by a thread, by the same kernels and so with the same bytes as without strips.
// Threads that share an image repeat the few rows between their parts.

/// Why a chain is worth its strips, or not.
struct StripSize {
  int64_t rows = 0;           // output rows of a strip; 0: not worth it
  int64_t scratch_bytes = 0;  // a thread's rings
};

/// Looks at steps of which each reads the one before. All but the first must stream.
StripSize strip_size(const std::vector<const RowStep*>& chain);

/// Joins them. Input 0 of the result is that of the first step, input 1 + i the residual operand of step i
/// (null where it has none).
Result<std::unique_ptr<Step>> make_strip_step(std::vector<std::unique_ptr<Step>> chain, const StripSize& size,
                                              Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_STRIP_STEP_H_
