#include "ops/binary.h"

#include <algorithm>

#include "base/int4.h"
#include "kernels/lut/lut.h"
#include "ops/check.h"

namespace edgeq {
namespace {

constexpr int64_t kChunk = 4096;  // elements a row of work, where everything is one long run
// Elements that a table takes over while the first-level cache holds them, with their operands.
constexpr int64_t kTableElements = 2 * kChunk;

/// An axis of the output with the byte strides of a, b and the output along it.
struct Loop {
  int64_t size;
  int64_t stride[3];
};

/// Byte strides of an operand along the axes of the output; 0 where it is repeated.
void broadcast_strides(const Tensor& tensor, int64_t pixel_stride, const Tensor& y, int64_t* strides) {
  const int rank = y.rank;
  const int missing = rank - tensor.rank;
  int64_t dense = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    const int own = axis - missing;
    if (own < 0) {
      strides[axis] = 0;
      continue;
    }
    if (own == tensor.rank - 2) dense = pixel_stride;
    strides[axis] = tensor.dims[own] == 1 && y.dims[axis] != 1 ? 0 : dense;
    if (own < tensor.rank - 1) {
      dense *= tensor.dims[own];
    }
  }
}

class BinaryStep final : public Step {
 public:
  const BinaryVariant* variant = nullptr;
  BinaryParams params;
  AlignedBuffer constant[2];
  std::vector<Loop> outer;
  Loop rows = {1, {0, 0, 0}};
  int64_t outer_size = 1;
  int64_t run_length = 0;  // > 0: the image is one run of so many elements, cut into chunks
  int64_t image_stride[3] = {0, 0, 0};
  const LutVariant* lut = nullptr;  // a table behind it, or none
  act_t table[256] = {};

  int64_t rows_an_image() const {
    return run_length > 0 ? (run_length + kChunk - 1) / kChunk : outer_size * rows.size;
  }

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * rows_an_image();
    work.cost = batch * info.work;
    return work;
  }

  void run(const StepIo& io, const WorkRange& range, uint8_t*) const override {
    const uint8_t* base[3];
    for (int i = 0; i < 2; ++i) base[i] = constant[i].data() != nullptr ? constant[i].data() : io.in[i];
    base[2] = io.out;
    const int64_t an_image = rows_an_image();
    for (int64_t row = range.row_begin; row < range.row_end;) {
      const int64_t image = row / an_image;
      const int64_t first = row % an_image;
      int64_t offset[3];
      for (int i = 0; i < 3; ++i) offset[i] = image * image_stride[i];
      BinaryParams call = params;
      int64_t count;
      if (run_length > 0) {
        count = std::min(an_image - first, range.row_end - row);
        if (lut != nullptr) count = std::min(count, kTableElements / kChunk);
        for (int i = 0; i < 2; ++i) offset[i] += first * kChunk * (i == 0 ? call.a_step : call.b_step);
        offset[2] += first * kChunk;
        call.rows = 1;
        call.channels = std::min(run_length - first * kChunk, count * kChunk);
      } else {
        const int64_t within = first % rows.size;
        count = std::min(rows.size - within, range.row_end - row);
        if (lut != nullptr) count = std::min(count, kTableElements / static_cast<int64_t>(call.channels) + 1);
        int64_t block = first / rows.size;
        for (size_t axis = outer.size(); axis-- > 0;) {
          for (int i = 0; i < 3; ++i) offset[i] += block % outer[axis].size * outer[axis].stride[i];
          block /= outer[axis].size;
        }
        for (int i = 0; i < 3; ++i) offset[i] += within * rows.stride[i];
        call.rows = count;
      }
      call.a = reinterpret_cast<const act_t*>(base[0] + offset[0]);
      call.b = reinterpret_cast<const act_t*>(base[1] + offset[1]);
      call.dst = reinterpret_cast<act_t*>(io.out + offset[2]);
      variant->run(call);
      if (lut != nullptr) look_up(call);
      row += count;
    }
  }

 private:
  void look_up(const BinaryParams& call) const {
    LutParams params;
    params.rows = call.rows;
    params.channels = call.channels;
    params.src = params.dst = reinterpret_cast<uint8_t*>(call.dst);
    params.src_row_stride = params.dst_row_stride = call.dst_row_stride;
    params.table = reinterpret_cast<const uint8_t*>(table);
    lut->run(params);
  }
};

}  // namespace

Status check_binary(const NodeView& view, BinaryOp op) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 2, 2));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, 2));
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(y, "the output"));
  EDGEQ_RETURN_IF_ERROR(expect_code_range(y, view.attribute(0), view.attribute(1)));
  int rank = 0;
  for (int i = 0; i < 2; ++i) {
    const Tensor& operand = view.input(i);
    const bool codes = operand.type == DataType::kInt8 || operand.type == DataType::kInt4;
    if (!codes || !operand.quantized() || operand.quant_axis != -1) {
      return bad_model("operand %d must be int8 with one scale", i);
    }
    if (op != BinaryOp::kMul) EDGEQ_RETURN_IF_ERROR(expect_multiplier(operand.scale() / y.scale()));
    rank = std::max(rank, operand.rank);
  }
  const Tensor& a = view.input(0);
  const Tensor& b = view.input(1);
  if (op == BinaryOp::kMul) EDGEQ_RETURN_IF_ERROR(expect_multiplier((a.scale() * b.scale()) / y.scale()));
  if (a.constant && b.constant) return bad_model("both of its operands are constants");
  int64_t dims[kMaxRank];
  for (int axis = 0; axis < rank; ++axis) {
    const int in_a = axis - (rank - a.rank);
    const int in_b = axis - (rank - b.rank);
    const int64_t size_a = in_a < 0 ? 1 : a.dims[in_a];
    const int64_t size_b = in_b < 0 ? 1 : b.dims[in_b];
    if (size_a != size_b && size_a != 1 && size_b != 1) {
      return bad_model("shapes %s and %s do not broadcast", shape_text(a).c_str(), shape_text(b).c_str());
    }
    dims[axis] = size_a == 1 ? size_b : size_a;
  }
  // The batch must stay axis 0: an activation of lower rank would put it elsewhere.
  for (const Tensor* operand : {&a, &b}) {
    const bool aligned = operand->constant ? operand->rank < rank || rank == 0 || operand->dims[0] == 1
                                           : operand->rank == rank;
    if (!aligned) {
      return bad_model("shapes %s and %s do not broadcast with the batch as axis 0", shape_text(a).c_str(),
                       shape_text(b).c_str());
    }
  }
  return expect_output_shape(view, dims, rank);
}

Result<std::unique_ptr<Step>> prepare_binary(const Lowered& lowered, BinaryOp op, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& y = view.output();
  const int rank = y.rank;
  auto step = std::make_unique<BinaryStep>();
  step->variant = select_binary(op, target.isas);
  const Tensor* operand[3] = {&view.input(0), &view.input(1), &y};
  int64_t strides[3][kMaxRank];
  for (int i = 0; i < 3; ++i) {
    const Tensor& tensor = *operand[i];
    int64_t pixel_stride = i == 2 ? lowered.out_stride : lowered.in_stride[i];
    if (tensor.constant) {
      pixel_stride = tensor.channels();
      EDGEQ_RETURN_IF_ERROR(
          allocate(step->constant[i], static_cast<uint64_t>(tensor.elements), "a constant", *target.budget));
      const WeightView codes{tensor.data, tensor.type == DataType::kInt4 ? 4 : 8};
      for (int64_t e = 0; e < tensor.elements; ++e) {
        step->constant[i].data()[e] = static_cast<uint8_t>(act_from_code(codes.at(static_cast<size_t>(e))));
      }
    }
    broadcast_strides(tensor, pixel_stride, y, strides[i]);
    step->image_stride[i] = tensor.constant ? 0 : tensor.pixels() * pixel_stride;
  }
  // One image's axes, innermost last; neighbours that are one run in all three operands become one axis.
  std::vector<Loop> loops;
  for (int axis = 1; axis < rank; ++axis) {
    Loop loop = {y.dims[axis], {strides[0][axis], strides[1][axis], strides[2][axis]}};
    const bool last = axis == rank - 1;
    if (loop.size == 1 && !last) continue;
    if (!loops.empty()) {
      const Loop& previous = loops.back();
      bool joined = true;
      for (int i = 0; i < 3; ++i) joined &= previous.stride[i] == loop.stride[i] * loop.size;
      if (joined) {
        loop.size *= previous.size;
        loops.pop_back();
      }
    }
    loops.push_back(loop);
  }
  const Loop inner = loops.empty() ? Loop{1, {0, 0, 0}} : loops.back();
  if (!loops.empty()) loops.pop_back();
  if (!loops.empty()) {
    step->rows = loops.back();
    loops.pop_back();
  }
  step->outer = loops;
  for (const Loop& loop : step->outer) step->outer_size *= loop.size;
  if (step->outer_size * step->rows.size == 1) step->run_length = inner.size;
  BinaryParams& params = step->params;
  params.channels = static_cast<size_t>(inner.size);
  params.a_row_stride = step->rows.stride[0];
  params.b_row_stride = step->rows.stride[1];
  params.dst_row_stride = step->rows.stride[2];
  params.a_step = inner.stride[0] != 0 ? 1 : 0;
  params.b_step = inner.stride[1] != 0 ? 1 : 0;
  params.zp_a = operand[0]->zero_act();
  params.zp_b = operand[1]->zero_act();
  if (op == BinaryOp::kMul) {
    params.multiplier_a = (operand[0]->scale() * operand[1]->scale()) / y.scale();
  } else {
    params.multiplier_a = operand[0]->scale() / y.scale();
    params.multiplier_b = operand[1]->scale() / y.scale();
  }
  params.range = output_range(y, view.attribute(0), view.attribute(1));
  if (lowered.table != nullptr) {
    step->lut = select_lut(target.isas);
    table_to_act(view.model.tensors[lowered.table->inputs[1]].data, reinterpret_cast<uint8_t*>(step->table));
  }
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.work = y.elements;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace edgeq
