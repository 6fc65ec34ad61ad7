#ifndef EDGEQ_KERNELS_DEPTHWISE_PACK_H_
#define EDGEQ_KERNELS_DEPTHWISE_PACK_H_

#include "kernels/depthwise/depthwise.h"

namespace edgeq {

// Packed depthwise weights. Biases hold bias(c) - zp_in * sum of the weights of c; padding channels have zero
// weights, biases and scales.
//
// Linear (C16 = channels rounded up to 16):
//   | bias int32 [C16] | scale float32 [C16] | tap (0,0): weight [C16] | tap (0,1) | ... |
//   W4: a tap is C16 / 2 bytes, the low nibble the even channel.
//
// Quads64: blocks of channels, each 64, 32 or 16 wide: as many of 64 as there are, then what is left (above
// 48 one of 64, above 32 one of 32 and one of 16, above 16 one of 32, else one of 16). Quads32: the same
// without 64. A block of width w:
//
//   | bias int32 [w] | scale float32 [w] | quad (g=0, kx=0) | (g=0, kx=1) | ... | (g=1, kx=0) | ...
//
// A quad holds, for each channel, four taps one below the other, rows 4g .. 4g+3 of column kx (zero where the
// kernel has no such row), as the four bytes of a dword: what interleaving four input rows byte by byte and
// then word by word yields. That interleaving works within 128-bit lanes, so the dwords stand in its order:
// vector v (of w / 4 dwords), lane l, dword d belong to channel 16 * l + 4 * v + d. Bias and scale stand in
// the same order; packing the four result vectors with saturation restores the channels' own order.
//   W4: two bytes a channel and quad, the low nibble the earlier tap: half of the size, widened once for each
//   block and call.

size_t depthwise_linear_bytes(const DepthwiseShape& shape);
void depthwise_linear_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed);

size_t depthwise_quads64_bytes(const DepthwiseShape& shape);
void depthwise_quads64_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed);

size_t depthwise_quads32_bytes(const DepthwiseShape& shape);
void depthwise_quads32_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed);

/// Width of the block that starts with `left` channels still to do, at most `widest` (64 or 32).
static inline size_t depthwise_block_width(size_t left, size_t widest) {
  if (widest == 64 && left > 48) return 64;
  return left > 16 ? 32 : 16;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_PACK_H_
