#include "kernels/depthwise/x86_vnni.h"

namespace edgeq {
namespace {

struct Vex256 : Vector256 {
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm256_dpbusd_avx_epi32(acc, a, b); }
};
struct Vex128 : Vector128 {
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm_dpbusd_avx_epi32(acc, a, b); }
};

template <int kBits>
void run_depthwise(const DepthwiseParams& p, size_t row_begin, size_t row_end) {
  const uint8_t* packed = p.packed;
  for (size_t first = 0; first < p.channels && row_begin < row_end;) {
    const size_t width = depthwise_block_width(p.channels - first, 32);
    if (width == 32) {
      run_block<VnniEngine<Vex256>, kBits>(p, row_begin, row_end, first, packed);
    } else {
      run_block<VnniEngine<Vex128>, kBits>(p, row_begin, row_end, first, packed);
    }
    packed += block_bytes(p, width, kBits);
    first += width;
  }
}

}  // namespace

void depthwise_u8s8c_u8_2x32x4_avxvnni(const DepthwiseParams& p, size_t r0, size_t r1) {
  run_depthwise<8>(p, r0, r1);
}
void depthwise_u8s4c_u8_2x32x4_avxvnni(const DepthwiseParams& p, size_t r0, size_t r1) {
  run_depthwise<4>(p, r0, r1);
}

}  // namespace edgeq
