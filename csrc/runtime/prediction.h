#ifndef EDGEQ_RUNTIME_PREDICTION_H_
#define EDGEQ_RUNTIME_PREDICTION_H_

#include <cstddef>
#include <cstdint>

#include "ops/model.h"

namespace edgeq {

/// What a row of scores says (docs/guard.md).
struct Prediction {
  int64_t answer = 0;     // the class of the highest logit; of tied ones the lowest
  float probability = 0;  // of the answer, calibrated
  float margin = 0;       // by which it exceeds the second highest probability
  bool defer = false;     // the margin is below the guard's: ask somebody else
};

/// exp(x) for x <= 0, within an ulp or so: 1 at 0 and 0 below -700. Sums, products and divisions of float64
/// and a power of two, each rounded on its own: the same bits with every compiler, C library and CPU, and in
/// numpy (edgeq/simulate/prediction.py).
double exp_of_negative(double x);

/// log(p) for p > 0, at least log(1e-12), within an ulp or so: the same bits everywhere, as above.
double log_of_probability(double p);

/// Reads one row of `classes` >= 2 scores; without a guard the temperature is 1 and nothing is deferred. The
/// logits are the scores, or their logarithms where the model gives probabilities: softmax(log p) = p.
///
/// In float64: e(j) = exp((logit(j) - max) / temperature), sum = e(0) + e(1) + ... in this order,
/// probability = 1 / sum and margin = (1 - e(second highest)) / sum, both then rounded to float32. A row that
/// holds a score that is not finite has a probability and a margin of 0.
Prediction predict(const float* scores, size_t classes, bool probabilities, const Guard& guard);

}  // namespace edgeq

#endif  // EDGEQ_RUNTIME_PREDICTION_H_
