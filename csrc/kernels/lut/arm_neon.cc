#include "kernels/arm_bytes.h"

// Runs and planes, by the rearrangements of arm_bytes.h.
#include "kernels/lut/runs.h"

namespace edgeq {
namespace {

#if defined(__aarch64__)

/// Four look-ups of 64 entries. The first yields zero for an index beyond its part, the others leave what is
/// there: seven instructions for 16 bytes.
class Lookup : public Bytes16 {
 public:
  static constexpr bool kIsChain = true;

  explicit Lookup(const uint8_t* table) {
    for (int i = 0; i < 4; ++i) part_[i] = vld1q_u8_x4(table + 64 * i);
  }
  EDGEQ_INLINE Int operator()(Int bytes) const {
    uint8x16_t index = vreinterpretq_u8_s8(bytes);
    uint8x16_t entries = vqtbl4q_u8(part_[0], index);
#pragma GCC unroll 3
    for (int i = 1; i < 4; ++i) {
      index = vsubq_u8(index, vdupq_n_u8(64));
      entries = vqtbx4q_u8(entries, part_[i], index);
    }
    return vreinterpretq_s8_u8(entries);
  }

 private:
  uint8x16x4_t part_[4];
};

#else

/// Byte by byte, four indices a load. Armv7 looks up 32 entries at a time, eight bytes of indices in some
/// three cycles: eight such look-ups and the subtractions between them are slower than three instructions a
/// byte, and the table needs all registers.
class Lookup : public Bytes16 {
 public:
  static constexpr bool kIsChain = true;

  explicit Lookup(const uint8_t* table) : table_(table) {}
  EDGEQ_INLINE Int operator()(Int bytes) const {
    uint32_t words[4];
    store_all(words, bytes);
#pragma GCC unroll 4
    for (uint32_t& word : words) {
      word = static_cast<uint32_t>(table_[word & 0xFF]) |
             static_cast<uint32_t>(table_[word >> 8 & 0xFF]) << 8 |
             static_cast<uint32_t>(table_[word >> 16 & 0xFF]) << 16 |
             static_cast<uint32_t>(table_[word >> 24]) << 24;
    }
    return load(words);
  }

 private:
  const uint8_t* table_;
};

#endif

}  // namespace

void lut_neon(const LutParams& p) { lut<Lookup>(p); }

}  // namespace edgeq
