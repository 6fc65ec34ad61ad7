#ifndef EDGEQ_KERNELS_VARIANT_H_
#define EDGEQ_KERNELS_VARIANT_H_

#include <cstddef>
#include <vector>

#include "base/act.h"
#include "base/cpu_features.h"

// A family's kernels.inc names each variant once, best first, with its level. EDGEQ_IF_<level>(...) keeps a
// line only where the build compiled that level's file (isa.cmake defines EDGEQ_HAVE_*).
#define EDGEQ_IF_kScalar(...) __VA_ARGS__
#if defined(EDGEQ_HAVE_AVX2)
#define EDGEQ_IF_kAvx2(...) __VA_ARGS__
#else
#define EDGEQ_IF_kAvx2(...)
#endif
#if defined(EDGEQ_HAVE_AVXVNNI)
#define EDGEQ_IF_kAvxVnni(...) __VA_ARGS__
#else
#define EDGEQ_IF_kAvxVnni(...)
#endif
#if defined(EDGEQ_HAVE_AVX512VNNI)
#define EDGEQ_IF_kAvx512Vnni(...) __VA_ARGS__
#else
#define EDGEQ_IF_kAvx512Vnni(...)
#endif
#if defined(EDGEQ_HAVE_AVX512VBMI)
#define EDGEQ_IF_kAvx512Vbmi(...) __VA_ARGS__
#else
#define EDGEQ_IF_kAvx512Vbmi(...)
#endif
#if defined(EDGEQ_HAVE_AMXINT8)
#define EDGEQ_IF_kAmxInt8(...) __VA_ARGS__
#else
#define EDGEQ_IF_kAmxInt8(...)
#endif
#if defined(EDGEQ_HAVE_NEON)
#define EDGEQ_IF_kNeon(...) __VA_ARGS__
#else
#define EDGEQ_IF_kNeon(...)
#endif
#if defined(EDGEQ_HAVE_NEONDOT)
#define EDGEQ_IF_kNeonDot(...) __VA_ARGS__
#else
#define EDGEQ_IF_kNeonDot(...)
#endif
#if defined(EDGEQ_HAVE_NEONI8MM)
#define EDGEQ_IF_kNeonI8mm(...) __VA_ARGS__
#else
#define EDGEQ_IF_kNeonI8mm(...)
#endif

namespace edgeq {

/// A kernel of a family that needs no packing: a name, its level and the function.
template <typename Params>
struct Variant {
  const char* name;
  Isa isa;
  void (*run)(const Params&);
};

/// A variant list (best first) cut down to what `isas` can run.
template <typename V>
std::vector<const V*> runnable(const V* variants, size_t count, IsaSet isas) {
  // Cut down from all: the code that lets a vector grow would be there once a family.
  std::vector<const V*> result(count);
  size_t taken = 0;
  for (size_t i = 0; i < count; ++i) {
    if (isas.has(variants[i].isa)) result[taken++] = &variants[i];
  }
  result.erase(result.begin() + static_cast<ptrdiff_t>(taken), result.end());
  return result;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_VARIANT_H_
