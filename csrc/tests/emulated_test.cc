// The kernels of levels that this CPU lacks. The machine code of the AMX and AVX-VNNI kernels runs on
// emulated instructions, which trap. The source of the AMX kernels runs on an emulated tile unit besides, on
// any CPU with AVX-512-VBMI: more shapes in less time, and sanitizers see every load. What the CPU has,
// kernel_test runs.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/cpu_features.h"
#include "kernels/depthwise/depthwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/peak/peak.h"
#include "kernels/x86_amx_tiles.h"
#include "tests/emulated_amx.h"
#include "tests/instruction_traps.h"
#include "tests/kernel_test.h"

namespace edgeq {
namespace {

int failures = 0;

void expect(bool condition, const char* where, const char* what) {
  if (condition) return;
  ++failures;
  std::fprintf(stderr, "FAIL %s: %s\n", where, what);
}

/// The bytes that LDTILECFG reads: the palette, then bytes a row at 16 + 2 t, rows at 48 + t, zeros
/// elsewhere.
void test_config() {
  TileConfig config;
  for (int t = 0; t < kTiles; ++t) {
    config.row_bytes[t] = static_cast<uint16_t>(4 * t + 4);
    config.rows[t] = static_cast<uint8_t>(t + 1);
  }
  const uint8_t want[64] = {
      1, 0, 0, 0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0,   // palette
      4, 0, 8, 0, 12, 0, 16, 0, 20, 0, 24, 0, 28, 0, 32, 0,   // bytes a row, 16 bits each
      0, 0, 0, 0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0,   //
      1, 2, 3, 4, 5,  6, 7,  8, 0,  0, 0,  0, 0,  0, 0,  0};  // rows
  expect(std::memcmp(&config, want, sizeof want) == 0, "TileConfig", "is not what LDTILECFG reads");
}

/// Tiles are for enough rows and depth.
void test_selection() {
  IsaSet all;
  for (int i = 0; i <= static_cast<int>(Isa::kAmxInt8); ++i) all = all.with(static_cast<Isa>(i));
  for (int bits : {8, 4}) {
    const auto level = [&](size_t m, size_t n, size_t k, size_t taps) {
      return select_gemm(GemmShape{m, n, k, taps, bits, taps == 1}, all)->isa;
    };
    const bool built = !emulated_amx_variants().empty();
    const Isa tiles = built ? Isa::kAmxInt8 : Isa::kAvx512Vnni;
    expect(level(3136, 64, 64, 9) == tiles, "select_gemm", "a 3x3 convolution of ResNet without tiles");
    expect(level(49, 512, 512, 9) == tiles, "select_gemm", "a deep 3x3 convolution without tiles");
    expect(level(196, 384, 64, 1) == tiles, "select_gemm", "a 1x1 convolution of MobileNet without tiles");
    expect(level(1, 1000, 1280, 1) == Isa::kAvx512Vnni, "select_gemm", "a matrix-vector product on tiles");
    expect(level(12544, 96, 16, 1) == Isa::kAvx512Vnni, "select_gemm", "16 channels on tiles of 64");
    expect(level(49, 32, 1u << 20, 1) == Isa::kAvx512Vnni || bits == 4, "select_gemm",
           "a depth whose scratch would be huge");
  }
}

void test_amx_source() {
  for (const GemmVariant& variant : emulated_amx_variants()) {
    failures += test_gemm_kernel(variant, SIZE_MAX);
    const char* fault = emulated_amx_fault();
    expect(*fault == '\0', variant.name, fault);
    std::printf("%s: its source agrees with the plain loops\n", variant.name);
  }
}

/// Runs the variants of one level under traps, on shapes of at most most_products multiply-accumulates.
void test_machine_code(Isa level, size_t most_products) {
  IsaSet all;
  for (int i = 0; i < kIsaCount; ++i) all = all.with(static_cast<Isa>(i));
  const auto check = [&](const auto& variants, auto test) {
    for (const auto* variant : variants) {
      if (variant->isa != level) continue;
      InstructionTraps traps;
      failures += test(*variant, most_products);
      expect(!traps.configured(), variant->name, "leaves the tiles configured");
      expect(traps.instructions() > 1000, variant->name, "ran without the level's instructions");
      std::printf("%s: %zu instructions of its machine code were emulated\n", variant->name,
                  traps.instructions());
    }
  };
  check(gemm_variants(all), test_gemm_kernel);
  check(depthwise_variants(all), test_depthwise_kernel);
  for (const PeakVariant* variant : peak_variants(all)) {
    if (variant->isa != level) continue;
    InstructionTraps traps;
    PeakParams p;
    int32_t sink[16];
    p.iterations = 5;
    p.sink = sink;
    variant->run(p);
    // Tiles: 64 products of 3 * 3 an iteration. Vectors: twelve sums of 4 products of 3 * 5, added up.
    const bool tiles = level == Isa::kAmxInt8;
    for (const int32_t value : sink) {
      expect(value == (tiles ? 5 * 64 * 9 : 5 * 12 * 4 * 15), variant->name, "has not multiplied");
    }
    expect(traps.instructions() == (tiles ? 1 + 2 + 5 * 6 + 2 : 5 * 12), variant->name,
           "has not run the instructions that it counts");
  }
}

int run() {
  const Result<IsaSet> isas = usable_isas(std::getenv("EDGEQ_MAX_ISA"));
  if (!isas.ok()) {
    std::fprintf(stderr, "%s\n", isas.status().message().c_str());
    return 2;
  }
  test_config();
  test_selection();
  // Under a lower cap the rest of these kernels would not be usable either.
  const IsaSet cpu = isas_of(detect_cpu_features());
  const bool vectors = isas.value().has(Isa::kAvx512Vbmi);
  if (emulated_amx_variants().empty()) {
    std::printf("amxint8: not tested, the compiler lacks it\n");
  } else if (!vectors) {
    std::printf("amxint8: not tested, what its kernels do besides tiles needs avx512vbmi\n");
  } else {
    test_amx_source();
  }
  for (const Isa level : {Isa::kAmxInt8, Isa::kAvxVnni}) {
    const bool rest = level == Isa::kAmxInt8 ? vectors : isas.value().has(Isa::kAvx2);
    if (cpu.has(level)) {
      std::printf("%s: not emulated, this CPU has it and kernel_test runs it\n", isa_name(level));
    } else if (!rest || !InstructionTraps::available()) {
      std::printf("%s: machine code not tested, it needs Linux on x86-64 and the levels below\n",
                  isa_name(level));
    } else {
      // A trap takes some microseconds; a tile instruction does up to 16,384 products, a vector one 32.
      test_machine_code(level, level == Isa::kAmxInt8 ? 1000000 : 5000);
    }
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace edgeq

int main() { return edgeq::run(); }
