#ifndef EDGEQ_TESTS_EMULATED_AMX_H_
#define EDGEQ_TESTS_EMULATED_AMX_H_

#include <vector>

#include "kernels/gemm/gemm.h"

namespace edgeq {

/// The AMX matrix kernels on an emulated tile unit: the source of the variants of level amxint8, for CPUs
/// with AVX-512-VBMI, with or without AMX. Empty where the build leaves that level out.
const std::vector<GemmVariant>& emulated_amx_variants();

/// "" when the calls since the last question left the tile unit as they must: configured once a call,
/// released.
const char* emulated_amx_fault();

}  // namespace edgeq

#endif  // EDGEQ_TESTS_EMULATED_AMX_H_
