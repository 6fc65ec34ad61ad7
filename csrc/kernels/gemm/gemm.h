#ifndef EDGEQ_KERNELS_GEMM_GEMM_H_
#define EDGEQ_KERNELS_GEMM_GEMM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/act.h"
#include "base/cpu_features.h"
#include "base/requantize.h"

namespace edgeq {

/// Where row i of the left-hand side lies for tap t. Each row has `k` bytes; a kernel may read up to
/// kReadSlack bytes past the end of any row.
///
/// Direct (pixel_offset null; one tap): base + i * row_stride. 1x1 convolutions of stride 1, fully connected.
///
/// Indirect: o = pixel_offset[row_index[i] + tap_index[t]]; base + o, or zero_row when o is negative. A
/// convolution builds, once at load, the map of its padded input (height + pads) x (width + pads): the byte
/// offset of each pixel from the image's first, -1 in the padding. Then with Wp the padded width
///   row_index[oy * width_out + ox] = oy * stride_h * Wp + ox * stride_w
///   tap_index[ky * kernel_w + kx]  = ky * dilation_h * Wp + kx * dilation_w
/// Nothing in it depends on the address of the image, so that one map serves every batch and thread.
struct GemmLhs {
  const act_t* base = nullptr;
  ptrdiff_t row_stride = 0;
  const int32_t* pixel_offset = nullptr;
  const int32_t* row_index = nullptr;  // [m]
  const int32_t* tap_index = nullptr;  // [taps]
  const act_t* zero_row =
      nullptr;  // k bytes of the input's zero point, and kReadSlack more that are readable
};

/// Adds a second tensor to the (already requantized) result q: add_quantized(q, zp_acc, multiplier_acc,
/// src(i, j), zp_src, multiplier_src, range). `src` null: no addition.
struct GemmResidual {
  const act_t* src = nullptr;
  ptrdiff_t row_stride = 0;  // bytes from row i to i + 1
  int32_t zp_acc = 0;
  float multiplier_acc = 0.0f;
  int32_t zp_src = 0;
  float multiplier_src = 0.0f;
  OutputRange range = {0, 0, 0};
};

/// Computes, for i < m and j < n:
///
///   acc(i, j) = bias(j) + sum over t < taps, c < k of (lhs(t, i, c) - zp_lhs) * rhs(j, t, c)     (mod 2^32)
///   q         = requantize(acc(i, j), scale(j), range)
///   q         = table[q]                      if there is a table
///   dst(i, j) = residual addition of q        if there is one, else q
///
/// `packed` holds rhs, bias, scale and the zero-point term (gemm_pack); no weight equals -128 (W8) or -8
/// (W4). A grouped convolution is one call a group. Every address may be unaligned, except `packed` and
/// `scratch` (64 bytes). dst may be a channel slice of a wider tensor. dst must not overlap the inputs,
/// except that residual.src may be dst itself.
struct GemmParams {
  size_t m = 0;
  size_t n = 0;
  size_t k = 0;     // channels a tap
  size_t taps = 1;  // kernel_h * kernel_w
  GemmLhs lhs;
  const uint8_t* packed = nullptr;
  act_t* dst = nullptr;
  ptrdiff_t dst_row_stride = 0;  // bytes from row i to i + 1
  OutputRange range = {0, 0, 0};
  const act_t* table = nullptr;  // 256 entries, indexed by the act byte as unsigned
  GemmResidual residual;
  bool large_scales = true;    // any_large_scale; true is always right, and slower
  uint8_t* scratch = nullptr;  // scratch_bytes(shape) of the variant, one for each thread
};

/// Whether a scale's magnitude is 1 or more. Where none is, the clamp can wait until the codes are packed,
/// where it costs one instruction for four vectors: |acc| <= 2^31 and |scale| <= 1 - 2^-24 give
/// |product| < 2^31, which converts to an integer without overflow, and saturation and integer bounds commute
/// with rounding.
bool any_large_scale(const float* scale, size_t count);

/// What selection looks at.
struct GemmShape {
  size_t m;
  size_t n;
  size_t k;
  size_t taps;
  int weight_bits;  // 8 or 4
  bool direct;
};

/// How a variant wants its weights; pack.h draws it.
struct GemmVariant {
  const char* name;
  Isa isa;
  int mr;            // rows of the largest tile
  int nr;            // output channels of a full panel
  int kr;            // depth of one group: channels are padded with zero weights to whole groups
  int nr_step;       // the last panel is as wide as what is left, rounded up to this
  int weight_bits;   // 8 or 4
  size_t max_depth;  // taps * padded k must not be above this (0: no limit)

  /// Computes rows [row_begin, row_end) of panels [panel_begin, panel_end). Panel p is the output channels
  /// [p * nr, min(n, (p + 1) * nr)). Any split of rows and panels over calls gives the same bytes.
  void (*run)(const GemmParams& params, size_t row_begin, size_t row_end, size_t panel_begin,
              size_t panel_end);

  /// Bytes of scratch that one call needs (may be 0). Does not depend on m: a batch may come as one call.
  size_t (*scratch_bytes)(const GemmShape& shape);
};

/// All variants that `isas` can run, best first, of both weight widths.
std::vector<const GemmVariant*> gemm_variants(IsaSet isas);

/// The variant of that name that `isas` can run, or null: a choice that was measured, or is forced.
const GemmVariant* find_gemm(const char* name, IsaSet isas);

/// Whether the variant takes the shape: its weights' width, and a depth within its bounds.
bool gemm_takes(const GemmVariant& variant, const GemmShape& shape);

/// The variant that the cost model thinks fastest for this shape. Never null: the reference takes everything.
const GemmVariant* select_gemm(const GemmShape& shape, IsaSet isas);

/// The variants that take this shape, best level first: what a measurement may choose from. The scalar one
/// only where there is no other.
std::vector<const GemmVariant*> gemm_candidates(const GemmShape& shape, IsaSet isas);

/// Number of panels of n output channels.
static inline size_t gemm_panels(const GemmVariant& variant, size_t n) {
  const size_t nr = static_cast<size_t>(variant.nr);
  return (n + nr - 1) / nr;
}

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_GEMM_H_
