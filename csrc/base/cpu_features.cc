#include "base/cpu_features.h"

#include <atomic>
#include <cstring>

#include "base/act.h"

#if EDGEQ_ARCH_X86
#include <cpuid.h>
#endif
#if defined(__linux__) && (defined(__aarch64__) || defined(__arm__))
#include <sys/auxv.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace edgeq {
namespace {

constexpr const char* kIsaNames[kIsaCount] = {"scalar",  "avx2", "avxvnni", "avx512vnni", "avx512vbmi",
                                              "amxint8", "neon", "neondot", "neoni8mm"};

[[maybe_unused]] bool bit(unsigned long value, int index) { return (value >> index & 1u) != 0; }

#if EDGEQ_ARCH_X86

/// The register states that the operating system saves (XCR0); 0 without OSXSAVE.
uint64_t saved_states(unsigned leaf1_ecx) {
  if (!bit(leaf1_ecx, 27)) return 0;
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

std::string brand_string() {
  unsigned words[12] = {};
  if (__get_cpuid_max(0x80000000u, nullptr) < 0x80000004u) return std::string();
  for (unsigned i = 0; i < 3; ++i) {
    __get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
  }
  char text[sizeof words + 1] = {};
  std::memcpy(text, words, sizeof words);
  std::string brand(text);
  const size_t first = brand.find_first_not_of(' ');
  const size_t last = brand.find_last_not_of(' ');
  return first == std::string::npos ? std::string() : brand.substr(first, last - first + 1);
}

#endif  // EDGEQ_ARCH_X86

std::atomic<AmxPermission> permission{AmxPermission::kNotAsked};

bool request_amx() {
#if defined(__linux__) && defined(__x86_64__)
  // Linux 5.16 or later. It refuses where a thread's alternative signal stack is too small for the tiles, or
  // where a sandbox does not let the call through.
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h
  constexpr long kTileData = 18;               // the state component
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  constexpr bool granted = false;
#endif
  permission.store(granted ? AmxPermission::kGranted : AmxPermission::kRefused);
  return granted;
}

}  // namespace

const char* isa_name(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

Isa IsaSet::best() const {
  for (int i = kIsaCount - 1; i > 0; --i) {
    if (has(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  return Isa::kScalar;
}

std::vector<Isa> IsaSet::levels() const {
  std::vector<Isa> result;
  for (int i = 0; i < kIsaCount; ++i) {
    if (has(static_cast<Isa>(i))) result.push_back(static_cast<Isa>(i));
  }
  return result;
}

CpuFeatures detect_cpu_features() {
  CpuFeatures features;
#if EDGEQ_ARCH_X86
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return features;
  const uint64_t states = saved_states(ecx);
  // XCR0: bits 1, 2 are XMM and YMM; 5, 6, 7 the mask registers and ZMM; 17, 18 the AMX tiles.
  const bool os_avx = (states & 0x6) == 0x6;
  const bool os_avx512 = (states & 0xE6) == 0xE6;
  const bool os_amx = (states & 0x60000) == 0x60000;
  const bool avx = bit(ecx, 28);
  features.fma = os_avx && avx && bit(ecx, 12);
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
    const unsigned subleaves = eax;
    // The AVX2 files are compiled for FMA3-class CPUs, which have BMI2 too.
    features.avx2 = os_avx && avx && bit(ebx, 5) && bit(ebx, 8);
    features.avx512f = os_avx512 && bit(ebx, 16);
    features.avx512dq = os_avx512 && bit(ebx, 17);
    features.avx512bw = os_avx512 && bit(ebx, 30);
    features.avx512vl = os_avx512 && bit(ebx, 31);
    features.avx512vbmi = os_avx512 && bit(ecx, 1);
    features.avx512vnni = os_avx512 && bit(ecx, 11);
    features.amx_int8 = os_amx && bit(edx, 24) && bit(edx, 25);
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) {
      features.avxvnni = os_avx && bit(eax, 4);
    }
  }
  features.brand = brand_string();
#elif defined(__linux__) && (defined(__aarch64__) || defined(__arm__))
  // The kernel's word, which leaves out what it does not save. Bits of asm/hwcap.h, which differ between 64
  // and 32 bits; older headers lack the later ones.
  const unsigned long hwcap = getauxval(AT_HWCAP);
#if defined(__aarch64__)
  features.neon = bit(hwcap, 1);
  features.neon_dot = bit(hwcap, 20);
  features.neon_i8mm = bit(getauxval(AT_HWCAP2), 13);
#else
  // A 32-bit process has kernels of the first level alone, whatever the core can do.
  features.neon = bit(hwcap, 12);
#endif
#endif
  return features;
}

IsaSet isas_of(const CpuFeatures& features) {
  IsaSet isas = IsaSet().with(Isa::kScalar);
  const bool avx2 = features.avx2 && features.fma;
  if (avx2) isas = isas.with(Isa::kAvx2);
  if (avx2 && features.avxvnni) isas = isas.with(Isa::kAvxVnni);
  const bool avx512vnni = avx2 && features.avx512f && features.avx512bw && features.avx512dq &&
                          features.avx512vl && features.avx512vnni;
  if (avx512vnni) isas = isas.with(Isa::kAvx512Vnni);
  if (avx512vnni && features.avx512vbmi) isas = isas.with(Isa::kAvx512Vbmi);
  if (avx512vnni && features.avx512vbmi && features.amx_int8) isas = isas.with(Isa::kAmxInt8);
  if (features.neon) isas = isas.with(Isa::kNeon);
  if (features.neon && features.neon_dot) isas = isas.with(Isa::kNeonDot);
  if (features.neon && features.neon_dot && features.neon_i8mm) isas = isas.with(Isa::kNeonI8mm);
  return isas;
}

AmxPermission amx_permission() { return permission.load(); }

Result<IsaSet> usable_isas(const char* max_isa) {
  const IsaSet available = isas_of(detect_cpu_features());
  const bool capped = max_isa != nullptr && *max_isa != '\0';
  for (int cap = 0; cap < kIsaCount; ++cap) {
    if (capped ? std::strcmp(max_isa, kIsaNames[cap]) != 0 : cap + 1 < kIsaCount) continue;
    IsaSet usable;
    for (int i = 0; i <= cap; ++i) {
      const Isa isa = static_cast<Isa>(i);
      if (available.has(isa) && (isa != Isa::kAmxInt8 || request_amx())) usable = usable.with(isa);
    }
    return usable;
  }
  std::string names;
  for (const char* name : kIsaNames) {
    if (!names.empty()) names += ", ";
    names += name;
  }
  return Status::invalid_argument("EDGEQ_MAX_ISA is \"" + std::string(max_isa).substr(0, 40) +
                                  "\", which names no instruction set. Use one of " + names +
                                  ", or leave it unset to use everything that this CPU has.");
}

}  // namespace edgeq
