#include <cstring>

#include "base/int4.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/lhs.h"

// Plain loops over the packed form with nr = 16 and kr = 1: what every other variant must equal.

namespace edgeq {
namespace {

constexpr size_t kNr = 16;

template <int kBits>
void gemm_scalar(const GemmParams& params, size_t row_begin, size_t row_end, size_t panel_begin,
                 size_t panel_end) {
  const size_t depth = kBits == 4 ? (params.k + 1) / 2 * 2 : params.k;
  const size_t tap_bytes = kNr * depth * kBits / 8;
  const size_t panel_bytes = kNr * (sizeof(int32_t) + sizeof(float)) + params.taps * tap_bytes;
  for (size_t panel = panel_begin; panel < panel_end; ++panel) {
    const uint8_t* packed = params.packed + panel * panel_bytes;
    const uint8_t* weights = packed + kNr * (sizeof(int32_t) + sizeof(float));
    float scale[kNr];
    std::memcpy(scale, packed + kNr * sizeof(int32_t), sizeof scale);
    const size_t first = panel * kNr;
    const size_t width = params.n - first < kNr ? params.n - first : kNr;
    for (size_t i = row_begin; i < row_end; ++i) {
      uint32_t acc[kNr];
      std::memcpy(acc, packed, sizeof acc);
      for (size_t t = 0; t < params.taps; ++t) {
        const act_t* row = lhs_row(params.lhs, t, i);
        const uint8_t* w = weights + t * tap_bytes;
        for (size_t c = 0; c < params.k; ++c) {
          const int16_t a = row[c];
          for (size_t j = 0; j < kNr; ++j) {
            int16_t weight;
            if (kBits == 4) {
              const uint8_t byte = w[c / 2 * kNr + j];
              weight = int4_sign_extend(static_cast<uint8_t>(c % 2 == 0 ? byte : byte >> 4));
            } else {
              weight = static_cast<int8_t>(w[c * kNr + j]);
            }
            acc[j] += static_cast<uint32_t>(a * weight);
          }
        }
      }
      act_t* dst = params.dst + static_cast<ptrdiff_t>(i) * params.dst_row_stride + first;
      for (size_t j = 0; j < width; ++j) {
        const int32_t q = requantize(static_cast<int32_t>(acc[j]), scale[j], params.range);
        dst[j] = static_cast<act_t>(finish_value(params, q, i, first + j));
      }
    }
  }
}

}  // namespace

#if EDGEQ_ARCH_X86
void gemm_u8s8c_u8_1x16x1_scalar(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  gemm_scalar<8>(p, r0, r1, p0, p1);
}
void gemm_u8s4c_u8_1x16x1_scalar(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  gemm_scalar<4>(p, r0, r1, p0, p1);
}
#else
void gemm_s8s8c_s8_1x16x1_scalar(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  gemm_scalar<8>(p, r0, r1, p0, p1);
}
void gemm_s8s4c_s8_1x16x1_scalar(const GemmParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  gemm_scalar<4>(p, r0, r1, p0, p1);
}
#endif

}  // namespace edgeq
