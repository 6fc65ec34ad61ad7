#include "ops/patches.h"

#include <algorithm>
#include <cstring>

namespace edgeq {
namespace {

/// The rows of the windows of one output row: where each begins for ox = 0, and how far the next window's is.
struct PatchRows {
  const act_t* row[kMaxPatchRows];
  int64_t step[kMaxPatchRows];  // 0 for a row of padding
};

/// Windows [begin, end) of an output row, all inside the image's width. Each row is copied as kChunk bytes:
/// what is too much is overwritten by the next row, or lies in the slack after the last.
template <int64_t kChunk>
act_t* gather_inside(const PatchGeometry& g, const PatchRows& rows, int64_t begin, int64_t end, act_t* dst) {
  const int64_t row_bytes = g.row_bytes();
  const int64_t kernel_h = g.window.kernel_h;
  const int64_t stride = g.stride();
  const PatchRows local = rows;  // a copy: stores of bytes could change anything else
  for (int64_t ox = begin; ox < end; ++ox, dst += stride) {
    act_t* to = dst;
    for (int64_t ky = 0; ky < kernel_h; ++ky, to += row_bytes) {
      std::memcpy(to, local.row[ky] + ox * local.step[ky], kChunk);
    }
  }
  return dst;
}

/// The same for windows of kRows rows, at least one, that are all inside the image: one address serves all
/// rows.
template <int64_t kChunk, int kRows>
act_t* gather_whole(const PatchGeometry& g, const act_t* row, int64_t count, act_t* dst) {
  const int64_t row_bytes = g.row_bytes();
  const int64_t stride = g.stride();
  const int64_t pitch = g.window.dilation_h * g.width * g.channels;
  const int64_t step = g.window.stride_w * g.channels;
  const act_t* const end = dst + count * stride;
  do {
#pragma GCC unroll 8
    for (int ky = 0; ky < kRows; ++ky) std::memcpy(dst + ky * row_bytes, row + ky * pitch, kChunk);
    row += step;
    dst += stride;
  } while (dst != end);
  return dst;
}

/// Windows [begin, end) of an output row, all inside the image's width.
template <int64_t kChunk>
act_t* gather_row(const PatchGeometry& g, const PatchRows& rows, int64_t begin, int64_t end, act_t* dst) {
  bool whole = true;
  for (int64_t ky = 0; ky < g.window.kernel_h; ++ky) whole = whole && rows.step[ky] != 0;
  const act_t* row = rows.row[0] + begin * rows.step[0];
  if (whole && g.window.kernel_h == 3) return gather_whole<kChunk, 3>(g, row, end - begin, dst);
  if (whole && g.window.kernel_h == 5) return gather_whole<kChunk, 5>(g, row, end - begin, dst);
  if (whole && g.window.kernel_h == 7) return gather_whole<kChunk, 7>(g, row, end - begin, dst);
  return gather_inside<kChunk>(g, rows, begin, end, dst);
}

/// A window that reaches into the left or right padding.
void gather_at_edge(const PatchGeometry& g, const PatchRows& rows, const act_t* zero_row, int64_t ox,
                    act_t* dst) {
  const int64_t row_bytes = g.row_bytes();
  const int64_t left = ox * g.window.stride_w - g.window.pad_left;
  const int64_t first = std::max<int64_t>(0, -left);
  const int64_t last = std::max(first, std::min(g.window.kernel_w, g.width - left));
  for (int64_t ky = 0; ky < g.window.kernel_h; ++ky, dst += row_bytes) {
    std::memcpy(dst, zero_row, row_bytes);
    if (rows.step[ky] == 0) continue;
    std::memcpy(dst + first * g.channels, rows.row[ky] + ox * rows.step[ky] + first * g.channels,
                (last - first) * g.channels);
  }
}

}  // namespace

bool gathers_patches(const Window& window, int64_t channels, int64_t pixel_stride) {
  return pixel_stride == channels && window.dilation_w == 1 && window.kernel_h <= kMaxPatchRows &&
         window.kernel_h * window.kernel_w > 1 && window.kernel_w * channels <= kMaxPatchRow;
}

void gather_patches(const PatchGeometry& g, const act_t* image, const act_t* zero_row, int64_t first,
                    int64_t count, act_t* dst) {
  const Window& w = g.window;
  const int64_t out_w = w.out_w(g.width);
  // Windows [inside_begin, inside_end) of a row do not reach into the padding.
  const int64_t inside_begin = (w.pad_left + w.stride_w - 1) / w.stride_w;
  const int64_t room = g.width + w.pad_left - w.kernel_w;
  const int64_t inside_end = room < 0 ? inside_begin : std::max(inside_begin, room / w.stride_w + 1);
  while (count > 0) {
    const int64_t oy = first / out_w;
    const int64_t begin = first % out_w;
    const int64_t end = std::min(out_w, begin + count);
    PatchRows rows;
    for (int64_t ky = 0; ky < w.kernel_h; ++ky) {
      const int64_t iy = oy * w.stride_h + ky * w.dilation_h - w.pad_top;
      const bool outside = iy < 0 || iy >= g.height;
      rows.row[ky] = outside ? zero_row : image + (iy * g.width - w.pad_left) * g.channels;
      rows.step[ky] = outside ? 0 : w.stride_w * g.channels;
    }
    int64_t ox = begin;
    for (; ox < end && ox < inside_begin; ++ox, dst += g.stride()) gather_at_edge(g, rows, zero_row, ox, dst);
    const int64_t stop = std::min(end, inside_end);
    if (ox < stop) {
      const int64_t row_bytes = g.row_bytes();
      if (row_bytes <= 16) {
        dst = gather_row<16>(g, rows, ox, stop, dst);
      } else if (row_bytes <= 32) {
        dst = gather_row<32>(g, rows, ox, stop, dst);
      } else {
        dst = gather_row<64>(g, rows, ox, stop, dst);
      }
      ox = stop;
    }
    for (; ox < end; ++ox, dst += g.stride()) gather_at_edge(g, rows, zero_row, ox, dst);
    first += end - begin;
    count -= end - begin;
  }
}

}  // namespace edgeq
