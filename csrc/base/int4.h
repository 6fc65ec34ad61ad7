#ifndef EDGEQ_BASE_INT4_H_
#define EDGEQ_BASE_INT4_H_

#include <cstddef>
#include <cstdint>

namespace edgeq {

// 4-bit values are two's complement, two to a byte, the lower nibble first (as in ONNX INT4 and TFLite
// INT4). Weights use [-7, 7].

/// Bytes that hold `count` 4-bit values.
static constexpr size_t int4_bytes(size_t count) { return (count + 1) / 2; }

/// Sign-extends the low nibble of `nibble`.
static constexpr int8_t int4_sign_extend(uint8_t nibble) {
  return static_cast<int8_t>(static_cast<int>((nibble & 0x0F) ^ 0x08) - 8);
}

/// Value number `index` of a packed array.
static inline int8_t int4_at(const uint8_t* packed, size_t index) {
  const uint8_t byte = packed[index / 2];
  return int4_sign_extend(static_cast<uint8_t>(index % 2 == 0 ? byte : byte >> 4));
}

/// Packs two values, `low` first.
static constexpr uint8_t int4_pack(int low, int high) {
  return static_cast<uint8_t>((low & 0x0F) | ((high & 0x0F) << 4));
}

/// A canonical weight tensor as the file holds it, seen from element `first`: int8, or 4-bit packed.
/// `first` may be odd (a group of a 4-bit tensor may start in the middle of a byte).
struct WeightView {
  const uint8_t* data;
  int bits;  // 8 or 4
  size_t first = 0;

  int8_t at(size_t index) const {
    return bits == 4 ? int4_at(data, first + index) : static_cast<int8_t>(data[first + index]);
  }
  WeightView from(size_t offset) const { return WeightView{data, bits, first + offset}; }
};

}  // namespace edgeq

#endif  // EDGEQ_BASE_INT4_H_
