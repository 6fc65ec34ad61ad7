// Runs every kernel variant that this CPU can run against plain statements of the contracts: sizes around the
// tile, primes, extreme values, guarded buffers. kernel_test and edgeq-runner selftest both link it.

#include "tests/kernel_test.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/act.h"
#include "base/aligned_buffer.h"
#include "base/cpu_features.h"
#include "base/int4.h"
#include "base/requantize.h"
#include "kernels/copy/copy.h"
#include "kernels/depthwise/depthwise.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/pack.h"
#include "kernels/lut/lut.h"
#include "kernels/pool/pool.h"
#include "kernels/quantize/quantize.h"
#include "kernels/resize/resize.h"
#include "kernels/softmax/softmax.h"
#include "kernels/winograd/phases.h"
#include "kernels/winograd/winograd.h"

namespace edgeq {
namespace {

int failures = 0;
size_t checks = 0;
size_t limit = SIZE_MAX;  // products and depthwise convolutions of more multiply-accumulates are left out

void fail(const std::string& where, const std::string& what) {
  if (++failures <= 40) std::fprintf(stderr, "FAIL %s: %s\n", where.c_str(), what.c_str());
}

void expect(bool condition, const std::string& where, const char* what) {
  ++checks;
  if (!condition) fail(where, what);
}

/// xorshift64*: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x1234567u) {}
  uint32_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<uint32_t>((state_ * 0x2545F4914F6CDD1Du) >> 32);
  }
  int between(int low, int high) {
    return static_cast<int>(low +
                            static_cast<int64_t>(next() % (static_cast<uint64_t>(int64_t{high} - low) + 1)));
  }
  float unit() { return static_cast<float>(next() >> 8) * (1.0f / 16777216.0f); }
  act_t act() { return static_cast<act_t>(between(kActMin, kActMax)); }

 private:
  uint64_t state_;
};

/// `size` elements on the heap with exactly kReadSlack readable bytes after them: the address sanitizer sees
/// any read beyond.
template <typename T>
class Input {
 public:
  explicit Input(size_t size) : size_(size), data_(new T[size + kReadSlack / sizeof(T)]()) {}
  T* data() { return data_.get(); }
  T& operator[](size_t i) { return data_[i]; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  std::unique_ptr<T[]> data_;
};

/// Output rows with a stride wider than the row, all canary bytes before the kernel runs.
class Guarded {
 public:
  static constexpr uint8_t kCanary = 0xA5;
  Guarded(size_t rows, size_t width, size_t gap)
      : rows_(rows), width_(width), stride_(width + gap), bytes_(2 * kMargin + rows * stride_, kCanary) {}
  uint8_t* data() { return bytes_.data() + kMargin; }
  ptrdiff_t stride() const { return static_cast<ptrdiff_t>(stride_); }
  uint8_t at(size_t row, size_t column) const { return bytes_[kMargin + row * stride_ + column]; }
  bool intact() const {
    for (size_t i = 0; i < bytes_.size(); ++i) {
      const bool inside = i >= kMargin && i < kMargin + rows_ * stride_ && (i - kMargin) % stride_ < width_;
      if (!inside && bytes_[i] != kCanary) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kMargin = 64;
  size_t rows_;
  size_t width_;
  size_t stride_;
  std::vector<uint8_t> bytes_;
};

void compare(const std::string& where, const Guarded& got, const std::vector<act_t>& want, size_t rows,
             size_t width) {
  ++checks;
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < width; ++j) {
      const act_t value = static_cast<act_t>(got.at(i, j));
      if (value != want[i * width + j]) {
        fail(where, "at (" + std::to_string(i) + ", " + std::to_string(j) + ") got " +
                        std::to_string(int{value}) + ", want " + std::to_string(int{want[i * width + j]}));
        return;
      }
    }
  }
  if (!got.intact()) fail(where, "wrote outside of its output");
}

std::vector<uint8_t> pack_codes(const std::vector<int8_t>& codes, int bits, size_t first) {
  if (bits == 8) {
    std::vector<uint8_t> bytes(codes.size() + first);
    std::memcpy(bytes.data() + first, codes.data(), codes.size());
    return bytes;
  }
  std::vector<uint8_t> bytes(int4_bytes(codes.size() + first));
  for (size_t i = 0; i < codes.size(); ++i) {
    const size_t e = i + first;
    bytes[e / 2] = static_cast<uint8_t>(bytes[e / 2] | (codes[i] & 0x0F) << (e % 2 * 4));
  }
  return bytes;
}

enum class Fill { kRandom, kHighest, kAlternating, kSparse, kLowest, kMiddle, kHalf, kPowers };
constexpr Fill kFills[] = {Fill::kRandom, Fill::kHighest, Fill::kAlternating,
                           Fill::kSparse, Fill::kLowest,  Fill::kMiddle};

void fill_weights(Random& random, Fill fill, int bits, std::vector<int8_t>& weights) {
  const int top = bits == 4 ? 7 : 127;
  for (size_t i = 0; i < weights.size(); ++i) {
    switch (fill) {
      case Fill::kRandom:
        weights[i] = static_cast<int8_t>(random.between(-top, top));
        break;
      case Fill::kHighest:
        weights[i] = static_cast<int8_t>(top);
        break;
      case Fill::kAlternating:
        weights[i] = static_cast<int8_t>(i % 2 == 0 ? -top : top);
        break;
      case Fill::kSparse:
        weights[i] = static_cast<int8_t>(random.between(0, 9) == 0 ? -top : 0);
        break;
      case Fill::kLowest:
        weights[i] = static_cast<int8_t>(-top);
        break;
      case Fill::kMiddle:  // 128 in whole groups, and in one channel one more
        weights[i] = static_cast<int8_t>((bits == 4 ? 4 : 64) + (i == 0));
        break;
      case Fill::kHalf:
        weights[i] = static_cast<int8_t>(-top / 2 - (random.between(0, 3) == 0));
        break;
      case Fill::kPowers:
        weights[i] = static_cast<int8_t>(bits == 4 ? -4 : -64);
        break;
    }
  }
}

void fill_acts(Random& random, Fill fill, act_t* acts, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    acts[i] = fill == Fill::kHighest || fill == Fill::kLowest || fill == Fill::kMiddle
                  ? static_cast<act_t>(kActMax)
              : fill == Fill::kHalf || fill == Fill::kPowers ? static_cast<act_t>(kActMin)
              : fill == Fill::kAlternating ? static_cast<act_t>(random.between(0, 1) == 0 ? kActMin : kActMax)
                                           : random.act();
  }
}

OutputRange random_range(Random& random) {
  OutputRange range{random.between(kActMin, kActMax), kActMin, kActMax};
  const int kind = random.between(0, 3);
  if (kind == 0) {  // a fused ReLU
    range.min = range.zp;
  } else if (kind == 1) {  // 4-bit codes
    range = OutputRange{act_from_code(random.between(-8, 7)), act_from_code(-8), act_from_code(7)};
  }
  return range;
}

// ---- rounding ----

void test_requantize() {
  // The integer trick of round_half_even against the library, over all halves and their neighbours.
  for (int half = -1100; half <= 1100; ++half) {
    const float centre = static_cast<float>(half) * 0.5f;
    for (float value : {std::nextafterf(centre, -1e9f), centre, std::nextafterf(centre, 1e9f)}) {
      expect(round_half_even(value) == static_cast<int32_t>(std::nearbyintf(value)), "round_half_even",
             "differs");
    }
  }
  const OutputRange full{kActMin + 3, kActMin, kActMax};
  expect(requantize(INT32_MAX, 1e30f, full) == kActMax, "requantize", "does not clamp high");
  expect(requantize(INT32_MIN, 1e30f, full) == kActMin, "requantize", "does not clamp low");
  expect(requantize(16777217, 1.0f / 16777216.0f, full) == full.zp + 1, "requantize",
         "rounds the accumulator wrongly");
  expect(quantize_value(std::nanf(""), 0.5f, full) == full.zp, "quantize_value",
         "NaN is not the code of zero");
  expect(quantize_value(INFINITY, 0.5f, full) == kActMax, "quantize_value", "infinity does not clamp");
  expect(quantize_value(-INFINITY, 0.5f, full) == kActMin, "quantize_value", "-infinity does not clamp");
  for (int value = -8; value <= 7; ++value) {
    expect(int4_sign_extend(static_cast<uint8_t>(value & 15)) == value, "int4_sign_extend", "differs");
  }
}

void test_isas() {
  CpuFeatures all;
  all.avx2 = all.fma = all.avxvnni = all.avx512f = all.avx512bw = all.avx512dq = all.avx512vl = true;
  all.avx512vnni = all.avx512vbmi = all.amx_int8 = true;
  for (int i = 0; i <= static_cast<int>(Isa::kAmxInt8); ++i) {
    expect(isas_of(all).has(static_cast<Isa>(i)), "isas_of", "a level that the CPU has is missing");
  }
  CpuFeatures no_vbmi = all;
  no_vbmi.avx512vbmi = false;
  expect(!isas_of(no_vbmi).has(Isa::kAmxInt8), "isas_of", "AMX stands on VBMI");
  const bool has_amx = isas_of(detect_cpu_features()).has(Isa::kAmxInt8);
  const Result<IsaSet> usable = usable_isas(nullptr);
  expect(usable.ok() && usable.value().has(Isa::kAmxInt8) == (amx_permission() == AmxPermission::kGranted),
         "usable_isas", "AMX without permission");
  expect(has_amx || amx_permission() == AmxPermission::kNotAsked, "amx_permission",
         "asked on a CPU without AMX");
}

void test_isa_cap() {
  const Result<IsaSet> all = usable_isas(nullptr);
  expect(all.ok() && all.value().has(Isa::kScalar), "usable_isas", "lacks scalar");
  const Result<IsaSet> scalar = usable_isas("scalar");
  expect(scalar.ok() && scalar.value().bits() == 1, "usable_isas", "scalar does not cap");
  const Result<IsaSet> avx2 = usable_isas("avx2");
  expect(avx2.ok() && !avx2.value().has(Isa::kAvx512Vnni), "usable_isas", "avx2 does not cap");
  const Result<IsaSet> wrong = usable_isas("avx9");
  expect(!wrong.ok() && wrong.status().message().find("avx512vnni") != std::string::npos, "usable_isas",
         "a wrong name is not refused with the list");
}

// ---- gemm ----

/// The tiles and the level that a name like gemm_u8s4c_u8_6x64x4_avx512vnni states.
struct ParsedName {
  int rows = 0, columns = 0, depth = 0, bits = 0;
  std::string isa;
};

ParsedName parse_name(const std::string& name) {
  ParsedName parsed;
  char lhs[8], dst[8], isa[24];
  const size_t family = name.find('_');
  int bits = 0;
  if (std::sscanf(name.c_str() + family, "_%2[us8]s%dc_%2[us8]_%dx%dx%d_%23s", lhs, &bits, dst, &parsed.rows,
                  &parsed.columns, &parsed.depth, isa) == 7) {
    parsed.bits = bits;
    parsed.isa = isa;
  }
  return parsed;
}

void test_names() {
  IsaSet all;
  for (int i = 0; i < kIsaCount; ++i) all = all.with(static_cast<Isa>(i));
  for (const GemmVariant* v : gemm_variants(all)) {
    const ParsedName name = parse_name(v->name);
    expect(name.rows == v->mr && name.columns == v->nr && name.depth == v->kr &&
               name.bits == v->weight_bits && name.isa == isa_name(v->isa),
           v->name, "the name does not say what the record does");
    expect(v->nr % v->nr_step == 0, v->name, "nr is no multiple of nr_step");
  }
  for (const WinogradVariant* v : winograd_variants(all)) {
    const ParsedName name = parse_name(v->name);
    expect(name.rows == v->mr && name.columns == v->nr && name.depth == v->kr &&
               name.bits == v->weight_bits && name.isa == isa_name(v->isa),
           v->name, "the name does not say what the record does");
  }
  for (const DepthwiseVariant* v : depthwise_variants(all)) {
    const ParsedName name = parse_name(v->name);
    expect(name.bits == v->weight_bits && name.isa == isa_name(v->isa), v->name,
           "the name does not say what the record does");
  }
  if (const PhaseVariant* v = phase_variant(all)) {
    expect(parse_name(v->name).isa == isa_name(v->isa), v->name,
           "the name does not say what the record does");
  }
  // The variants without tiles end in their level's name.
  const auto ends = [](const char* name, Isa isa) {
    const std::string suffix = std::string("_") + isa_name(isa);
    const std::string text = name;
    return text.size() > suffix.size() &&
           text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
  };
  const auto check = [&](const auto& variants) {
    for (const auto* v : variants)
      expect(ends(v->name, v->isa), v->name, "the name does not end in its level");
  };
  check(binary_variants(all));
  check(lut_variants(all));
  check(pool_variants(all));
  check(mean_variants(all));
  check(quantize_variants(all));
  check(dequantize_variants(all));
  check(recode_variants(all));
  check(softmax_variants(all));
  check(resize_variants(all));
  check(copy_variants(all));
  check(interleave_variants(all));
  check(pad_variants(all));
}

struct GemmCase {
  size_t m, n, k, taps;
  bool direct;
  Fill fill;
  bool table, residual;
  uint64_t seed;
  bool image = false;  // the map is that of a convolution: 3 x 3 taps, any stride, dilation and padding
  bool small = false;  // biases, which kernels look at to round all of a call in another way
};

/// A map as a convolution of 3 x 3 taps makes it, with at least c.m outputs.
struct ImageMap {
  size_t pixels;
  std::vector<int32_t> pixel_offset, row_index, tap_index;

  ImageMap(Random& random, size_t m, size_t pixel_stride) {
    const int stride = random.between(1, 2);
    const int dilation = random.between(1, 2);
    const int pad = random.between(0, 2);
    const int width_out = random.between(1, 50);
    const int height_out =
        static_cast<int>((m + static_cast<size_t>(width_out) - 1) / static_cast<size_t>(width_out));
    const int padded_w = (width_out - 1) * stride + 2 * dilation + 1;
    const int padded_h = (height_out - 1) * stride + 2 * dilation + 1;
    const int width = padded_w - 2 * pad > 0 ? padded_w - 2 * pad : 1;
    const int height = padded_h - 2 * pad > 0 ? padded_h - 2 * pad : 1;
    pixels = static_cast<size_t>(width * height);
    pixel_offset.assign(static_cast<size_t>(padded_w * padded_h), -1);
    for (int y = 0; y < height && y + pad < padded_h; ++y) {
      for (int x = 0; x < width && x + pad < padded_w; ++x) {
        pixel_offset[static_cast<size_t>((y + pad) * padded_w + x + pad)] =
            (y * width + x) * static_cast<int>(pixel_stride);
      }
    }
    for (size_t i = 0; i < m; ++i) {
      const int y = static_cast<int>(i) / width_out;
      const int x = static_cast<int>(i) % width_out;
      row_index.push_back(y * stride * padded_w + x * stride);
    }
    for (int t = 0; t < 9; ++t) tap_index.push_back(t / 3 * dilation * padded_w + t % 3 * dilation);
  }
};

void check_gemm(const GemmVariant& variant, const GemmCase& c) {
  const size_t all_taps = c.direct ? 1 : c.image ? 9 : c.taps;
  if (c.m * c.n * c.k * all_taps > limit) return;
  // Depths beyond a variant's bound are never given to it.
  if (!gemm_takes(variant, GemmShape{c.m, c.n, c.k, all_taps, variant.weight_bits, c.direct})) return;
  Random random(c.seed);
  const std::string where = std::string(variant.name) + " m=" + std::to_string(c.m) +
                            " n=" + std::to_string(c.n) + " k=" + std::to_string(c.k) +
                            " taps=" + std::to_string(c.taps) + (c.direct ? " direct" : " indirect") +
                            " fill=" + std::to_string(int(c.fill)) + (c.table ? " table" : "") +
                            (c.residual ? " residual" : "") + (c.image ? " image" : "");
  const int32_t zp_lhs = random.between(kActMin, kActMax);
  const size_t taps = c.direct ? 1 : c.image ? 9 : c.taps;

  // The source is one row of pixels, wider than k; an indirect map may repeat, permute and pad them.
  const size_t pixel_stride = c.k + static_cast<size_t>(random.between(0, 5));
  size_t pixels = c.m + 3;
  std::vector<int32_t> pixel_offset(pixels + taps + 4);
  std::vector<int32_t> row_index(c.m);
  std::vector<int32_t> tap_index(taps);
  for (int32_t& offset : pixel_offset) {
    offset = random.between(0, 4) == 0 ? -1 : random.between(0, int(pixels) - 1) * int(pixel_stride);
  }
  for (size_t i = 0; i < c.m; ++i) row_index[i] = random.between(0, int(pixels) - 1);
  for (size_t t = 0; t < taps; ++t) tap_index[t] = static_cast<int32_t>(t);
  if (c.image) {
    ImageMap map(random, c.m, pixel_stride);
    pixels = map.pixels;
    pixel_offset = map.pixel_offset;
    row_index = map.row_index;
    tap_index = map.tap_index;
  }
  Input<act_t> lhs((pixels - 1) * pixel_stride + c.k);
  fill_acts(random, c.fill, lhs.data(), lhs.size());
  Input<act_t> zero_row(c.k);
  std::memset(zero_row.data(), static_cast<uint8_t>(zp_lhs), c.k);

  std::vector<int8_t> weights(c.n * taps * c.k);
  fill_weights(random, c.fill, variant.weight_bits, weights);
  std::vector<int32_t> bias(c.n);
  std::vector<float> scale(c.n);
  const float typical = 40.0f / (128.0f * (variant.weight_bits == 4 ? 7.0f : 127.0f) *
                                 std::sqrt(static_cast<float>(taps * c.k)));
  for (size_t j = 0; j < c.n; ++j) {
    const bool huge = !c.small && random.between(0, 7) == 0;
    bias[j] = huge ? random.between(-(1 << 30), 1 << 30) : random.between(-3000, 3000);
    scale[j] = random.between(0, 15) == 0 ? 0.0f : typical * (0.25f + random.unit());
  }
  // Scales near and above 1: products beyond the int32 range must clamp all the same.
  if (!c.small && c.seed % 6 == 0) scale[c.n - 1] = c.seed % 12 == 0 ? 3.0f : 0.99999994f;
  const size_t first = static_cast<size_t>(random.between(0, 3));
  const std::vector<uint8_t> stored = pack_codes(weights, variant.weight_bits, first);
  AlignedBuffer packed;
  (void)packed.allocate(gemm_packed_bytes(variant, c.n, c.k, taps));
  gemm_pack(variant, c.n, c.k, taps, WeightView{stored.data(), variant.weight_bits, first}, bias.data(),
            scale.data(), zp_lhs, packed.data());

  GemmParams p;
  p.m = c.m;
  p.n = c.n;
  p.k = c.k;
  p.taps = taps;
  p.lhs.base = lhs.data();
  p.lhs.row_stride = static_cast<ptrdiff_t>(pixel_stride);
  if (!c.direct) {
    p.lhs.pixel_offset = pixel_offset.data();
    p.lhs.row_index = row_index.data();
    p.lhs.tap_index = tap_index.data();
    p.lhs.zero_row = zero_row.data();
  }
  p.packed = packed.data();
  Guarded dst(c.m, c.n, static_cast<size_t>(random.between(0, 9)));
  p.dst = reinterpret_cast<act_t*>(dst.data());
  p.dst_row_stride = dst.stride();
  p.range = random_range(random);
  if (c.small && c.seed % 3 == 0) p.range = OutputRange{2 * random.between(-64, 63), kActMin, kActMax};
  if (c.small && c.seed % 3 == 1) p.range = OutputRange{kActMin, kActMin, kActMax};  // a ReLU's
  p.large_scales = any_large_scale(scale.data(), c.n) || random.between(0, 15) == 0;
  act_t table[256];
  for (act_t& entry : table) entry = random.act();
  if (c.table) p.table = table;
  Input<act_t> other(c.m * (c.n + 3));
  fill_acts(random, Fill::kRandom, other.data(), other.size());
  if (c.residual) {
    p.residual =
        GemmResidual{other.data(),         static_cast<ptrdiff_t>(c.n + 3),  random.between(kActMin, kActMax),
                     0.1f + random.unit(), random.between(kActMin, kActMax), 0.1f + random.unit(),
                     random_range(random)};
    const uint64_t kind = c.seed / 2 % 4;
    if (c.small && kind != 0) p.residual.zp_acc = p.range.zp;  // as in models, where no table stands between
    if (c.small && kind == 1) p.residual.multiplier_acc = 3e4f;
  }
  const GemmShape shape{c.m, c.n, c.k, taps, variant.weight_bits, c.direct};
  AlignedBuffer scratch;
  (void)scratch.allocate(variant.scratch_bytes(shape));
  p.scratch = scratch.data();

  std::vector<act_t> want(c.m * c.n);
  for (size_t i = 0; i < c.m; ++i) {
    for (size_t j = 0; j < c.n; ++j) {
      int64_t acc = bias[j];
      for (size_t t = 0; t < taps; ++t) {
        const int32_t offset =
            c.direct ? int(i * pixel_stride) : pixel_offset[size_t(row_index[i] + tap_index[t])];
        for (size_t e = 0; e < c.k; ++e) {
          const int32_t a = offset < 0 ? zp_lhs : lhs[size_t(offset) + e];
          acc += int64_t{a - zp_lhs} * weights[(j * taps + t) * c.k + e];
        }
      }
      int32_t q = requantize(static_cast<int32_t>(static_cast<uint32_t>(acc)), scale[j], p.range);
      if (c.table) q = table[static_cast<uint8_t>(q)];
      if (c.residual) {
        const GemmResidual& r = p.residual;
        q = add_quantized(q, r.zp_acc, r.multiplier_acc, other[i * (c.n + 3) + j], r.zp_src, r.multiplier_src,
                          r.range);
      }
      want[i * c.n + j] = static_cast<act_t>(q);
    }
  }

  // In two row parts and two panel parts when there are that many: the split must not show.
  const size_t panels = gemm_panels(variant, c.n);
  const size_t row_cut = c.m > 2 ? size_t(random.between(0, int(c.m))) : 0;
  const size_t panel_cut = panels > 1 ? size_t(random.between(0, int(panels))) : 0;
  variant.run(p, 0, row_cut, 0, panel_cut);
  variant.run(p, 0, row_cut, panel_cut, panels);
  variant.run(p, row_cut, c.m, 0, panel_cut);
  variant.run(p, row_cut, c.m, panel_cut, panels);
  compare(where, dst, want, c.m, c.n);
}

void test_gemm_variant(const GemmVariant& variant) {
  const size_t mr = static_cast<size_t>(variant.mr);
  const size_t nr = static_cast<size_t>(variant.nr);
  const size_t step = static_cast<size_t>(variant.nr_step);
  uint64_t seed = 1;
  for (size_t m : {size_t{1}, mr - 1, mr, mr + 1, 2 * mr + 3}) {
    if (m == 0) continue;
    for (size_t n : {size_t{1}, step + 1, nr - 1, nr, nr + 1, 2 * nr + 7}) {
      for (size_t k : {1, 3, 4, 7, 8, 9, 13, 16, 24, 61}) {
        for (size_t taps : {1, 2, 9}) {
          ++seed;
          // Kinds rotate, so that all combinations occur without running their product.
          GemmCase c{m,
                     n,
                     k,
                     taps,
                     taps == 1 && seed / 3 % 3 != 0,
                     kFills[seed / 3 % 6],
                     seed % 5 == 1,
                     seed % 7 < 3,
                     seed};
          check_gemm(variant, c);
        }
      }
    }
  }
  // Every eighth of a panel, and enough rows for every height of tile and for weights unpacked in scratch.
  for (size_t m : {2, 3, 5, 7, 13, 31}) {
    for (size_t eighths = 1; eighths <= 8; ++eighths) {
      for (size_t k : {5, 16, 36}) {
        for (size_t taps : {1, 3}) {
          ++seed;
          const size_t n = (nr * eighths + 7) / 8;
          GemmCase c{m,
                     n > 1 && seed % 2 == 0 ? n - 1 : n,
                     k,
                     taps,
                     taps == 1 && seed % 4 != 0,
                     kFills[seed / 3 % 6],
                     seed % 5 == 1,
                     seed % 7 < 2,
                     seed};
          check_gemm(variant, c);
        }
      }
    }
  }
  // The bounds of the kernels that add in 16 bits: the largest sums, all of one sign, of every depth around
  // the ends of their runs.
  for (Fill fill : {Fill::kHighest, Fill::kLowest}) {
    for (size_t k = 26; k < 76; ++k)
      check_gemm(variant, GemmCase{mr + 1, nr, k, 1, true, fill, false, false, k});
    for (size_t k : {4, 8, 12}) check_gemm(variant, GemmCase{1, nr + 1, k, 9, false, fill, false, false, k});
    // A row alone, in parts of 17 groups of plain NEON where not all products fit, with and without a half.
    for (size_t k : {272, 280, 288, 296, 304, 544, 552, 560, 568})
      check_gemm(variant, GemmCase{mr + 1, nr + 1, k, 1, true, fill, false, false, k});
  }
  // Four weights of 63 or 64: their products with -128 fit 16 bits unless all are 64.
  for (size_t k : {16, 31, 32, 48, 56, 64, 80, 96, 400}) {
    for (size_t m : {size_t{1}, 2 * mr + 1}) {
      check_gemm(variant, GemmCase{m, nr + 5, k, 1, true, Fill::kHalf, false, false, k});
      check_gemm(variant, GemmCase{m, nr, k, 3, false, Fill::kHalf, false, false, k + 1});
    }
  }
  // Magnitudes that add up to 256, whose products with -128 are one too many for 16 bits: 64 weights of 4.
  // With 60 and 116 a run by lanes is nothing but half of the last eight.
  for (size_t k : {32, 56, 60, 64, 72, 80, 116, 120, 128, 136, 192, 232, 240, 256, 264, 512, 528}) {
    for (size_t m : {size_t{1}, 2 * mr + 1}) {
      GemmCase c{m, nr, k, 1, true, Fill::kPowers, false, m == 1, k};
      check_gemm(variant, c);
      c.small = true;
      check_gemm(variant, c);
    }
  }
  // Small sums alone: the ways of rounding that need them, of every depth that a kernel treats apart.
  for (size_t k : {1, 5, 8, 12, 16, 17, 24, 27, 32, 33, 36, 40, 48, 56, 64, 72, 80, 96, 104, 112, 128, 160}) {
    for (Fill fill : kFills) {
      for (bool residual : {false, true}) {
        ++seed;
        const size_t more = static_cast<size_t>(seed % 6);
        GemmCase c{2 * mr + more % 3, 2 * nr + more, k, 1, true, fill, false, residual, seed};
        c.small = true;
        check_gemm(variant, c);
      }
    }
  }
  for (Fill fill : kFills) {
    // More pairs of groups than the notes of plain NEON have bits.
    for (size_t k : {2000, 2016, 2040, 2048, 2100}) {
      GemmCase c{mr + 1, nr + 3, k, 1, true, fill, false, k == 2048, ++seed};
      c.small = true;
      check_gemm(variant, c);
    }
    GemmCase c{2 * mr + 1, 2 * nr, 48, 9, false, fill, false, seed % 2 == 0, ++seed};
    c.small = true;
    check_gemm(variant, c);
    // Depths in one part or several of plain NEON with 4-bit weights, and of more pairs of groups than a part
    // has; the first part with an odd group.
    for (size_t k : {288, 304, 320, 592, 960, 1552, 8160, 8176, 8192}) {
      GemmCase deep{2 * mr + 1, 2 * nr + 3, k, 1, true, fill, false, k % 320 == 0, ++seed};
      deep.small = true;
      check_gemm(variant, deep);
    }
    for (size_t k : {32, 57, 64, 160}) {
      GemmCase deep{2 * mr + 1, 2 * nr + 3, k, 9, false, fill, false, k == 64, ++seed};
      deep.small = true;
      check_gemm(variant, deep);
    }
    // Several blocks of panels by lanes, whose rows stay widened if they are not too many.
    for (size_t m : {5, 49, 100}) {
      GemmCase blocks{m, 3 * nr + 1, 240, 1, true, fill, false, m == 49, ++seed};
      blocks.small = seed % 2 == 0;
      check_gemm(variant, blocks);
    }
  }
  // Deep sums, and the wrap of biases near 2^30.
  for (Fill fill : kFills) {
    for (size_t k : {509, 2048, 7000})
      check_gemm(variant, GemmCase{mr + 1, nr + 3, k, 1, true, fill, false, true, k});
    check_gemm(variant, GemmCase{mr, nr, 130, 9, false, fill, true, false, 77});
  }
  // Maps of convolutions: rows of a tile that are equally far apart, padding, both or neither.
  for (size_t k : {3, 20, 64, 128, 192}) {
    for (size_t m : {mr - 1, 2 * mr + 3, size_t{150}}) {
      GemmCase c{m, nr + 3, k, 9, false, kFills[seed / 3 % 6], seed % 5 == 1, seed % 7 < 3, ++seed};
      c.image = true;
      check_gemm(variant, c);
    }
  }
  // Depths around the blocks of the wide kernels, few rows and more rows than one of their blocks.
  for (size_t k : {60, 63, 64, 65, 68, 72, 127, 128, 129}) {
    for (size_t m : {2, 7, 15, 16, 17, 49}) {
      ++seed;
      check_gemm(variant,
                 GemmCase{m, nr / 2 + static_cast<size_t>(seed % nr), k, static_cast<size_t>(seed % 3),
                          seed % 3 != 2, kFills[seed / 3 % 6], false, seed % 4 == 0, seed});
    }
  }
  check_gemm(variant, GemmCase{600, 32, 64, 1, true, Fill::kRandom, false, true, 1});
  check_gemm(variant, GemmCase{67, 33, 1024, 9, false, Fill::kRandom, true, false, 2});
  check_gemm(variant, GemmCase{67, 48, 1000, 9, false, Fill::kRandom, false, true, 3});
}

void test_gemm(IsaSet isas) {
  for (const GemmVariant* variant : gemm_variants(isas)) test_gemm_variant(*variant);
  // Every variant is found by its name, and by no level that lacks it.
  for (const GemmVariant* variant : gemm_variants(isas)) {
    expect(find_gemm(variant->name, isas) == variant, variant->name, "is not found by its name");
    expect(variant->isa == Isa::kScalar || find_gemm(variant->name, IsaSet()) == nullptr, variant->name,
           "is found where it cannot run");
  }
  expect(find_gemm("gemm", isas) == nullptr, "find_gemm", "finds what there is not");
  // Selection returns a variant that takes the shape, for shapes of real networks.
  for (int bits : {8, 4}) {
    for (size_t n : {1, 24, 96, 144, 1000}) {
      const GemmShape shape{49, n, 960, 1, bits, true};
      expect(select_gemm(shape, isas) != nullptr && select_gemm(shape, isas)->weight_bits == bits,
             "select_gemm", "bits");
      const GemmShape deep{1, n, 1u << 20, 9, bits, true};
      expect(select_gemm(deep, isas) != nullptr, "select_gemm", "no variant for a deep shape");
    }
  }
  // On AVX2 deep and wide 8-bit products take one multiplication for two.
  const IsaSet avx2 = IsaSet().with(Isa::kAvx2);
  if (gemm_variants(avx2).front()->isa == Isa::kAvx2) {
    expect(select_gemm({196, 384, 256, 1, 8, true}, avx2)->mr == 4, "select_gemm", "deep and wide");
    expect(select_gemm({12544, 96, 16, 1, 8, true}, avx2)->mr == 6, "select_gemm", "shallow");
    expect(select_gemm({784, 8, 256, 1, 8, true}, avx2)->mr == 6, "select_gemm", "narrow");
  }
}

// ---- winograd ----

struct WinogradCase {
  size_t height, width, pad_top, pad_left, k, n;  // of the input; as much padding below and to the right
  Fill fill;
  bool table, residual;
  uint64_t seed;
  size_t only_tap = 9;    // the other taps' weights are zero; 9: none is
  bool checkers = false;  // squares of 2x2 pixels of the least and the largest code
};

void check_winograd(const WinogradVariant& variant, const WinogradCase& c) {
  Random random(c.seed);
  const std::string where = std::string(variant.name) + " " + std::to_string(c.height) + "x" +
                            std::to_string(c.width) + " pads=" + std::to_string(c.pad_top) + "," +
                            std::to_string(c.pad_left) + " k=" + std::to_string(c.k) +
                            " n=" + std::to_string(c.n) + " fill=" + std::to_string(int(c.fill)) +
                            " tap=" + std::to_string(c.only_tap) + (c.checkers ? " checkers" : "") +
                            (c.table ? " table" : "") + (c.residual ? " residual" : "");
  const int32_t zp_in = random.between(kActMin, kActMax);
  const size_t height_out = c.height + 2 * c.pad_top - 2;
  const size_t width_out = c.width + 2 * c.pad_left - 2;
  const size_t stride = c.k + static_cast<size_t>(random.between(0, 5));
  // Rows in an order of their own: only the pointers say where they are.
  Input<act_t> src((c.height * c.width - 1) * stride + c.k);
  fill_acts(random, c.fill, src.data(), src.size());
  for (size_t i = 0; c.checkers && i < src.size(); ++i) {
    const size_t pixel = i / stride;
    src.data()[i] =
        static_cast<act_t>((pixel / c.width / 2 + pixel % c.width / 2) % 2 == 0 ? kActMin : kActMax);
  }
  std::vector<const act_t*> rows(height_out + 2, nullptr);
  for (size_t y = 0; y < c.height; ++y) {
    rows[y + c.pad_top] = src.data() + (c.height - 1 - y) * c.width * stride;
  }
  Input<act_t> zero_pixel(c.k);
  std::memset(zero_pixel.data(), static_cast<uint8_t>(zp_in), c.k);
  std::vector<int8_t> weights(c.n * 9 * c.k);
  fill_weights(random, c.fill, variant.weight_bits, weights);
  for (size_t i = 0; c.only_tap < 9 && i < weights.size(); ++i) {
    if (i / c.k % 9 != c.only_tap) weights[i] = 0;
  }
  std::vector<int32_t> bias(c.n);
  std::vector<float> scale(c.n);
  const float typical =
      40.0f / (128.0f * (variant.weight_bits == 4 ? 7.0f : 127.0f) * std::sqrt(static_cast<float>(9 * c.k)));
  for (size_t j = 0; j < c.n; ++j) {
    bias[j] = random.between(0, 7) == 0 ? random.between(-(1 << 30), 1 << 30) : random.between(-3000, 3000);
    scale[j] = random.between(0, 15) == 0 ? 0.0f : typical * (0.25f + random.unit());
  }
  if (c.seed % 6 == 0) scale[c.n - 1] = c.seed % 12 == 0 ? 3.0f : 0.99999994f;
  const size_t first = static_cast<size_t>(random.between(0, 3));
  const std::vector<uint8_t> stored = pack_codes(weights, variant.weight_bits, first);
  AlignedBuffer packed;
  AlignedBuffer scratch;
  (void)packed.allocate(winograd_packed_bytes(variant, c.n, c.k));
  (void)scratch.allocate(variant.scratch_bytes(c.k, c.n));
  winograd_pack(variant, c.n, c.k, WeightView{stored.data(), variant.weight_bits, first}, bias.data(),
                scale.data(), zp_in, packed.data());

  const size_t pixels = height_out * width_out;
  Guarded dst(pixels, c.n, static_cast<size_t>(random.between(0, 9)));
  act_t table[256];
  for (act_t& entry : table) entry = random.act();
  Input<act_t> other(pixels * (c.n + 3));
  fill_acts(random, Fill::kRandom, other.data(), other.size());
  WinogradParams p;
  p.k = c.k;
  p.n = c.n;
  p.width_in = c.width;
  p.width_out = width_out;
  p.pad_left = c.pad_left;
  p.rows = rows.data();
  p.src_pixel_stride = static_cast<ptrdiff_t>(stride);
  p.zero_pixel = zero_pixel.data();
  p.packed = packed.data();
  p.dst = reinterpret_cast<act_t*>(dst.data());
  p.dst_pixel_stride = dst.stride();
  p.dst_row_stride = dst.stride() * static_cast<ptrdiff_t>(width_out);
  p.range = random_range(random);
  p.large_scales = any_large_scale(scale.data(), c.n) || random.between(0, 15) == 0;
  if (c.table) p.table = table;
  if (c.residual) {
    p.residual =
        GemmResidual{other.data(),         static_cast<ptrdiff_t>(c.n + 3),  random.between(kActMin, kActMax),
                     0.1f + random.unit(), random.between(kActMin, kActMax), 0.1f + random.unit(),
                     random_range(random)};
    p.residual_row_stride = static_cast<ptrdiff_t>(width_out * (c.n + 3));
  }
  p.scratch = scratch.data();

  std::vector<act_t> want(pixels * c.n);
  for (size_t i = 0; i < pixels; ++i) {
    for (size_t j = 0; j < c.n; ++j) {
      int64_t acc = bias[j];
      for (size_t t = 0; t < 9; ++t) {
        const act_t* row = rows[i / width_out + t / 3];
        const size_t x = i % width_out + t % 3 - c.pad_left;
        if (row == nullptr || x >= c.width) continue;
        for (size_t e = 0; e < c.k; ++e) {
          acc += int64_t{row[x * stride + e] - zp_in} * weights[(j * 9 + t) * c.k + e];
        }
      }
      int32_t q = requantize(static_cast<int32_t>(static_cast<uint32_t>(acc)), scale[j], p.range);
      if (c.table) q = table[static_cast<uint8_t>(q)];
      if (c.residual) {
        const GemmResidual& r = p.residual;
        q = add_quantized(q, r.zp_acc, r.multiplier_acc, other[i * (c.n + 3) + j], r.zp_src, r.multiplier_src,
                          r.range);
      }
      want[i * c.n + j] = static_cast<act_t>(q);
    }
  }
  const size_t panels = winograd_panels(variant, c.n);
  const size_t row_cut = size_t(random.between(0, int(height_out)));
  const size_t panel_cut = size_t(random.between(0, int(panels)));
  variant.run(p, 0, row_cut, 0, panel_cut);
  variant.run(p, 0, row_cut, panel_cut, panels);
  variant.run(p, row_cut, height_out, 0, panel_cut);
  variant.run(p, row_cut, height_out, panel_cut, panels);
  compare(where, dst, want, pixels, c.n);
}

/// The depth up to which any weights will do.
size_t deepest_winograd(const WinogradVariant& variant) {
  return winograd_most(variant) / (9 * (variant.weight_bits == 4 ? 7 : 127));
}

/// Selection, of the levels that this build has.
void test_winograd_selection(IsaSet usable) {
  const WinogradShape wide{56, 56, 64, 64, 8};
  for (Isa level : {Isa::kAvx512Vnni, Isa::kAvx2, Isa::kNeon}) {
    const IsaSet isas = IsaSet().with(Isa::kScalar).with(level);
    const WinogradVariant* best = winograd_variants(isas).front();
    for (int bits : {8, 4}) {
      WinogradShape shape = wide;
      shape.weight_bits = bits;
      const WinogradVariant* variant = select_winograd(shape, isas);
      expect(best->isa == level ? variant != nullptr && variant->isa == level && variant->weight_bits == bits
                                : variant == nullptr,
             "select_winograd", "a wide layer");
    }
  }
  for (const WinogradVariant* variant : winograd_variants(usable)) {
    if (variant->weight_bits != 8) continue;
    const size_t depth = deepest_winograd(*variant);
    std::vector<int8_t> weights(2 * 9 * (depth + 1), 127);
    const WeightView view{reinterpret_cast<const uint8_t*>(weights.data()), 8};
    expect(winograd_takes(*variant, 2, depth, view), variant->name, "as deep as the sums allow");
    expect(!winograd_takes(*variant, 2, depth + 1, view), variant->name, "deeper than the sums allow");
    for (size_t i = 0; i < weights.size(); i += 3) weights[i] = -100;
    expect(winograd_takes(*variant, 2, depth + 1, view), variant->name, "deep, and small enough");
  }
  const IsaSet neon = IsaSet().with(Isa::kScalar).with(Isa::kNeon);
  expect(select_winograd(wide, neon.with(Isa::kNeonDot)) == nullptr, "select_winograd", "dot products");
  expect(select_winograd(wide, IsaSet().with(Isa::kScalar)) == nullptr, "select_winograd", "scalar");
  // A quarter of the blocks' outputs is not used, and the filters are used for two tiles only.
  expect(select_winograd({7, 7, 512, 512, 8}, neon) == nullptr, "select_winograd", "7x7 on plain NEON");
  const bool has_neon =
      !winograd_variants(neon).empty() && winograd_variants(neon).front()->isa == Isa::kNeon;
  expect((select_winograd({7, 7, 512, 512, 4}, neon) != nullptr) == has_neon, "select_winograd",
         "7x7 of 4-bit weights on plain NEON");
}

void test_winograd(IsaSet isas) {
  test_winograd_selection(isas);
  for (const WinogradVariant* variant : winograd_variants(isas)) {
    uint64_t seed = 1;
    for (size_t height : {1, 2, 3, 6, 9}) {
      for (size_t width : {1, 3, 4, 7, 12}) {
        for (size_t k : {1, 2, 3, 16, 17, 30}) {
          for (size_t n : {1, 8, 11, 16, 23, 32, 41}) {
            ++seed;
            const size_t pad_top = height < 3 ? 1 : seed / 7 % 3;
            const size_t pad_left = width < 3 ? 1 : seed / 5 % 3;
            check_winograd(*variant, WinogradCase{height, width, pad_top, pad_left, k, n, kFills[seed % 6],
                                                  seed % 4 == 1, seed % 7 < 3, seed});
          }
        }
      }
    }
    // Images of more blocks than scratch holds, and the deepest sums of one sign.
    for (Fill fill : kFills) {
      check_winograd(*variant, WinogradCase{23, 19, 1, 1, 40, 24, fill, false, true, 11});
      const size_t deepest = deepest_winograd(*variant);
      check_winograd(*variant,
                     WinogradCase{7, 7, 1, 1, std::min<size_t>(deepest, 512), 9, fill, true, false, 12});
      check_winograd(*variant,
                     WinogradCase{4, 5, 1, 0, std::min<size_t>(deepest, 1841), 9, fill, false, false, 13});
      check_winograd(*variant, WinogradCase{8, 8, 1, 1, std::min<size_t>(deepest, 1841), 9, fill, false,
                                            false, 14, 9, true});
    }
    // Few weights, so that plain NEON adds products of many channels in 16 bits: as many as magnitudes of 63
    // allow where 64 of them would be one too many (16 weights of -4 times -512), and runs that are as long
    // as they may be, or end anywhere.
    for (size_t tap = 0; tap < 9; ++tap) {
      for (size_t k : {8, 15, 16, 64, 68, 250, 256, 260, 523}) {
        for (bool checkers : {false, true}) {
          const size_t blocks = 1 + ++seed % 9;
          check_winograd(*variant, WinogradCase{2, 2 * blocks, 1, 1, k, 9,
                                                seed % 3 == 0   ? Fill::kSparse
                                                : seed % 3 == 1 ? Fill::kHalf
                                                                : Fill::kPowers,
                                                false, seed % 4 == 0, seed, tap, checkers});
        }
      }
      check_winograd(*variant, WinogradCase{4, 4, 1, 1, 64, 8, Fill::kPowers, false, false, tap, tap, false});
      check_winograd(*variant, WinogradCase{4, 4, 1, 1, 64, 8, Fill::kPowers, false, false, tap, tap, true});
    }
  }
}

// ---- phases ----

struct PhaseCase {
  size_t kernel_h, kernel_w, k, n;
  size_t height, width, pad_top, pad_left;  // of the image; as much padding below and to the right
  Fill fill;
  bool table;
  uint64_t seed;
};

void check_phases(const PhaseVariant& variant, const PhaseCase& c) {
  Random random(c.seed);
  const std::string where =
      std::string(variant.name) + " " + std::to_string(c.kernel_h) + "x" + std::to_string(c.kernel_w) +
      " image=" + std::to_string(c.height) + "x" + std::to_string(c.width) +
      " pads=" + std::to_string(c.pad_top) + "," + std::to_string(c.pad_left) + " k=" + std::to_string(c.k) +
      " n=" + std::to_string(c.n) + " fill=" + std::to_string(int(c.fill)) + (c.table ? " table" : "");
  const int32_t zp_in = random.between(kActMin, kActMax);
  const size_t height_out = (c.height + 2 * c.pad_top - c.kernel_h) / 2 + 1;
  const size_t width_out = (c.width + 2 * c.pad_left - c.kernel_w) / 2 + 1;
  Input<act_t> src(c.height * c.width * c.k);
  fill_acts(random, c.fill, src.data(), src.size());
  Input<act_t> padding(c.width * c.k);
  std::memset(padding.data(), static_cast<uint8_t>(zp_in), padding.size());
  const size_t depth = c.kernel_h * c.kernel_w * c.k;
  std::vector<int8_t> weights(c.n * depth);
  fill_weights(random, c.fill, 8, weights);
  std::vector<int32_t> bias(c.n);
  std::vector<float> scale(c.n);
  for (size_t j = 0; j < c.n; ++j) {
    bias[j] = random.between(0, 7) == 0 ? random.between(-(1 << 30), 1 << 30) : random.between(-3000, 3000);
    scale[j] = 40.0f / (128.0f * 127.0f * std::sqrt(static_cast<float>(depth))) * (0.25f + random.unit());
  }
  if (c.seed % 6 == 0) scale[c.n - 1] = 3.0f;
  const PhaseShape shape = {c.kernel_h, c.kernel_w, c.k, c.n, 8};
  AlignedBuffer packed;
  AlignedBuffer scratch;
  (void)packed.allocate(phase_packed_bytes(c.k, c.n));
  (void)scratch.allocate(phase_scratch_bytes(c.k));
  phase_pack(shape, WeightView{reinterpret_cast<const uint8_t*>(weights.data()), 8}, bias.data(),
             scale.data(), zp_in, packed.data());
  const size_t pixels = height_out * width_out;
  Guarded dst(pixels, c.n, static_cast<size_t>(random.between(0, 9)));
  act_t table[256];
  for (act_t& entry : table) entry = random.act();
  const act_t* rows[PhaseParams::kImageRows];
  act_t* dst_rows[PhaseParams::kRows];
  PhaseParams p;
  p.k = c.k;
  p.n = c.n;
  p.width_in = c.width;
  p.width_out = width_out;
  p.pad_left = c.pad_left;
  p.rows = rows;
  p.packed = packed.data();
  p.dst = dst_rows;
  p.dst_pixel_stride = dst.stride();
  p.zero = zp_in;
  p.range = random_range(random);
  p.large_scales = any_large_scale(scale.data(), c.n) || random.between(0, 15) == 0;
  if (c.table) p.table = table;
  p.scratch = scratch.data();

  const auto row_of = [&](size_t padded) {
    const size_t y = padded - c.pad_top;  // wraps to a large number above the image
    return y < c.height ? src.data() + y * c.width * c.k : padding.data();
  };
  std::vector<act_t> want(pixels * c.n);
  for (size_t i = 0; i < pixels; ++i) {
    for (size_t j = 0; j < c.n; ++j) {
      int64_t acc = bias[j];
      for (size_t t = 0; t < c.kernel_h * c.kernel_w; ++t) {
        const act_t* row = row_of(2 * (i / width_out) + t / c.kernel_w);
        const size_t x = 2 * (i % width_out) + t % c.kernel_w - c.pad_left;
        for (size_t e = 0; e < c.k && x < c.width; ++e) {
          acc += int64_t{row[x * c.k + e] - zp_in} * weights[j * depth + t * c.k + e];
        }
      }
      const int32_t q = requantize(static_cast<int32_t>(static_cast<uint32_t>(acc)), scale[j], p.range);
      want[i * c.n + j] = c.table ? table[static_cast<uint8_t>(q)] : static_cast<act_t>(q);
    }
  }
  for (size_t y = 0; y < height_out; y += p.rows_out) {
    p.rows_out = std::min(static_cast<size_t>(random.between(1, PhaseParams::kRows)), height_out - y);
    for (size_t i = 0; i < PhaseParams::kImageRows; ++i) rows[i] = row_of(2 * y + i);
    for (size_t i = 0; i < p.rows_out; ++i) {
      dst_rows[i] =
          reinterpret_cast<act_t*>(dst.data()) + static_cast<ptrdiff_t>((y + i) * width_out) * dst.stride();
    }
    variant.run(p);
  }
  compare(where, dst, want, pixels, c.n);
}

void test_phases(IsaSet isas) {
  const IsaSet avx2 = IsaSet().with(Isa::kScalar).with(Isa::kAvx2);
  const PhaseShape resnet = {7, 7, 3, 64, 8};
  expect(select_phases(resnet, avx2) == phase_variant(avx2), "select_phases", "7x7 of three channels");
  expect(select_phases(resnet, avx2.with(Isa::kAvx512Vnni)) == nullptr, "select_phases", "dot products");
  expect(select_phases({3, 3, 3, 64, 8}, avx2) == nullptr, "select_phases", "3x3 of three channels");
  const PhaseVariant* variant = phase_variant(isas);
  if (variant == nullptr) return;
  size_t seed = 1;
  for (size_t kernel : {1, 5, 7, 8}) {
    for (size_t k : {1, 2, 3, 4}) {
      for (size_t width : {1, 2, 5, 12, 13, 19, 24, 37}) {
        ++seed;
        const size_t height = 1 + seed * 5 % 17;
        const size_t pad_top = height < kernel ? kernel : seed % 4;
        const size_t pad_left = width < kernel ? kernel : seed / 3 % 5;
        check_phases(*variant,
                     PhaseCase{kernel, 1 + (kernel + seed) % 8, k, 1 + seed * 7 % 40, height, width, pad_top,
                               pad_left + 4 * (width < 8), kFills[seed % 6], seed % 4 == 1, seed});
      }
    }
  }
  // More blocks than scratch holds, and the largest sums of one sign.
  for (Fill fill : kFills) {
    check_phases(*variant, PhaseCase{7, 7, 3, 33, 9, 451, 3, 3, fill, false, 21});
    check_phases(*variant, PhaseCase{8, 8, 4, 16, 24, 24, 0, 0, fill, true, 22});
  }
}

// ---- depthwise ----

struct DepthwiseCase {
  DepthwiseShape shape;
  size_t height, width, pad_top, pad_left, pad_bottom, pad_right;
  Fill fill;
  uint64_t seed;
};

void check_depthwise(const DepthwiseVariant& variant, const DepthwiseCase& c) {
  const DepthwiseShape& s = c.shape;
  const size_t reach_h = (s.kernel_h - 1) * s.dilation_h + 1;
  const size_t reach_w = (s.kernel_w - 1) * s.dilation_w + 1;
  const size_t padded_h = c.height + c.pad_top + c.pad_bottom;
  const size_t padded_w = c.width + c.pad_left + c.pad_right;
  if (padded_h < reach_h || padded_w < reach_w || !variant.takes(s)) return;
  const size_t height_out = (padded_h - reach_h) / s.stride_h + 1;
  const size_t width_out = (padded_w - reach_w) / s.stride_w + 1;
  if (height_out * width_out * s.channels * s.kernel_h * s.kernel_w > limit) return;
  const std::string where = std::string(variant.name) + " c=" + std::to_string(s.channels) +
                            " kernel=" + std::to_string(s.kernel_h) + "x" + std::to_string(s.kernel_w) +
                            " stride=" + std::to_string(s.stride_h) + "," + std::to_string(s.stride_w) +
                            " dilation=" + std::to_string(s.dilation_w) +
                            " image=" + std::to_string(c.height) + "x" + std::to_string(c.width) +
                            " pad=" + std::to_string(c.pad_left) + "," + std::to_string(c.pad_right) +
                            " fill=" + std::to_string(int(c.fill));
  Random random(c.seed);
  const int32_t zp_in = random.between(kActMin, kActMax);
  const size_t pixel_stride = s.channels + static_cast<size_t>(random.between(0, 1) * 5);
  Input<act_t> src((c.height * c.width - 1) * pixel_stride + s.channels);
  fill_acts(random, c.fill, src.data(), src.size());
  Input<act_t> zero_pixel(s.channels);
  std::memset(zero_pixel.data(), static_cast<uint8_t>(zp_in), s.channels);
  std::vector<const act_t*> rows(padded_h, nullptr);
  for (size_t y = 0; y < c.height; ++y) rows[y + c.pad_top] = src.data() + y * c.width * pixel_stride;

  const size_t taps = s.kernel_h * s.kernel_w;
  std::vector<int8_t> weights(s.channels * taps);
  fill_weights(random, c.fill, variant.weight_bits, weights);
  std::vector<int32_t> bias(s.channels);
  std::vector<float> scale(s.channels);
  const float typical =
      40.0f / (128.0f * (variant.weight_bits == 4 ? 7.0f : 127.0f) * std::sqrt(float(taps)));
  // As in most layers, no result leaves an int16 before the clamp; or some do.
  const bool narrow = random.between(0, 1) == 0;
  // Sums that a float32 does not hold exactly, of results that are small.
  const bool heavy = narrow && random.between(0, 3) == 0;
  // Results that leave an int16, of sums that are small.
  const bool wide = narrow && !heavy && random.between(0, 3) == 0;
  for (size_t j = 0; j < s.channels; ++j) {
    const bool extreme = !narrow && random.between(0, 7) == 0;
    bias[j] = extreme ? random.between(-(1 << 30), 1 << 30) : random.between(-3000, 3000);
    scale[j] = typical * (0.25f + random.unit());
    if (heavy) {
      bias[j] = random.between(-(1 << 26), 1 << 26);
      scale[j] /= 1024.0f;
    }
    if (wide) scale[j] *= 512.0f;
  }
  // Now and then a channel whose result does not fit into an int32.
  if (!narrow && random.between(0, 3) == 0) {
    for (size_t j = 0; j < s.channels; j += 7) scale[j] *= 1073741824.0f;
  }
  // Or one whose scale is no normal number.
  if (!narrow && random.between(0, 7) == 0) scale[s.channels / 2] *= 1e-36f;
  const size_t first = static_cast<size_t>(random.between(0, 3));
  const std::vector<uint8_t> stored = pack_codes(weights, variant.weight_bits, first);
  AlignedBuffer packed;
  (void)packed.allocate(variant.packed_bytes(s));
  variant.pack(s, WeightView{stored.data(), variant.weight_bits, first}, bias.data(), scale.data(), zp_in,
               packed.data());

  DepthwiseParams p;
  p.channels = s.channels;
  p.kernel_h = s.kernel_h;
  p.kernel_w = s.kernel_w;
  p.stride_h = s.stride_h;
  p.stride_w = s.stride_w;
  p.dilation_h = s.dilation_h;
  p.dilation_w = s.dilation_w;
  p.width_in = c.width;
  p.width_out = width_out;
  p.pad_left = c.pad_left;
  p.rows = rows.data();
  p.src_pixel_stride = static_cast<ptrdiff_t>(pixel_stride);
  p.zero_pixel = zero_pixel.data();
  p.packed = packed.data();
  Guarded dst(height_out * width_out, s.channels, static_cast<size_t>(random.between(0, 9)));
  p.dst = reinterpret_cast<act_t*>(dst.data());
  p.dst_pixel_stride = dst.stride();
  p.dst_row_stride = dst.stride() * static_cast<ptrdiff_t>(width_out);
  p.range = random_range(random);
  // What most layers have: a ReLU's codes, of which nothing is cut off.
  if (random.between(0, 2) == 0) p.range = OutputRange{kActMin, kActMin, kActMax};
  act_t table[256];
  for (act_t& entry : table) entry = random.act();
  if (random.between(0, 3) == 0) p.table = table;
  p.lut = select_lut(IsaSet().with(Isa::kScalar).with(variant.isa));
  AlignedBuffer scratch;
  (void)scratch.allocate(variant.scratch_bytes(s, c.width, width_out, pixel_stride));
  if (scratch.size() > 0) std::memset(scratch.data(), 0xA5, scratch.size());
  p.scratch = scratch.data();

  std::vector<act_t> want(height_out * width_out * s.channels);
  for (size_t y = 0; y < height_out; ++y) {
    for (size_t x = 0; x < width_out; ++x) {
      for (size_t j = 0; j < s.channels; ++j) {
        int64_t acc = bias[j];
        for (size_t ky = 0; ky < s.kernel_h; ++ky) {
          for (size_t kx = 0; kx < s.kernel_w; ++kx) {
            const size_t iy = y * s.stride_h + ky * s.dilation_h;
            const size_t ix = x * s.stride_w + kx * s.dilation_w;
            if (iy < c.pad_top || iy - c.pad_top >= c.height || ix < c.pad_left || ix - c.pad_left >= c.width)
              continue;
            const int32_t a = src[((iy - c.pad_top) * c.width + ix - c.pad_left) * pixel_stride + j];
            acc += int64_t{a - zp_in} * weights[j * taps + ky * s.kernel_w + kx];
          }
        }
        int32_t q = requantize(static_cast<int32_t>(static_cast<uint32_t>(acc)), scale[j], p.range);
        if (p.table != nullptr) q = table[static_cast<uint8_t>(q)];
        want[(y * width_out + x) * s.channels + j] = static_cast<act_t>(q);
      }
    }
  }
  const size_t cut = static_cast<size_t>(random.between(0, static_cast<int>(height_out)));
  variant.run(p, 0, cut);
  variant.run(p, cut, height_out);
  compare(where, dst, want, height_out * width_out, s.channels);
}

void test_depthwise_variant(const DepthwiseVariant& variant) {
  uint64_t seed = 100;
  const int bits = variant.weight_bits;
  for (size_t channels : {1, 8, 15, 16, 17, 24, 32, 33, 48, 49, 63, 64, 65, 96, 120, 144, 151}) {
    for (size_t kernel : {3, 5}) {
      for (size_t stride : {1, 2}) {
        for (size_t width : {1, 2, 5, 7, 14}) {
          ++seed;
          const size_t height = 1 + seed % 6;
          const size_t pad = seed % 3 == 0 ? 0 : kernel / 2;
          check_depthwise(variant, DepthwiseCase{{channels, kernel, kernel, stride, stride, 1, 1, bits},
                                                 height,
                                                 width,
                                                 pad,
                                                 pad,
                                                 kernel / 2,
                                                 seed % 2 ? pad : kernel / 2,
                                                 kFills[seed % 4],
                                                 seed});
        }
      }
    }
    // Odd kernels, uneven strides and padding, dilation.
    const auto check = [&](const DepthwiseShape& shape, size_t height, size_t width, size_t pad_top,
                           size_t pad_left, size_t pad_bottom, size_t pad_right) {
      check_depthwise(variant, DepthwiseCase{shape, height, width, pad_top, pad_left, pad_bottom, pad_right,
                                             kFills[seed % 4], seed});
      ++seed;
    };
    check({channels, 1, 1, 1, 1, 1, 1, bits}, 3, 5, 0, 0, 0, 0);
    check({channels, 2, 3, 1, 2, 1, 1, bits}, 6, 9, 0, 1, 1, 0);
    check({channels, 7, 7, 2, 1, 1, 1, bits}, 9, 8, 3, 3, 3, 3);
    check({channels, 3, 3, 1, 1, 2, 2, bits}, 7, 9, 2, 2, 2, 2);
    check({channels, 3, 3, 3, 3, 1, 1, bits}, 8, 10, 2, 2, 0, 4);
    check({channels, 9, 1, 1, 1, 1, 1, bits}, 11, 3, 4, 0, 4, 0);
    check({channels, 15, 2, 1, 1, 1, 1, bits}, 17, 3, 7, 1, 7, 0);
    check({channels, 16, 1, 1, 1, 1, 1, bits}, 17, 2, 7, 0, 8, 0);
    check({channels, 5, 5, 3, 3, 1, 1, bits}, 9, 11, 2, 2, 2, 2);
    check({channels, 5, 5, 1, 1, 1, 3, bits}, 7, 15, 2, 6, 2, 6);
    // Padding wider than the kernel, and rows longer than a kernel works on at once.
    check({channels, 3, 3, 1, 1, 1, 1, bits}, 2, 3, 5, 4, 5, 6);
    check({channels, 5, 5, 2, 2, 1, 1, bits}, 2, 3, 5, 6, 5, 5);
    check({channels, 3, 3, 2, 2, 1, 1, bits}, 3, 70 + channels % 7, 1, 1, 1, 1);
    check({channels, 5, 5, 1, 1, 1, 1, bits}, 3, 33 + channels % 5, 2, 2, 2, 2);
    check({channels, 4, 6, 1, 1, 1, 1, bits}, 5, 66, 1, 2, 2, 3);
  }
  // Every number of channels, each with a shape of its own.
  Random random(7);
  for (size_t channels = 1; channels <= 200; ++channels) {
    for (int i = 0; i < 2; ++i) {
      const auto size = [&](int most) { return static_cast<size_t>(random.between(1, most)); };
      const size_t kernel = 1 + 2 * static_cast<size_t>(random.between(0, 3));
      const size_t dilation = random.between(0, 3) == 0 ? size(3) : 1;
      const size_t pad = kernel / 2 * dilation;
      const size_t stride = size(2);
      check_depthwise(variant,
                      DepthwiseCase{{channels, kernel, kernel, stride, stride, dilation, dilation, bits},
                                    size(9),
                                    size(30),
                                    pad,
                                    pad,
                                    pad,
                                    pad,
                                    kFills[seed % 4],
                                    seed});
      ++seed;
    }
  }
}

void test_depthwise(IsaSet isas) {
  for (const DepthwiseVariant* variant : depthwise_variants(isas)) test_depthwise_variant(*variant);
}

// ---- elementwise ----

void test_elementwise(IsaSet isas) {
  for (const BinaryVariant* variant : binary_variants(isas)) {
    uint64_t seed = 7;
    for (size_t rows : {1, 2, 5, 37}) {
      for (size_t channels :
           {1, 3, 4, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 120, 127, 131, 300, 1024, 1100}) {
        if (rows == 37 && channels > 300) continue;
        // Repeated rows and values; 6: both operands are one value, 7: one repeats and the other is one.
        for (int kind = 0; kind < 8; ++kind) {
          Random random(++seed);
          BinaryParams p;
          p.rows = rows;
          p.channels = channels;
          const bool dense = random.between(0, 1) == 0;
          const size_t stride = channels + (dense ? 0 : size_t(random.between(1, 4)));
          Input<act_t> a((rows - 1) * stride + channels);
          Input<act_t> b((rows - 1) * stride + channels);
          fill_acts(random, kFills[seed % 4], a.data(), a.size());
          fill_acts(random, Fill::kRandom, b.data(), b.size());
          p.a = a.data();
          p.b = b.data();
          p.a_row_stride = p.b_row_stride = static_cast<ptrdiff_t>(stride);
          if (kind == 1) p.b_row_stride = 0;
          if (kind == 2) p.b_row_stride = 0, p.b_step = 0;
          if (kind == 3) p.a_row_stride = 0;
          if (kind == 4) p.a_row_stride = 0, p.a_step = 0;
          if (kind == 5) p.b_step = 0;
          if (kind == 6) p.a_step = p.b_step = 0;
          if (kind == 7) p.a_row_stride = 0, p.b_step = 0;
          Guarded dst(rows, channels, dense ? 0 : size_t(random.between(0, 5)));
          p.dst = reinterpret_cast<act_t*>(dst.data());
          p.dst_row_stride = dst.stride();
          p.zp_a = random.between(kActMin, kActMax);
          p.zp_b = random.between(kActMin, kActMax);
          p.multiplier_a = variant->op == BinaryOp::kMul ? 0.02f * random.unit() : 2.0f * random.unit();
          p.multiplier_b = 2.0f * random.unit();
          if (seed % 5 == 0) p.multiplier_a = p.multiplier_b = 0.5f;  // exact ties
          if (seed % 31 == 0) p.multiplier_a = 1e30f;                 // far beyond the integers
          if (seed % 37 == 0) p.multiplier_a = p.multiplier_b = 1e5f;
          p.range = random_range(random);
          std::vector<act_t> want(rows * channels);
          for (size_t i = 0; i < rows; ++i) {
            for (size_t c = 0; c < channels; ++c) {
              const float left = float(a[i * size_t(p.a_row_stride) + (p.a_step ? c : 0)] - p.zp_a);
              const float right = float(b[i * size_t(p.b_row_stride) + (p.b_step ? c : 0)] - p.zp_b);
              volatile float x = left * p.multiplier_a;
              volatile float y = right * p.multiplier_b;
              volatile float product = left * right;
              float value = 0.0f;
              switch (variant->op) {
                case BinaryOp::kAdd:
                  value = x + y;
                  break;
                case BinaryOp::kSub:
                  value = x - y;
                  break;
                case BinaryOp::kMul:
                  value = product * p.multiplier_a;
                  break;
              }
              const float q = std::nearbyintf(value) + float(p.range.zp);
              want[i * channels + c] =
                  static_cast<act_t>(std::fmin(std::fmax(q, float(p.range.min)), float(p.range.max)));
            }
          }
          variant->run(p);
          compare(std::string(variant->name) + " rows=" + std::to_string(rows) +
                      " channels=" + std::to_string(channels) + " kind=" + std::to_string(kind),
                  dst, want, rows, channels);
        }
      }
    }
  }
}

// ---- lut ----

void test_lut(IsaSet isas) {
  for (const LutVariant* variant : lut_variants(isas)) {
    for (size_t rows : {1, 3, 16, 70, 300}) {
      for (size_t channels : {1, 2, 3, 16, 31, 32, 33, 63, 64, 65, 129, 256, 1000}) {
        if (rows * channels > 20000) continue;
        for (int kind = 0; kind < 6; ++kind) {
          const bool per_channel = kind >= 2;
          const bool reversed = kind >= 4;
          const size_t gap = kind % 2 * 3;
          Random random(rows * 1000 + channels);
          Input<uint8_t> src(rows * (channels + gap));
          for (size_t i = 0; i < src.size(); ++i) src[i] = static_cast<uint8_t>(i < 256 ? i : random.next());
          std::vector<uint8_t> table(256 * (per_channel ? channels : 1));
          for (uint8_t& entry : table) entry = static_cast<uint8_t>(random.next());
          Guarded dst(rows, channels, gap);
          LutParams p{rows,       channels,     src.data(),   ptrdiff_t(channels + gap),
                      dst.data(), dst.stride(), table.data(), per_channel,
                      reversed};
          std::vector<act_t> want(rows * channels);
          for (size_t i = 0; i < rows; ++i) {
            for (size_t c = 0; c < channels; ++c) {
              const size_t from = reversed ? channels - 1 - c : c;
              want[i * channels + c] =
                  static_cast<act_t>(table[(per_channel ? 256 * c : 0) + src[i * (channels + gap) + from]]);
            }
          }
          const std::string where = std::string(variant->name) + " rows=" + std::to_string(rows) +
                                    " channels=" + std::to_string(channels) +
                                    (per_channel ? " per channel" : "") + (reversed ? " reversed" : "");
          variant->run(p);
          compare(where, dst, want, rows, channels);
          if (reversed) continue;
          // In place.
          Guarded own(rows, channels, gap);
          for (size_t i = 0; i < rows; ++i) {
            std::memcpy(own.data() + i * (channels + gap), src.data() + i * (channels + gap), channels);
          }
          p.src = p.dst = own.data();
          variant->run(p);
          compare(where + " in place", own, want, rows, channels);
        }
      }
    }
  }
}

// ---- pool ----

struct PoolShape {
  size_t channels, kernel, stride, dilation, height, width, pad;
};

void check_pool(const PoolVariant& variant, const PoolShape& shape, uint64_t seed) {
  Random random(seed);
  const size_t channels = shape.channels, kernel = shape.kernel, stride = shape.stride;
  const size_t dilation = shape.dilation, height = shape.height, width = shape.width, pad = shape.pad;
  const size_t reach = (kernel - 1) * dilation + 1;
  const size_t padded_h = height + 2 * pad;
  const size_t padded_w = width + 2 * pad;
  if (reach > padded_h || reach > padded_w) return;
  const size_t height_out = (padded_h - reach) / stride + 1;
  const size_t width_out = (padded_w - reach) / stride + 1;
  Input<act_t> src(height * width * channels);
  fill_acts(random, kFills[seed % 4], src.data(), src.size());
  std::vector<const act_t*> rows(padded_h, nullptr);
  for (size_t y = 0; y < height; ++y) rows[y + pad] = src.data() + y * width * channels;
  Guarded dst(height_out * width_out, channels, 5);
  PoolParams p;
  p.channels = channels;
  p.kernel_h = p.kernel_w = kernel;
  p.stride_h = p.stride_w = stride;
  p.dilation_h = p.dilation_w = dilation;
  p.width_in = width;
  p.width_out = width_out;
  p.pad_left = pad;
  p.row_end = height_out;
  p.rows = rows.data();
  p.src_pixel_stride = static_cast<ptrdiff_t>(channels);
  p.dst = reinterpret_cast<act_t*>(dst.data());
  p.dst_pixel_stride = dst.stride();
  p.dst_row_stride = dst.stride() * ptrdiff_t(width_out);
  p.range = random_range(random);
  p.zp_in = random.between(kActMin, kActMax);
  std::vector<float> multiplier(kernel * kernel + 1);
  for (size_t i = 1; i < multiplier.size(); ++i) multiplier[i] = 0.9f / float(i);
  std::vector<int32_t> count_h(height_out);
  std::vector<int32_t> count_w(width_out);
  const auto count = [&](size_t out, size_t size) {
    int32_t inside = 0;
    for (size_t t = 0; t < kernel; ++t) {
      const size_t at = out * stride + t * dilation;
      inside += at >= pad && at - pad < size;
    }
    return inside;
  };
  for (size_t y = 0; y < height_out; ++y) count_h[y] = count(y, height);
  for (size_t x = 0; x < width_out; ++x) count_w[x] = count(x, width);
  p.multiplier = multiplier.data();
  p.count_h = count_h.data();
  p.count_w = count_w.data();
  std::vector<act_t> want(height_out * width_out * channels);
  for (size_t y = 0; y < height_out; ++y) {
    for (size_t x = 0; x < width_out; ++x) {
      for (size_t c = 0; c < channels; ++c) {
        int32_t sum = 0;
        int32_t highest = p.range.min;
        for (size_t ky = 0; ky < kernel; ++ky) {
          for (size_t kx = 0; kx < kernel; ++kx) {
            const size_t iy = y * stride + ky * dilation;
            const size_t ix = x * stride + kx * dilation;
            if (iy < pad || iy - pad >= height || ix < pad || ix - pad >= width) continue;
            const int32_t value = src[((iy - pad) * width + ix - pad) * channels + c];
            sum += value - p.zp_in;
            highest = value > highest ? value : highest;
          }
        }
        if (highest > p.range.max) highest = p.range.max;
        const float m = multiplier[size_t(count_h[y] * count_w[x])];
        want[(y * width_out + x) * channels + c] =
            static_cast<act_t>(variant.op == PoolOp::kMax ? highest : requantize(sum, m, p.range));
      }
    }
  }
  variant.run(p);
  compare(std::string(variant.name) + " c=" + std::to_string(channels) + " kernel=" + std::to_string(kernel) +
              " stride=" + std::to_string(stride) + " dilation=" + std::to_string(dilation) +
              " width=" + std::to_string(width) + " pad=" + std::to_string(pad),
          dst, want, height_out * width_out, channels);
}

void test_pool(IsaSet isas) {
  for (const PoolVariant* variant : pool_variants(isas)) {
    uint64_t seed = 3;
    for (size_t channels : {1, 15, 16, 17, 31, 32, 33, 64, 65, 100}) {
      for (size_t kernel : {1, 2, 3, 7}) {
        for (size_t stride : {1, 2}) {
          for (size_t dilation : {1, 2}) {
            check_pool(*variant, {channels, kernel, stride, dilation, 9, 8, kernel / 2}, ++seed);
          }
        }
      }
    }
    // The edges of 3x3 windows, which have loops of their own.
    for (size_t width : {1, 2, 3, 4, 5, 9}) {
      for (size_t pad : {0, 1, 2}) {
        for (size_t stride : {1, 2}) check_pool(*variant, {40, 3, stride, 1, 5, width, pad}, ++seed);
      }
    }
    // More bytes than 16 bits add up, and more rows or columns than a tile has.
    for (size_t kernel : {16, 17, 33, 65}) {
      for (size_t fill = 0; fill < 4; ++fill) {
        check_pool(*variant, {17, kernel, 4, 1, 20, 20, kernel / 2}, ++seed);
      }
    }
  }
  for (const MeanVariant* variant : mean_variants(isas)) {
    uint64_t seed = 5;
    for (size_t pixels : {1, 2, 7, 49, 1000}) {
      for (size_t channels : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 200}) {
        Random random(++seed);
        Input<act_t> src(pixels * (channels + 2));
        fill_acts(random, kFills[seed % 4], src.data(), src.size());
        Guarded dst(1, channels, 0);
        MeanParams p;
        p.pixels = pixels;
        p.channels = channels;
        p.src = src.data();
        p.pixel_stride = static_cast<ptrdiff_t>(channels + 2);
        p.dst = reinterpret_cast<act_t*>(dst.data());
        p.zp_in = random.between(kActMin, kActMax);
        p.multiplier = 1.3f / float(pixels);
        p.range = random_range(random);
        std::vector<act_t> want(channels);
        for (size_t c = 0; c < channels; ++c) {
          int32_t sum = 0;
          for (size_t i = 0; i < pixels; ++i) sum += src[i * (channels + 2) + c] - p.zp_in;
          want[c] = static_cast<act_t>(requantize(sum, p.multiplier, p.range));
        }
        variant->run(p);
        compare(std::string(variant->name) + " pixels=" + std::to_string(pixels) +
                    " c=" + std::to_string(channels),
                dst, want, 1, channels);
      }
    }
  }
}

// ---- quantize ----

void test_quantize(IsaSet isas) {
  const size_t pixel_counts[] = {1, 2, 15, 16, 17, 63, 64, 65, 131, 3000};
  const size_t channel_counts[] = {1, 2, 3, 4, 16, 17, 33, 70};
  uint64_t seed = 11;
  for (size_t pixels : pixel_counts) {
    for (size_t channels : channel_counts) {
      for (int layout = 0; layout < 4; ++layout) {
        Random random(++seed);
        const ptrdiff_t nhwc[2] = {ptrdiff_t(channels), 1};
        const ptrdiff_t nchw[2] = {1, ptrdiff_t(pixels)};
        const ptrdiff_t* in = layout & 1 ? nchw : nhwc;
        const ptrdiff_t* out = layout & 2 ? nchw : nhwc;
        const size_t size = pixels * channels;
        const std::string where = " pixels=" + std::to_string(pixels) + " c=" + std::to_string(channels) +
                                  " layout=" + std::to_string(layout);
        const OutputRange range = random_range(random);
        const float scale = 0.01f + random.unit();
        for (const QuantizeVariant* variant : quantize_variants(isas)) {
          Input<float> src(size);
          for (size_t i = 0; i < size; ++i) {
            const int kind = random.between(0, 40);
            src[i] = kind == 0   ? std::nanf("")
                     : kind == 1 ? std::numeric_limits<float>::infinity()
                     : kind == 2 ? -std::numeric_limits<float>::infinity()
                     : kind == 3 ? 3e38f
                     : kind < 20 ? scale * (float(random.between(-300, 300)) + 0.5f)
                                 : scale * 300.0f * (random.unit() - 0.5f);
          }
          Guarded dst(1, size, 0);
          variant->run(QuantizeParams{pixels, channels, src.data(), in[0], in[1],
                                      reinterpret_cast<act_t*>(dst.data()), out[0], out[1], scale, range});
          std::vector<act_t> want(size);
          for (size_t i = 0; i < pixels; ++i) {
            for (size_t c = 0; c < channels; ++c) {
              want[i * size_t(out[0]) + c * size_t(out[1])] = static_cast<act_t>(
                  quantize_value(src[i * size_t(in[0]) + c * size_t(in[1])], scale, range));
            }
          }
          compare(variant->name + where, dst, want, 1, size);
        }
        Input<act_t> codes(size);
        fill_acts(random, Fill::kRandom, codes.data(), size);
        for (const DequantizeVariant* variant : dequantize_variants(isas)) {
          std::vector<float> dst(size + 16, -77.0f);
          variant->run(DequantizeParams{pixels, channels, codes.data(), in[0], in[1], dst.data() + 8, out[0],
                                        out[1], scale, range.zp});
          bool same = true;
          for (size_t i = 0; i < pixels; ++i) {
            for (size_t c = 0; c < channels; ++c) {
              const float want = float(codes[i * size_t(in[0]) + c * size_t(in[1])] - range.zp) * scale;
              same = same && dst[8 + i * size_t(out[0]) + c * size_t(out[1])] == want;
            }
          }
          for (size_t i = 0; i < 8; ++i) same = same && dst[i] == -77.0f && dst[size + 8 + i] == -77.0f;
          expect(same, variant->name + where, "differs or wrote outside of its output");
        }
        for (const RecodeVariant* variant : recode_variants(isas)) {
          Guarded dst(1, size, 0);
          const uint8_t mask = random.between(0, 1) ? 0x80 : 0;
          variant->run(RecodeParams{pixels, channels, reinterpret_cast<const uint8_t*>(codes.data()), in[0],
                                    in[1], dst.data(), out[0], out[1], mask});
          std::vector<act_t> want(size);
          for (size_t i = 0; i < pixels; ++i) {
            for (size_t c = 0; c < channels; ++c) {
              want[i * size_t(out[0]) + c * size_t(out[1])] = static_cast<act_t>(
                  static_cast<uint8_t>(codes[i * size_t(in[0]) + c * size_t(in[1])]) ^ mask);
            }
          }
          compare(variant->name + where, dst, want, 1, size);
        }
      }
    }
  }
}

/// Quotients at ties and within some roundings of them, where a product with the reciprocal rounds otherwise
/// than the division, and scales whose reciprocal is no normal number.
void test_quantize_ties(IsaSet isas) {
  for (const QuantizeVariant* variant : quantize_variants(isas)) {
    for (uint64_t seed = 1; seed <= 200; ++seed) {
      Random random(seed);
      const float scales[] = {1e-40f, 3e-39f, 1e-30f, 0.0078125f, 1.0f, 1e30f, 3e38f};
      const float scale =
          seed <= 7 ? scales[seed - 1] : std::ldexp(1.0f + random.unit(), random.between(-40, 40));
      const OutputRange range = random_range(random);
      Input<float> src(601 * 9);
      for (int i = 0; i < 601 * 9; ++i) {
        float x = scale * (static_cast<float>(i / 9 - 300) + 0.5f);
        const float towards = i % 9 < 4 ? -1e38f : 1e38f;
        for (int steps = std::abs(i % 9 - 4); steps > 0; --steps) x = std::nextafterf(x, towards);
        src[static_cast<size_t>(i)] = x;
      }
      Guarded dst(1, src.size(), 0);
      variant->run(QuantizeParams{1, src.size(), src.data(), ptrdiff_t(src.size()), 1,
                                  reinterpret_cast<act_t*>(dst.data()), ptrdiff_t(src.size()), 1, scale,
                                  range});
      std::vector<act_t> want(src.size());
      for (size_t i = 0; i < src.size(); ++i) {
        want[i] = static_cast<act_t>(quantize_value(src[i], scale, range));
      }
      compare(std::string(variant->name) + " at ties, scale " + std::to_string(scale), dst, want, 1,
              src.size());
    }
  }
}

// ---- softmax ----

void test_softmax(IsaSet isas) {
  uint64_t table[256];
  for (int d = 0; d < 256; ++d)
    table[d] = static_cast<uint64_t>(std::llround(std::exp(-0.07 * d) * 1099511627776.0));
  for (const SoftmaxVariant* variant : softmax_variants(isas)) {
    for (size_t rows : {1, 3}) {
      for (size_t channels : {1, 2, 7, 8, 9, 31, 32, 33, 64, 65, 255, 256, 257, 1000, 1001, 9000}) {
        Random random(rows * 77 + channels);
        Input<act_t> src(rows * channels);
        fill_acts(random, channels % 2 ? Fill::kRandom : Fill::kAlternating, src.data(), src.size());
        for (size_t step : {1, 3}) {
          std::vector<float> dst(rows * channels * step + 16, -77.0f);
          SoftmaxParams p;
          p.rows = rows;
          p.channels = channels;
          p.src = src.data();
          p.src_row_stride = static_cast<ptrdiff_t>(channels);
          p.dst = dst.data() + 8;
          p.dst_row_stride = static_cast<ptrdiff_t>(channels * step);
          p.dst_channel_stride = static_cast<ptrdiff_t>(step);
          p.table = table;
          variant->run(p);
          bool same = true;
          std::vector<float> want(dst.size(), -77.0f);
          for (size_t i = 0; i < rows; ++i) {
            const act_t* row = src.data() + i * channels;
            int highest = row[0];
            for (size_t c = 0; c < channels; ++c) highest = row[c] > highest ? row[c] : highest;
            uint64_t sum = 0;
            for (size_t c = 0; c < channels; ++c) sum += table[highest - row[c]];
            for (size_t c = 0; c < channels; ++c) {
              want[8 + (i * channels + c) * step] =
                  static_cast<float>(static_cast<double>(table[highest - row[c]]) / static_cast<double>(sum));
            }
          }
          for (size_t i = 0; i < dst.size(); ++i) same = same && dst[i] == want[i];
          expect(same, std::string(variant->name) + " channels=" + std::to_string(channels),
                 "differs or wrote outside of its output");
        }
      }
    }
  }
}

// ---- resize ----

void test_resize(IsaSet isas) {
  for (const ResizeVariant* variant : resize_variants(isas)) {
    for (size_t channels : {1, 3, 15, 16, 17, 31, 32, 33, 64, 65, 100}) {
      for (size_t size_out : {1, 5, 14}) {
        Random random(channels * 31 + size_out);
        const size_t size_in = 7;
        Input<act_t> src(size_in * size_in * channels);
        fill_acts(random, kFills[channels % 4], src.data(), src.size());
        std::vector<ResizeTap> taps(size_out);
        // Sixteenths, as enlargements by a power of two have them, or any weights.
        const int step = channels % 2 == size_out % 2 ? 128 : 1;
        for (ResizeTap& tap : taps) {
          const int weight = random.between(0, 2048 / step) * step;
          tap = ResizeTap{random.between(0, 6), random.between(0, 6), 2048 - weight, weight};
        }
        Guarded dst(size_out * size_out, channels, 3);
        ResizeParams p;
        p.channels = channels;
        p.width_out = size_out;
        p.row_end = size_out;
        p.tap_y = taps.data();
        p.tap_x = taps.data();
        p.src = src.data();
        p.src_pixel_stride = static_cast<ptrdiff_t>(channels);
        p.src_row_stride = static_cast<ptrdiff_t>(channels * size_in);
        p.dst = reinterpret_cast<act_t*>(dst.data());
        p.dst_pixel_stride = dst.stride();
        p.dst_row_stride = dst.stride() * ptrdiff_t(size_out);
        std::vector<act_t> want(size_out * size_out * channels);
        for (size_t y = 0; y < size_out; ++y) {
          for (size_t x = 0; x < size_out; ++x) {
            for (size_t c = 0; c < channels; ++c) {
              const ResizeTap& v = taps[y];
              const ResizeTap& h = taps[x];
              const auto at = [&](int iy, int ix) {
                return code_from_act(src[(size_t(iy) * 7 + size_t(ix)) * channels + c]);
              };
              int32_t code = at(v.index_0, h.index_0);
              if (variant->op == ResizeOp::kBilinear) {
                const int64_t sum = int64_t{v.weight_0} * h.weight_0 * at(v.index_0, h.index_0) +
                                    int64_t{v.weight_0} * h.weight_1 * at(v.index_0, h.index_1) +
                                    int64_t{v.weight_1} * h.weight_0 * at(v.index_1, h.index_0) +
                                    int64_t{v.weight_1} * h.weight_1 * at(v.index_1, h.index_1);
                code = static_cast<int32_t>(std::floor((double(sum) + 2097152.0) / 4194304.0));
              }
              want[(y * size_out + x) * channels + c] = static_cast<act_t>(act_from_code(code));
            }
          }
        }
        variant->run(p);
        compare(std::string(variant->name) + " c=" + std::to_string(channels), dst, want, size_out * size_out,
                channels);
      }
    }
  }
}

// ---- copy ----

void test_copy(IsaSet isas) {
  for (const CopyVariant* variant : copy_variants(isas)) {
    uint64_t seed = 9;
    for (size_t pixels : {1, 3, 17, 70}) {
      for (size_t channels : {2, 6, 16, 30, 58, 64, 66, 116, 130, 232}) {
        for (size_t groups : {1, 2, 3}) {
          if (channels % groups != 0) continue;
          Random random(++seed);
          Input<uint8_t> src(pixels * channels);
          for (size_t i = 0; i < src.size(); ++i) src[i] = static_cast<uint8_t>(random.next());
          const size_t part = channels / groups;
          // A channel shuffle: from [groups][part] to [part][groups], in both loop orders.
          for (int order = 0; order < 2; ++order) {
            Guarded dst(pixels, channels, 4);
            CopyParams p;
            p.src = src.data();
            p.dst = dst.data();
            const int g = order == 0 ? 3 : 2;
            const int c = order == 0 ? 2 : 3;
            p.size[0] = pixels;
            p.size[g] = groups;
            p.size[c] = part;
            p.src_stride[0] = static_cast<ptrdiff_t>(channels);
            p.src_stride[g] = static_cast<ptrdiff_t>(part);
            p.src_stride[c] = 1;
            p.dst_stride[0] = dst.stride();
            p.dst_stride[g] = 1;
            p.dst_stride[c] = static_cast<ptrdiff_t>(groups);
            std::vector<act_t> want(pixels * channels);
            for (size_t i = 0; i < pixels; ++i) {
              for (size_t e = 0; e < channels; ++e) {
                want[i * channels + e % part * groups + e / part] = static_cast<act_t>(src[i * channels + e]);
              }
            }
            variant->run(p);
            compare(std::string(variant->name) + " shuffle c=" + std::to_string(channels) +
                        " groups=" + std::to_string(groups),
                    dst, want, pixels, channels);
          }
          // A transpose of pixels and channels, and a reversal.
          Guarded dst(channels, pixels, 4);
          CopyParams p;
          p.src = src.data() + (pixels - 1) * channels;
          p.dst = dst.data();
          p.size[2] = channels;
          p.size[3] = pixels;
          p.src_stride[2] = 1;
          p.src_stride[3] = -static_cast<ptrdiff_t>(channels);
          p.dst_stride[2] = dst.stride();
          p.dst_stride[3] = 1;
          std::vector<act_t> want(pixels * channels);
          for (size_t i = 0; i < pixels; ++i) {
            for (size_t e = 0; e < channels; ++e) {
              want[e * pixels + i] = static_cast<act_t>(src[(pixels - 1 - i) * channels + e]);
            }
          }
          variant->run(p);
          compare(std::string(variant->name) + " transpose c=" + std::to_string(channels), dst, want,
                  channels, pixels);
        }
      }
    }
  }
  // Slices: rows of every length out of wider ones.
  for (const CopyVariant* variant : copy_variants(isas)) {
    for (size_t width = 1; width <= 200; ++width) {
      Random random(width);
      const size_t rows = 5;
      const size_t gap = width % 7;
      Input<uint8_t> src(rows * (width + gap));
      for (size_t i = 0; i < src.size(); ++i) src[i] = static_cast<uint8_t>(random.next());
      Guarded dst(rows, width, width % 5);
      CopyParams p;
      p.size[2] = rows;
      p.size[3] = width;
      p.src = src.data();
      p.dst = dst.data();
      p.src_stride[2] = static_cast<ptrdiff_t>(width + gap);
      p.dst_stride[2] = dst.stride();
      p.src_stride[3] = p.dst_stride[3] = 1;
      std::vector<act_t> want(rows * width);
      for (size_t i = 0; i < want.size(); ++i) {
        want[i] = static_cast<act_t>(src[i / width * (width + gap) + i % width]);
      }
      variant->run(p);
      compare(std::string(variant->name) + " rows of " + std::to_string(width), dst, want, rows, width);
    }
  }
  for (const InterleaveVariant* variant : interleave_variants(isas)) {
    for (size_t groups : {1, 2, 3, 4, 5, 8, 17, 32, 33, 70}) {
      for (size_t channels : {1, 5, 15, 16, 17, 29, 31, 32, 33, 58, 63, 64, 65, 116, 130}) {
        Random random(groups * 1000 + channels);
        const size_t rows = 3;
        // The groups of one tensor, or of several; some whose rows follow each other everywhere.
        const bool dense = channels % 3 == 2;
        const bool together = !dense && channels % 2 == 0;
        std::vector<Input<uint8_t>> sources;
        std::vector<const uint8_t*> src;
        std::vector<ptrdiff_t> stride;
        for (size_t g = 0; g < groups; ++g) {
          if (together && g > 0) {
            src.push_back(src[0] + g * channels);
            stride.push_back(stride[0]);
            continue;
          }
          const size_t width = (together ? groups * channels : channels) +
                               (dense ? 0 : static_cast<size_t>(random.between(0, 9)));
          Input<uint8_t> source(rows * width);
          for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint8_t>(random.next());
          src.push_back(source.data());
          stride.push_back(static_cast<ptrdiff_t>(width));
          sources.push_back(std::move(source));
        }
        Guarded dst(rows, channels * groups, dense ? 0 : channels % 4);
        InterleaveParams p;
        p.rows = rows;
        p.channels = channels;
        p.groups = groups;
        p.src = src.data();
        p.src_row_stride = stride.data();
        p.dst = dst.data();
        p.dst_row_stride = dst.stride();
        std::vector<act_t> want(rows * channels * groups);
        for (size_t i = 0; i < want.size(); ++i) {
          const size_t e = i % (channels * groups);
          const ptrdiff_t row = static_cast<ptrdiff_t>(i / (channels * groups));
          want[i] = static_cast<act_t>(src[e % groups][row * stride[e % groups] + ptrdiff_t(e / groups)]);
        }
        variant->run(p);
        compare(std::string(variant->name) + " groups=" + std::to_string(groups) +
                    " channels=" + std::to_string(channels),
                dst, want, rows, channels * groups);
      }
    }
  }
  for (const PadVariant* variant : pad_variants(isas)) {
    for (size_t channels : {1, 3, 16, 40}) {
      for (size_t width : {1, 6}) {
        Random random(channels + width);
        Input<uint8_t> src(4 * width * channels);
        for (size_t i = 0; i < src.size(); ++i) src[i] = static_cast<uint8_t>(random.next());
        PadParams p;
        p.height = 4;
        p.width = width;
        p.channels = channels;
        p.src = src.data();
        p.src_pixel_stride = static_cast<ptrdiff_t>(channels);
        p.src_row_stride = static_cast<ptrdiff_t>(channels * width);
        p.top = 1;
        p.bottom = 2;
        p.left = 3;
        p.right = 1;
        p.channels_before = channels % 2;
        p.channels_after = 2 * p.channels_before;
        p.value = 0x42;
        const size_t width_out = width + 4;
        const size_t channels_out = channels + 3 * p.channels_before;
        Guarded dst(7 * width_out, channels_out, 2);
        p.dst = dst.data();
        p.dst_pixel_stride = dst.stride();
        p.dst_row_stride = dst.stride() * ptrdiff_t(width_out);
        std::vector<act_t> want(7 * width_out * channels_out, static_cast<act_t>(0x42));
        for (size_t y = 0; y < 4; ++y) {
          for (size_t x = 0; x < width; ++x) {
            for (size_t c = 0; c < channels; ++c) {
              want[((y + 1) * width_out + x + 3) * channels_out + p.channels_before + c] =
                  static_cast<act_t>(src[(y * width + x) * channels + c]);
            }
          }
        }
        variant->run(p);
        compare(std::string(variant->name) + " c=" + std::to_string(channels), dst, want, 7 * width_out,
                channels_out);
      }
    }
  }
}

}  // namespace

int test_gemm_kernel(const GemmVariant& variant, size_t most_products) {
  const int before = failures;
  limit = most_products;
  test_gemm_variant(variant);
  limit = SIZE_MAX;
  return failures - before;
}

int test_depthwise_kernel(const DepthwiseVariant& variant, size_t most_products) {
  const int before = failures;
  limit = most_products;
  test_depthwise_variant(variant);
  limit = SIZE_MAX;
  return failures - before;
}

int run_kernel_tests(int argc, char** argv) {
  const auto isas = usable_isas(std::getenv("EDGEQ_MAX_ISA"));
  if (!isas.ok()) return 2;
  std::printf("levels:");
  for (const Isa isa : isas.value().levels()) std::printf(" %s", isa_name(isa));
  std::printf("\n");
  struct Family {
    const char* name;
    void (*test)(IsaSet);
  };
  const Family families[] = {
      {"requantize", [](IsaSet) { test_requantize(); }},
      {"isas", [](IsaSet) { test_isas(); }},
      {"isa_cap", [](IsaSet) { test_isa_cap(); }},
      {"names", [](IsaSet) { test_names(); }},
      {"gemm", test_gemm},
      {"winograd", test_winograd},
      {"phases", test_phases},
      {"depthwise", test_depthwise},
      {"elementwise", test_elementwise},
      {"lut", test_lut},
      {"pool", test_pool},
      {"quantize", test_quantize},
      {"quantize_ties", test_quantize_ties},
      {"softmax", test_softmax},
      {"resize", test_resize},
      {"copy", test_copy},
  };
  bool found = false;
  for (const Family& family : families) {
    if (argc > 1 && std::strcmp(argv[1], family.name) != 0) continue;
    found = true;
    checks = 0;
    const int before = failures;
    family.test(isas.value());
    std::printf("%-13s %8zu checks, %d failures\n", family.name, checks, failures - before);
  }
  if (!found) return 2;
  return failures == 0 ? 0 : 1;
}

}  // namespace edgeq
