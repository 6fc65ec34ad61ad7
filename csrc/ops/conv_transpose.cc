#include <algorithm>
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/pack.h"
#include "ops/check.h"
#include "ops/epilogue.h"
#include "ops/window.h"

// Transposed convolution. Output pixels with the same (oy mod stride, ox mod stride), a phase, all use the
// same taps of the kernel; so that every phase is an ordinary convolution with stride 1 over the input:
//
//   y(oy, ox) = sum over the taps ky, kx with (oy + top - ky * dilation) divisible by the stride of
//               x((oy + top - ky * dilation) / stride, ...) * w(ky, kx)
//
// Each output row takes one matrix product a phase of its columns, written with a pixel stride of stride_w.

namespace edgeq {
namespace {

enum Attribute {
  kStrideH,
  kStrideW,
  kTop,
  kLeft,
  kBottom,
  kRight,
  kDilationH,
  kDilationW,
  kGroups,
  kOutPadH,
  kOutPadW,
  kLo,
  kHi
};
constexpr int kAttributes = 13;
constexpr int32_t kLimit = 1 << 24;

Window window_of(const NodeView& view) {
  Window window;
  window.kernel_h = view.input(1).dims[1];
  window.kernel_w = view.input(1).dims[2];
  window.stride_h = view.attribute(kStrideH);
  window.stride_w = view.attribute(kStrideW);
  window.pad_top = view.attribute(kTop);
  window.pad_left = view.attribute(kLeft);
  window.pad_bottom = view.attribute(kBottom);
  window.pad_right = view.attribute(kRight);
  window.dilation_h = view.attribute(kDilationH);
  window.dilation_w = view.attribute(kDilationW);
  return window;
}

/// One axis: each tap belongs to the one phase whose positions it reaches, and reads the input `offset`
/// positions from the number of the output within its phase.
struct Axis {
  struct Tap {
    int64_t phase;
    int64_t offset;
  };
  std::vector<Tap> taps;
  int64_t phases = 1;
  int64_t before = 0;  // padding that the input needs for all of them
  int64_t after = 0;

  /// The taps of a phase, in order.
  std::vector<int64_t> of(int64_t phase) const {
    std::vector<int64_t> found;
    for (size_t tap = 0; tap < taps.size(); ++tap) {
      if (taps[tap].phase == phase) found.push_back(static_cast<int64_t>(tap));
    }
    return found;
  }
};

Axis axis_of(int64_t size, int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  Axis axis;
  axis.phases = std::min(stride, outputs);
  for (int64_t tap = 0; tap < kernel; ++tap) {
    const int64_t shift = tap * dilation - pad;
    const int64_t phase = (shift % stride + stride) % stride;
    const int64_t offset = (phase - shift) / stride;
    axis.taps.push_back({phase, offset});
    if (phase >= outputs) continue;
    const int64_t count = (outputs - phase + stride - 1) / stride;
    axis.before = std::max(axis.before, -offset);
    axis.after = std::max(axis.after, offset + count - size);
  }
  return axis;
}

Status check(const NodeView& view) {
  EDGEQ_RETURN_IF_ERROR(expect_inputs(view, 2, 3));
  EDGEQ_RETURN_IF_ERROR(expect_attributes(view, kAttributes));
  const Tensor& x = view.input(0);
  const Tensor& w = view.input(1);
  const Tensor& y = view.output();
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(x, "x"));
  EDGEQ_RETURN_IF_ERROR(expect_quantized_activation(y, "the output"));
  EDGEQ_RETURN_IF_ERROR(expect_weights(view, 4));
  if (x.rank != 4) return bad_model("its input must have rank 4, not %d", x.rank);
  const int64_t groups = view.attribute(kGroups);
  if (groups < 1 || w.dims[3] * groups != x.dims[3] || w.dims[0] % groups != 0) {
    return bad_model("weights %s in %lld groups do not fit %d input channels", shape_text(w).c_str(),
                     static_cast<long long>(groups), x.dims[3]);
  }
  for (int i = 0; i < kLo; ++i) {
    const bool may_be_zero = (i >= kTop && i <= kRight) || i == kOutPadH || i == kOutPadW;
    const int32_t value = view.attribute(i);
    if (value < (may_be_zero ? 0 : 1) || value > kLimit) {
      return bad_model("attribute %d is %d, out of range", i, value);
    }
  }
  EDGEQ_RETURN_IF_ERROR(expect_code_range(y, view.attribute(kLo), view.attribute(kHi)));
  const Window window = window_of(view);
  const int64_t out_h = (x.dims[1] - 1) * window.stride_h + window.span_h() - window.pad_top -
                        window.pad_bottom + view.attribute(kOutPadH);
  const int64_t out_w = (x.dims[2] - 1) * window.stride_w + window.span_w() - window.pad_left -
                        window.pad_right + view.attribute(kOutPadW);
  EDGEQ_RETURN_IF_ERROR(expect_output_shape(view, {1, out_h, out_w, w.dims[0]}));
  const Axis rows =
      axis_of(x.dims[1], out_h, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top);
  const Axis columns =
      axis_of(x.dims[2], out_w, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left);
  Window padded;
  padded.pad_top = rows.before;
  padded.pad_bottom = rows.after;
  padded.pad_left = columns.before;
  padded.pad_right = columns.after;
  return check_window(padded, x.dims[1], x.dims[2]);
}

size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

class ConvTransposeStep final : public Step {
 public:
  struct Phase {
    std::vector<int32_t> tap_index;  // empty: no tap reaches it, the output is the bias
    std::vector<size_t> packed;      // offset in `packed`, a group
  };

  const GemmVariant* variant = nullptr;
  Epilogue epilogue;
  int residual_input = -1;
  bool large_scales = true;
  AlignedBuffer packed;
  AlignedBuffer zero_row;
  std::shared_ptr<const PixelMap> map;
  std::vector<int32_t> iota;
  std::vector<Phase> phases;  // [stride_h][stride_w]
  int64_t phases_h = 1, phases_w = 1, stride_h = 1, stride_w = 1;
  int64_t groups = 1, n = 1, k = 1, panels = 1;
  int64_t padded_w = 1, out_h = 1, out_w = 1;
  int64_t image_stride = 0, out_stride = 0;
  size_t scratch = 0;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * out_h;
    work.columns = groups * panels;
    work.cost = batch * info.macs;
    return work;
  }

  size_t scratch_bytes() const override { return scratch; }

  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch_memory) const override {
    GemmParams params;
    params.n = n;
    params.k = k;
    params.lhs.zero_row = reinterpret_cast<const act_t*>(zero_row.data());
    params.dst_row_stride = stride_w * out_stride;
    params.range = epilogue.range;
    params.table = epilogue.has_table ? epilogue.table : nullptr;
    params.residual = epilogue.residual;
    params.residual.row_stride = stride_w * epilogue.residual_stride;
    params.large_scales = large_scales;
    params.scratch = scratch_memory;
    for (int64_t row = range.row_begin; row < range.row_end; ++row) {
      const int64_t image = row / out_h;
      const int64_t y = row % out_h;
      for (int64_t phase_w = 0; phase_w < phases_w; ++phase_w) {
        const Phase& phase = phases[y % stride_h * phases_w + phase_w];
        params.m = (out_w - phase_w + stride_w - 1) / stride_w;
        for (int64_t column = range.column_begin; column < range.column_end;) {
          const int64_t group = column / panels;
          const int64_t panel = column % panels;
          const int64_t panel_end = std::min(panels, panel + range.column_end - column);
          column += panel_end - panel;
          if (phase.tap_index.empty()) {
            params.taps = 1;
            params.lhs.pixel_offset = nullptr;
            params.lhs.base = params.lhs.zero_row;
            params.lhs.row_stride = 0;
          } else {
            params.taps = phase.tap_index.size();
            params.lhs.pixel_offset = map->pixel_offset.data();
            params.lhs.row_index = iota.data() + y / stride_h * padded_w;
            params.lhs.tap_index = phase.tap_index.data();
            params.lhs.base = reinterpret_cast<const act_t*>(io.in[0]) + image * image_stride + group * k;
          }
          params.packed = packed.data() + phase.packed[group];
          const int64_t pixel = row * out_w + phase_w;
          params.dst = reinterpret_cast<act_t*>(io.out) + pixel * out_stride + group * n;
          if (residual_input >= 0) {
            params.residual.src = reinterpret_cast<const act_t*>(io.in[residual_input]) +
                                  pixel * epilogue.residual_stride + group * n;
          }
          variant->run(params, 0, params.m, panel, panel_end);
        }
      }
    }
  }
};

Fusions fusions(const NodeView&) { return Fusions{true, true, false}; }

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = view.input(0);
  const Tensor& w = view.input(1);
  const Tensor& y = view.output();
  const Window window = window_of(view);
  auto step = std::make_unique<ConvTransposeStep>();
  step->epilogue = make_epilogue(lowered, view.attribute(kLo), view.attribute(kHi));
  if (step->epilogue.has_residual) step->residual_input = static_cast<int>(lowered.in_stride.size()) - 1;
  step->out_h = y.dims[1];
  step->out_w = y.dims[2];
  step->stride_h = window.stride_h;
  step->stride_w = window.stride_w;
  step->groups = view.attribute(kGroups);
  step->n = w.dims[0] / step->groups;
  step->k = w.dims[3];
  step->image_stride = x.pixels() * lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  const Axis rows =
      axis_of(x.dims[1], step->out_h, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top);
  const Axis columns =
      axis_of(x.dims[2], step->out_w, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left);
  step->phases_h = rows.phases;
  step->phases_w = columns.phases;
  const uint64_t phase_count = static_cast<uint64_t>(rows.phases) * static_cast<uint64_t>(columns.phases);
  EDGEQ_RETURN_IF_ERROR(target.budget->take(
      phase_count * (sizeof(ConvTransposeStep::Phase) + sizeof(size_t) * static_cast<size_t>(step->groups)),
      "the phases of a transposed convolution"));
  std::vector<std::vector<int64_t>> row_taps, column_taps;
  for (int64_t phase = 0; phase < rows.phases; ++phase) row_taps.push_back(rows.of(phase));
  for (int64_t phase = 0; phase < columns.phases; ++phase) column_taps.push_back(columns.of(phase));
  Window padded;
  padded.pad_top = rows.before;
  padded.pad_bottom = rows.after;
  padded.pad_left = columns.before;
  padded.pad_right = columns.after;
  step->padded_w = padded.padded_w(x.dims[2]);
  auto map = pixel_map(padded, x.dims[1], x.dims[2], lowered.in_stride[0], target);
  EDGEQ_RETURN_IF_ERROR(map.status());
  step->map = std::move(map).value();
  const size_t indices = static_cast<size_t>(((step->out_h - 1) / window.stride_h + 1) * step->padded_w +
                                             (step->out_w - 1) / window.stride_w + 1);
  EDGEQ_RETURN_IF_ERROR(target.budget->take(4 * indices, "a map of pixels"));
  step->iota.resize(indices);
  for (size_t i = 0; i < indices; ++i) step->iota[i] = static_cast<int32_t>(i);

  size_t most_taps = 1;
  for (const auto& row : row_taps) {
    for (const auto& column : column_taps) most_taps = std::max(most_taps, row.size() * column.size());
  }
  const int bits = w.type == DataType::kInt4 ? 4 : 8;
  const size_t n = static_cast<size_t>(step->n);
  const size_t k = static_cast<size_t>(step->k);
  const size_t m = static_cast<size_t>((step->out_w + window.stride_w - 1) / window.stride_w);
  const GemmShape shape = {m, n, k, most_taps, bits, false};
  const GemmShape direct = {m, n, k, 1, bits, true};
  step->variant = select_gemm(shape, target.isas);
  step->panels = static_cast<int64_t>(gemm_panels(*step->variant, n));
  step->scratch = std::max(step->variant->scratch_bytes(shape), step->variant->scratch_bytes(direct));
  const std::vector<float> multipliers = output_multipliers(x, w, y, w.dims[0]);
  step->large_scales = any_large_scale(multipliers.data(), multipliers.size());
  const int32_t* bias = view.has_input(2) ? reinterpret_cast<const int32_t*>(view.input(2).data) : nullptr;

  size_t total = 0;
  for (const auto& row : row_taps) {
    for (const auto& column : column_taps) {
      ConvTransposeStep::Phase phase;
      for (int64_t tap_y : row) {
        for (int64_t tap_x : column) {
          phase.tap_index.push_back(
              static_cast<int32_t>((rows.taps[tap_y].offset + rows.before) * step->padded_w +
                                   columns.taps[tap_x].offset + columns.before));
        }
      }
      const size_t taps = std::max<size_t>(1, phase.tap_index.size());
      for (int64_t group = 0; group < step->groups; ++group) {
        phase.packed.push_back(total);
        total += align64(gemm_packed_bytes(*step->variant, n, k, taps));
      }
      step->phases.push_back(std::move(phase));
    }
  }
  EDGEQ_RETURN_IF_ERROR(allocate(step->packed, total, "the packed weights", *target.budget));
  EDGEQ_RETURN_IF_ERROR(allocate(step->zero_row, k, "a row of padding", *target.budget));
  std::memset(step->zero_row.data(), static_cast<uint8_t>(x.zero_act()), k);

  // The weights of one phase and group, gathered into the file's own packing.
  const WeightView weights{w.data, bits};
  std::vector<uint8_t> gathered;
  for (int64_t phase_h = 0; phase_h < step->phases_h; ++phase_h) {
    for (int64_t phase_w = 0; phase_w < step->phases_w; ++phase_w) {
      const auto& row = row_taps[phase_h];
      const auto& column = column_taps[phase_w];
      const auto& phase = step->phases[phase_h * step->phases_w + phase_w];
      const size_t taps = std::max<size_t>(1, phase.tap_index.size());
      for (int64_t group = 0; group < step->groups; ++group) {
        gathered.assign(bits == 4 ? int4_bytes(n * taps * k) : n * taps * k, 0);
        size_t at = 0;
        for (size_t o = 0; o < n; ++o) {
          for (int64_t tap_y : row) {
            for (int64_t tap_x : column) {
              const size_t from = (((group * n + o) * window.kernel_h + tap_y) * window.kernel_w + tap_x) * k;
              for (size_t i = 0; i < k; ++i, ++at) {
                const uint8_t code = static_cast<uint8_t>(weights.at(from + i));
                if (bits == 8) {
                  gathered[at] = code;
                } else {
                  gathered[at / 2] |= static_cast<uint8_t>((code & 0x0F) << (at % 2 * 4));
                }
              }
            }
          }
        }
        const int64_t first = group * step->n;
        gemm_pack(*step->variant, n, k, taps, WeightView{gathered.data(), bits},
                  bias == nullptr ? nullptr : bias + first, multipliers.data() + first, x.zero_act(),
                  step->packed.data() + phase.packed[group]);
      }
    }
  }
  target.packed(w, static_cast<size_t>(w.elements));
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.weight_bits = bits;
  step->info.bytes_packed = static_cast<int64_t>(total);
  step->info.macs = x.pixels() * w.elements;
  step->info.work = step->info.macs + y.elements * step->k;
  return std::unique_ptr<Step>(std::move(step));
}

}  // namespace

extern const OpDef k_op_conv_transpose;
const OpDef k_op_conv_transpose = {2, "conv_transpose", check, fusions, prepare};

}  // namespace edgeq
