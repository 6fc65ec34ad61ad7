#include "kernels/lut/x86_wide.h"

namespace edgeq {

void lut_avx2(const LutParams& p) { lut<Shuffles<Vector256>>(p); }

}  // namespace edgeq
