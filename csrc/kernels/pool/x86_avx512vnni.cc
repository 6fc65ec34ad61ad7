#include "kernels/pool/x86_wide.h"

namespace edgeq {

void max_pool_avx512vnni(const PoolParams& p) { max_pool<Vector512, Vector256>(p); }
void average_pool_avx512vnni(const PoolParams& p) { average_pool<Vector512>(p); }
void mean_avx512vnni(const MeanParams& p) { mean<Vector512>(p); }

}  // namespace edgeq
