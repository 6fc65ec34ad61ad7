#include <cstring>

#include "kernels/winograd/winograd.h"

// The plain convolution, over the packed form with nr = 16 and kr = 1: what every other variant must equal.

namespace edgeq {
namespace {

constexpr size_t kNr = 16;

void put_output(const WinogradParams& p, size_t y, size_t x, size_t j, int32_t acc, float scale) {
  int32_t q = requantize(acc, scale, p.range);
  if (p.table != nullptr) q = p.table[static_cast<uint8_t>(q)];
  const GemmResidual& r = p.residual;
  const ptrdiff_t row = static_cast<ptrdiff_t>(y);
  const ptrdiff_t column = static_cast<ptrdiff_t>(x);
  const ptrdiff_t channel = static_cast<ptrdiff_t>(j);
  if (r.src != nullptr) {
    const int32_t other = r.src[row * p.residual_row_stride + column * r.row_stride + channel];
    q = add_quantized(q, r.zp_acc, r.multiplier_acc, other, r.zp_src, r.multiplier_src, r.range);
  }
  p.dst[row * p.dst_row_stride + column * p.dst_pixel_stride + channel] = static_cast<act_t>(q);
}

template <int kBits>
void winograd_scalar(const WinogradParams& p, size_t row_begin, size_t row_end, size_t panel_begin,
                     size_t panel_end) {
  const size_t depth = kBits == 4 ? (p.k + 1) / 2 * 2 : p.k;
  const size_t tap_bytes = kNr * depth * kBits / 8;
  const size_t panel_bytes = kNr * (sizeof(int32_t) + sizeof(float)) + 9 * tap_bytes;
  for (size_t panel = panel_begin; panel < panel_end; ++panel) {
    const uint8_t* packed = p.packed + panel * panel_bytes;
    const uint8_t* weights = packed + kNr * (sizeof(int32_t) + sizeof(float));
    const size_t first = panel * kNr;
    const size_t width = p.n - first < kNr ? p.n - first : kNr;
    float scale[kNr];
    std::memcpy(scale, packed + kNr * sizeof(int32_t), sizeof scale);
    for (size_t y = row_begin; y < row_end; ++y) {
      for (size_t x = 0; x < p.width_out; ++x) {
        uint32_t acc[kNr];
        std::memcpy(acc, packed, sizeof acc);
        for (size_t t = 0; t < 9; ++t) {
          const act_t* row = p.rows[y + t / 3];
          const size_t padded_x = x + t % 3;
          const bool inside = padded_x >= p.pad_left && padded_x - p.pad_left < p.width_in;
          const act_t* pixel = row != nullptr && inside
                                   ? row + static_cast<ptrdiff_t>(padded_x - p.pad_left) * p.src_pixel_stride
                                   : p.zero_pixel;
          const uint8_t* w = weights + t * tap_bytes;
          for (size_t c = 0; c < p.k; ++c) {
            for (size_t j = 0; j < kNr; ++j) {
              int32_t weight;
              if (kBits == 4) {
                const uint8_t byte = w[c / 2 * kNr + j];
                weight = int4_sign_extend(static_cast<uint8_t>(c % 2 == 0 ? byte : byte >> 4));
              } else {
                weight = static_cast<int8_t>(w[c * kNr + j]);
              }
              acc[j] += static_cast<uint32_t>(pixel[c] * weight);
            }
          }
        }
        for (size_t j = 0; j < width; ++j) {
          put_output(p, y, x, first + j, static_cast<int32_t>(acc[j]), scale[j]);
        }
      }
    }
  }
}

}  // namespace

#if EDGEQ_ARCH_X86
void winograd_u8s8c_u8_1x16x1_scalar(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  winograd_scalar<8>(p, r0, r1, p0, p1);
}
void winograd_u8s4c_u8_1x16x1_scalar(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  winograd_scalar<4>(p, r0, r1, p0, p1);
}
#else
void winograd_s8s8c_s8_1x16x1_scalar(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  winograd_scalar<8>(p, r0, r1, p0, p1);
}
void winograd_s8s4c_s8_1x16x1_scalar(const WinogradParams& p, size_t r0, size_t r1, size_t p0, size_t p1) {
  winograd_scalar<4>(p, r0, r1, p0, p1);
}
#endif

}  // namespace edgeq
