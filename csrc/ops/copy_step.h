#ifndef EDGEQ_OPS_COPY_STEP_H_
#define EDGEQ_OPS_COPY_STEP_H_

#include <memory>
#include <vector>

#include "ops/op.h"

namespace edgeq {

/// One strided copy inside an image; sizes and byte strides of each axis, outermost first.
struct StridedCopy {
  struct Axis {
    int64_t size;
    int64_t src_stride;
    int64_t dst_stride;
  };
  int input = 0;
  std::vector<Axis> axes;
  int64_t src_offset = 0;
  int64_t dst_offset = 0;
  int64_t src_image_stride = 0;
  int64_t dst_image_stride = 0;
};

/// Byte strides of a tensor's axes behind the batch, its pixels `pixel_stride` bytes apart.
std::vector<int64_t> axis_strides(const Tensor& tensor, int64_t pixel_stride);

/// A step that makes these copies (elements of `element_size` bytes, whose axes have that size as unit).
std::unique_ptr<Step> make_copy_step(std::vector<StridedCopy> copies, int64_t element_size, int64_t elements,
                                     Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_COPY_STEP_H_
