#include "kernels/depthwise/x86_vnni.h"

namespace edgeq {
namespace {

struct Evex512 : Vector512 {
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm512_dpbusd_epi32(acc, a, b); }
};
struct Evex256 : Vector256 {
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm256_dpbusd_epi32(acc, a, b); }
};
struct Evex128 : Vector128 {
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm_dpbusd_epi32(acc, a, b); }
};

template <int kBits, size_t kWidest>
void run_depthwise(const DepthwiseParams& p, size_t row_begin, size_t row_end) {
  const uint8_t* packed = p.packed;
  for (size_t first = 0; first < p.channels && row_begin < row_end;) {
    const size_t width = depthwise_block_width(p.channels - first, kWidest);
    if (width == 64) {
      run_block<VnniEngine<Evex512>, kBits>(p, row_begin, row_end, first, packed);
    } else if (width == 32) {
      run_block<VnniEngine<Evex256>, kBits>(p, row_begin, row_end, first, packed);
    } else {
      run_block<VnniEngine<Evex128>, kBits>(p, row_begin, row_end, first, packed);
    }
    packed += block_bytes(p, width, kBits);
    first += width;
  }
}

}  // namespace

void depthwise_u8s8c_u8_2x64x4_avx512vnni(const DepthwiseParams& p, size_t r0, size_t r1) {
  run_depthwise<8, 64>(p, r0, r1);
}
void depthwise_u8s4c_u8_2x64x4_avx512vnni(const DepthwiseParams& p, size_t r0, size_t r1) {
  run_depthwise<4, 64>(p, r0, r1);
}
// The shape of the AVX-VNNI level in the EVEX encoding: the same source, so that a CPU without AVX-VNNI tests
// it.
void depthwise_u8s8c_u8_2x32x4_avx512vnni(const DepthwiseParams& p, size_t r0, size_t r1) {
  run_depthwise<8, 32>(p, r0, r1);
}
void depthwise_u8s4c_u8_2x32x4_avx512vnni(const DepthwiseParams& p, size_t r0, size_t r1) {
  run_depthwise<4, 32>(p, r0, r1);
}

}  // namespace edgeq
