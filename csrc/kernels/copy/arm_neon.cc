#include "kernels/arm_bytes.h"

// By the rearrangements of arm_bytes.h.
#include "kernels/copy/rows.h"

namespace edgeq {

void copy_neon(const CopyParams& p) { copy_rows(p); }
void interleave_neon(const InterleaveParams& p) { interleave_rows(p); }

}  // namespace edgeq
