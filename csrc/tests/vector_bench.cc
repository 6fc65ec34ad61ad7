// Times the vector kernels (everything but gemm and depthwise) on shapes of real networks, beside a copy of
// as many bytes by memcpy: what they read and write bounds them from below. Usage: vector_bench [substring of
// the variant or shape]. EDGEQ_MAX_ISA caps the variants. Correctness is kernel_test's.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernels/copy/copy.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/lut/lut.h"
#include "kernels/pool/pool.h"
#include "kernels/quantize/quantize.h"
#include "kernels/resize/resize.h"
#include "kernels/softmax/softmax.h"
#include "tests/best_seconds.h"

namespace edgeq {
namespace {

constexpr OutputRange kRange{act_from_code(3), kActMin, kActMax};

/// Bytes that are not all alike; the sources and destinations of every kernel.
struct Buffers {
  AlignedBuffer a, b, dst;

  Buffers(size_t a_bytes, size_t b_bytes, size_t dst_bytes) {
    (void)a.allocate(a_bytes);
    (void)b.allocate(b_bytes);
    (void)dst.allocate(dst_bytes);
    fill(a);
    fill(b);
  }
  const act_t* a_acts() const { return reinterpret_cast<const act_t*>(a.data()); }
  const act_t* b_acts() const { return reinterpret_cast<const act_t*>(b.data()); }
  act_t* dst_acts() { return reinterpret_cast<act_t*>(dst.data()); }

 private:
  static void fill(AlignedBuffer& buffer) {
    uint32_t state = 1;
    for (size_t i = 0; i < buffer.size(); ++i) {
      state = state * 1664525u + 1013904223u;
      buffer.data()[i] = static_cast<uint8_t>(state >> 24);
    }
  }
};

class Bench {
 public:
  Bench(IsaSet isas, const char* filter) : isas_(isas), filter_(filter) {}

  IsaSet isas() const { return isas_; }

  template <typename Call>
  void time(const std::string& shape, const char* variant, size_t bytes_in, size_t bytes_out, Call call) {
    const std::string where = shape + " " + variant;
    if (filter_ != nullptr && where.find(filter_) == std::string::npos) return;
    const double seconds = best_seconds(call);
    const double copy = copy_seconds(bytes_in, bytes_out);
    std::printf("%-30s %-28s %9.2f us %7.1f GB/s  memcpy %8.2f us %5.2f x\n", shape.c_str(), variant,
                seconds * 1e6, static_cast<double>(bytes_in + bytes_out) / seconds * 1e-9, copy * 1e6,
                seconds / copy);
    std::fflush(stdout);
  }

 private:
  /// Reads bytes_in and writes bytes_out at the speed of memcpy: the longer of the two.
  double copy_seconds(size_t bytes_in, size_t bytes_out) {
    const size_t bytes = (bytes_in + bytes_out + 1) / 2;
    AlignedBuffer from, to;
    (void)from.allocate(bytes);
    (void)to.allocate(bytes);
    return best_seconds([&] {
      std::memcpy(to.data(), from.data(), bytes);
      asm volatile("" : : "r"(to.data()) : "memory");
    });
  }

  IsaSet isas_;
  const char* filter_;
};

std::string image(const char* what, size_t height, size_t width, size_t channels) {
  return std::string(what) + " " + std::to_string(height) + "x" + std::to_string(width) + "x" +
         std::to_string(channels);
}

void bench_pool(Bench& bench) {
  struct Shape {
    size_t size, channels, kernel, stride;
  };
  const Shape shapes[] = {
      {112, 24, 3, 2}, {112, 64, 3, 2}, {13, 512, 5, 1}, {28, 128, 2, 2}, {28, 192, 3, 1}};
  for (const Shape& s : shapes) {
    const size_t pad = s.kernel == 2 ? 0 : s.kernel / 2;
    const size_t size_out = (s.size + 2 * pad - s.kernel) / s.stride + 1;
    const size_t bytes_in = s.size * s.size * s.channels;
    const size_t bytes_out = size_out * size_out * s.channels;
    Buffers buffers(bytes_in, 0, bytes_out);
    std::vector<const act_t*> rows(s.size + 2 * pad, nullptr);
    for (size_t y = 0; y < s.size; ++y) rows[y + pad] = buffers.a_acts() + y * s.size * s.channels;
    const std::vector<float> multiplier(s.kernel * s.kernel + 1, 0.1f);
    const std::vector<int32_t> count(size_out, static_cast<int32_t>(s.kernel));
    PoolParams p;
    p.channels = s.channels;
    p.kernel_h = p.kernel_w = s.kernel;
    p.stride_h = p.stride_w = s.stride;
    p.width_in = s.size;
    p.width_out = size_out;
    p.pad_left = pad;
    p.row_end = size_out;
    p.rows = rows.data();
    p.src_pixel_stride = static_cast<ptrdiff_t>(s.channels);
    p.dst = buffers.dst_acts();
    p.dst_pixel_stride = static_cast<ptrdiff_t>(s.channels);
    p.dst_row_stride = static_cast<ptrdiff_t>(s.channels * size_out);
    p.range = kRange;
    p.zp_in = 7;
    p.multiplier = multiplier.data();
    p.count_h = p.count_w = count.data();
    const std::string shape =
        image(("pool" + std::to_string(s.kernel) + "s" + std::to_string(s.stride)).c_str(), s.size, s.size,
              s.channels);
    for (const PoolVariant* variant : pool_variants(bench.isas())) {
      bench.time(shape, variant->name, bytes_in, bytes_out, [&] { variant->run(p); });
    }
  }
}

void bench_mean(Bench& bench) {
  const size_t shapes[][2] = {{56, 16}, {28, 72}, {28, 120}, {14, 480}, {7, 1280}};
  for (const auto& s : shapes) {
    const size_t pixels = s[0] * s[0];
    Buffers buffers(pixels * s[1], 0, s[1]);
    MeanParams p;
    p.pixels = pixels;
    p.channels = s[1];
    p.src = buffers.a_acts();
    p.pixel_stride = static_cast<ptrdiff_t>(s[1]);
    p.dst = buffers.dst_acts();
    p.zp_in = 7;
    p.multiplier = 0.001f;
    p.range = kRange;
    for (const MeanVariant* variant : mean_variants(bench.isas())) {
      bench.time(image("mean", s[0], s[0], s[1]), variant->name, pixels * s[1], s[1],
                 [&] { variant->run(p); });
    }
  }
}

void bench_elementwise(Bench& bench) {
  const size_t shapes[][2] = {{112, 16}, {56, 16}, {56, 24},  {28, 72},
                              {28, 120}, {14, 80}, {14, 480}, {7, 960}};
  for (const auto& s : shapes) {
    const size_t pixels = s[0] * s[0];
    const size_t bytes = pixels * s[1];
    Buffers buffers(bytes, bytes, bytes);
    for (bool scale : {false, true}) {  // b has the shape of a, or a value a channel
      BinaryParams p;
      p.rows = scale ? pixels : 1;
      p.channels = scale ? s[1] : bytes;
      p.a = buffers.a_acts();
      p.b = buffers.b_acts();
      p.dst = buffers.dst_acts();
      p.a_row_stride = p.dst_row_stride = scale ? static_cast<ptrdiff_t>(s[1]) : 0;
      p.zp_a = 12;
      p.zp_b = 100;
      p.multiplier_a = 0.003f;
      p.multiplier_b = 0.7f;
      p.range = kRange;
      for (const BinaryVariant* variant : binary_variants(bench.isas())) {
        if (variant->op == BinaryOp::kSub || (variant->op == BinaryOp::kAdd && scale)) continue;
        bench.time(image(scale ? "scale" : "binary", s[0], s[0], s[1]), variant->name,
                   scale ? bytes : 2 * bytes, bytes, [&] { variant->run(p); });
      }
    }
  }
}

void bench_lut(Bench& bench) {
  struct Shape {
    size_t size, channels;
    bool per_channel;
  };
  const Shape shapes[] = {{56, 16, false}, {7, 960, false}, {224, 3, true}, {28, 64, true}};
  for (const Shape& s : shapes) {
    const size_t pixels = s.size * s.size;
    Buffers buffers(pixels * s.channels, 256 * s.channels, pixels * s.channels);
    LutParams p;
    p.rows = s.per_channel ? pixels : 1;
    p.channels = s.per_channel ? s.channels : pixels * s.channels;
    p.src = buffers.a.data();
    p.dst = buffers.dst.data();
    p.src_row_stride = p.dst_row_stride = static_cast<ptrdiff_t>(s.channels);
    p.table = buffers.b.data();
    p.per_channel = s.per_channel;
    for (const LutVariant* variant : lut_variants(bench.isas())) {
      bench.time(image(s.per_channel ? "tables" : "table", s.size, s.size, s.channels), variant->name,
                 pixels * s.channels, pixels * s.channels, [&] { variant->run(p); });
    }
  }
}

void bench_copy(Bench& bench) {
  const size_t shapes[][2] = {{28, 116}, {14, 232}, {7, 464}};
  for (const auto& s : shapes) {
    const size_t pixels = s[0] * s[0];
    const ptrdiff_t channels = static_cast<ptrdiff_t>(s[1]);
    Buffers buffers(pixels * s[1], 0, pixels * s[1]);
    const uint8_t* groups[2] = {buffers.a.data(), buffers.a.data() + s[1] / 2};
    const ptrdiff_t strides[2] = {channels, channels};
    InterleaveParams shuffle;
    shuffle.rows = pixels;
    shuffle.channels = s[1] / 2;
    shuffle.groups = 2;
    shuffle.src = groups;
    shuffle.src_row_stride = strides;
    shuffle.dst = buffers.dst.data();
    shuffle.dst_row_stride = channels;
    for (const InterleaveVariant* variant : interleave_variants(bench.isas())) {
      const size_t bytes = pixels * s[1];
      bench.time(image("shuffle", s[0], s[0], s[1]), variant->name, bytes, bytes,
                 [&] { variant->run(shuffle); });
    }
    CopyParams slice;
    slice.size[2] = pixels;
    slice.size[3] = s[1] / 2;
    slice.src = buffers.a.data();
    slice.dst = buffers.dst.data();
    slice.src_stride[2] = channels;
    slice.dst_stride[2] = channels / 2;
    slice.src_stride[3] = slice.dst_stride[3] = 1;
    CopyParams transpose;
    transpose.size[2] = s[1];
    transpose.size[3] = pixels;
    transpose.src = buffers.a.data();
    transpose.dst = buffers.dst.data();
    transpose.src_stride[2] = 1;
    transpose.src_stride[3] = channels;
    transpose.dst_stride[2] = static_cast<ptrdiff_t>(pixels);
    transpose.dst_stride[3] = 1;
    for (const CopyVariant* variant : copy_variants(bench.isas())) {
      const size_t bytes = pixels * s[1];
      bench.time(image("slice", s[0], s[0], s[1] / 2), variant->name, bytes / 2, bytes / 2,
                 [&] { variant->run(slice); });
      bench.time(image("transpose", s[0], s[0], s[1]), variant->name, bytes, bytes,
                 [&] { variant->run(transpose); });
    }
  }
}

void bench_ends(Bench& bench) {
  const size_t shapes[][2] = {{224, 3}, {28, 1}, {56, 16}, {65, 21}, {1, 1000}};
  for (const auto& s : shapes) {
    const size_t pixels = s[0] * s[0];
    const size_t count = pixels * s[1];
    AlignedBuffer floats, codes, bytes;
    (void)floats.allocate(4 * count);
    (void)codes.allocate(count);
    (void)bytes.allocate(count);
    for (size_t i = 0; i < count; ++i) {
      // Pixels as a network takes them: (pixel / 255 - mean) / std.
      const float value = (static_cast<float>(i * 2654435761u >> 7 & 255u) / 255.0f - 0.45f) / 0.225f;
      std::memcpy(floats.data() + 4 * i, &value, 4);
      codes.data()[i] = static_cast<uint8_t>(i * 2654435761u >> 9);
    }
    float* reals = reinterpret_cast<float*>(floats.data());
    act_t* acts = reinterpret_cast<act_t*>(codes.data());
    for (bool nchw : {true, false}) {
      const ptrdiff_t pixel = nchw ? 1 : static_cast<ptrdiff_t>(s[1]);
      const ptrdiff_t channel = nchw ? static_cast<ptrdiff_t>(pixels) : 1;
      const ptrdiff_t width = static_cast<ptrdiff_t>(s[1]);
      const std::string shape = image(nchw ? "nchw" : "nhwc", s[0], s[0], s[1]);
      for (const QuantizeVariant* variant : quantize_variants(bench.isas())) {
        const QuantizeParams p{pixels, s[1], reals, pixel, channel, acts, width, 1, 0.018658f, kRange};
        bench.time(shape, variant->name, 4 * count, count, [&] { variant->run(p); });
      }
      for (const DequantizeVariant* variant : dequantize_variants(bench.isas())) {
        const DequantizeParams p{pixels, s[1], acts, width, 1, reals, pixel, channel, 0.05f, 7};
        bench.time(shape, variant->name, count, 4 * count, [&] { variant->run(p); });
      }
      for (const RecodeVariant* variant : recode_variants(bench.isas())) {
        const RecodeParams in{pixels, s[1], codes.data(), pixel, channel, bytes.data(), width, 1, 0x80};
        bench.time(shape + " in", variant->name, count, count, [&] { variant->run(in); });
        const RecodeParams out{pixels, s[1], codes.data(), width, 1, bytes.data(), pixel, channel, 0x80};
        bench.time(shape + " out", variant->name, count, count, [&] { variant->run(out); });
      }
    }
  }
}

void bench_softmax(Bench& bench) {
  uint64_t table[256];
  for (int d = 0; d < 256; ++d) {
    table[d] = static_cast<uint64_t>(std::llround(std::exp(-0.07 * d) * 1099511627776.0));
  }
  const size_t shapes[][2] = {{1, 1000}, {4225, 21}, {100, 80}};
  for (const auto& s : shapes) {
    Buffers buffers(s[0] * s[1], 0, 4 * s[0] * s[1]);
    SoftmaxParams p;
    p.rows = s[0];
    p.channels = s[1];
    p.src = buffers.a_acts();
    p.src_row_stride = static_cast<ptrdiff_t>(s[1]);
    p.dst = reinterpret_cast<float*>(buffers.dst.data());
    p.dst_row_stride = static_cast<ptrdiff_t>(s[1]);
    p.table = table;
    for (const SoftmaxVariant* variant : softmax_variants(bench.isas())) {
      bench.time("softmax " + std::to_string(s[0]) + "x" + std::to_string(s[1]), variant->name, s[0] * s[1],
                 4 * s[0] * s[1], [&] { variant->run(p); });
    }
  }
}

void bench_resize(Bench& bench) {
  const size_t shapes[][2] = {{28, 64}, {33, 21}};
  for (const auto& s : shapes) {
    for (int coarse : {256, 37}) {  // weights as an enlargement by 2 has them, or any
      const size_t out = 2 * s[0];
      std::vector<ResizeTap> taps(out);
      for (size_t i = 0; i < out; ++i) {
        const int32_t first = static_cast<int32_t>(i / 2);
        const int32_t weight = coarse * static_cast<int32_t>(i % 2 == 0 ? 2 : 6);
        taps[i] = {first, first + 1 < static_cast<int32_t>(s[0]) ? first + 1 : first, 2048 - weight, weight};
      }
      Buffers buffers(s[0] * s[0] * s[1], 0, out * out * s[1]);
      ResizeParams p;
      p.channels = s[1];
      p.width_out = out;
      p.row_end = out;
      p.tap_y = p.tap_x = taps.data();
      p.src = buffers.a_acts();
      p.src_pixel_stride = p.dst_pixel_stride = static_cast<ptrdiff_t>(s[1]);
      p.src_row_stride = static_cast<ptrdiff_t>(s[0] * s[1]);
      p.dst = buffers.dst_acts();
      p.dst_row_stride = static_cast<ptrdiff_t>(out * s[1]);
      for (const ResizeVariant* variant : resize_variants(bench.isas())) {
        bench.time(image(coarse == 256 ? "resize" : "resize odd", s[0], s[0], s[1]), variant->name,
                   buffers.a.size(), buffers.dst.size(), [&] { variant->run(p); });
      }
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
  edgeq::Bench bench(isas.value(), argc > 1 ? argv[1] : nullptr);
  edgeq::bench_pool(bench);
  edgeq::bench_mean(bench);
  edgeq::bench_elementwise(bench);
  edgeq::bench_lut(bench);
  edgeq::bench_copy(bench);
  edgeq::bench_ends(bench);
  edgeq::bench_softmax(bench);
  edgeq::bench_resize(bench);
  return 0;
}
