#ifndef EDGEQ_BASE_REQUANTIZE_H_
#define EDGEQ_BASE_REQUANTIZE_H_

#include <cfloat>
#include <cstdint>
#include <cstring>

// THE rounding rule of edgeq. Every kernel, on every instruction set, equals these functions bit for bit.
// Compile with -ffp-contract=off: a fused multiply-add rounds once where the rule rounds twice.

namespace edgeq {

static_assert(FLT_EVAL_METHOD == 0, "The rounding rule needs float32 arithmetic without excess precision.");

/// Output range of a quantized value in the act domain: min <= value <= max, real zero at zp.
struct OutputRange {
  int32_t zp;
  int32_t min;
  int32_t max;
};

/// Rounds to the nearest integer, ties to even.
///
/// Requires |value| <= 2^22. Adding 1.5 * 2^23 leaves no fraction bits in the float32 sum, so that the
/// addition itself rounds, and the low mantissa bits are the integer; it needs no library call and no change
/// of mode.
static inline int32_t round_half_even(float value) {
  const float shifted = value + 12582912.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  return bits - 0x4B400000;
}

/// clamp(rne(value) + zp) for any float32 that is not NaN.
///
/// The clamp comes first, in float: the bounds are integers, so rounding cannot leave them, and the addition
/// of the zero point cannot overflow where an unclamped value may be near INT32_MAX. The range is at most
/// 255 wide, so round_half_even's precondition holds.
static inline int32_t round_to_range(float value, OutputRange range) {
  const float lo = static_cast<float>(range.min - range.zp);
  const float hi = static_cast<float>(range.max - range.zp);
  value = value < lo ? lo : value;
  value = value > hi ? hi : value;
  return round_half_even(value) + range.zp;
}

/// clamp(rne(float32(acc) * scale) + zp): one rounding to float32, one for the product, one to the integer.
static inline int32_t requantize(int32_t acc, float scale, OutputRange range) {
  return round_to_range(static_cast<float>(acc) * scale, range);
}

/// The Add statement: clamp(rne((a - zp_a) * multiplier_a + (b - zp_b) * multiplier_b) + zp).
static inline int32_t add_quantized(int32_t a, int32_t zp_a, float multiplier_a, int32_t b, int32_t zp_b,
                                    float multiplier_b, OutputRange range) {
  const float left = static_cast<float>(a - zp_a) * multiplier_a;
  const float right = static_cast<float>(b - zp_b) * multiplier_b;
  return round_to_range(left + right, range);
}

/// The Sub statement: as add_quantized, with a minus.
static inline int32_t sub_quantized(int32_t a, int32_t zp_a, float multiplier_a, int32_t b, int32_t zp_b,
                                    float multiplier_b, OutputRange range) {
  const float left = static_cast<float>(a - zp_a) * multiplier_a;
  const float right = static_cast<float>(b - zp_b) * multiplier_b;
  return round_to_range(left - right, range);
}

/// The Mul statement: clamp(rne(float32((a - zp_a) * (b - zp_b)) * multiplier) + zp).
static inline int32_t mul_quantized(int32_t a, int32_t zp_a, int32_t b, int32_t zp_b, float multiplier,
                                    OutputRange range) {
  return requantize((a - zp_a) * (b - zp_b), multiplier, range);
}

/// clamp(rne(value / scale) + zp), with a true division. NaN becomes the code of zero, zp clamped to the
/// range; infinities clamp.
static inline int32_t quantize_value(float value, float scale, OutputRange range) {
  float quotient = value / scale;
  quotient = quotient == quotient ? quotient : 0.0f;
  return round_to_range(quotient, range);
}

/// a + b modulo 2^32. Accumulators wrap; the quantizer proves that the sums of a valid model do not.
static inline int32_t wrapping_add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

/// a * b modulo 2^32.
static inline int32_t wrapping_mul(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

}  // namespace edgeq

#endif  // EDGEQ_BASE_REQUANTIZE_H_
