#include "kernels/x86_bytes.h"

// By the rearrangements of x86_bytes.h.
#include "kernels/copy/rows.h"

namespace edgeq {

void copy_avx2(const CopyParams& p) { copy_rows(p); }
void interleave_avx2(const InterleaveParams& p) { interleave_rows(p); }

}  // namespace edgeq
