#include "ops/epilogue.h"

namespace edgeq {

Epilogue make_epilogue(const Lowered& lowered, int32_t lo, int32_t hi) {
  const Model& model = lowered.view.model;
  Epilogue epilogue;
  const Tensor* last = &lowered.view.output();
  epilogue.range = output_range(*last, lo, hi);
  if (lowered.table != nullptr) {
    epilogue.has_table = true;
    table_to_act(model.tensors[lowered.table->inputs[1]].data, reinterpret_cast<uint8_t*>(epilogue.table));
    last = &model.tensors[lowered.table->output];
  }
  if (lowered.residual != nullptr) {
    const Node& add = *lowered.residual;
    const Tensor& other = model.tensors[add.inputs[lowered.residual_operand]];
    const Tensor& sum = model.tensors[add.output];
    epilogue.has_residual = true;
    epilogue.residual.zp_acc = last->zero_act();
    epilogue.residual.multiplier_acc = last->scale() / sum.scale();
    epilogue.residual.zp_src = other.zero_act();
    epilogue.residual.multiplier_src = other.scale() / sum.scale();
    epilogue.residual.range = output_range(sum, add.attributes[0], add.attributes[1]);
    epilogue.residual_stride = lowered.in_stride.back();
  }
  return epilogue;
}

std::vector<float> output_multipliers(const Tensor& x, const Tensor& w, const Tensor& y, int64_t count) {
  std::vector<float> multipliers(count);
  for (int64_t c = 0; c < count; ++c) {
    const float product = x.scale() * w.scales[w.scale_count == 1 ? 0 : c];
    multipliers[c] = product / y.scale();
  }
  return multipliers;
}

}  // namespace edgeq
