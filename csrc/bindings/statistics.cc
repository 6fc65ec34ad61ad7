#include "bindings/statistics.h"

#include <algorithm>
#include <limits>
#include <vector>

// What calibration asks of every activation of every image; plain loops over independent lanes, which
// compilers turn into vector code at the build's base instruction set.

namespace edgeq {

void minmax(const float* values, size_t count, float* low, float* high) {
  constexpr size_t kLanes = 32;
  float lowest[kLanes], highest[kLanes];
  uint32_t unordered[kLanes] = {};
  std::fill(lowest, lowest + kLanes, values[0]);
  std::fill(highest, highest + kLanes, values[0]);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float value = values[i + lane];
      lowest[lane] = value < lowest[lane] ? value : lowest[lane];
      highest[lane] = value > highest[lane] ? value : highest[lane];
      unordered[lane] |= static_cast<uint32_t>(value != value);
    }
  }
  bool nan = values[0] != values[0];
  for (; i < count; ++i) {
    lowest[0] = std::min(lowest[0], values[i]);
    highest[0] = std::max(highest[0], values[i]);
    nan |= values[i] != values[i];
  }
  *low = *std::min_element(lowest, lowest + kLanes);
  *high = *std::max_element(highest, highest + kLanes);
  for (uint32_t lane : unordered) nan |= lane != 0;
  if (nan) *low = *high = std::numeric_limits<float>::quiet_NaN();
}

void histogram(const float* values, size_t count, float low, float factor, size_t bins, int64_t* counts) {
  // Neighbouring values often fall into one bin: four tables keep their increments from waiting for each
  // other. uint32 counters take runs of kRun values between two sums.
  constexpr size_t kBlock = 64;
  constexpr size_t kTables = 4;
  constexpr size_t kRun = size_t{1} << 30;
  const float last = static_cast<float>(bins - 1);
  std::vector<uint32_t> tables(kTables * bins);
  int32_t index[kBlock];
  for (size_t begin = 0; begin < count; begin += kRun) {
    const size_t end = std::min(count, begin + kRun);
    for (size_t i = begin; i < end; i += kBlock) {
      const size_t block = std::min(kBlock, end - i);
      for (size_t k = 0; k < block; ++k) {
        float position = (values[i + k] - low) * factor;
        position = position > 0.0f ? position : 0.0f;
        position = position < last ? position : last;
        index[k] = static_cast<int32_t>(position);
      }
      for (size_t k = 0; k < block; ++k) ++tables[k % kTables * bins + static_cast<size_t>(index[k])];
    }
    for (size_t bin = 0; bin < bins; ++bin) {
      for (size_t table = 0; table < kTables; ++table) counts[bin] += tables[table * bins + bin];
    }
    std::fill(tables.begin(), tables.end(), 0u);
  }
}

}  // namespace edgeq
