#ifndef EDGEQ_TESTS_BEST_SECONDS_H_
#define EDGEQ_TESTS_BEST_SECONDS_H_

#include <chrono>
#include <cstddef>

namespace edgeq {

/// Best time of one call in seconds, over many short rounds: other work on the machine only ever adds time,
/// and rounds shorter than a scheduler's slice let some run undisturbed.
template <typename Call>
double best_seconds(Call call) {
  using Clock = std::chrono::steady_clock;
  const auto time = [&](size_t repeats) {
    const auto start = Clock::now();
    for (size_t i = 0; i < repeats; ++i) call();
    return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(repeats);
  };
  size_t repeats = 1;
  while (time(repeats) * static_cast<double>(repeats) < 1e-4) repeats *= 2;
  double best = time(repeats);
  double spent = 0.0;
  for (int i = 0; i < 400 && spent < 0.08; ++i) {
    const double seconds = time(repeats);
    spent += seconds * static_cast<double>(repeats);
    best = seconds < best ? seconds : best;
  }
  return best;
}

}  // namespace edgeq

#endif  // EDGEQ_TESTS_BEST_SECONDS_H_
