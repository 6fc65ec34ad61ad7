#include "kernels/gemm/x86_vnni.h"

namespace edgeq {
namespace {

struct Vex256 : Vector256 {
  static constexpr int kTileVectors = 2;
  static constexpr bool kHalves = false;
  static EDGEQ_INLINE Int dot(Int acc, Int a, Int b) { return _mm256_dpbusd_avx_epi32(acc, a, b); }
};

}  // namespace

void gemm_u8s8c_u8_6x16x4_avxvnni(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_gemm<Vex256, 8>(p, r0, r1, p0, p1);
}
void gemm_u8s4c_u8_6x16x4_avxvnni(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  run_gemm<Vex256, 4>(p, r0, r1, p0, p1);
}

}  // namespace edgeq
