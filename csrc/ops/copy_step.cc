#include "ops/copy_step.h"

#include <algorithm>

#include "kernels/copy/copy.h"

namespace edgeq {
namespace {

class CopyStep final : public Step {
 public:
  const CopyVariant* variant = nullptr;
  std::vector<StridedCopy> copies;
  int64_t pieces = 1;  // an image; each copy's outermost axis is cut in proportion

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * pieces;
    work.cost = batch * info.work;
    return work;
  }

  void run(const StepIo& io, const WorkRange& range, uint8_t*) const override {
    for (int64_t row = range.row_begin; row < range.row_end;) {
      const int64_t image = row / pieces;
      const int64_t first = row % pieces;
      const int64_t count = std::min(pieces - first, range.row_end - row);
      for (const StridedCopy& copy : copies) {
        const int64_t size = copy.axes.front().size;
        run_copy(copy, io.in[copy.input] + image * copy.src_image_stride + copy.src_offset,
                 io.out + image * copy.dst_image_stride + copy.dst_offset, first * size / pieces,
                 (first + count) * size / pieces);
      }
      row += count;
    }
  }

 private:
  void run_copy(const StridedCopy& copy, const uint8_t* src, uint8_t* dst, int64_t begin, int64_t end) const {
    if (begin == end) return;
    CopyParams params;
    const auto& axes = copy.axes;
    // The innermost four axes are the kernel's; those outside of them are counted through here.
    const size_t inner = std::min<size_t>(4, axes.size());
    const size_t outer = axes.size() - inner;
    int64_t outer_count = 1;
    for (size_t axis = 0; axis < outer; ++axis) outer_count *= axis == 0 ? end - begin : axes[axis].size;
    for (size_t i = 0; i < inner; ++i) {
      const StridedCopy::Axis& axis = axes[outer + i];
      params.size[4 - inner + i] = static_cast<size_t>(axis.size);
      params.src_stride[4 - inner + i] = axis.src_stride;
      params.dst_stride[4 - inner + i] = axis.dst_stride;
    }
    if (outer == 0) params.size[4 - inner] = static_cast<size_t>(end - begin);
    src += begin * axes[0].src_stride;
    dst += begin * axes[0].dst_stride;
    for (int64_t index = 0; index < outer_count; ++index) {
      int64_t rest = index;
      params.src = src;
      params.dst = dst;
      for (size_t axis = outer; axis-- > 0;) {
        const int64_t size = axis == 0 ? end - begin : axes[axis].size;
        params.src += rest % size * axes[axis].src_stride;
        params.dst += rest % size * axes[axis].dst_stride;
        rest /= size;
      }
      variant->run(params);
    }
  }
};

/// Drops axes of one element and joins neighbours that are one run on both sides.
void simplify(std::vector<StridedCopy::Axis>& axes) {
  std::vector<StridedCopy::Axis> kept;
  for (StridedCopy::Axis axis : axes) {
    if (axis.size == 1) continue;
    if (!kept.empty() && kept.back().src_stride == axis.src_stride * axis.size &&
        kept.back().dst_stride == axis.dst_stride * axis.size) {
      axis.size *= kept.back().size;
      kept.pop_back();
    }
    kept.push_back(axis);
  }
  if (kept.empty()) kept.push_back({1, 1, 1});
  axes = std::move(kept);
}

}  // namespace

std::vector<int64_t> axis_strides(const Tensor& tensor, int64_t pixel_stride) {
  std::vector<int64_t> strides(std::max(0, tensor.rank - 1));
  int64_t stride = pixel_stride;
  for (int axis = tensor.rank - 1; axis >= 1; --axis) {
    if (axis == tensor.rank - 1) {
      strides[axis - 1] = tensor.element_size();
    } else {
      strides[axis - 1] = stride;
      stride *= tensor.dims[axis];
    }
  }
  return strides;
}

std::unique_ptr<Step> make_copy_step(std::vector<StridedCopy> copies, int64_t element_size, int64_t elements,
                                     Target& target) {
  auto step = std::make_unique<CopyStep>();
  step->variant = select_copy(target.isas);
  for (StridedCopy& copy : copies) {
    if (element_size > 1) copy.axes.push_back({element_size, 1, 1});
    simplify(copy.axes);
    step->pieces = std::max(step->pieces, copy.axes.front().size);
  }
  // A single long run is cut into pieces of a few KiB, not into bytes.
  constexpr int64_t kPieceBytes = 4096;
  if (step->pieces > 1) {
    int64_t bytes_a_piece = elements * element_size / step->pieces;
    bytes_a_piece = std::max<int64_t>(bytes_a_piece, 1);
    step->pieces = std::max<int64_t>(1, step->pieces / std::max<int64_t>(1, kPieceBytes / bytes_a_piece));
  }
  step->copies = std::move(copies);
  step->info.kernel = step->variant->name;
  step->info.isa = step->variant->isa;
  step->info.work = elements;
  return step;
}

}  // namespace edgeq
