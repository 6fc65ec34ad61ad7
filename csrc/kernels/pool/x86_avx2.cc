#include "kernels/pool/x86_wide.h"

namespace edgeq {

void max_pool_avx2(const PoolParams& p) { max_pool<Vector256, Vector128>(p); }
void average_pool_avx2(const PoolParams& p) { average_pool<Vector256>(p); }
void mean_avx2(const MeanParams& p) { mean<Vector256>(p); }

}  // namespace edgeq
