#ifndef EDGEQ_BINDINGS_MACHINE_H_
#define EDGEQ_BINDINGS_MACHINE_H_

#include <string>
#include <vector>

#include "base/cpu_features.h"

namespace edgeq {

/// How fast one core runs a loop of nothing but multiply-accumulate instructions.
struct PeakRate {
  std::string name;  // of the loop in kernels/peak
  Isa isa;
  double macs_per_second;
};

/// The rates of every instruction set in `isas`, best first, measured now: some 40 ms each.
std::vector<PeakRate> measure_peaks(IsaSet isas);

/// Cycles a second of the core this thread runs on, measured now by a chain of dependent operations: some
/// 40 ms.
double measure_clock_hertz();

}  // namespace edgeq

#endif  // EDGEQ_BINDINGS_MACHINE_H_
