#include "kernels/copy/copy.h"
#include "kernels/x86_vectors.h"

namespace edgeq {

void interleave_avx2(const InterleaveParams&);

// Two groups by two byte permutes a 64 channels; other numbers of groups gain nothing.
void interleave_avx512vbmi(const InterleaveParams& p) {
  if (p.groups != 2) {
    interleave_avx2(p);
    return;
  }
  alignas(64) uint8_t pairs[64];
  for (int i = 0; i < 64; ++i) pairs[i] = static_cast<uint8_t>(i / 2 + i % 2 * 64);
  const __m512i low = Vector512::load(pairs);
  const __m512i high = Vector512::add(low, Vector512::set1_byte(32));
  const uint8_t* a = p.src[0];
  const uint8_t* b = p.src[1];
  uint8_t* dst = p.dst;
  for (size_t i = 0; i < p.rows; ++i) {
    for (size_t c = 0; c < p.channels; c += 64) {
      const __m512i left = Vector512::load(a + c);
      const __m512i right = Vector512::load(b + c);
      const size_t rest = 2 * (p.channels - c);
      Vector512::store(dst + 2 * c, _mm512_permutex2var_epi8(left, low, right), rest);
      if (rest > 64) {
        Vector512::store(dst + 2 * c + 64, _mm512_permutex2var_epi8(left, high, right), rest - 64);
      }
    }
    a += p.src_row_stride[0];
    b += p.src_row_stride[1];
    dst += p.dst_row_stride;
  }
}

}  // namespace edgeq
