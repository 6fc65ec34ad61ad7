#include "kernels/depthwise/depthwise.h"

#include "kernels/depthwise/pack.h"
#include "kernels/variant.h"

namespace edgeq {

#define EDGEQ_DEPTHWISE_KERNEL(isa, name, bits, takes, layout, scratch) \
  void name(const DepthwiseParams&, size_t, size_t);
#include "kernels/depthwise/kernels.inc"
#undef EDGEQ_DEPTHWISE_KERNEL

namespace {

bool takes_all(const DepthwiseShape&) { return true; }

size_t no_scratch(const DepthwiseShape&, size_t, size_t, size_t) { return 0; }

[[maybe_unused]] size_t blocks_scratch(const DepthwiseShape& shape, size_t width_in, size_t width_out,
                                       size_t src_pixel_stride) {
  const size_t zero_row = DepthwiseBlockScratch(shape, width_out).zero_row;
  return zero_row + (width_in - 1) * src_pixel_stride + shape.channels + kReadSlack;
}

// The quad kernels keep the pointers of 16 input rows.
[[maybe_unused]] bool takes_quads(const DepthwiseShape& shape) { return shape.kernel_h <= 15; }

[[maybe_unused]] bool takes_quads8(const DepthwiseShape& shape) {
  return shape.channels >= kDepthwiseQuadBlock && shape.kernel_h == 3 && shape.kernel_w == 3 &&
         shape.dilation_h == 1 && shape.dilation_w == 1 && shape.stride_h == shape.stride_w &&
         shape.stride_w <= 2;
}

[[maybe_unused]] bool takes_planes(const DepthwiseShape& shape) {
  return (shape.kernel_w == 3 || shape.kernel_w == 5) && shape.kernel_h == shape.kernel_w &&
         shape.stride_h == 1 && shape.stride_w == 1 && shape.dilation_h == 1 && shape.dilation_w == 1;
}

// Of 4-bit weights: 5x5 filters of some channels. Products of bytes are as fast for 3x3 filters; the packed
// form takes 168 bytes a channel, and of many channels that is more than the faster products win.
[[maybe_unused]] bool takes_some_planes5(const DepthwiseShape& shape) {
  return shape.kernel_w == 5 && shape.channels <= 600 && takes_planes(shape);
}

size_t quads_scratch(const DepthwiseShape& shape, size_t width_in, size_t width_out, size_t src_pixel_stride,
                     size_t vector_bytes) {
  const DepthwiseScratch scratch(shape, DepthwiseQuads(shape), width_out, vector_bytes);
  return scratch.zero_row + (width_in - 1) * src_pixel_stride + kReadSlack;
}

[[maybe_unused]] size_t scratch64(const DepthwiseShape& shape, size_t width_in, size_t width_out,
                                  size_t src_pixel_stride) {
  return quads_scratch(shape, width_in, width_out, src_pixel_stride, 64);
}
[[maybe_unused]] size_t scratch32(const DepthwiseShape& shape, size_t width_in, size_t width_out,
                                  size_t src_pixel_stride) {
  return quads_scratch(shape, width_in, width_out, src_pixel_stride, 32);
}

[[maybe_unused]] size_t pairs_scratch(const DepthwiseShape& shape, size_t width_in, size_t,
                                      size_t src_pixel_stride) {
  // The row of padding stands behind the columns of two blocks.
  return 2 * DepthwisePairs(shape).scratch_bytes(shape) + (width_in - 1) * src_pixel_stride + shape.channels +
         kReadSlack;
}

[[maybe_unused]] size_t planes_scratch(const DepthwiseShape& shape, size_t width_in, size_t,
                                       size_t src_pixel_stride) {
  const DepthwisePlanes planes(shape.kernel_w);
  return planes.columns_bytes(shape.channels) + 2 * planes.sums_bytes(shape.channels) +
         (width_in - 1) * src_pixel_stride + shape.channels + kReadSlack;
}

constexpr DepthwiseVariant kVariants[] = {
#define EDGEQ_DEPTHWISE_KERNEL(isa, name, bits, takes, layout, scratch) \
  {#name, Isa::isa, bits, &takes, &name, &depthwise_##layout##_bytes, &depthwise_##layout##_pack, &scratch},
#include "kernels/depthwise/kernels.inc"
#undef EDGEQ_DEPTHWISE_KERNEL
};

constexpr size_t kVariantCount = sizeof kVariants / sizeof kVariants[0];

}  // namespace

std::vector<const DepthwiseVariant*> depthwise_variants(IsaSet isas) {
  return runnable(kVariants, kVariantCount, isas.with(Isa::kScalar));
}

std::vector<const DepthwiseVariant*> depthwise_candidates(const DepthwiseShape& shape, IsaSet isas) {
  std::vector<const DepthwiseVariant*> result;
  for (const DepthwiseVariant* variant : depthwise_variants(isas)) {
    if (variant->weight_bits != shape.weight_bits || !variant->takes(shape)) continue;
    if (variant->isa != Isa::kScalar || result.empty()) result.push_back(variant);
  }
  return result;
}

const DepthwiseVariant* select_depthwise(const DepthwiseShape& shape, IsaSet isas) {
  for (const DepthwiseVariant* variant : depthwise_variants(isas)) {
    if (variant->weight_bits == shape.weight_bits && variant->takes(shape)) return variant;
  }
  return nullptr;
}

}  // namespace edgeq
