#include "ops/phase_step.h"

#include <algorithm>
#include <cstring>

#include "ops/row_step.h"

namespace edgeq {
namespace {

PhaseShape shape_of(const Window& window, const Tensor& w) {
  return {static_cast<size_t>(window.kernel_h), static_cast<size_t>(window.kernel_w),
          static_cast<size_t>(w.dims[3]), static_cast<size_t>(w.dims[0]), w.type == DataType::kInt4 ? 4 : 8};
}

class PhaseStep final : public RowStep {
 public:
  const PhaseVariant* variant = nullptr;
  PhaseShape shape = {};
  Epilogue epilogue;
  bool large_scales = true;
  int32_t zero = 0;
  AlignedBuffer packed;
  AlignedBuffer zero_row;

  PhaseStep() { rows_together = kRows; }

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * out_h;
    work.row_grain = kRows;
    work.cost = batch * info.macs;
    return work;
  }

  size_t scratch_bytes() const override { return phase_scratch_bytes(shape.k); }

  /// Its last rows meet taps of zero, but are read.
  bool streams() const override { return false; }

  void run_rows(const RowPlace& in, const RowPlace& out, const uint8_t*, RowRange range,
                uint8_t* scratch) const override {
    const act_t* rows[PhaseParams::kImageRows];
    act_t* dst[PhaseParams::kRows];
    PhaseParams params;
    params.k = shape.k;
    params.n = shape.n;
    params.width_in = static_cast<size_t>(width);
    params.width_out = static_cast<size_t>(out_w);
    params.pad_left = static_cast<size_t>(window.pad_left);
    params.rows = rows;
    params.packed = packed.data();
    params.dst = dst;
    params.dst_pixel_stride = out_stride;
    params.zero = zero;
    params.range = epilogue.range;
    params.table = epilogue.has_table ? epilogue.table : nullptr;
    params.large_scales = large_scales;
    params.scratch = scratch;
    for (int64_t first = range.begin; first < range.end; first += kRows) {
      const int64_t count = std::min(kRows, range.end - first);
      for (int64_t i = 0; i < static_cast<int64_t>(PhaseParams::kImageRows); ++i) {
        const int64_t y = first * window.stride_h - window.pad_top + i;
        rows[i] = reinterpret_cast<const act_t*>(y >= 0 && y < height ? in.row(y) : zero_row.data());
      }
      for (int64_t i = 0; i < count; ++i) dst[i] = reinterpret_cast<act_t*>(out.row(first + i));
      params.rows_out = static_cast<size_t>(count);
      variant->run(params);
    }
  }

 private:
  static constexpr int64_t kRows = PhaseParams::kRows;
};

}  // namespace

const PhaseVariant* phase_variant_of(const Lowered& lowered, const Window& window, const Epilogue& epilogue,
                                     const Target& target) {
  const Tensor& x = *lowered.x;
  const Tensor& w = lowered.view.input(1);
  if (window.stride_h != 2 || window.stride_w != 2 || window.dilation_h != 1 || window.dilation_w != 1 ||
      w.dims[3] != x.dims[3] || lowered.in_stride[0] != x.dims[3] || epilogue.has_residual) {
    return nullptr;
  }
  return select_phases(shape_of(window, w), target.isas);
}

Result<std::unique_ptr<Step>> prepare_phases(const Lowered& lowered, const Window& window,
                                             const PhaseVariant& variant, const Epilogue& epilogue,
                                             Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = *lowered.x;
  const Tensor& w = view.input(1);
  auto step = std::make_unique<PhaseStep>();
  step->variant = &variant;
  step->shape = shape_of(window, w);
  step->epilogue = epilogue;
  step->window = window;
  step->height = x.dims[1];
  step->width = x.dims[2];
  step->out_h = window.out_h(step->height);
  step->out_w = window.out_w(step->width);
  step->in_stride = lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  step->zero = x.zero_act();
  EDGEQ_RETURN_IF_ERROR(target.budget->take(step->scratch_bytes(), "the scratch of a convolution"));
  const size_t bytes = phase_packed_bytes(step->shape.k, step->shape.n);
  const size_t row = static_cast<size_t>(step->in_row_bytes());
  EDGEQ_RETURN_IF_ERROR(allocate(step->packed, bytes, "the packed weights", *target.budget));
  EDGEQ_RETURN_IF_ERROR(allocate(step->zero_row, row, "a row of padding", *target.budget));
  std::memset(step->zero_row.data(), static_cast<uint8_t>(step->zero), row);
  const std::vector<float> multipliers = output_multipliers(x, w, view.output(), w.dims[0]);
  step->large_scales = any_large_scale(multipliers.data(), multipliers.size());
  const int32_t* bias = view.has_input(2) ? reinterpret_cast<const int32_t*>(view.input(2).data) : nullptr;
  phase_pack(step->shape, WeightView{w.data, step->shape.weight_bits}, bias, multipliers.data(), step->zero,
             step->packed.data());
  target.packed(w, static_cast<size_t>(w.elements));
  step->info.kernel = variant.name;
  step->info.isa = variant.isa;
  step->info.weight_bits = step->shape.weight_bits;
  step->info.bytes_packed = static_cast<int64_t>(bytes);
  step->info.macs = step->out_h * step->out_w * w.elements;
  step->info.work = step->info.macs;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace edgeq
