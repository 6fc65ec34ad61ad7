#include "ops/gemm_step.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/pack.h"
#include "kernels/lut/lut.h"
#include "ops/row_step.h"
#include "ops/tuning.h"

namespace edgeq {
namespace {

size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

class GemmStep final : public RowStep {
 public:
  GemmGeometry geometry;
  const GemmVariant* variant = nullptr;
  const LutVariant* lut = nullptr;  // looks the codes up in the epilogue's table; null: the kernel does
  Epilogue epilogue;
  bool large_scales = true;
  AlignedBuffer packed;
  size_t packed_stride = 0;  // from group to group
  AlignedBuffer zero_row;
  int64_t panels = 1;  // a group
  size_t kernel_scratch = 0;
  int64_t patch_rows = 0;  // windows that are gathered at a time
  size_t patch_bytes = 0;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * geometry.m;
    work.row_grain = variant->mr;
    work.columns = geometry.groups * panels;
    work.cost = batch * info.macs;
    return work;
  }

  size_t scratch_bytes() const override { return kernel_scratch + patch_bytes; }

  /// Rows of the work are rows of the product.
  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch) const override {
    const uint8_t* operand = residual_input < 0 ? nullptr : io.in[residual_input];
    // Without a map the rows of all images follow each other: one product over the whole batch.
    const int64_t rows_a_call = direct() ? io.batch * geometry.m : geometry.m;
    const int64_t image_bytes = direct() ? 0 : height * in_row_bytes();
    for (int64_t row = range.row_begin; row < range.row_end;) {
      const int64_t image = row / rows_a_call;
      Piece piece;
      piece.first = row % rows_a_call;
      piece.count = std::min(rows_a_call - piece.first, range.row_end - row);
      piece.x = io.in[0] + image * image_bytes + (direct() ? piece.first * in_stride : 0);
      piece.y = io.out + row * out_stride;
      piece.residual = operand == nullptr ? nullptr : operand + row * residual_stride;
      run_piece(piece, range.column_begin, range.column_end, scratch);
      row += piece.count;
    }
  }

  const RowStep* row_step() const override { return geometry.height > 0 ? this : nullptr; }
  bool streams() const override { return direct(); }

  void run_rows(const RowPlace& in, const RowPlace& out, const uint8_t* residual, RowRange rows,
                uint8_t* scratch) const override {
    for (int64_t first = rows.begin; first < rows.end;) {
      int64_t count = out.together(first, rows.end - first);
      if (direct()) count = in.together(first, count);
      Piece piece;
      piece.first = first * out_w;
      piece.count = count * out_w;
      piece.x = direct() ? in.row(first) : in.base;
      piece.y = out.row(first);
      piece.residual = residual == nullptr ? nullptr : residual + piece.first * residual_stride;
      run_piece(piece, 0, geometry.groups * panels, scratch);
      first += count;
    }
  }

 private:
  /// Rows [first, first + count) of the product, with the addresses of what they read and write.
  struct Piece {
    const uint8_t* x = nullptr;  // direct: row `first`; else the image
    uint8_t* y = nullptr;
    const uint8_t* residual = nullptr;
    int64_t first = 0;
    int64_t count = 0;
  };

  /// Whether row i of the left-hand side is pixel i.
  bool direct() const { return !geometry.map && !geometry.patches; }

  void run_piece(const Piece& piece, int64_t column_begin, int64_t column_end, uint8_t* scratch) const {
    GemmParams params;
    params.m = piece.count;
    params.n = geometry.n;
    params.k = geometry.k;
    params.taps = geometry.taps;
    params.lhs.row_stride = in_stride;
    params.dst_row_stride = out_stride;
    params.range = epilogue.range;
    params.table = epilogue.has_table && lut == nullptr ? epilogue.table : nullptr;
    params.residual = epilogue.residual;
    params.residual.row_stride = residual_stride;
    params.large_scales = large_scales;
    params.scratch = scratch;
    if (geometry.patches) {
      run_patches(piece, params, column_begin, column_end);
      return;
    }
    if (geometry.map) {
      params.lhs.pixel_offset = geometry.map->pixel_offset.data();
      params.lhs.row_index = geometry.map->row_index.data() + piece.first;
      params.lhs.tap_index = geometry.map->tap_index.data();
      params.lhs.zero_row = reinterpret_cast<const act_t*>(zero_row.data());
    }
    for (int64_t column = column_begin; column < column_end;) {
      const int64_t group = column / panels;
      const int64_t panel = column % panels;
      const int64_t panel_end = std::min(panels, panel + column_end - column);
      params.packed = packed.data() + group * packed_stride;
      params.lhs.base = reinterpret_cast<const act_t*>(piece.x) + group * geometry.k;
      params.dst = reinterpret_cast<act_t*>(piece.y) + group * geometry.n;
      if (piece.residual != nullptr) {
        params.residual.src = reinterpret_cast<const act_t*>(piece.residual) + group * geometry.n;
      }
      variant->run(params, 0, piece.count, panel, panel_end);
      look_up(params, panel, panel_end);
      column += panel_end - panel;
    }
  }

  /// Applies the table to what the kernel has just written.
  void look_up(const GemmParams& params, int64_t panel_begin, int64_t panel_end) const {
    if (lut == nullptr) return;
    const size_t begin = static_cast<size_t>(panel_begin * variant->nr);
    const size_t end = std::min(params.n, static_cast<size_t>(panel_end * variant->nr));
    LutParams codes;
    codes.rows = params.m;
    codes.channels = end - begin;
    codes.dst = reinterpret_cast<uint8_t*>(params.dst) + begin;
    codes.dst_row_stride = params.dst_row_stride;
    codes.src = codes.dst;
    codes.src_row_stride = codes.dst_row_stride;
    codes.table = reinterpret_cast<const uint8_t*>(epilogue.table);
    lut->run(codes);
  }

  /// Gathers some windows, which then lie in the first-level cache, and multiplies them.
  void run_patches(const Piece& piece, GemmParams& params, int64_t column_begin, int64_t column_end) const {
    const act_t* zeros = reinterpret_cast<const act_t*>(zero_row.data());
    act_t* gathered = reinterpret_cast<act_t*>(params.scratch + kernel_scratch);
    params.packed = packed.data();
    params.lhs.base = gathered;
    params.lhs.row_stride = geometry.patches->stride();
    for (int64_t done = 0; done < piece.count;) {
      const int64_t count = std::min(patch_rows, piece.count - done);
      gather_patches(*geometry.patches, reinterpret_cast<const act_t*>(piece.x), zeros, piece.first + done,
                     count, gathered);
      params.m = count;
      params.dst = reinterpret_cast<act_t*>(piece.y) + done * out_stride;
      if (piece.residual != nullptr) {
        params.residual.src = reinterpret_cast<const act_t*>(piece.residual) + done * residual_stride;
      }
      variant->run(params, 0, count, column_begin, column_end);
      look_up(params, column_begin, column_end);
      done += count;
    }
  }
};

std::string key_of(const GemmShape& shape) {
  return "gemm w" + std::to_string(shape.weight_bits) + " m" + std::to_string(shape.m) + " n" +
         std::to_string(shape.n) + " k" + std::to_string(shape.k) + " taps" + std::to_string(shape.taps) +
         (shape.direct ? "" : " mapped");
}

}  // namespace

Result<std::unique_ptr<Step>> prepare_gemm(const Lowered& lowered, const GemmGeometry& geometry,
                                           const Epilogue& epilogue, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& w = view.input(1);
  auto step = std::make_unique<GemmStep>();
  step->geometry = geometry;
  step->epilogue = epilogue;
  // A pass over codes that are still in a cache costs less than a table in the kernel's epilogue, which would
  // need the byte permutes of another level, or many shuffles. An addition after the table stays in the
  // epilogue, and keeps the table there.
  if (epilogue.has_table && !epilogue.has_residual) step->lut = select_lut(target.isas);
  step->in_stride = lowered.in_stride[0];
  step->out_stride = lowered.out_stride;
  step->residual_stride = epilogue.residual_stride;
  if (geometry.height > 0) {
    step->window = geometry.window;
    step->height = geometry.height;
    step->width = geometry.width;
    step->out_h = geometry.window.out_h(geometry.height);
    step->out_w = geometry.window.out_w(geometry.width);
  }
  if (epilogue.has_residual) step->residual_input = static_cast<int>(lowered.in_stride.size()) - 1;
  const int bits = w.type == DataType::kInt4 ? 4 : 8;
  const bool direct = geometry.map == nullptr;
  const GemmShape shape = {static_cast<size_t>(geometry.m),
                           static_cast<size_t>(geometry.n),
                           static_cast<size_t>(geometry.k),
                           static_cast<size_t>(geometry.taps),
                           bits,
                           direct};
  step->variant = tuned(gemm_candidates(shape, target.isas), select_gemm(shape, target.isas), key_of(shape),
                        target, step->info);
  step->panels = static_cast<int64_t>(gemm_panels(*step->variant, shape.n));
  step->kernel_scratch = align64(step->variant->scratch_bytes(shape));
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
  step->large_scales = any_large_scale(multipliers.data(), multipliers.size());
  const int32_t* bias = view.has_input(2) ? reinterpret_cast<const int32_t*>(view.input(2).data) : nullptr;
  const WeightView weights{w.data, bits};
  // Some panels at a time: the file's pages go as the packed ones come, so that a large matrix is never in
  // memory twice.
  constexpr size_t kSliceBytes = Slab::kPopulated;
  const size_t nr = static_cast<size_t>(step->variant->nr);
  const size_t depth = shape.taps * shape.k;
  const size_t slice = std::max<size_t>(1, kSliceBytes / (nr * depth)) * nr;
  for (int64_t group = 0; group < geometry.groups; ++group) {
    uint8_t* packed = step->packed.data() + group * step->packed_stride;
    for (size_t column = 0; column < shape.n; column += slice) {
      const size_t first = static_cast<size_t>(group) * shape.n + column;
      const size_t count = std::min(slice, shape.n - column);
      const size_t slice_bytes = gemm_packed_bytes(*step->variant, count, shape.k, shape.taps);
      if (slice_bytes < bytes) populate(packed, slice_bytes);
      gemm_pack(*step->variant, count, shape.k, shape.taps, weights.from(first * depth),
                bias == nullptr ? nullptr : bias + first, multipliers.data() + first, lowered.x->zero_act(),
                packed);
      packed += slice_bytes;
      target.packed(w, (first + count) * depth);
    }
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
