#include "ops/depthwise_step.h"

#include <algorithm>
#include <cstring>

#include "kernels/depthwise/depthwise.h"
#include "ops/row_step.h"
#include "ops/tuning.h"

namespace edgeq {
namespace {

size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

class DepthwiseStep final : public RowStep {
 public:
  DepthwiseShape shape = {};
  const DepthwiseVariant* variant = nullptr;
  const LutVariant* lut = nullptr;
  Epilogue epilogue;
  AlignedBuffer packed;
  AlignedBuffer zero_pixel;
  size_t kernel_scratch = 0;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * out_h;
    work.cost = batch * info.macs;
    return work;
  }

  size_t scratch_bytes() const override {
    return kernel_scratch + sizeof(act_t*) * static_cast<size_t>(window.padded_h(height));
  }

  bool streams() const override { return true; }

  void run_rows(const RowPlace& in, const RowPlace& out, const uint8_t*, RowRange range,
                uint8_t* scratch) const override {
    const act_t** rows = reinterpret_cast<const act_t**>(scratch + kernel_scratch);
    DepthwiseParams params;
    params.channels = shape.channels;
    params.kernel_h = shape.kernel_h;
    params.kernel_w = shape.kernel_w;
    params.stride_h = shape.stride_h;
    params.stride_w = shape.stride_w;
    params.dilation_h = shape.dilation_h;
    params.dilation_w = shape.dilation_w;
    params.width_in = width;
    params.width_out = out_w;
    params.pad_left = window.pad_left;
    params.rows = rows;
    params.src_pixel_stride = in_stride;
    params.zero_pixel = reinterpret_cast<const act_t*>(zero_pixel.data());
    params.packed = packed.data();
    params.dst_pixel_stride = out_stride;
    params.dst_row_stride = out_row_bytes();
    params.range = epilogue.range;
    params.table = epilogue.has_table ? epilogue.table : nullptr;
    params.lut = lut;
    params.scratch = scratch;
    for (int64_t first = range.begin; first < range.end;) {
      const int64_t count = out.together(first, range.end - first);
      padded_rows(in, height, window, first, count, rows);
      params.dst = reinterpret_cast<act_t*>(out.row(first));
      variant->run(params, 0, count);
      first += count;
    }
  }
};

std::string key_of(const DepthwiseStep& step) {
  const auto pair = [](const char* name, size_t a, size_t b) {
    return std::string(name) + std::to_string(a) + "x" + std::to_string(b);
  };
  const DepthwiseShape& s = step.shape;
  return "depthwise w" + std::to_string(s.weight_bits) + " c" + std::to_string(s.channels) +
         pair(" kernel", s.kernel_h, s.kernel_w) + pair(" stride", s.stride_h, s.stride_w) +
         pair(" dilation", s.dilation_h, s.dilation_w) +
         pair(" image", static_cast<size_t>(step.height), static_cast<size_t>(step.width));
}

}  // namespace

Result<std::unique_ptr<Step>> prepare_depthwise(const Lowered& lowered, const Window& window,
                                                const Epilogue& epilogue, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = *lowered.x;
  const Tensor& w = view.input(1);
  auto step = std::make_unique<DepthwiseStep>();
  step->window = window;
  step->epilogue = epilogue;
  step->height = x.dims[1];
  step->width = x.dims[2];
  step->out_h = window.out_h(step->height);
  step->out_w = window.out_w(step->width);
  step->in_stride = lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  const int bits = w.type == DataType::kInt4 ? 4 : 8;
  const size_t channels = static_cast<size_t>(x.dims[3]);
  step->shape = {channels,
                 static_cast<size_t>(window.kernel_h),
                 static_cast<size_t>(window.kernel_w),
                 static_cast<size_t>(window.stride_h),
                 static_cast<size_t>(window.stride_w),
                 static_cast<size_t>(window.dilation_h),
                 static_cast<size_t>(window.dilation_w),
                 bits};
  step->variant = tuned(depthwise_candidates(step->shape, target.isas),
                        select_depthwise(step->shape, target.isas), key_of(*step), target, step->info);
  step->lut = select_lut(target.isas);
  step->kernel_scratch =
      align64(step->variant->scratch_bytes(step->shape, step->width, step->out_w, step->in_stride));
  EDGEQ_RETURN_IF_ERROR(target.budget->take(step->scratch_bytes(), "the scratch of a depthwise convolution"));
  const size_t bytes = step->variant->packed_bytes(step->shape);
  EDGEQ_RETURN_IF_ERROR(allocate(step->packed, bytes, "the packed weights", *target.budget));
  EDGEQ_RETURN_IF_ERROR(allocate(step->zero_pixel, channels, "a row of padding", *target.budget));
  std::memset(step->zero_pixel.data(), static_cast<uint8_t>(x.zero_act()), channels);
  const std::vector<float> multipliers =
      output_multipliers(x, w, view.output(), static_cast<int64_t>(channels));
  const int32_t* bias = view.has_input(2) ? reinterpret_cast<const int32_t*>(view.input(2).data) : nullptr;
  step->variant->pack(step->shape, WeightView{w.data, bits}, bias, multipliers.data(), x.zero_act(),
                      step->packed.data());
  target.packed(w, static_cast<size_t>(w.elements));
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.weight_bits = bits;
  step->info.bytes_packed = static_cast<int64_t>(bytes);
  step->info.macs = step->out_h * step->out_w * w.elements;
  step->info.work = step->info.macs;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace edgeq
