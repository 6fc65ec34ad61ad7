#ifndef EDGEQ_BASE_ACT_H_
#define EDGEQ_BASE_ACT_H_

#include <cstdint>

namespace edgeq {

// The byte that the engine keeps for an activation q in [-128, 127]. On x86 it is q + 128, because the
// VNNI instructions multiply unsigned activations by signed weights; elsewhere it is q itself. The shift
// happens at the ends of the graph only: kernels take zero points and bounds in this act domain.
#if defined(__x86_64__) || defined(_M_X64) || defined(__i386__) || defined(_M_IX86)
#define EDGEQ_ARCH_X86 1
using act_t = uint8_t;
static constexpr int32_t kActOffset = 128;
#else
#define EDGEQ_ARCH_X86 0
using act_t = int8_t;
static constexpr int32_t kActOffset = 0;
#endif

static constexpr int32_t kActMin = -128 + kActOffset;
static constexpr int32_t kActMax = 127 + kActOffset;

/// The byte with which an int8 code and an act byte differ: act = code ^ kActXor.
static constexpr uint8_t kActXor = kActOffset == 0 ? 0x00 : 0x80;

/// Act-domain value of the int8 code `q`.
static constexpr int32_t act_from_code(int32_t q) { return q + kActOffset; }

/// int8 code of the act-domain value `a`.
static constexpr int32_t code_from_act(int32_t a) { return a - kActOffset; }

/// Kernels may read, never write, this many bytes past the last byte of any act input.
static constexpr int kReadSlack = 64;

}  // namespace edgeq

#endif  // EDGEQ_BASE_ACT_H_
