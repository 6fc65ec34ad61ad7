#ifndef EDGEQ_KERNELS_ARM_BYTES_H_
#define EDGEQ_KERNELS_ARM_BYTES_H_

// Rearrangements of bytes that several families share, in NEON. Only arm_*.cc files include it; everything
// stands in an unnamed namespace, as in arm_vectors.h.

#include "kernels/arm_vectors.h"

namespace edgeq {
namespace {

/// Copies `count` bytes by vectors, the last of which overlaps the one before it. The two sides do not
/// overlap.
EDGEQ_INLINE void copy_row(const uint8_t* from, size_t count, uint8_t* to) {
  if (count >= 16) {
    const uint8x16_t last = vld1q_u8(from + count - 16);
    size_t i = 0;
    for (; i + 32 < count; i += 32) {
      const uint8x16_t low = vld1q_u8(from + i), high = vld1q_u8(from + i + 16);
      vst1q_u8(to + i, low);
      vst1q_u8(to + i + 16, high);
    }
    if (i + 16 < count) vst1q_u8(to + i, vld1q_u8(from + i));
    vst1q_u8(to + count - 16, last);
  } else if (count >= 4) {
    const size_t half = count >= 8 ? 8 : 4;
    uint64_t first = 0, last = 0;
    if (half == 8) {
      std::memcpy(&first, from, 8);
      std::memcpy(&last, from + count - 8, 8);
      std::memcpy(to, &first, 8);
      std::memcpy(to + count - 8, &last, 8);
    } else {
      std::memcpy(&first, from, 4);
      std::memcpy(&last, from + count - 4, 4);
      std::memcpy(to, &first, 4);
      std::memcpy(to + count - 4, &last, 4);
    }
  } else {
    for (size_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

// Stores are macros in some compilers: what they store has a name, since a macro takes no braces.

/// Two runs of 16 bytes to 16 pairs.
EDGEQ_INLINE void interleave_16(const uint8_t* a, const uint8_t* b, uint8_t* dst) {
  const uint8x16x2_t pairs = {{vld1q_u8(a), vld1q_u8(b)}};
  vst2q_u8(dst, pairs);
}

/// dst[2 * i] = a[i], dst[2 * i + 1] = b[i]; count at least 16. The last block overlaps the one before it.
EDGEQ_INLINE void interleave2(const uint8_t* a, const uint8_t* b, size_t count, uint8_t* dst) {
  size_t i = 0;
  for (; i + 32 < count; i += 32) {
    interleave_16(a + i, b + i, dst + 2 * i);
    interleave_16(a + i + 16, b + i + 16, dst + 2 * i + 32);
  }
  if (i + 16 < count) interleave_16(a + i, b + i, dst + 2 * i);
  const size_t last = count - 16;
  interleave_16(a + last, b + last, dst + 2 * last);
}

/// Three runs of 16 bytes to 16 triples.
EDGEQ_INLINE void interleave3(const uint8_t* a, const uint8_t* b, const uint8_t* c, uint8_t* dst) {
  const uint8x16x3_t triples = {{vld1q_u8(a), vld1q_u8(b), vld1q_u8(c)}};
  vst3q_u8(dst, triples);
}

/// The reverse.
EDGEQ_INLINE void separate3(const uint8_t* src, uint8_t* a, uint8_t* b, uint8_t* c) {
  const uint8x16x3_t runs = vld3q_u8(src);
  vst1q_u8(a, runs.val[0]);
  vst1q_u8(b, runs.val[1]);
  vst1q_u8(c, runs.val[2]);
}

/// Four runs of 16 bytes to 16 quadruples.
EDGEQ_INLINE void interleave4(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                              uint8_t* dst) {
  const uint8x16x4_t quadruples = {{vld1q_u8(a), vld1q_u8(b), vld1q_u8(c), vld1q_u8(d)}};
  vst4q_u8(dst, quadruples);
}

/// dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows <= 16, c < columns <= 8, both at least 1;
/// reads 8 bytes of each row. 32 exchanges for 128 bytes.
EDGEQ_NOINLINE void transpose_block(const uint8_t* src, ptrdiff_t src_stride, size_t rows, size_t columns,
                                    uint8_t* dst, ptrdiff_t dst_stride) {
  const auto row = [&](size_t r) {
    return vld1_u8(src + static_cast<ptrdiff_t>(r < rows ? r : rows - 1) * src_stride);
  };
  // Vector i holds rows i and i + 8; three rounds exchange elements of 1, 2 and 4 bytes between vectors,
  // whose numbers they become.
  uint8x16_t x[8];
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i) x[i] = vcombine_u8(row(i), row(i + 8));
  uint16x8_t y[8];
#pragma GCC unroll 4
  for (size_t i = 0; i < 8; i += 2) {
    const uint8x16x2_t pair = vtrnq_u8(x[i], x[i + 1]);
    y[i] = vreinterpretq_u16_u8(pair.val[0]);
    y[i + 1] = vreinterpretq_u16_u8(pair.val[1]);
  }
  uint32x4_t z[8];
#pragma GCC unroll 4
  for (size_t k = 0; k < 4; ++k) {
    const size_t i = k / 2 * 4 + k % 2;
    const uint16x8x2_t pair = vtrnq_u16(y[i], y[i + 2]);
    z[i] = vreinterpretq_u32_u16(pair.val[0]);
    z[i + 2] = vreinterpretq_u32_u16(pair.val[1]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const uint32x4x2_t pair = vtrnq_u32(z[i], z[i + 4]);
    x[i] = vreinterpretq_u8_u32(pair.val[0]);
    x[i + 4] = vreinterpretq_u8_u32(pair.val[1]);
  }
#pragma GCC unroll 8
  for (size_t c = 0; c < 8; ++c) {
    if (c == columns) return;
    store_first(reinterpret_cast<int8_t*>(dst), vreinterpretq_s8_u8(x[c]), rows);
    dst += dst_stride;
  }
}

/// dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows, c < columns. Reads up to 7 bytes past the
/// end of a row.
inline void transpose_bytes(const uint8_t* src, ptrdiff_t src_stride, size_t rows, size_t columns,
                            uint8_t* dst, ptrdiff_t dst_stride) {
  for (size_t c = 0; c < columns; c += 8) {
    const size_t width = columns - c < 8 ? columns - c : 8;
    for (size_t r = 0; r < rows; r += 16) {
      transpose_block(src + static_cast<ptrdiff_t>(r) * src_stride + c, src_stride,
                      rows - r < 16 ? rows - r : 16, width, dst + static_cast<ptrdiff_t>(c) * dst_stride + r,
                      dst_stride);
    }
  }
}

}  // namespace
}  // namespace edgeq

#include "kernels/byte_tiles.h"

#endif  // EDGEQ_KERNELS_ARM_BYTES_H_
