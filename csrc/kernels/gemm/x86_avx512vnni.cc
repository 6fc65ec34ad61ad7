#include "kernels/gemm/x86_vnni.h"

namespace edgeq {
namespace {

struct Evex512 : Vector512 {
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm512_dpbusd_epi32(acc, a, b); }
};

// The 256-bit shape of the AVX-VNNI level in its EVEX encoding: the same source, so that a CPU without
// AVX-VNNI tests it.
struct Evex256 : Vector256 {
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm256_dpbusd_epi32(acc, a, b); }
};

}  // namespace

#define EDGEQ_DEFINE(name, vector, bits, mr, vectors)                          \
  void name(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) { \
    run_gemm<vector, bits, mr, vectors>(p, r0, r1, p0, p1);                    \
  }
EDGEQ_DEFINE(gemm_u8s8c_u8_6x64x4_avx512vnni, Evex512, 8, 6, 4)
EDGEQ_DEFINE(gemm_u8s8c_u8_9x48x4_avx512vnni, Evex512, 8, 9, 3)
EDGEQ_DEFINE(gemm_u8s8c_u8_12x32x4_avx512vnni, Evex512, 8, 12, 2)
EDGEQ_DEFINE(gemm_u8s8c_u8_6x16x4_avx512vnni, Evex256, 8, 6, 2)
EDGEQ_DEFINE(gemm_u8s4c_u8_6x64x4_avx512vnni, Evex512, 4, 6, 4)
EDGEQ_DEFINE(gemm_u8s4c_u8_8x48x4_avx512vnni, Evex512, 4, 8, 3)
EDGEQ_DEFINE(gemm_u8s4c_u8_12x32x4_avx512vnni, Evex512, 4, 12, 2)
EDGEQ_DEFINE(gemm_u8s4c_u8_6x16x4_avx512vnni, Evex256, 4, 6, 2)
#undef EDGEQ_DEFINE

}  // namespace edgeq
