#include "kernels/softmax/softmax.h"
#include "kernels/x86_vectors.h"

namespace edgeq {

void softmax_scalar(const SoftmaxParams&);

namespace {

/// The smallest byte.
inline uint8_t least(__m256i bytes) {
  __m128i half = _mm_min_epu8(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  half = _mm_min_epu8(half, _mm_srli_epi16(half, 8));
  return static_cast<uint8_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(half)));
}

/// The largest and the smallest of `count` bytes.
struct Extremes {
  uint8_t highest;
  uint8_t lowest;

  Extremes(const uint8_t* bytes, size_t count) {
    const __m256i ones = Vector256::set1_byte(-1);
    __m256i high, low;
    if (count < 32) {
      alignas(32) static constexpr int8_t kIndex[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                        11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                        22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
      const __m256i outside =
          _mm256_cmpgt_epi8(Vector256::load(kIndex), Vector256::set1_byte(static_cast<int>(count) - 1));
      const __m256i all = Vector256::load(bytes);
      high = _mm256_andnot_si256(outside, all);
      low = Vector256::bit_or(outside, all);
    } else {
      // The last vector overlaps the one before it.
      high = low = Vector256::load(bytes + count - 32);
      for (size_t i = 0; i + 32 < count; i += 32) {
        high = Vector256::max_bytes(high, Vector256::load(bytes + i));
        low = Vector256::min_bytes(low, Vector256::load(bytes + i));
      }
    }
    highest = static_cast<uint8_t>(255 - least(Vector256::bit_xor(high, ones)));
    lowest = least(low);
  }
};

/// float32(entries[i] / total) of `count` entries, rounded up to a multiple of four.
void divide(const double* entries, size_t count, double total, float* quotients) {
  const __m256d divisor = _mm256_set1_pd(total);
  for (size_t i = 0; i < count; i += 4) {
    _mm_storeu_ps(quotients + i, _mm256_cvtpd_ps(_mm256_div_pd(_mm256_loadu_pd(entries + i), divisor)));
  }
}

}  // namespace

// The table as float64 values: entries of at most 2^40 are exact, and so are sums of up to 2^13 of them in
// any order. A row has at most 256 different quotients: where it has more elements than that, they are
// divided once and looked up.
void softmax_avx2(const SoftmaxParams& p) {
  constexpr size_t kMostExact = size_t{1} << 13;
  if (p.channels > kMostExact) {
    softmax_scalar(p);
    return;
  }
  double reals[256];
  for (int d = 0; d < 256; ++d) reals[d] = static_cast<double>(static_cast<int64_t>(p.table[d]));
  for (size_t i = 0; i < p.rows; ++i) {
    const act_t* src = p.src + static_cast<ptrdiff_t>(i) * p.src_row_stride;
    float* dst = p.dst + static_cast<ptrdiff_t>(i) * p.dst_row_stride;
    const Extremes extremes(src, p.channels);
    const double* real = reals + extremes.highest;  // real[-x] belongs to x
    double sums[4] = {};
    size_t c = 0;
    for (; c + 4 <= p.channels; c += 4) {
      for (int k = 0; k < 4; ++k) sums[k] += real[-ptrdiff_t{src[c + static_cast<size_t>(k)]}];
    }
    for (; c < p.channels; ++c) sums[0] += real[-ptrdiff_t{src[c]}];
    const double total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    const size_t different = static_cast<size_t>(extremes.highest - extremes.lowest) + 1;
    float quotients[256];
    if (different < p.channels) {
      divide(reals, different, total, quotients);
      const float* quotient = quotients + extremes.highest;
      for (c = 0; c < p.channels; ++c) {
        dst[static_cast<ptrdiff_t>(c) * p.dst_channel_stride] = quotient[-ptrdiff_t{src[c]}];
      }
      continue;
    }
    const __m256d divisor = _mm256_set1_pd(total);
    for (c = 0; c < p.channels; c += 4) {
      double entry[4];
      for (size_t k = 0; k < 4; ++k) entry[k] = real[-ptrdiff_t{src[c + k < p.channels ? c + k : c]}];
      const __m256d entries = _mm256_setr_pd(entry[0], entry[1], entry[2], entry[3]);
      const __m128 four = _mm256_cvtpd_ps(_mm256_div_pd(entries, divisor));
      if (p.dst_channel_stride == 1 && c + 4 <= p.channels) {
        _mm_storeu_ps(dst + c, four);
        continue;
      }
      _mm_storeu_ps(quotients, four);
      for (size_t k = 0; k < 4 && c + k < p.channels; ++k) {
        dst[static_cast<ptrdiff_t>(c + k) * p.dst_channel_stride] = quotients[k];
      }
    }
  }
}

}  // namespace edgeq
