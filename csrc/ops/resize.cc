#include "kernels/resize/resize.h"

#include <algorithm>
#include <cmath>

#include "ops/check.h"
#include "ops/op.h"

// Another height and width: nearest neighbour or bilinear, with the positions of docs/arithmetic.md, in
// float64 and in its order of operations.

namespace edgeq {
namespace {

enum Coordinates { kHalfPixel, kAlignCorners, kAsymmetric, kPytorchHalfPixel };
enum Rounding { kPreferFloor, kPreferCeil, kFloor, kCeil };

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 3));
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_same_quantization(x, y));
  if (x.rank != 4 || y.rank != 4) return bad_model("its input and output must have rank 4");
  if (view.attribute(0) < 0 || view.attribute(0) > 1 || view.attribute(1) < 0 || view.attribute(1) > 3 ||
      view.attribute(2) < 0 || view.attribute(2) > 3) {
    return bad_model("mode %d, coordinates %d or rounding %d is not known", view.attribute(0),
                     view.attribute(1), view.attribute(2));
  }
  return expect_output_shape(view, {1, y.dims[1], y.dims[2], x.dims[3]});
}

double position_of(int64_t index, int64_t size, int64_t outputs, int coordinates) {
  const double i = static_cast<double>(index);
  const double in = static_cast<double>(size);
  const double out = static_cast<double>(outputs);
  switch (coordinates) {
    case kAlignCorners:
      return outputs > 1 ? i * (in - 1) / (out - 1) : 0.0;
    case kAsymmetric:
      return i * in / out;
    case kPytorchHalfPixel:
      if (outputs == 1) return 0.0;
      break;
    default:
      break;
  }
  return (i + 0.5) * in / out - 0.5;
}

int32_t clamp_index(double position, int64_t size) {
  return static_cast<int32_t>(std::min(std::max(position, 0.0), static_cast<double>(size - 1)));
}

std::vector<ResizeTap> taps_of(int64_t size, int64_t outputs, bool bilinear, int coordinates, int rounding) {
  std::vector<ResizeTap> taps(outputs);
  for (int64_t i = 0; i < outputs; ++i) {
    const double position = position_of(i, size, outputs, coordinates);
    if (bilinear) {
      const double first = std::floor(position);
      const int32_t weight = static_cast<int32_t>(std::nearbyint((position - first) * 2048));
      taps[i] = {clamp_index(first, size), clamp_index(first + 1, size), 2048 - weight, weight};
      continue;
    }
    double nearest = position;
    switch (rounding) {
      case kPreferFloor:
        nearest = std::ceil(position - 0.5);
        break;
      case kPreferCeil:
        nearest = std::floor(position + 0.5);
        break;
      case kFloor:
        nearest = std::floor(position);
        break;
      default:
        nearest = std::ceil(position);
        break;
    }
    const int32_t index = clamp_index(nearest, size);
    taps[i] = {index, index, 2048, 0};
  }
  return taps;
}

class ResizeStep final : public Step {
 public:
  const ResizeVariant* variant = nullptr;
  ResizeParams params;
  std::vector<ResizeTap> tap_y, tap_x;
  int64_t out_h = 1;
  int64_t in_image_stride = 0;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * out_h;
    work.cost = batch * info.work;
    return work;
  }

  void run(const StepIo& io, const WorkRange& range, uint8_t*) const override {
    ResizeParams call = params;
    for (int64_t row = range.row_begin; row < range.row_end;) {
      const int64_t image = row / out_h;
      const int64_t first = row % out_h;
      const int64_t count = std::min(out_h - first, range.row_end - row);
      call.row_begin = 0;
      call.row_end = static_cast<size_t>(count);
      call.tap_y = tap_y.data() + first;
      call.src = reinterpret_cast<const act_t*>(io.in[0]) + image * in_image_stride;
      call.dst = reinterpret_cast<act_t*>(io.out) + row * params.dst_row_stride;
      variant->run(call);
      row += count;
    }
  }
};

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  const bool bilinear = view.attribute(0) == 1;
  auto step = std::make_unique<ResizeStep>();
  step->variant = select_resize(bilinear ? ResizeOp::kBilinear : ResizeOp::kNearest, target.isas);
  const uint64_t entries = static_cast<uint64_t>(y.dims[1]) + static_cast<uint64_t>(y.dims[2]);
  EDGEQ_RETURN_IF_ERROR(target.budget->take(entries * sizeof(ResizeTap), "the positions of a resize"));
  step->tap_y = taps_of(x.dims[1], y.dims[1], bilinear, view.attribute(1), view.attribute(2));
  step->tap_x = taps_of(x.dims[2], y.dims[2], bilinear, view.attribute(1), view.attribute(2));
  step->out_h = y.dims[1];
  step->in_image_stride = x.pixels() * lowered.in_stride[0];
  step->params.channels = static_cast<size_t>(x.dims[3]);
  step->params.width_out = static_cast<size_t>(y.dims[2]);
  step->params.tap_x = step->tap_x.data();
  step->params.src_pixel_stride = lowered.in_stride[0];
  step->params.src_row_stride = x.dims[2] * lowered.in_stride[0];
  step->params.dst_pixel_stride = lowered.out_stride;
  step->params.dst_row_stride = y.dims[2] * lowered.out_stride;
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.work = y.elements * (bilinear ? 4 : 1);
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace

extern const OpDef k_op_resize;
const OpDef k_op_resize = {16, "resize", check, no_fusions, prepare};

}  // namespace edgeq
