#include "kernels/lut/lut.h"

#include <algorithm>

#include "ops/check.h"
#include "ops/op.h"

// A table of 256 codes, or one a channel: every one-input function.

namespace edgeq {
namespace {

constexpr int64_t kChunk = 4096;

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 2, 2));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 0));
  const Tensor& x = view.input(0);
  const Tensor& table = view.input(1);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(y, "the output"));
  const bool one = table.rank == 1 && table.dims[0] == 256;
  const bool per_channel = table.rank == 2 && table.dims[0] == x.channels() && table.dims[1] == 256;
  if (!table.constant || table.type != DataType::kInt8 || table.quantized() || (!one && !per_channel)) {
    return bad_model("its table must be a plain constant int8 of shape [256] or [%lld, 256]",
                     static_cast<long long>(x.channels()));
  }
  if (y.bits == 4) {
    for (uint64_t i = 0; i < table.bytes; ++i) {
      const int code = static_cast<int8_t>(table.data[i]);
      if (code < -8 || code > 7) return bad_model("its table holds %d, which is no 4-bit code", code);
    }
  }
  int64_t dims[kMaxRank];
  for (int axis = 0; axis < x.rank; ++axis) dims[axis] = x.dims[axis];
  return expect_output_shape(view, dims, x.rank);
}

class LutStep final : public Step {
 public:
  const LutVariant* variant = nullptr;
  AlignedBuffer table;
  bool per_channel = false;
  bool flat = false;  // both sides are one run of bytes
  int64_t pixels = 1;
  int64_t channels = 1;
  int64_t in_stride = 1;
  int64_t out_stride = 1;

  Work work(int64_t batch) const override {
    Work work;
    const int64_t rows = batch * pixels;
    work.rows = flat ? (rows * channels + kChunk - 1) / kChunk : rows;
    work.cost = rows * channels;
    return work;
  }

  void run(const StepIo& io, const WorkRange& range, uint8_t*) const override {
    LutParams params;
    params.table = table.data();
    params.per_channel = per_channel;
    if (flat) {
      const int64_t total = io.batch * pixels * channels;
      const int64_t first = range.row_begin * kChunk;
      params.rows = 1;
      params.channels = static_cast<size_t>(std::min(total, range.row_end * kChunk) - first);
      params.src = io.in[0] + first;
      params.dst = io.out + first;
    } else {
      params.rows = static_cast<size_t>(range.row_end - range.row_begin);
      params.channels = static_cast<size_t>(channels);
      params.src = io.in[0] + range.row_begin * in_stride;
      params.src_row_stride = in_stride;
      params.dst = io.out + range.row_begin * out_stride;
      params.dst_row_stride = out_stride;
    }
    variant->run(params);
  }
};

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = view.input(0);
  const Tensor& table = view.input(1);
  auto step = std::make_unique<LutStep>();
  step->variant = select_lut(target.isas);
  step->per_channel = table.rank == 2;
  step->pixels = x.pixels();
  step->channels = x.channels();
  step->in_stride = lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  step->flat = !step->per_channel && step->in_stride == step->channels && step->out_stride == step->channels;
  EDGEQ_RETURN_IF_ERROR(allocate(step->table, table.bytes, "a table", *target.budget));
  for (uint64_t at = 0; at < table.bytes; at += 256) table_to_act(table.data + at, step->table.data() + at);
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.work = x.elements;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace

extern const OpDef k_op_lut;
const OpDef k_op_lut = {7, "lut", check, no_fusions, prepare};

}  // namespace edgeq
