#ifndef EDGEQ_BINDINGS_STATISTICS_H_
#define EDGEQ_BINDINGS_STATISTICS_H_

#include <cstddef>
#include <cstdint>

namespace edgeq {

/// The smallest and the largest of `count` > 0 values; both NaN when one of them is NaN.
void minmax(const float* values, size_t count, float* low, float* high);

/// Adds the values to counts[bins]: value v goes to bin int((v - low) * factor), in float32, clamped to
/// [0, bins - 1]. The values are finite.
void histogram(const float* values, size_t count, float low, float factor, size_t bins, int64_t* counts);

}  // namespace edgeq

#endif  // EDGEQ_BINDINGS_STATISTICS_H_
