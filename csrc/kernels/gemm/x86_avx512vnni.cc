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

// The 256-bit shape of the AVX-VNNI level in its EVEX encoding: the same source, so that a CPU without
// AVX-VNNI tests it.
struct Evex256 : Vector256 {
  static constexpr int kTileVectors = 2;
  static constexpr bool kHalves = false;
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm256_dpbusd_epi32(acc, a, b); }
};

}  // namespace

#define EDGEQ_DEFINE(name, vector, bits, mr)                                   \
  void name(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) { \
    run_gemm<vector, bits, mr>(p, r0, r1, p0, p1);                             \
  }
EDGEQ_DEFINE(gemm_u8s8c_u8_3x64x4_avx512vnni, Evex512, 8, 3)
EDGEQ_DEFINE(gemm_u8s8c_u8_6x64x4_avx512vnni, Evex512, 8, 6)
EDGEQ_DEFINE(gemm_u8s8c_u8_6x16x4_avx512vnni, Evex256, 8, 6)
EDGEQ_DEFINE(gemm_u8s4c_u8_3x64x4_avx512vnni, Evex512, 4, 3)
EDGEQ_DEFINE(gemm_u8s4c_u8_6x16x4_avx512vnni, Evex256, 4, 6)
#undef EDGEQ_DEFINE

}  // namespace edgeq
