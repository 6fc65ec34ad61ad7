#include "kernels/gemm/x86_amx.h"

namespace edgeq {

void gemm_u8s8c_u8_32x32x4_amxint8(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  AmxTiles tiles;
  run_amx<8>(tiles, p, r0, r1, p0, p1);
}
void gemm_u8s4c_u8_32x32x4_amxint8(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  AmxTiles tiles;
  run_amx<4>(tiles, p, r0, r1, p0, p1);
}

}  // namespace edgeq
