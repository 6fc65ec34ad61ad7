#include "ops/winograd_step.h"

#include <algorithm>
#include <cstring>

namespace edgeq {
namespace {

int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

class WinogradStep final : public Step {
 public:
  const WinogradVariant* variant = nullptr;
  Window window;
  Epilogue epilogue;
  bool large_scales = true;
  AlignedBuffer packed;
  AlignedBuffer zero_pixel;
  int64_t height = 0, width = 0, k = 0;  // of the input
  int64_t out_h = 0, out_w = 0, n = 0;
  int64_t in_stride = 0;  // bytes from pixel to pixel
  int64_t out_stride = 0;
  int residual_input = -1;
  int64_t panels = 1;
  int64_t kernel_scratch = 0;

  /// A row of the work is a row of blocks of one image.
  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * block_rows();
    work.columns = panels;
    work.cost = batch * info.macs;
    // Each part transforms its filters itself.
    return work;
  }

  size_t scratch_bytes() const override {
    return static_cast<size_t>(kernel_scratch) + sizeof(act_t*) * static_cast<size_t>(out_h + 2);
  }

  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch) const override {
    const act_t** rows = reinterpret_cast<const act_t**>(scratch + kernel_scratch);
    WinogradParams params;
    params.k = k;
    params.n = n;
    params.width_in = width;
    params.width_out = out_w;
    params.pad_left = window.pad_left;
    params.rows = rows;
    params.src_pixel_stride = in_stride;
    params.zero_pixel = reinterpret_cast<const act_t*>(zero_pixel.data());
    params.packed = packed.data();
    params.dst_pixel_stride = out_stride;
    params.dst_row_stride = out_w * out_stride;
    params.range = epilogue.range;
    params.table = epilogue.has_table ? epilogue.table : nullptr;
    params.residual = epilogue.residual;
    params.residual.row_stride = epilogue.residual_stride;
    params.residual_row_stride = out_w * epilogue.residual_stride;
    params.large_scales = large_scales;
    params.scratch = scratch;
    const uint8_t* operand = residual_input < 0 ? nullptr : io.in[residual_input];
    for (int64_t row = range.row_begin; row < range.row_end;) {
      const int64_t image = row / block_rows();
      const int64_t first = row % block_rows();
      const int64_t last = std::min(block_rows(), first + range.row_end - row);
      const act_t* x = reinterpret_cast<const act_t*>(io.in[0]) + image * height * width * in_stride;
      for (int64_t y = 0; y < out_h + 2; ++y) {
        const int64_t source = y - window.pad_top;
        rows[y] = source >= 0 && source < height ? x + source * width * in_stride : nullptr;
      }
      params.dst = reinterpret_cast<act_t*>(io.out) + image * out_h * params.dst_row_stride;
      if (operand != nullptr) {
        params.residual.src =
            reinterpret_cast<const act_t*>(operand) + image * out_h * params.residual_row_stride;
      }
      variant->run(params, variant->block * first, std::min(out_h, variant->block * last), range.column_begin,
                   range.column_end);
      row += last - first;
    }
  }

 private:
  int64_t block_rows() const { return (out_h + variant->block - 1) / variant->block; }
};

}  // namespace

const WinogradVariant* winograd_variant(const Window& window, const Tensor& x, const Tensor& w,
                                        const Target& target) {
  if (window.kernel_h != 3 || window.kernel_w != 3 || window.stride_h != 1 || window.stride_w != 1 ||
      window.dilation_h != 1 || window.dilation_w != 1 || w.dims[3] != x.dims[3]) {
    return nullptr;
  }
  const size_t n = static_cast<size_t>(w.dims[0]);
  const size_t k = static_cast<size_t>(w.dims[3]);
  const int bits = w.type == DataType::kInt4 ? 4 : 8;
  const WinogradVariant* variant = select_winograd({static_cast<size_t>(window.out_h(x.dims[1])),
                                                    static_cast<size_t>(window.out_w(x.dims[2])), k, n, bits},
                                                   target.isas);
  return variant != nullptr && winograd_takes(*variant, n, k, WeightView{w.data, bits}) ? variant : nullptr;
}

Result<std::unique_ptr<Step>> prepare_winograd(const Lowered& lowered, const Window& window,
                                               const WinogradVariant& variant, const Epilogue& epilogue,
                                               Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = *lowered.x;
  const Tensor& w = view.input(1);
  auto step = std::make_unique<WinogradStep>();
  step->variant = &variant;
  step->window = window;
  step->epilogue = epilogue;
  step->height = x.dims[1];
  step->width = x.dims[2];
  step->k = x.dims[3];
  step->out_h = window.out_h(step->height);
  step->out_w = window.out_w(step->width);
  step->n = w.dims[0];
  step->in_stride = lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  if (epilogue.has_residual) step->residual_input = static_cast<int>(lowered.in_stride.size()) - 1;
  const size_t k = static_cast<size_t>(step->k);
  const size_t n = static_cast<size_t>(step->n);
  step->panels = static_cast<int64_t>(winograd_panels(variant, n));
  step->kernel_scratch = align64(static_cast<int64_t>(variant.scratch_bytes(k, n)));
  EDGEQ_RETURN_IF_ERROR(target.budget->take(step->scratch_bytes(), "the scratch of a convolution"));
  const size_t bytes = winograd_packed_bytes(variant, n, k);
  EDGEQ_RETURN_IF_ERROR(allocate(step->packed, bytes, "the packed weights", *target.budget));
  EDGEQ_RETURN_IF_ERROR(allocate(step->zero_pixel, k, "a row of padding", *target.budget));
  std::memset(step->zero_pixel.data(), static_cast<uint8_t>(x.zero_act()), k);
  const std::vector<float> multipliers = output_multipliers(x, w, view.output(), step->n);
  step->large_scales = any_large_scale(multipliers.data(), multipliers.size());
  const int32_t* bias = view.has_input(2) ? reinterpret_cast<const int32_t*>(view.input(2).data) : nullptr;
  winograd_pack(variant, n, k, WeightView{w.data, variant.weight_bits}, bias, multipliers.data(),
                x.zero_act(), step->packed.data());
  target.packed(w, static_cast<size_t>(w.elements));
  step->info.kernel = variant.name;
  step->info.isa = variant.isa;
  step->info.weight_bits = variant.weight_bits;
  step->info.bytes_packed = static_cast<int64_t>(bytes);
  step->info.macs = step->out_h * step->out_w * w.elements;
  step->info.work = step->info.macs;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace edgeq
