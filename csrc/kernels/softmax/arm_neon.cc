#include "kernels/arm_vectors.h"
#include "kernels/softmax/softmax.h"

namespace edgeq {
namespace {

/// The largest and the smallest of `count` bytes.
struct Extremes {
  int32_t highest;
  int32_t lowest;

  Extremes(const int8_t* bytes, size_t count) : highest(bytes[0]), lowest(bytes[0]) {
    size_t i = 0;
    if (count >= 16) {
      int8x16_t high = vld1q_s8(bytes), low = high;
      for (; i + 16 <= count; i += 16) {
        high = vmaxq_s8(high, vld1q_s8(bytes + i));
        low = vminq_s8(low, vld1q_s8(bytes + i));
      }
      int8x8_t most = vmax_s8(vget_low_s8(high), vget_high_s8(high));
      int8x8_t least = vmin_s8(vget_low_s8(low), vget_high_s8(low));
      for (int round = 0; round < 3; ++round) {
        most = vpmax_s8(most, most);
        least = vpmin_s8(least, least);
      }
      highest = vget_lane_s8(most, 0);
      lowest = vget_lane_s8(least, 0);
    }
    for (; i < count; ++i) {
      highest = bytes[i] > highest ? bytes[i] : highest;
      lowest = bytes[i] < lowest ? bytes[i] : lowest;
    }
  }
};

/// quotients[d] = float32(float64(table[d]) / total) for d < count.
void divide(const uint64_t* table, size_t count, double total, float* quotients) {
#if defined(__aarch64__)
  const float64x2_t divisor = vdupq_n_f64(total);
  const auto two = [&](size_t d) {
    return vcvt_f32_f64(vdivq_f64(vcvtq_f64_u64(vld1q_u64(table + d)), divisor));
  };
  size_t d = 0;
  for (; d + 2 <= count; d += 2) vst1_f32(quotients + d, two(d));
  if (d < count) quotients[d] = static_cast<float>(static_cast<double>(table[d]) / total);
#else
  for (size_t d = 0; d < count; ++d) {
    // Both halves and their sum, at most 2^40, are exact; Armv7 converts 64 bits in software.
    const double high = static_cast<double>(static_cast<uint32_t>(table[d] >> 32));
    const double low = static_cast<double>(static_cast<uint32_t>(table[d]));
    quotients[d] = static_cast<float>((high * 4294967296.0 + low) / total);
  }
#endif
}

}  // namespace

// A row has at most as many different quotients as the span of its bytes: they are divided once and looked
// up.
void softmax_neon(const SoftmaxParams& p) {
  for (size_t i = 0; i < p.rows; ++i) {
    const act_t* src = p.src + static_cast<ptrdiff_t>(i) * p.src_row_stride;
    float* dst = p.dst + static_cast<ptrdiff_t>(i) * p.dst_row_stride;
    const Extremes extremes(src, p.channels);
    // entry[-x] belongs to x, and so does quotient[-x]: one negation and one load an element.
    const uint64_t* entry = p.table + extremes.highest;
    uint64_t sum = 0;
    for (size_t c = 0; c < p.channels; ++c) sum += entry[-ptrdiff_t{src[c]}];
    const double total = static_cast<double>(sum);
    float quotients[256];
    const size_t different = static_cast<size_t>(extremes.highest - extremes.lowest) + 1;
    if (different <= p.channels) {
      divide(p.table, different, total, quotients);
      const float* quotient = quotients + extremes.highest;
      for (size_t c = 0; c < p.channels; ++c) {
        dst[static_cast<ptrdiff_t>(c) * p.dst_channel_stride] = quotient[-ptrdiff_t{src[c]}];
      }
    } else {
      // Fewer than 256 elements, each divided by itself.
      uint64_t entries[256];
      for (size_t c = 0; c < p.channels; ++c) entries[c] = entry[-ptrdiff_t{src[c]}];
      divide(entries, p.channels, total, quotients);
      for (size_t c = 0; c < p.channels; ++c) {
        dst[static_cast<ptrdiff_t>(c) * p.dst_channel_stride] = quotients[c];
      }
    }
  }
}

}  // namespace edgeq
