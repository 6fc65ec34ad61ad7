#ifndef EDGEQ_BASE_CPU_FEATURES_H_
#define EDGEQ_BASE_CPU_FEATURES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace edgeq {

/// Instruction-set levels, lowest first. The order is the one that EDGEQ_MAX_ISA caps by.
enum class Isa : uint8_t {
  kScalar,      // Plain C++; always there.
  kAvx2,        // AVX2, FMA3-class CPU.
  kAvxVnni,     // VNNI in its 256-bit VEX form.
  kAvx512Vnni,  // AVX-512 F, BW, DQ, VL and VNNI.
  kAvx512Vbmi,  // The above and VBMI (byte permutes).
  kAmxInt8,     // AMX tiles with int8, on top of kAvx512Vbmi.
  kNeon,        // Armv7 or Armv8.0 NEON.
  kNeonDot,     // Armv8.2 dot product.
  kNeonI8mm,    // Armv8.6 int8 matrix multiply.
};
constexpr int kIsaCount = 9;

/// "scalar", "avx2", ...: the names that EDGEQ_MAX_ISA takes.
const char* isa_name(Isa isa);

/// A set of levels.
class IsaSet {
 public:
  constexpr IsaSet() = default;
  constexpr bool has(Isa isa) const { return (bits_ >> static_cast<int>(isa) & 1u) != 0; }
  constexpr IsaSet with(Isa isa) const { return IsaSet(bits_ | 1u << static_cast<int>(isa)); }
  constexpr uint32_t bits() const { return bits_; }

  /// The highest level in the set (kScalar for the empty one).
  Isa best() const;

  /// The levels in the set, lowest first.
  std::vector<Isa> levels() const;

 private:
  explicit constexpr IsaSet(uint32_t bits) : bits_(bits) {}
  uint32_t bits_ = 0;
};

/// What the CPU has and the operating system saves the registers of.
struct CpuFeatures {
  bool avx2 = false;
  bool fma = false;
  bool avxvnni = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512dq = false;
  bool avx512vl = false;
  bool avx512vnni = false;
  bool avx512vbmi = false;
  bool amx_int8 = false;
  bool neon = false;
  bool neon_dot = false;
  bool neon_i8mm = false;
  std::string brand;  // The CPU's own name, or empty.
};

/// Asks the CPU each time it is called (some microseconds).
CpuFeatures detect_cpu_features();

/// The levels whose requirements `features` meets; kScalar always. Whether the system permits AMX is not
/// asked.
IsaSet isas_of(const CpuFeatures& features);

/// Whether the system lets this process use the tile registers. Linux grants them to those who ask
/// (arch_prctl with ARCH_REQ_XCOMP_PERM), since a thread that uses them takes 8 KiB more to save.
enum class AmxPermission : uint8_t { kNotAsked, kGranted, kRefused };

/// What the system answered usable_isas, which asks at most once a process: a refusal stays one.
AmxPermission amx_permission();

/// The levels that this CPU can run and that `max_isa` allows. Where kAmxInt8 would be among them, asks the
/// system for its permission and leaves it out when that is refused; under a lower cap nothing is asked.
///
/// Args:
///   max_isa: A level's name, normally getenv("EDGEQ_MAX_ISA"); null or "" for no cap. A level that this
///     CPU lacks still caps: everything at or below it in the order above that the CPU has.
/// Errors: kInvalidArgument with the valid names when it is no name of a level.
Result<IsaSet> usable_isas(const char* max_isa);

}  // namespace edgeq

#endif  // EDGEQ_BASE_CPU_FEATURES_H_
