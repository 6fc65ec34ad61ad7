#include <algorithm>

#include "kernels/pool/pool.h"
#include "ops/check.h"
#include "ops/op.h"

// Mean over height and width.

namespace edgeq {
namespace {

constexpr int64_t kChannelBlock = 64;

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 1, 1));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 1));
  const Tensor& x = view.input(0);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(y, "the output"));
  if (x.rank != 4) return bad_model("its input must have rank 4, not %d", x.rank);
  if (x.pixels() >= 1 << 23) return bad_model("it averages more than 2^23 pixels");
  EDGEQ_RETURN_IF_ERROR(expect_multiplier(x.scale() / y.scale()));
  switch (view.attribute(0)) {
    case 0:
      return expect_output_shape(view, {1, x.dims[3]});
    case 1:
      return expect_output_shape(view, {1, 1, 1, x.dims[3]});
    default:
      return bad_model("keep_dims is %d, not 0 or 1", view.attribute(0));
  }
}

class MeanStep final : public Step {
 public:
  const MeanVariant* variant = nullptr;
  MeanParams params;
  int64_t channels = 1;
  int64_t image_stride = 0;
  int64_t out_stride = 0;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch;
    work.columns = (channels + kChannelBlock - 1) / kChannelBlock;
    work.cost = batch * info.work;
    return work;
  }

  void run(const StepIo& io, const WorkRange& range, uint8_t*) const override {
    const int64_t first = range.column_begin * kChannelBlock;
    const int64_t last = std::min(channels, range.column_end * kChannelBlock);
    MeanParams call = params;
    call.channels = static_cast<size_t>(last - first);
    for (int64_t image = range.row_begin; image < range.row_end; ++image) {
      call.src = reinterpret_cast<const act_t*>(io.in[0]) + image * image_stride + first;
      call.dst = reinterpret_cast<act_t*>(io.out) + image * out_stride + first;
      variant->run(call);
    }
  }
};

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const Tensor& x = lowered.view.input(0);
  const Tensor& y = lowered.view.output();
  auto step = std::make_unique<MeanStep>();
  step->variant = select_mean(target.isas);
  step->channels = x.dims[3];
  step->image_stride = x.pixels() * lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  step->params.pixels = static_cast<size_t>(x.pixels());
  step->params.pixel_stride = lowered.in_stride[0];
  step->params.zp_in = x.zero_act();
  step->params.multiplier = (x.scale() / y.scale()) / static_cast<float>(x.pixels());
  step->params.range = output_range(y);
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.work = x.elements;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace

extern const OpDef k_op_mean;
const OpDef k_op_mean = {10, "mean", check, no_fusions, prepare};

}  // namespace edgeq
