#include "kernels/resize/x86_wide.h"

namespace edgeq {

void resize_bilinear_avx2(const ResizeParams& p) { resize_bilinear<Vector256>(p); }

}  // namespace edgeq
