#ifndef EDGEQ_KERNELS_RESIZE_X86_WIDE_H_
#define EDGEQ_KERNELS_RESIZE_X86_WIDE_H_

// Bilinear resize for one vector width. Only x86_*.cc include it.

#include "kernels/resize/taps.h"
#include "kernels/x86_vectors.h"

namespace edgeq {
namespace {

// With coarse weights S is at most 16 * 16 * 255 = 65,280, and S + 128 fits 16 bits. A sum along a row, at
// most 16 * 255 = 4,080, is one multiply-add of bytes.
template <typename V>
void coarse_block(const ResizeParams& p, size_t y, size_t first, size_t count) {
  const SourceRows source(p, y);
  const auto above = V::set1_word(source.tap.weight_0 / kCoarse);
  const auto below = V::set1_word(source.tap.weight_1 / kCoarse);
  const auto half = V::set1_word(128);
  act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride + first;
  for (size_t x = 0; x < p.width_out; ++x, dst += p.dst_pixel_stride) {
    const ResizeTap& tap = p.tap_x[x];
    const auto weights = V::set1_word(tap.weight_0 / kCoarse | tap.weight_1 / kCoarse << 8);
    const ptrdiff_t left = tap.index_0 * p.src_pixel_stride + static_cast<ptrdiff_t>(first);
    const ptrdiff_t right = tap.index_1 * p.src_pixel_stride + static_cast<ptrdiff_t>(first);
    typename V::Int low[2], high[2];
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      const auto a = V::load(source.row[r] + left);
      const auto b = V::load(source.row[r] + right);
      low[r] = V::madd_bytes(V::low_bytes(a, b), weights);
      high[r] = V::madd_bytes(V::high_bytes(a, b), weights);
    }
    const auto blend = [&](const typename V::Int(&rows)[2]) {
      const auto sum = V::add_words(V::mul_words(rows[0], above), V::mul_words(rows[1], below));
      return V::template shift_right_words<8>(V::add_words(sum, half));
    };
    V::store(dst, V::pack_words(blend(low), blend(high)), count);
  }
}

// Any weights: each source column is blended once, in 32 bits, and kept while output pixels lie beside it.
template <typename V>
void fine_block(const ResizeParams& p, size_t y, size_t first, size_t count) {
  const SourceRows source(p, y);
  const auto above = V::set1_dword(source.tap.weight_0);
  const auto below = V::set1_dword(source.tap.weight_1);
  const auto half = V::set1_dword(1 << 21);
  const auto load_column = [&](int32_t index, typename V::Int(&column)[4]) {
    const ptrdiff_t offset = index * p.src_pixel_stride + static_cast<ptrdiff_t>(first);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const auto top = V::mul_dwords(V::widen_bytes(source.row[0] + offset + v * V::kLanes), above);
      const auto bottom = V::mul_dwords(V::widen_bytes(source.row[1] + offset + v * V::kLanes), below);
      column[v] = V::add(top, bottom);
    }
  };
  typename V::Int left[4], right[4];
  int32_t index_left = -1, index_right = -1;
  act_t* dst = p.dst + static_cast<ptrdiff_t>(y) * p.dst_row_stride + first;
  for (size_t x = 0; x < p.width_out; ++x, dst += p.dst_pixel_stride) {
    const ResizeTap& tap = p.tap_x[x];
    if (tap.index_0 != index_left) {
      if (tap.index_0 == index_right) {
        for (int v = 0; v < 4; ++v) left[v] = right[v];
      } else {
        load_column(tap.index_0, left);
      }
      index_left = tap.index_0;
    }
    if (tap.index_1 != index_right) {
      load_column(tap.index_1, right);
      index_right = tap.index_1;
    }
    const auto weight_left = V::set1_dword(tap.weight_0);
    const auto weight_right = V::set1_dword(tap.weight_1);
    typename V::Int sum[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      // At most 2^22 * 255 + 2^21 < 2^31.
      sum[v] = V::add(V::mul_dwords(left[v], weight_left), V::mul_dwords(right[v], weight_right));
      sum[v] = V::template shift_right<22>(V::add(sum[v], half));
    }
    V::store(dst, V::order_packed(pack_codes<V>(sum[0], sum[1], sum[2], sum[3], OutputRange{0, 0, 255})),
             count);
  }
}

/// V, or Half for the last channels where they fit it.
template <typename V, typename Half>
void resize_bilinear(const ResizeParams& p) {
  const bool coarse = all_coarse(p.tap_x, 0, p.width_out) && all_coarse(p.tap_y, p.row_begin, p.row_end);
  for (size_t y = p.row_begin; y < p.row_end; ++y) {
    for (size_t first = 0; first < p.channels; first += V::kBytes) {
      const size_t count = p.channels - first;
      if (count <= Half::kBytes) {
        coarse ? coarse_block<Half>(p, y, first, count) : fine_block<Half>(p, y, first, count);
      } else {
        coarse ? coarse_block<V>(p, y, first, count) : fine_block<V>(p, y, first, count);
      }
    }
  }
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_RESIZE_X86_WIDE_H_
