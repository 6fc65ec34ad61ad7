#include "ops/pool_step.h"

#include <algorithm>

#include "ops/check.h"
#include "ops/row_step.h"

namespace edgeq {
namespace {

/// Whether each of `outputs` windows along an axis has a tap in [0, size).
bool every_window_has_a_tap(int64_t size, int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation,
                            int64_t pad) {
  if ((outputs - 1) * stride - pad >= size) return false;
  for (int64_t start = -pad; start < 0 && start <= (outputs - 1) * stride - pad; start += stride) {
    const int64_t tap = (-start + dilation - 1) / dilation;
    if (tap >= kernel || start + tap * dilation >= size) return false;
  }
  return true;
}

/// How many taps of each window along an axis lie in [0, size).
std::vector<int32_t> taps_inside(int64_t size, int64_t outputs, int64_t kernel, int64_t stride, int64_t pad) {
  std::vector<int32_t> counts(outputs);
  for (int64_t i = 0; i < outputs; ++i) {
    const int64_t start = i * stride - pad;
    counts[i] = static_cast<int32_t>(std::min(start + kernel, size) - std::max<int64_t>(start, 0));
  }
  return counts;
}

class PoolStep final : public RowStep {
 public:
  const PoolVariant* variant = nullptr;
  PoolParams params;
  std::vector<float> multipliers;
  std::vector<int32_t> count_h, count_w;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * out_h;
    work.cost = batch * info.work;
    return work;
  }

  size_t scratch_bytes() const override {
    return sizeof(act_t*) * static_cast<size_t>(window.padded_h(height));
  }

  bool streams() const override { return true; }

  void run_rows(const RowPlace& in, const RowPlace& out, const uint8_t*, RowRange range,
                uint8_t* scratch) const override {
    const act_t** rows = reinterpret_cast<const act_t**>(scratch);
    PoolParams call = params;
    call.rows = rows;
    call.row_begin = 0;
    call.count_w = count_w.data();
    for (int64_t first = range.begin; first < range.end;) {
      const int64_t count = out.together(first, range.end - first);
      padded_rows(in, height, window, first, count, rows);
      call.row_end = static_cast<size_t>(count);
      call.dst = reinterpret_cast<act_t*>(out.row(first));
      call.count_h = count_h.empty() ? nullptr : count_h.data() + first;
      variant->run(call);
      first += count;
    }
  }
};

}  // namespace

Status check_pool(const NodeView& view, const Window& window) {
  const Tensor& x = view.input(0);
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(view.output(), "the output"));
  if (x.rank != 4) return bad_model("its input must have rank 4, not %d", x.rank);
  EDGEQ_RETURN_IF_ERROR(check_window(window, x.dims[1], x.dims[2]));
  // 255 times the taps stay within 32 bits.
  if (window.kernel_h * window.kernel_w >= 1 << 23) return bad_model("its window has 2^23 taps or more");
  const int64_t out_h = window.out_h(x.dims[1]);
  const int64_t out_w = window.out_w(x.dims[2]);
  EDGEQ_RETURN_IF_ERROR(expect_output_shape(view, {1, out_h, out_w, x.dims[3]}));
  if (!every_window_has_a_tap(x.dims[1], out_h, window.kernel_h, window.stride_h, window.dilation_h,
                              window.pad_top) ||
      !every_window_has_a_tap(x.dims[2], out_w, window.kernel_w, window.stride_w, window.dilation_w,
                              window.pad_left)) {
    return bad_model("a window lies wholly in the padding");
  }
  return Status();
}

Result<std::unique_ptr<Step>> prepare_pool(const Lowered& lowered, const Window& window, PoolOp op,
                                           bool count_padding, Target& target) {
  const Tensor& x = lowered.view.input(0);
  const Tensor& y = lowered.view.output();
  auto step = std::make_unique<PoolStep>();
  step->variant = select_pool(op, target.isas);
  step->window = window;
  step->height = x.dims[1];
  step->width = x.dims[2];
  step->out_h = y.dims[1];
  step->out_w = y.dims[2];
  EDGEQ_RETURN_IF_ERROR(target.budget->take(step->scratch_bytes(), "the scratch of a pool"));
  PoolParams& params = step->params;
  params.channels = static_cast<size_t>(x.dims[3]);
  params.kernel_h = static_cast<size_t>(window.kernel_h);
  params.kernel_w = static_cast<size_t>(window.kernel_w);
  params.stride_h = static_cast<size_t>(window.stride_h);
  params.stride_w = static_cast<size_t>(window.stride_w);
  params.dilation_h = static_cast<size_t>(window.dilation_h);
  params.dilation_w = static_cast<size_t>(window.dilation_w);
  params.width_in = static_cast<size_t>(step->width);
  params.width_out = static_cast<size_t>(step->out_w);
  params.pad_left = static_cast<size_t>(window.pad_left);
  step->in_stride = lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  params.src_pixel_stride = lowered.in_stride[0];
  params.dst_pixel_stride = lowered.out_stride;
  params.dst_row_stride = step->out_w * lowered.out_stride;
  params.range = output_range(y);
  const int64_t taps = window.kernel_h * window.kernel_w;
  if (op == PoolOp::kAverage) {
    params.zp_in = x.zero_act();
    EDGEQ_RETURN_IF_ERROR(target.budget->take(4 * static_cast<uint64_t>(taps + 1 + step->out_h + step->out_w),
                                              "the divisors of a pool"));
    const float ratio = x.scale() / y.scale();
    step->multipliers.assign(taps + 1, 0.0f);
    for (int64_t count = 1; count <= taps; ++count)
      step->multipliers[count] = ratio / static_cast<float>(count);
    params.multiplier = step->multipliers.data();
    if (count_padding) {
      step->count_h.assign(step->out_h, static_cast<int32_t>(window.kernel_h));
      step->count_w.assign(step->out_w, static_cast<int32_t>(window.kernel_w));
    } else {
      step->count_h =
          taps_inside(step->height, step->out_h, window.kernel_h, window.stride_h, window.pad_top);
      step->count_w =
          taps_inside(step->width, step->out_w, window.kernel_w, window.stride_w, window.pad_left);
    }
  }
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.work = y.elements * taps;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace edgeq
