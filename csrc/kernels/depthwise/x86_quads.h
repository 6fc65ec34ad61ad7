#ifndef EDGEQ_KERNELS_DEPTHWISE_X86_QUADS_H_
#define EDGEQ_KERNELS_DEPTHWISE_X86_QUADS_H_

// Depthwise convolution on columns of four interleaved rows, for every vector width and instruction set. Only
// x86_*.cc include it, each with its own engine E: how a column is interleaved and multiplied.
//
// One column of the input, up to four rows of it, interleaved byte by byte and then word by word, has for
// each channel the four rows' bytes in one dword; one VNNI instruction then does four taps of 16 channels.
// The dwords come in the order that the interleaving leaves (pack.h, "quads"), and packing the four result
// vectors undoes it. Without VNNI the engine stops at pairs of rows.
//
// Two output rows of stride 1 share their columns: the second one's taps lie one row lower, which is the same
// weights shifted by a byte. A kernel of 3 rows fills three of the four bytes, so that the second row costs
// no interleaving at all.
//
// An engine has: Vec, the vector type; Column and interleave(); Sums with start(), accumulate() and totals(),
// which yields the four dword vectors of a block in the order of the quads; E::kQuadBytes, the bytes of one
// quad's prepared weights, and prepare(), which makes them from the quads' bytes (kPrepared false: they are
// those bytes).

#include <cstring>

#include "kernels/depthwise/depthwise.h"
#include "kernels/depthwise/pack.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

constexpr size_t kMaxRowGroups = 4;
constexpr size_t kMaxRows = 4 * kMaxRowGroups;

/// One block of channels of one or two output rows.
struct Strip {
  const uint8_t* row[kMaxRows];      // input rows, this block's first channel; zero pixel where there is none
  ptrdiff_t pixel_stride[kMaxRows];  // 0 for the zero pixel
  const uint8_t* zero_pixel;
  size_t groups;              // of four input rows
  const uint8_t* bias;        // packed
  const uint8_t* scale;       // packed
  const uint8_t* weights[2];  // quads of the first and the second output row
  act_t* dst[2];
  size_t count;  // channels that exist
};

/// Column `padded_x - pad_left` of row group `group`.
template <typename E>
EDGEQ_INLINE void fetch(const DepthwiseParams& p, const Strip& strip, size_t group, size_t padded_x,
                        typename E::Column& column) {
  const size_t x = padded_x - p.pad_left;  // wraps to a huge value in the left padding
  if (x < p.width_in) {
    const ptrdiff_t ix = static_cast<ptrdiff_t>(x);
    const uint8_t* const* row = strip.row + 4 * group;
    const ptrdiff_t* stride = strip.pixel_stride + 4 * group;
    E::interleave(row[0] + ix * stride[0], row[1] + ix * stride[1], row[2] + ix * stride[2],
                  row[3] + ix * stride[3], column);
  } else {
    E::interleave(strip.zero_pixel, strip.zero_pixel, strip.zero_pixel, strip.zero_pixel, column);
  }
}

template <typename E>
EDGEQ_INLINE void finish(const DepthwiseParams& p, const Strip& strip, int row, size_t x,
                         const typename E::Sums& sums, typename E::Vec::Float hi) {
  using V = typename E::Vec;
  typename V::Int acc[4];
  E::totals(sums, strip.bias, acc);
  typename V::Int q[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    q[v] = round_below<V>(V::mul(V::to_float(acc[v]), V::load_float(strip.scale + v * V::kBytes)), hi);
  }
  const auto codes = pack_codes<V>(q[0], q[1], q[2], q[3], p.range);
  V::store(strip.dst[row] + static_cast<ptrdiff_t>(x) * p.dst_pixel_stride, codes, strip.count);
}

/// Any kernel width, stride and dilation: columns are interleaved anew for each tap.
template <typename E, int kRows>
void run_any(const DepthwiseParams& params, const Strip& given) {
  // Local copies: stores of bytes could change anything else, for all that the compiler knows.
  const DepthwiseParams p = params;
  const Strip strip = given;
  const auto hi = upper_bound<typename E::Vec>(p.range);
  for (size_t x = 0; x < p.width_out; ++x) {
    typename E::Sums sums[kRows];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) E::start(sums[r], strip.bias);
    size_t quad = 0;
    for (size_t group = 0; group < strip.groups; ++group) {
      for (size_t kx = 0; kx < p.kernel_w; ++kx, ++quad) {
        typename E::Column column;
        fetch<E>(p, strip, group, x * p.stride_w + kx * p.dilation_w, column);
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r)
          E::accumulate(sums[r], column, strip.weights[r] + quad * E::kQuadBytes);
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) finish<E>(p, strip, r, x, sums[r], hi);
  }
}

/// Three columns of one row group: one output pixel.
template <typename E, int kRows>
EDGEQ_INLINE void emit3(const DepthwiseParams& p, const Strip& strip, size_t x,
                        const typename E::Column& left, const typename E::Column& middle,
                        const typename E::Column& right, typename E::Vec::Float hi) {
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    typename E::Sums sums;
    E::start(sums, strip.bias);
    E::accumulate(sums, left, strip.weights[r]);
    E::accumulate(sums, middle, strip.weights[r] + E::kQuadBytes);
    E::accumulate(sums, right, strip.weights[r] + 2 * E::kQuadBytes);
    finish<E>(p, strip, r, x, sums, hi);
  }
}

/// Three columns, stride 1: each column is interleaved once and stays in registers for three outputs.
template <typename E, int kRows>
void run_3_stride_1(const DepthwiseParams& params, const Strip& given) {
  const DepthwiseParams p = params;
  const Strip strip = given;
  const auto hi = upper_bound<typename E::Vec>(p.range);
  typename E::Column a, b, c;
  fetch<E>(p, strip, 0, 0, a);
  fetch<E>(p, strip, 0, 1, b);
  for (size_t x = 0; x < p.width_out;) {
    fetch<E>(p, strip, 0, x + 2, c);
    emit3<E, kRows>(p, strip, x, a, b, c, hi);
    if (++x == p.width_out) break;
    fetch<E>(p, strip, 0, x + 2, a);
    emit3<E, kRows>(p, strip, x, b, c, a, hi);
    if (++x == p.width_out) break;
    fetch<E>(p, strip, 0, x + 2, b);
    emit3<E, kRows>(p, strip, x, c, a, b, hi);
    ++x;
  }
}

/// Three columns, stride 2: the last column of an output is the first of the next.
template <typename E, int kRows>
void run_3_stride_2(const DepthwiseParams& params, const Strip& given) {
  const DepthwiseParams p = params;
  const Strip strip = given;
  const auto hi = upper_bound<typename E::Vec>(p.range);
  typename E::Column a, b, c;
  fetch<E>(p, strip, 0, 0, a);
  for (size_t x = 0; x < p.width_out;) {
    fetch<E>(p, strip, 0, 2 * x + 1, b);
    fetch<E>(p, strip, 0, 2 * x + 2, c);
    emit3<E, kRows>(p, strip, x, a, b, c, hi);
    if (++x == p.width_out) break;
    fetch<E>(p, strip, 0, 2 * x + 1, b);
    fetch<E>(p, strip, 0, 2 * x + 2, a);
    emit3<E, kRows>(p, strip, x, c, b, a, hi);
    ++x;
  }
}

/// Replaces the codes of one output row by their table entries.
template <typename V>
void look_up_row(const DepthwiseParams& p, const Strip& strip, int row) {
  for (size_t x = 0; x < p.width_out; ++x) {
    act_t* dst = strip.dst[row] + static_cast<ptrdiff_t>(x) * p.dst_pixel_stride;
    alignas(64) uint8_t codes[V::kBytes];
    std::memcpy(codes, dst, strip.count);
    V::store(dst, look_up<V>(V::load(codes), p.table), strip.count);
  }
}

template <typename E, int kRows>
void run_strip(const DepthwiseParams& p, const Strip& strip) {
  const bool narrow = p.kernel_w == 3 && strip.groups == 1 && p.dilation_w == 1;
  if (narrow && p.stride_w == 1) {
    run_3_stride_1<E, kRows>(p, strip);
  } else if (narrow && p.stride_w == 2) {
    run_3_stride_2<E, kRows>(p, strip);
  } else {
    run_any<E, kRows>(p, strip);
  }
  if (p.table == nullptr) return;
  for (int r = 0; r < kRows; ++r) look_up_row<typename E::Vec>(p, strip, r);
}

/// Points strip.row at the input rows of output row y (and, for two output rows, of y + 1).
inline void find_rows(const DepthwiseParams& p, size_t y, size_t rows_used, size_t first_channel,
                      Strip& strip) {
  strip.zero_pixel = reinterpret_cast<const uint8_t*>(p.zero_pixel) + first_channel;
  for (size_t i = 0; i < 4 * strip.groups; ++i) {
    const act_t* row = i < rows_used ? p.rows[y * p.stride_h + i * p.dilation_h] : nullptr;
    strip.row[i] = row == nullptr ? strip.zero_pixel : reinterpret_cast<const uint8_t*>(row) + first_channel;
    strip.pixel_stride[i] = row == nullptr ? 0 : p.src_pixel_stride;
  }
}

/// The weights of the output row below: every tap one row, that is one byte, further on.
inline void shift_weights(const uint8_t* from, size_t groups, size_t kernel_w, size_t quad_bytes,
                          uint8_t* to) {
  const size_t group_bytes = kernel_w * quad_bytes;
  for (size_t i = 0; i < groups * group_bytes; i += 4) {
    uint32_t taps;
    std::memcpy(&taps, from + i, 4);
    taps <<= 8;
    if (i >= group_bytes) taps |= from[i - group_bytes + 3];
    std::memcpy(to + i, &taps, 4);
  }
}

/// Sign-extends the nibbles of quads to bytes.
inline void widen_weights(const uint8_t* from, size_t bytes, uint8_t* to) {
  for (size_t i = 0; i < bytes; ++i) {
    to[2 * i] = static_cast<uint8_t>(int4_sign_extend(from[i]));
    to[2 * i + 1] = static_cast<uint8_t>(int4_sign_extend(static_cast<uint8_t>(from[i] >> 4)));
  }
}

template <typename E, int kBits>
void run_block(const DepthwiseParams& p, size_t row_begin, size_t row_end, size_t first_channel,
               const uint8_t* packed) {
  using V = typename E::Vec;
  const size_t groups = (p.kernel_h + 3) / 4;
  const size_t quads = groups * p.kernel_w;
  const size_t quads_bytes = quads * 4 * V::kBytes;
  Strip strip;
  strip.groups = groups;
  strip.bias = packed;
  strip.scale = packed + 4 * V::kBytes;
  strip.count =
      p.channels - first_channel < size_t{V::kBytes} ? p.channels - first_channel : size_t{V::kBytes};
  uint8_t* scratch = p.scratch;
  strip.weights[0] = packed + 8 * V::kBytes;
  if (kBits == 4) {
    widen_weights(strip.weights[0], quads_bytes / 2, scratch);
    strip.weights[0] = scratch;
    scratch += quads_bytes;
  }
  const bool pairs = p.stride_h == 1 && p.dilation_h == 1 && p.kernel_h % 4 != 0 && row_end - row_begin > 1;
  if (pairs) {
    shift_weights(strip.weights[0], groups, p.kernel_w, 4 * V::kBytes, scratch);
    strip.weights[1] = scratch;
  }
  if (E::kPrepared) {
    scratch = p.scratch + 2 * quads_bytes;
    for (int r = 0; r < (pairs ? 2 : 1); ++r) {
      E::prepare(strip.weights[r], quads, scratch);
      strip.weights[r] = scratch;
      scratch += quads * E::kQuadBytes;
    }
  }
  for (size_t y = row_begin; y < row_end;) {
    strip.dst[0] = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride + first_channel;
    strip.dst[1] = strip.dst[0] + p.dst_row_stride;
    if (pairs && y + 1 < row_end) {
      find_rows(p, y, p.kernel_h + 1, first_channel, strip);
      run_strip<E, 2>(p, strip);
      y += 2;
    } else {
      find_rows(p, y, p.kernel_h, first_channel, strip);
      run_strip<E, 1>(p, strip);
      y += 1;
    }
  }
}

/// Bytes of a block of `width` channels.
inline size_t block_bytes(const DepthwiseParams& p, size_t width, int bits) {
  return width * (8 + (p.kernel_h + 3) / 4 * p.kernel_w * static_cast<size_t>(bits) / 2);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_X86_QUADS_H_
