// Compiled with the flags of level avx512vbmi: what x86_amxint8.cc has besides its tile instructions.
#include "tests/emulated_amx.h"

#include "tests/emulated_tiles.h"

#if defined(__AVX512VBMI__)
#include "kernels/gemm/x86_amx.h"
#endif

namespace edgeq {

#if defined(__AVX512VBMI__)

namespace {

TileUnit unit;
size_t calls = 0;

template <int kBits>
void run_emulated(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  EmulatedTiles tiles{unit};
  calls += r0 < r1 && p0 < p1;
  run_amx<kBits>(tiles, p, r0, r1, p0, p1);
}

template <int kBits>
size_t scratch_bytes(const GemmShape& s) {
  return amx_scratch_bytes(amx_blocking(s.n, s.k, s.taps, kBits, s.direct));
}

}  // namespace

const std::vector<GemmVariant>& emulated_amx_variants() {
  static const std::vector<GemmVariant> variants = {
      {"gemm_u8s8c_u8_32x32x4_amxint8 (emulated)", Isa::kAvx512Vbmi, 32, 32, 4, 16, 8, 32768, run_emulated<8>,
       scratch_bytes<8>},
      {"gemm_u8s4c_u8_32x32x4_amxint8 (emulated)", Isa::kAvx512Vbmi, 32, 32, 4, 16, 4, 32768, run_emulated<4>,
       scratch_bytes<4>},
  };
  return variants;
}

const char* emulated_amx_fault() {
  const bool once = unit.configurations == calls;
  unit.configurations = 0;
  calls = 0;
  if (unit.configured()) return "leaves the tiles configured";
  return once ? "" : "does not configure the tiles once a call";
}

#else

const std::vector<GemmVariant>& emulated_amx_variants() {
  static const std::vector<GemmVariant> none;
  return none;
}

const char* emulated_amx_fault() { return ""; }

#endif

}  // namespace edgeq
