#include "kernels/resize/x86_wide.h"

namespace edgeq {

void resize_bilinear_avx512vnni(const ResizeParams& p) { resize_bilinear<Vector512, Vector256>(p); }

}  // namespace edgeq
