#include "kernels/gemm/x86_vnni.h"

namespace edgeq {
namespace {

struct Evex512 : Vector512 {
  static constexpr int kTileVectors = 4;
  static constexpr bool kHalves = true;
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm512_dpbusd_epi32(acc, a, b); }
  static EDGEQ_INLINE Int dot_half(Int acc, Int a, Int b) {
    return _mm512_castsi256_si512(_mm256_dpbusd_epi32(low_half(acc), low_half(a), low_half(b)));
  }
};

}  // namespace

void gemm_u8s8c_u8_4x64x4_avx512vnni(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_gemm<Evex512, 8>(p, r0, r1, p0, p1);
}
void gemm_u8s4c_u8_4x64x4_avx512vnni(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_gemm<Evex512, 4>(p, r0, r1, p0, p1);
}

}  // namespace edgeq
