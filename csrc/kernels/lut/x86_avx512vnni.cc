#include "kernels/lut/x86_wide.h"

namespace edgeq {

void lut_avx512vnni(const LutParams& p) { lut<Shuffles<Vector512>>(p); }

}  // namespace edgeq
