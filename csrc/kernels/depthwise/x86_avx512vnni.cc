#include "kernels/depthwise/x86_vnni.h"

namespace edgeq {
namespace {

struct Evex512 : Vector512 {
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm512_dpbusd_epi32(acc, a, b); }
};

}  // namespace

void depthwise_u8s8c_u8_2x64x4_avx512vnni(const DepthwiseParams& p, size_t r0, size_t r1) {
  Depthwise<VnniEngine<Evex512>>(p, 8).run(r0, r1);
}
void depthwise_u8s4c_u8_2x64x4_avx512vnni(const DepthwiseParams& p, size_t r0, size_t r1) {
  Depthwise<VnniEngine<Evex512>>(p, 4).run(r0, r1);
}

}  // namespace edgeq
