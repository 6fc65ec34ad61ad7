#include "bindings/machine.h"

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "kernels/peak/peak.h"

namespace edgeq {
namespace {

/// Best time of one call in seconds over some 40 ms of calls: other work on the machine only ever adds time,
/// and calls far shorter than a scheduler's slice let some run undisturbed.
template <typename Call>
double best_seconds(Call call) {
  using Clock = std::chrono::steady_clock;
  double best = 1.0;
  double spent = 0.0;
  while (spent < 0.04) {
    const auto start = Clock::now();
    call();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = seconds < best ? seconds : best;
    spent += seconds;
  }
  return best;
}

}  // namespace

std::vector<PeakRate> measure_peaks(IsaSet isas) {
  std::vector<PeakRate> rates;
  for (const PeakVariant* variant : peak_variants(isas)) {
    int32_t sink[16];
    PeakParams params;
    params.iterations = 4000;
    params.sink = sink;
    const double seconds = best_seconds([&] { variant->run(params); });
    rates.push_back({variant->name, variant->isa,
                     static_cast<double>(variant->macs) * static_cast<double>(params.iterations) / seconds});
  }
  return rates;
}

double measure_clock_hertz() {
  constexpr size_t kSteps = 20000;
  constexpr size_t kCyclesPerStep =
      6;  // three shifts and three exclusive ors, each waiting for the one before
  volatile uint64_t seed = 88172645463325252u;
  const double seconds = best_seconds([&] {
    uint64_t x = seed;
    for (size_t i = 0; i < kSteps; ++i) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
    seed = x;
  });
  return static_cast<double>(kSteps * kCyclesPerStep) / seconds;
}

}  // namespace edgeq
