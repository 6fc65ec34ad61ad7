#ifndef EDGEQ_KERNELS_PEAK_PEAK_H_
#define EDGEQ_KERNELS_PEAK_PEAK_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/variant.h"

namespace edgeq {

/// Runs `iterations` of a loop of nothing but independent integer multiply-accumulate instructions on
/// registers. Benches divide by its rate: it is the machine's limit for that instruction set. Results go to
/// `sink`.
struct PeakParams {
  size_t iterations = 0;
  int32_t* sink = nullptr;  // 16 elements
};

struct PeakVariant {
  const char* name;
  Isa isa;
  void (*run)(const PeakParams& params);
  size_t macs;  // 8-bit multiply-accumulates of one iteration
};

/// All variants that `isas` can run, best first.
std::vector<const PeakVariant*> peak_variants(IsaSet isas);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_PEAK_PEAK_H_
