#include "ops/check.h"
#include "ops/depthwise_step.h"
#include "ops/gemm_step.h"
#include "ops/phase_step.h"
#include "ops/window.h"
#include "ops/winograd_step.h"

// Convolution: one filter a channel goes to the depthwise family, 3x3 windows and large ones of stride 2 over
// few channels to the Winograd family where that is faster; everything else is a matrix product (a group):
// straight on the pixels where the window is 1x1, on gathered windows where the channels are few, and through
// a map of the padded image elsewhere.

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
  kLo,
  kHi
};
constexpr int kAttributes = 11;

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
  const Window window = window_of(view);
  EDGEQ_RETURN_IF_ERROR(check_window(window, x.dims[1], x.dims[2]));
  EDGEQ_RETURN_IF_ERROR(expect_code_range(y, view.attribute(kLo), view.attribute(kHi)));
  return expect_output_shape(view, {1, window.out_h(x.dims[1]), window.out_w(x.dims[2]), w.dims[0]});
}

bool is_depthwise(const NodeView& view) {
  const Tensor& w = view.input(1);
  return w.dims[3] == 1 && view.attribute(kGroups) == w.dims[0];
}

Fusions fusions(const NodeView& view) {
  Fusions fusions;
  fusions.table = true;
  fusions.residual = !is_depthwise(view);
  fusions.pad = true;
  return fusions;
}

Result<std::unique_ptr<Step>> prepare(const Lowered& lowered, Target& target) {
  const NodeView& view = lowered.view;
  const Tensor& x = *lowered.x;
  const Tensor& w = view.input(1);
  Window window = window_of(view);
  window.pad_top += lowered.extra_pads[0];
  window.pad_left += lowered.extra_pads[1];
  window.pad_bottom += lowered.extra_pads[2];
  window.pad_right += lowered.extra_pads[3];
  const Epilogue epilogue = make_epilogue(lowered, view.attribute(kLo), view.attribute(kHi));
  if (is_depthwise(view)) return prepare_depthwise(lowered, window, epilogue, target);
  if (const WinogradVariant* variant = winograd_variant(window, x, w, target)) {
    return prepare_winograd(lowered, window, *variant, epilogue, target);
  }
  if (const PhaseVariant* variant = phase_variant_of(lowered, window, epilogue, target)) {
    return prepare_phases(lowered, window, *variant, epilogue, target);
  }
  GemmGeometry geometry;
  geometry.groups = view.attribute(kGroups);
  geometry.m = window.out_h(x.dims[1]) * window.out_w(x.dims[2]);
  geometry.n = w.dims[0] / geometry.groups;
  geometry.k = w.dims[3];
  geometry.taps = window.kernel_h * window.kernel_w;
  geometry.window = window;
  geometry.height = x.dims[1];
  geometry.width = x.dims[2];
  if (geometry.groups == 1 && gathers_patches(window, x.dims[3], lowered.in_stride[0])) {
    geometry.patches = PatchGeometry{window, x.dims[1], x.dims[2], x.dims[3]};
    geometry.k = geometry.patches->depth();
    geometry.taps = 1;
  } else if (!window.pointwise()) {
    auto map = pixel_map(window, x.dims[1], x.dims[2], lowered.in_stride[0], target);
    EDGEQ_RETURN_IF_ERROR(map.status());
    geometry.map = std::move(map).value();
  }
  return prepare_gemm(lowered, geometry, epilogue, target);
}

}  // namespace

extern const OpDef k_op_conv;
const OpDef k_op_conv = {1, "conv", check, fusions, prepare};

}  // namespace edgeq
