#include "runtime/prediction.h"

#include <cmath>
#include <cstring>

namespace edgeq {
namespace {

// ln 2 in two parts (as in fdlibm): the last 21 bits of the first are zero, so that its product with a k of
// 10 bits is exact.
constexpr double kLn2High = 6.93147180369123816490e-01;
constexpr double kLn2Low = 1.90821492927058770002e-10;

}  // namespace

double exp_of_negative(double x) {
  // exp(-700) is 1e-304, a normal number still.
  if (x < -700) return 0;
  constexpr double kLog2e = 1.4426950408889634;
  const int64_t power = static_cast<int64_t>(x * kLog2e - 0.5);  // to the nearest: the cast cuts off
  const double k = static_cast<double>(power);
  const double r = (x - k * kLn2High) - k * kLn2Low;
  // Taylor's series: |r| <= 0.347, so the first term left out is below 0.347^14 / 14! = 4.2e-18.
  constexpr double kCoefficients[] = {
      1 / 6227020800.0, 1 / 479001600.0, 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0, 1 / 40320.0, 1 / 5040.0,
      1 / 720.0,        1 / 120.0,       1 / 24.0,       1 / 6.0,       1 / 2.0,      1,           1};
  double sum = 0;
  for (const double coefficient : kCoefficients) sum = sum * r + coefficient;
  // 2^k as its bits: k >= -1010, so that it and the product are normal numbers and the product is exact.
  const uint64_t bits = static_cast<uint64_t>(power + 1023) << 52;
  double scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return sum * scale;
}

double log_of_probability(double p) {
  constexpr double kLeast = 1e-12;
  constexpr double kHalfOfSqrt2 = 0.70710678118654752440;
  int power;
  double fraction = std::frexp(p > kLeast ? p : kLeast, &power);
  if (fraction < kHalfOfSqrt2) {
    fraction = 2 * fraction;
    --power;
  }
  // log(fraction) = 2 artanh(s); |s| <= 0.1716, so the first term left out is below 2 * 0.1716^23 / 23
  // = 2.2e-19.
  const double s = (fraction - 1) / (fraction + 1);
  const double square = s * s;
  double sum = 0;
  for (int n = 21; n > 0; n -= 2) sum = sum * square + 1.0 / n;
  const double k = power;
  return k * kLn2High + (2 * s * sum + k * kLn2Low);
}

Prediction predict(const float* scores, size_t classes, bool probabilities, const Guard& guard) {
  size_t best = 0;
  bool finite = std::isfinite(scores[0]);
  for (size_t j = 1; j < classes; ++j) {
    finite = finite && std::isfinite(scores[j]);
    if (scores[j] > scores[best]) best = j;
  }
  const auto logit = [scores, probabilities](size_t j) {
    return probabilities ? log_of_probability(scores[j]) : double{scores[j]};
  };
  Prediction result;
  result.answer = static_cast<int64_t>(best);
  if (finite) {
    const double highest = logit(best);
    const double temperature = guard.temperature;
    double sum = 0, second = 0;
    for (size_t j = 0; j < classes; ++j) {
      const double weight = exp_of_negative((logit(j) - highest) / temperature);
      sum = sum + weight;
      if (j != best && weight > second) second = weight;
    }
    result.probability = static_cast<float>(1 / sum);
    result.margin = static_cast<float>((1 - second) / sum);
  }
  result.defer = result.margin < guard.margin;
  return result;
}

}  // namespace edgeq
