#include "kernels/peak/peak.h"

namespace edgeq {

void peak_scalar(const PeakParams& p) {
  uint32_t acc[8] = {};
  for (size_t i = 0; i < p.iterations; ++i) {
    for (uint32_t j = 0; j < 8; ++j) acc[j] = acc[j] * 3u + j;
  }
  for (int j = 0; j < 16; ++j) p.sink[j] = static_cast<int32_t>(acc[j % 8]);
}

}  // namespace edgeq
