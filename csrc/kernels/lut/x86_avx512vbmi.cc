#include "kernels/lut/x86_wide.h"

namespace edgeq {
namespace {

/// Two permutes of 128 entries, one for each half of the table, chosen by the index's top bit.
struct Permutes : Vector512 {
  static constexpr bool kIsChain = true;

  explicit Permutes(const uint8_t* table)
      : part0_(load(table)), part1_(load(table + 64)), part2_(load(table + 128)), part3_(load(table + 192)) {}
  EDGEQ_INLINE Int operator()(Int bytes) const {
    const Int low = _mm512_permutex2var_epi8(part0_, bytes, part1_);
    const Int high = _mm512_permutex2var_epi8(part2_, bytes, part3_);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), low, high);
  }

 private:
  Int part0_, part1_, part2_, part3_;
};

}  // namespace

void lut_avx512vbmi(const LutParams& p) { lut<Permutes>(p); }

}  // namespace edgeq
