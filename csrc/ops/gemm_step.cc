#include "ops/gemm_step.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/pack.h"

namespace edgeq {
namespace {

size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

class GemmStep final : public Step {
 public:
  GemmGeometry geometry;
  const GemmVariant* variant = nullptr;
  Epilogue epilogue;
  AlignedBuffer packed;
  size_t packed_stride = 0;  // from group to group
  AlignedBuffer zero_row;
  int64_t in_stride = 0;
  int64_t out_stride = 0;
  int64_t panels = 1;  // a group
  size_t scratch = 0;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * geometry.m;
    work.row_grain = variant->mr;
    work.columns = geometry.groups * panels;
    work.cost = batch * info.macs;
    work.prefer_columns = info.bytes_packed > work.rows * geometry.k * geometry.groups;
    return work;
  }

  size_t scratch_bytes() const override { return scratch + patch_bytes; }

  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch_memory) const override {
    const act_t* x = reinterpret_cast<const act_t*>(io.in[0]);
    act_t* y = reinterpret_cast<act_t*>(io.out);
    GemmParams params;
    params.n = geometry.n;
    params.k = geometry.k;
    params.taps = geometry.taps;
    params.lhs.row_stride = in_stride;
    params.dst_row_stride = out_stride;
    params.range = epilogue.range;
    params.table = epilogue.has_table ? epilogue.table : nullptr;
    params.residual = epilogue.residual;
    params.residual.row_stride = epilogue.residual_stride;
    params.scratch = scratch_memory;
    if (geometry.map) {
      params.lhs.pixel_offset = geometry.map->pixel_offset.data();
      params.lhs.row_index = geometry.map->row_index.data();
      params.lhs.tap_index = geometry.map->tap_index.data();
      params.lhs.zero_row = reinterpret_cast<const act_t*>(zero_row.data());
    }
    if (geometry.patches) {
      run_patches(io, range, params);
      return;
    }
    // Without a map the rows of all images follow each other: one product over the whole batch.
    const int64_t rows_a_call = geometry.map ? geometry.m : io.batch * geometry.m;
    const act_t* other = residual(io);
    for (int64_t column = range.column_begin; column < range.column_end;) {
      const int64_t group = column / panels;
      const int64_t panel = column % panels;
      const int64_t panel_end = std::min(panels, panel + range.column_end - column);
      params.packed = packed.data() + group * packed_stride;
      for (int64_t row = range.row_begin; row < range.row_end;) {
        const int64_t image = row / rows_a_call;
        const int64_t first = row - image * rows_a_call;
        const int64_t last = std::min(rows_a_call, first + range.row_end - row);
        params.m = rows_a_call;
        params.lhs.base = x + image * geometry.image_stride + group * geometry.k;
        params.dst = y + image * geometry.m * out_stride + group * geometry.n;
        if (other != nullptr) {
          params.residual.src = other + image * geometry.m * epilogue.residual_stride + group * geometry.n;
        }
        variant->run(params, first, last, panel, panel_end);
        row += last - first;
      }
      column += panel_end - panel;
    }
  }

  int residual_input = -1;
  int64_t patch_rows = 0;  // windows that are gathered at a time
  size_t patch_bytes = 0;

 private:
  /// Gathers some windows, which then lie in the first-level cache, and multiplies them.
  void run_patches(const StepIo& io, const WorkRange& range, GemmParams& params) const {
    const act_t* zeros = reinterpret_cast<const act_t*>(zero_row.data());
    act_t* gathered = reinterpret_cast<act_t*>(params.scratch + scratch);
    const act_t* other = residual(io);
    params.packed = packed.data();
    params.lhs.base = gathered;
    params.lhs.row_stride = geometry.patches->stride();
    for (int64_t row = range.row_begin; row < range.row_end;) {
      const int64_t image = row / geometry.m;
      const int64_t first = row % geometry.m;
      const int64_t count = std::min({patch_rows, geometry.m - first, range.row_end - row});
      gather_patches(*geometry.patches,
                     reinterpret_cast<const act_t*>(io.in[0]) + image * geometry.image_stride, zeros, first,
                     count, gathered);
      params.m = count;
      params.dst = reinterpret_cast<act_t*>(io.out) + row * out_stride;
      if (other != nullptr) params.residual.src = other + row * epilogue.residual_stride;
      variant->run(params, 0, count, range.column_begin, range.column_end);
      row += count;
    }
  }

  const act_t* residual(const StepIo& io) const {
    return residual_input < 0 ? nullptr : reinterpret_cast<const act_t*>(io.in[residual_input]);
  }
};

}  // namespace

Result<std::unique_ptr<Step>> prepare_gemm(const Lowered& lowered, const GemmGeometry& geometry,
                                           const Epilogue& epilogue, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& w = view.input(1);
  auto step = std::make_unique<GemmStep>();
  step->geometry = geometry;
  step->epilogue = epilogue;
  step->in_stride = lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  if (epilogue.has_residual) step->residual_input = static_cast<int>(lowered.in_stride.size()) - 1;
  const int bits = w.type == DataType::kInt4 ? 4 : 8;
  const bool direct = geometry.map == nullptr;
  const GemmShape shape = {static_cast<size_t>(geometry.m),
                           static_cast<size_t>(geometry.n),
                           static_cast<size_t>(geometry.k),
                           static_cast<size_t>(geometry.taps),
                           bits,
                           direct};
  step->variant = select_gemm(shape, target.isas);
  step->panels = static_cast<int64_t>(gemm_panels(*step->variant, shape.n));
  step->scratch = align64(step->variant->scratch_bytes(shape));
  if (geometry.patches) {
    // Half of a first-level cache, whole tiles.
    constexpr int64_t kPatchBytes = 16 * 1024;
    const int64_t mr = step->variant->mr;
    const int64_t stride = geometry.patches->stride();
    step->patch_rows = std::max(mr, std::min(geometry.m, kPatchBytes / stride) / mr * mr);
    step->patch_bytes = static_cast<size_t>(step->patch_rows * stride) + kReadSlack;
    EDGEQ_RETURN_IF_ERROR(target.budget->take(step->scratch_bytes(), "the windows of a convolution"));
  }
  const size_t bytes = gemm_packed_bytes(*step->variant, shape.n, shape.k, shape.taps);
  step->packed_stride = align64(bytes);
  EDGEQ_RETURN_IF_ERROR(
      allocate(step->packed, step->packed_stride * geometry.groups, "the packed weights", *target.budget));
  const std::vector<float> multipliers =
      output_multipliers(*lowered.x, w, view.output(), geometry.groups * geometry.n);
  const int32_t* bias = view.has_input(2) ? reinterpret_cast<const int32_t*>(view.input(2).data) : nullptr;
  const WeightView weights{w.data, bits};
  for (int64_t group = 0; group < geometry.groups; ++group) {
    const int64_t first = group * geometry.n;
    gemm_pack(*step->variant, shape.n, shape.k, shape.taps,
              weights.from(static_cast<size_t>(first * geometry.taps * geometry.k)),
              bias == nullptr ? nullptr : bias + first, multipliers.data() + first, lowered.x->zero_act(),
              step->packed.data() + group * step->packed_stride);
  }
  if (!direct || geometry.patches) {
    const size_t row = direct ? static_cast<size_t>(geometry.patches->row_bytes()) : shape.k;
    EDGEQ_RETURN_IF_ERROR(allocate(step->zero_row, row, "a row of padding", *target.budget));
    std::memset(step->zero_row.data(), static_cast<uint8_t>(lowered.x->zero_act()), row);
  }
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.weight_bits = bits;
  step->info.bytes_packed = static_cast<int64_t>(step->packed_stride * geometry.groups);
  step->info.macs = geometry.groups * geometry.m * geometry.n * geometry.k * geometry.taps;
  step->info.work = step->info.macs;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace edgeq
