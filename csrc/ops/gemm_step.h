#ifndef EDGEQ_OPS_GEMM_STEP_H_
#define EDGEQ_OPS_GEMM_STEP_H_

#include <memory>
#include <optional>

#include "ops/epilogue.h"
#include "ops/op.h"
#include "ops/patches.h"

namespace edgeq {

/// A matrix product (a group) per image: what convolutions and fully connected layers become.
struct GemmGeometry {
  int64_t groups = 1;
  int64_t m = 1;  // rows an image
  int64_t n = 1;  // output channels a group
  int64_t k = 1;  // input channels a group
  int64_t taps = 1;
  std::shared_ptr<const PixelMap> map;   // null: row i of the left-hand side is pixel i
  std::optional<PatchGeometry> patches;  // row i is window i of the image: k is their depth, one tap
  // A convolution's, for strips of rows; a height of 0: none.
  Window window;
  int64_t height = 0;
  int64_t width = 0;
};

/// Prepares it for the node's inputs x, w and optional bias: packs the weights [groups * n][taps][k].
Result<std::unique_ptr<Step>> prepare_gemm(const Lowered& lowered, const GemmGeometry& geometry,
                                           const Epilogue& epilogue, Target& target);

}  // namespace edgeq

#endif  // EDGEQ_OPS_GEMM_STEP_H_
