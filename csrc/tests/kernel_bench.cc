// Times the gemm and depthwise variants on shapes of real networks, beside the measured peak of the CPU's
// multiply-accumulate instruction. Usage: kernel_bench [substring of the variant or shape]. EDGEQ_MAX_ISA
// caps the variants. Correctness is kernel_test's.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernels/depthwise/depthwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/pack.h"
#include "kernels/peak/peak.h"
#include "kernels/winograd/winograd.h"
#include "tests/best_seconds.h"

namespace edgeq {
namespace {

void fill(uint8_t* bytes, size_t size) {
  uint32_t state = 1;
  for (size_t i = 0; i < size; ++i) {
    state = state * 1664525u + 1013904223u;
    bytes[i] = static_cast<uint8_t>(state >> 24);
  }
}

struct Conv {
  const char* name;
  size_t size;  // image height and width
  size_t in, out, kernel, stride;
};

struct Times {
  double seconds;
  double macs;
};

bool wanted(const char* filter, const char* shape, const char* variant) {
  return filter == nullptr || std::strstr(shape, filter) != nullptr ||
         std::strstr(variant, filter) != nullptr;
}

void report(const char* shape, const char* variant, Times times, double peak, bool selected) {
  const double rate = times.macs / times.seconds;
  std::printf("%-24s %-36s %9.2f us %8.1f GMAC/s %5.1f %%%s\n", shape, variant, times.seconds * 1e6,
              rate * 1e-9, 100.0 * rate / peak, selected ? "  <- selected" : "");
}

Times time_gemm(const GemmVariant& variant, const Conv& conv) {
  const size_t pad = conv.kernel / 2;
  const size_t size_out = (conv.size + 2 * pad - conv.kernel) / conv.stride + 1;
  const size_t width = conv.size + 2 * pad;
  const size_t taps = conv.kernel * conv.kernel;
  const bool direct = taps == 1 && conv.stride == 1;
  GemmParams p;
  p.m = size_out * size_out;
  p.n = conv.out;
  p.k = conv.in;
  p.taps = taps;
  AlignedBuffer src;
  AlignedBuffer dst;
  AlignedBuffer packed;
  AlignedBuffer scratch;
  AlignedBuffer zero;
  (void)src.allocate(conv.size * conv.size * conv.in);
  (void)dst.allocate(p.m * p.n);
  (void)packed.allocate(gemm_packed_bytes(variant, p.n, p.k, taps));
  (void)zero.allocate(p.k);
  const GemmShape shape{p.m, p.n, p.k, taps, variant.weight_bits, direct};
  (void)scratch.allocate(variant.scratch_bytes(shape));
  fill(src.data(), src.size());
  std::vector<uint8_t> weights(p.n * p.k * taps);
  fill(weights.data(), weights.size());
  const std::vector<float> scale(p.n, 1e-3f);
  gemm_pack(variant, p.n, p.k, taps, WeightView{weights.data(), variant.weight_bits}, nullptr, scale.data(),
            128, packed.data());
  std::vector<int32_t> pixel_offset(width * width, -1);
  std::vector<int32_t> row_index;
  std::vector<int32_t> tap_index;
  for (size_t y = 0; y < conv.size; ++y) {
    for (size_t x = 0; x < conv.size; ++x) {
      pixel_offset[(y + pad) * width + x + pad] = static_cast<int32_t>((y * conv.size + x) * conv.in);
    }
  }
  for (size_t y = 0; y < size_out; ++y) {
    for (size_t x = 0; x < size_out; ++x)
      row_index.push_back(static_cast<int32_t>((y * width + x) * conv.stride));
  }
  for (size_t t = 0; t < taps; ++t) {
    tap_index.push_back(static_cast<int32_t>(t / conv.kernel * width + t % conv.kernel));
  }
  p.lhs.base = reinterpret_cast<const act_t*>(src.data());
  p.lhs.row_stride = static_cast<ptrdiff_t>(conv.in);
  if (!direct) {
    p.lhs.pixel_offset = pixel_offset.data();
    p.lhs.row_index = row_index.data();
    p.lhs.tap_index = tap_index.data();
    p.lhs.zero_row = reinterpret_cast<const act_t*>(zero.data());
  }
  p.packed = packed.data();
  p.dst = reinterpret_cast<act_t*>(dst.data());
  p.dst_row_stride = static_cast<ptrdiff_t>(p.n);
  p.range = OutputRange{act_from_code(0), kActMin, kActMax};
  p.large_scales = any_large_scale(scale.data(), p.n);
  p.scratch = scratch.data();
  const size_t panels = gemm_panels(variant, p.n);
  const double seconds = best_seconds([&] { variant.run(p, 0, p.m, 0, panels); });
  return Times{seconds, static_cast<double>(p.m) * static_cast<double>(p.n * p.k * taps)};
}

Times time_depthwise(const DepthwiseVariant& variant, const Conv& conv) {
  const size_t pad = conv.kernel / 2;
  const size_t size_out = (conv.size + 2 * pad - conv.kernel) / conv.stride + 1;
  const DepthwiseShape shape{conv.in,     conv.kernel, conv.kernel, conv.stride,
                             conv.stride, 1,           1,           variant.weight_bits};
  AlignedBuffer src;
  AlignedBuffer dst;
  AlignedBuffer packed;
  AlignedBuffer zero;
  AlignedBuffer scratch;
  (void)src.allocate(conv.size * conv.size * conv.in);
  (void)dst.allocate(size_out * size_out * conv.in);
  (void)packed.allocate(variant.packed_bytes(shape));
  (void)zero.allocate(conv.in);
  (void)scratch.allocate(variant.scratch_bytes(shape, conv.size, size_out, conv.in));
  fill(src.data(), src.size());
  std::vector<uint8_t> weights(conv.in * conv.kernel * conv.kernel);
  fill(weights.data(), weights.size());
  const std::vector<float> scale(conv.in, 1e-3f);
  variant.pack(shape, WeightView{weights.data(), variant.weight_bits}, nullptr, scale.data(), 128,
               packed.data());
  std::vector<const act_t*> rows(conv.size + 2 * pad, nullptr);
  for (size_t y = 0; y < conv.size; ++y) {
    rows[y + pad] = reinterpret_cast<const act_t*>(src.data()) + y * conv.size * conv.in;
  }
  DepthwiseParams p;
  p.channels = conv.in;
  p.kernel_h = p.kernel_w = conv.kernel;
  p.stride_h = p.stride_w = conv.stride;
  p.width_in = conv.size;
  p.width_out = size_out;
  p.pad_left = pad;
  p.rows = rows.data();
  p.src_pixel_stride = static_cast<ptrdiff_t>(conv.in);
  p.zero_pixel = reinterpret_cast<const act_t*>(zero.data());
  p.packed = packed.data();
  p.dst = reinterpret_cast<act_t*>(dst.data());
  p.dst_pixel_stride = static_cast<ptrdiff_t>(conv.in);
  p.dst_row_stride = static_cast<ptrdiff_t>(conv.in * size_out);
  p.range = OutputRange{act_from_code(0), kActMin, kActMax};
  p.scratch = scratch.data();
  const double seconds = best_seconds([&] { variant.run(p, 0, size_out); });
  return Times{seconds, static_cast<double>(size_out * size_out * conv.in * conv.kernel * conv.kernel)};
}

Times time_winograd(const WinogradVariant& variant, const Conv& conv) {
  AlignedBuffer src;
  AlignedBuffer dst;
  AlignedBuffer packed;
  AlignedBuffer zero;
  AlignedBuffer scratch;
  (void)src.allocate(conv.size * conv.size * conv.in);
  (void)dst.allocate(conv.size * conv.size * conv.out);
  (void)packed.allocate(winograd_packed_bytes(variant, conv.out, conv.in));
  (void)zero.allocate(conv.in);
  (void)scratch.allocate(variant.scratch_bytes(conv.in, conv.out));
  fill(src.data(), src.size());
  std::vector<uint8_t> weights(conv.out * conv.in * 9);
  fill(weights.data(), weights.size());
  const std::vector<float> scale(conv.out, 1e-3f);
  winograd_pack(variant, conv.out, conv.in, WeightView{weights.data(), variant.weight_bits}, nullptr,
                scale.data(), 128, packed.data());
  std::vector<const act_t*> rows(conv.size + 2, nullptr);
  for (size_t y = 0; y < conv.size; ++y) {
    rows[y + 1] = reinterpret_cast<const act_t*>(src.data()) + y * conv.size * conv.in;
  }
  WinogradParams p;
  p.k = conv.in;
  p.n = conv.out;
  p.width_in = p.width_out = conv.size;
  p.pad_left = 1;
  p.rows = rows.data();
  p.src_pixel_stride = static_cast<ptrdiff_t>(conv.in);
  p.zero_pixel = reinterpret_cast<const act_t*>(zero.data());
  p.packed = packed.data();
  p.dst = reinterpret_cast<act_t*>(dst.data());
  p.dst_pixel_stride = static_cast<ptrdiff_t>(conv.out);
  p.dst_row_stride = static_cast<ptrdiff_t>(conv.out * conv.size);
  p.range = OutputRange{act_from_code(0), kActMin, kActMax};
  p.large_scales = any_large_scale(scale.data(), p.n);
  p.scratch = scratch.data();
  const size_t panels = winograd_panels(variant, p.n);
  const double seconds = best_seconds([&] { variant.run(p, 0, conv.size, 0, panels); });
  return Times{seconds, static_cast<double>(conv.size * conv.size) * static_cast<double>(9 * p.k * p.n)};
}

void bench(IsaSet isas, const char* filter) {
  double peak = 0.0;
  for (const PeakVariant* variant : peak_variants(isas)) {
    int32_t sink[16];
    PeakParams p;
    p.iterations = 2000;
    p.sink = sink;
    const double seconds = best_seconds([&] { variant->run(p); });
    const double rate = static_cast<double>(variant->macs * p.iterations) / seconds;
    if (peak == 0.0) peak = rate;
    std::printf("%-24s %8.1f GMAC/s\n", variant->name, rate * 1e-9);
  }
  const Conv convs[] = {
      {"conv3x3 16>16 @32", 32, 16, 16, 3, 1},     {"conv3x3 32>32 @16", 16, 32, 32, 3, 1},
      {"conv3x3 64>64 @8", 8, 64, 64, 3, 1},       {"conv3x3 128>32 @28", 28, 128, 32, 3, 1},
      {"conv3x3 192>384 @13", 13, 192, 384, 3, 1}, {"conv3x3 64>64 @56", 56, 64, 64, 3, 1},
      {"conv3x3 128>128 @28", 28, 128, 128, 3, 1}, {"conv3x3 256>256 @14", 14, 256, 256, 3, 1},
      {"conv3x3 512>512 @7", 7, 512, 512, 3, 1},   {"conv3x3s2 3>32 @224", 224, 3, 32, 3, 2},
      {"conv1x1 32>16 @112", 112, 32, 16, 1, 1},   {"conv1x1 96>24 @56", 56, 96, 24, 1, 1},
      {"conv1x1 24>144 @56", 56, 24, 144, 1, 1},   {"conv1x1 144>32 @28", 28, 144, 32, 1, 1},
      {"conv1x1 64>384 @14", 14, 64, 384, 1, 1},   {"conv1x1 256>64 @56", 56, 256, 64, 1, 1},
      {"conv1x1 960>320 @7", 7, 960, 320, 1, 1},   {"linear 1280>1000", 1, 1280, 1000, 1, 1},
      {"linear 4096>4096", 1, 4096, 4096, 1, 1},
  };
  for (const Conv& conv : convs) {
    const size_t size_out = (conv.size + 2 * (conv.kernel / 2) - conv.kernel) / conv.stride + 1;
    const bool direct = conv.kernel == 1;
    for (const GemmVariant* variant : gemm_variants(isas)) {
      if (!wanted(filter, conv.name, variant->name) || variant->isa == Isa::kScalar) continue;
      const GemmShape shape{size_out * size_out,  conv.out, conv.in, conv.kernel * conv.kernel,
                            variant->weight_bits, direct};
      report(conv.name, variant->name, time_gemm(*variant, conv), peak, select_gemm(shape, isas) == variant);
    }
    if (conv.kernel != 3 || conv.stride != 1) continue;
    for (const WinogradVariant* variant : winograd_variants(isas)) {
      if (!wanted(filter, conv.name, variant->name) || variant->isa == Isa::kScalar) continue;
      report(
          conv.name, variant->name, time_winograd(*variant, conv), peak,
          select_winograd({conv.size, conv.size, conv.in, conv.out, variant->weight_bits}, isas) == variant);
    }
  }
  const Conv depthwise[] = {
      {"dw3x3 32 @112", 112, 32, 32, 3, 1},    {"dw3x3s2 96 @112", 112, 96, 96, 3, 2},
      {"dw3x3 144 @56", 56, 144, 144, 3, 1},   {"dw3x3s2 144 @56", 56, 144, 144, 3, 2},
      {"dw3x3 192 @28", 28, 192, 192, 3, 1},   {"dw3x3 384 @14", 14, 384, 384, 3, 1},
      {"dw3x3 960 @7", 7, 960, 960, 3, 1},     {"dw5x5 240 @14", 14, 240, 240, 5, 1},
      {"dw5x5s2 240 @28", 28, 240, 240, 5, 2},
  };
  for (const Conv& conv : depthwise) {
    for (const DepthwiseVariant* variant : depthwise_variants(isas)) {
      const DepthwiseShape shape{conv.in,     conv.kernel, conv.kernel, conv.stride,
                                 conv.stride, 1,           1,           variant->weight_bits};
      if (!wanted(filter, conv.name, variant->name) || !variant->takes(shape)) continue;
      report(conv.name, variant->name, time_depthwise(*variant, conv), peak,
             select_depthwise(shape, isas) == variant);
    }
  }
}

}  // namespace
}  // namespace edgeq

int main(int argc, char** argv) {
  const auto isas = edgeq::usable_isas(std::getenv("EDGEQ_MAX_ISA"));
  if (!isas.ok()) {
    std::fprintf(stderr, "%s\n", isas.status().message().c_str());
    return 2;
  }
  edgeq::bench(isas.value(), argc > 1 ? argv[1] : nullptr);
  return 0;
}
