#ifndef EDGEQ_BASE_INT4_H_
#define EDGEQ_BASE_INT4_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

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

// Eight values at a time, in a 32-bit word: value i is nibble i, the lowest first, as in the packed array.
// Words are read from little-endian machines only, as all of the file is.

/// Values `index` to `index` + 7 of a packed array of which all of these bytes exist.
static inline uint32_t int4_word(const uint8_t* packed, size_t index) {
  const uint8_t* from = packed + index / 2;
  uint32_t word;
  std::memcpy(&word, from, sizeof word);
  return index % 2 == 0 ? word : word >> 4 | static_cast<uint32_t>(from[4]) << 28;
}

/// Values `index` to `index` + count - 1, at most eight, and zeros: reads no byte beyond the last one's.
static inline uint32_t int4_word(const uint8_t* packed, size_t index, size_t count) {
  uint32_t word = 0;
  for (size_t i = 0; i < count; ++i) {
    word |= static_cast<uint32_t>(packed[(index + i) / 2] >> (index + i) % 2 * 4 & 0x0F) << 4 * i;
  }
  return word;
}

/// Sum of 32 words' values, 256 in all. With their signs flipped they count from -8, so that a byte holds the
/// sum of two of them eight times over (2 * 15 * 8 = 240). Plain loops that compilers turn into vectors.
static inline int32_t int4_sum(const uint32_t (&words)[32]) {
  uint32_t bytes[4] = {};
  for (int i = 0; i < 32; i += 4) {
    for (int lane = 0; lane < 4; ++lane) {
      const uint32_t raised = words[i + lane] ^ 0x88888888u;
      bytes[lane] += (raised & 0x0F0F0F0Fu) + (raised >> 4 & 0x0F0F0F0Fu);
    }
  }
  uint32_t halves = 0;
  for (uint32_t sums : bytes) halves += (sums & 0x00FF00FFu) + (sums >> 8 & 0x00FF00FFu);
  return static_cast<int32_t>((halves & 0xFFFFu) + (halves >> 16)) - 256 * 8;
}

/// Sum of the magnitudes of a word's values.
static constexpr int32_t int4_magnitudes(uint32_t word) {
  const uint32_t negative = word >> 3 & 0x11111111u;
  const uint32_t magnitudes = (word ^ negative * 15) + negative;
  const uint32_t pairs = (magnitudes & 0x0F0F0F0Fu) + (magnitudes >> 4 & 0x0F0F0F0Fu);
  return static_cast<int32_t>(pairs * 0x01010101u >> 24);
}

/// Values 0, 4, 1, 5, 2, 6, 3, 7 of a word: the first four in the lower nibbles, the others in the upper
/// ones.
static constexpr uint32_t int4_interleave(uint32_t word) {
  word = (word & 0xFF0000FFu) | (word >> 8 & 0x0000FF00u) | (word << 8 & 0x00FF0000u);
  return (word & 0xF00FF00Fu) | (word >> 4 & 0x00F000F0u) | (word << 4 & 0x0F000F00u);
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
