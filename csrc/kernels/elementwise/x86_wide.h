#ifndef EDGEQ_KERNELS_ELEMENTWISE_X86_WIDE_H_
#define EDGEQ_KERNELS_ELEMENTWISE_X86_WIDE_H_

// Add, sub and mul for one vector width. Only x86_*.cc include it.
//
// V adds to a vector type how V::kBytes operands become four vectors of differences from a zero point, and in
// which order their results are packed:
//
//   Zero, zero_of(zp)     a zero point as `spread` takes it
//   spread(from, zp, k)   lane i = from[b] - zp; b = k * V::kLanes + i where kPlanes is 1, k + 4 * i where it
//   is 4 order(codes)          puts what pack_codes makes of four such vectors in the order of the bytes
//
// Both operands of an addition are converted, scaled and added in float32, since the statement rounds each of
// the three: per 16 bytes of AVX-512 eight instructions, of which four go to each of the two pairs of float
// ports, so that 64 bytes take 16 cycles and the packing.

#include "kernels/elementwise/elementwise.h"
#include "kernels/x86_vectors.h"

namespace edgeq {

void add_scalar(const BinaryParams&);
void sub_scalar(const BinaryParams&);
void mul_scalar(const BinaryParams&);

namespace {

/// The other operand as V::kBytes bytes after each other.
template <typename V>
struct Run {
  const act_t* from;
  typename V::Zero zp;
  typename V::Float multiplier;

  template <BinaryOp kOp>
  EDGEQ_INLINE typename V::Float get(int k) const {
    const auto value = V::to_float(V::spread(from, zp, k));
    return kOp == BinaryOp::kMul ? value : V::mul(value, multiplier);
  }
  EDGEQ_INLINE void advance() { from += V::kBytes; }
};

/// The other operand as one value, centered and (but for a product) scaled.
template <typename V>
struct Value {
  typename V::Float value;

  template <BinaryOp kOp>
  EDGEQ_INLINE typename V::Float get(int) const {
    return value;
  }
  EDGEQ_INLINE void advance() {}
};

/// The other operand as a row of values, one a channel, that begins again where it ends: floats, centered and
/// (but for a product) scaled once for all pixels, in the order in which V spreads bytes. A block may begin
/// at any channel (at any kPlanes-th one where V spreads each four bytes over four vectors).
template <typename V>
struct Row {
  static constexpr size_t kMostChannels = 1024;
  static constexpr size_t kPlanes = V::kPlanes;
  static constexpr size_t kPlane = (kMostChannels + V::kBytes) / kPlanes;
  alignas(64) float value[kPlanes][kPlane];
  size_t channels = 0;
  size_t step = 0;
  size_t at = 0;

  template <BinaryOp kOp>
  void fill(const act_t* from, size_t count, int32_t zp, float multiplier) {
    channels = count;
    step = V::kBytes % count;
    at = 0;
    Run<V> run{from, V::zero_of(zp), V::set1(multiplier)};
    for (size_t c = 0; c < count; c += V::kBytes, run.advance()) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) V::store_float(place(c, k), run.template get<kOp>(k));
    }
    // Behind the row, its beginning again, for blocks that run over its end. Where the planes do not meet
    // there, no block does.
    if (count % kPlanes != 0) return;
    for (size_t k = 0; k < kPlanes; ++k) {
      for (size_t c = 0; c < V::kBytes / kPlanes; ++c) value[k][count / kPlanes + c] = value[k][c];
    }
  }
  template <BinaryOp kOp>
  EDGEQ_INLINE typename V::Float get(int k) const {
    return V::load_float(place(at, k));
  }
  EDGEQ_INLINE void advance() {
    at += step;
    if (at >= channels) at -= channels;
  }

 private:
  /// Where the floats of vector k of the block from channel c on stand.
  EDGEQ_INLINE const float* place(size_t c, int k) const {
    return kPlanes == 1 ? value[0] + c + k * V::kLanes : value[k] + c / kPlanes;
  }
  EDGEQ_INLINE float* place(size_t c, int k) {
    return const_cast<float*>(const_cast<const Row*>(this)->place(c, k));
  }
};

/// dst = a op other, or other op a where kSwapped, for `count` bytes.
template <typename V, BinaryOp kOp, bool kSwapped, typename Other>
EDGEQ_NOINLINE void combine(const BinaryParams& p, const act_t* a, typename V::Zero zp,
                            typename V::Float multiplier, Other& other, act_t* dst, size_t count) {
  const OutputRange range = p.range;  // a copy, which no store can change
  for (size_t i = 0; i < count; i += V::kBytes, other.advance()) {
    typename V::Int d[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const auto left = V::to_float(V::spread(a + i, zp, k));
      const auto right = other.template get<kOp>(k);
      typename V::Float value;
      if (kOp == BinaryOp::kMul) {
        // The product of two differences is below 2^16: exact in float32, and equal to the integer one
        // converted.
        value = V::mul(V::mul(left, right), multiplier);
      } else if (kOp == BinaryOp::kAdd) {
        value = V::plus(V::mul(left, multiplier), right);
      } else if (kSwapped) {
        value = V::minus(right, V::mul(left, multiplier));
      } else {
        value = V::minus(V::mul(left, multiplier), right);
      }
      d[k] = V::round(value);
    }
    V::store(dst + i, V::order(pack_and_clamp<V>(d[0], d[1], d[2], d[3], range)), count - i);
  }
}

/// One operand of the parameters.
struct Operand {
  const act_t* from;
  ptrdiff_t row_stride;
  int step;
  int32_t zp;
  float multiplier;

  /// The same for every row.
  bool repeats() const { return row_stride == 0; }
};

/// Operand a is a run of bytes in each row.
template <typename V, BinaryOp kOp, bool kSwapped>
void binary(const BinaryParams& p, const Operand& a, const Operand& b) {
  const ptrdiff_t channels = static_cast<ptrdiff_t>(p.channels);
  const auto zp = V::zero_of(a.zp);
  const auto multiplier = V::set1(a.multiplier);
  const bool dense = p.dst_row_stride == channels && a.row_stride == channels;
  const auto run = [&](size_t row, size_t first, size_t count, auto& other) {
    const ptrdiff_t i = static_cast<ptrdiff_t>(row);
    combine<V, kOp, kSwapped>(p, a.from + i * a.row_stride + first, zp, multiplier, other,
                              p.dst + i * p.dst_row_stride + first, count);
  };
  if (b.step == 0) {
    const bool one = dense && b.repeats();
    for (size_t i = 0; i < (one ? 1 : p.rows); ++i) {
      const float centered = static_cast<float>(b.from[static_cast<ptrdiff_t>(i) * b.row_stride] - b.zp);
      Value<V> other{V::set1(kOp == BinaryOp::kMul ? centered : centered * b.multiplier)};
      run(i, 0, one ? p.rows * p.channels : p.channels, other);
    }
    return;
  }
  if (!b.repeats() || p.rows == 1) {
    const bool one = dense && b.row_stride == channels;
    for (size_t i = 0; i < (one ? 1 : p.rows); ++i) {
      Run<V> other{b.from + static_cast<ptrdiff_t>(i) * b.row_stride, V::zero_of(b.zp),
                   V::set1(b.multiplier)};
      run(i, 0, one ? p.rows * p.channels : p.channels, other);
    }
    return;
  }
  Row<V> other;
  if (dense && p.channels <= Row<V>::kMostChannels && p.channels % Row<V>::kPlanes == 0) {
    other.template fill<kOp>(b.from, p.channels, b.zp, b.multiplier);
    run(0, 0, p.rows * p.channels, other);
    return;
  }
  for (size_t first = 0; first < p.channels; first += Row<V>::kMostChannels) {
    const size_t rest = p.channels - first;
    const size_t count = rest < Row<V>::kMostChannels ? rest : Row<V>::kMostChannels;
    other.template fill<kOp>(b.from + first, count, b.zp, b.multiplier);
    for (size_t i = 0; i < p.rows; ++i) {
      other.at = 0;
      run(i, first, count, other);
    }
  }
}

template <BinaryOp kOp>
void plain(const BinaryParams& p) {
  if (kOp == BinaryOp::kAdd) add_scalar(p);
  if (kOp == BinaryOp::kSub) sub_scalar(p);
  if (kOp == BinaryOp::kMul) mul_scalar(p);
}

template <typename V, BinaryOp kOp>
void binary(const BinaryParams& p) {
  // Without the upper clamp before it, a conversion to integers needs values below 2^31.
  const float largest =
      kOp == BinaryOp::kMul ? 65025.0f * p.multiplier_a : 255.0f * p.multiplier_a + 255.0f * p.multiplier_b;
  const bool fits = largest < 2147483648.0f;
  if (!fits || (p.a_step == 0 && p.b_step == 0)) return plain<kOp>(p);
  const float multiplier_b = kOp == BinaryOp::kMul ? p.multiplier_a : p.multiplier_b;
  const Operand a{p.a, p.a_row_stride, p.a_step, p.zp_a, p.multiplier_a};
  const Operand b{p.b, p.b_row_stride, p.b_step, p.zp_b, multiplier_b};
  // The operand that repeats comes second.
  // (Sums and products do not change by that, to the bit.)
  if (a.step == 0 || (a.repeats() && b.step == 1)) return binary<V, kOp, kOp == BinaryOp::kSub>(p, b, a);
  binary<V, kOp, false>(p, a, b);
}

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_ELEMENTWISE_X86_WIDE_H_
