#ifndef EDGEQ_OPS_ROW_STEP_H_
#define EDGEQ_OPS_ROW_STEP_H_

#include <algorithm>
#include <cstdint>

#include "ops/op.h"
#include "ops/window.h"

namespace edgeq {

/// Where the rows of pixels of one image lie: row r begins at base + (r % ring) * bytes. A whole image has
/// all of its rows in the ring; a strip keeps the last few.
struct RowPlace {
  uint8_t* base = nullptr;
  int64_t ring = 1;
  int64_t bytes = 0;

  uint8_t* row(int64_t r) const { return base + r % ring * bytes; }
  /// Rows from r on, at most `count`, that follow each other in memory.
  int64_t together(int64_t r, int64_t count) const { return std::min(count, ring - r % ring); }
};

struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
};

/// A step over a window of an image's pixels that can compute any rows of one image from rows that lie
/// anywhere (strip_step.h runs chains of them).
class RowStep : public Step {
 public:
  Window window;
  int64_t height = 0, width = 0;  // of the input
  int64_t out_h = 0, out_w = 0;
  int64_t in_stride = 0;  // bytes from pixel to pixel
  int64_t out_stride = 0;
  int64_t residual_stride = 0;  // of the residual operand
  int residual_input = -1;      // which input of the step that operand is; -1: none
  int64_t rows_together = 1;    // output rows that it computes at a time: fewer take as long

  int64_t in_row_bytes() const { return width * in_stride; }
  int64_t out_row_bytes() const { return out_w * out_stride; }

  /// The rows of the image that output rows [rows.begin, rows.end) read.
  RowRange input_rows(RowRange rows) const {
    const int64_t first = rows.begin * window.stride_h - window.pad_top;
    const int64_t last = (rows.end - 1) * window.stride_h - window.pad_top + window.span_h();
    const int64_t begin = std::clamp<int64_t>(first, 0, height);
    return {begin, std::clamp(last, begin, height)};
  }

  const RowStep* row_step() const override { return this; }

  /// Rows of the work are rows of output pixels.
  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch) const override {
    const uint8_t* operand = residual_input < 0 ? nullptr : io.in[residual_input];
    for (int64_t row = range.row_begin; row < range.row_end;) {
      const int64_t image = row / out_h;
      const int64_t first = row % out_h;
      const int64_t last = std::min(out_h, first + range.row_end - row);
      run_rows(input_rows_of(io.in[0], image), output_rows_of(io.out, image),
               operand == nullptr ? nullptr : operand + residual_offset(image), {first, last}, scratch);
      row += last - first;
    }
  }

  /// Where the rows of an image lie when the whole batch is there.
  RowPlace input_rows_of(const uint8_t* in, int64_t image) const {
    // Only read, though the type does not say so.
    return {const_cast<uint8_t*>(in) + image * height * in_row_bytes(), height, in_row_bytes()};
  }
  RowPlace output_rows_of(uint8_t* out, int64_t image) const {
    return {out + image * out_h * out_row_bytes(), out_h, out_row_bytes()};
  }
  int64_t residual_offset(int64_t image) const { return image * out_h * out_w * residual_stride; }

  /// Whether `run_rows` takes an input of which only the rows of `input_rows` are there.
  virtual bool streams() const = 0;

  /// Whether it slides over rows that may be a part of the image: a depthwise convolution or a pool.
  bool is_window() const { return streams() && !window.pointwise(); }

  /// Computes rows of one image. `residual` is the operand's image, or null.
  virtual void run_rows(const RowPlace& in, const RowPlace& out, const uint8_t* residual, RowRange rows,
                        uint8_t* scratch) const = 0;
};

/// Fills `rows` with the addresses of the image's rows that `count` output rows from `first` on read, in
/// order: null above and below the image.
inline void padded_rows(const RowPlace& in, int64_t height, const Window& window, int64_t first,
                        int64_t count, const act_t** rows) {
  const int64_t begin = first * window.stride_h - window.pad_top;
  const int64_t span = (count - 1) * window.stride_h + window.span_h();
  for (int64_t i = 0; i < span; ++i) {
    const int64_t y = begin + i;
    rows[i] = y >= 0 && y < height ? reinterpret_cast<const act_t*>(in.row(y)) : nullptr;
  }
}

}  // namespace edgeq

#endif  // EDGEQ_OPS_ROW_STEP_H_
