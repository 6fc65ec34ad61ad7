#include "kernels/gemm/pack.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "base/requantize.h"
#include "kernels/gemm/lhs.h"

namespace edgeq {
namespace {

/// Depth of the last group of a tap where it is half a group (pack.h), else 0.
size_t half_group(const GemmVariant& variant, size_t k) {
  const size_t kr = static_cast<size_t>(variant.kr);
  return kr == 16 && variant.weight_bits == 8 && k % kr != 0 && k % kr <= kr / 2 ? kr / 2 : 0;
}

/// Whether the variant multiplies by lanes of plain NEON: sums of 16 bits bound its depth. Winograd's kernels
/// have single places of the depth too, but 32 bits for the sums.
bool is_by_lanes(const GemmVariant& variant) {
  return variant.kr == 1 && variant.isa == Isa::kNeon && variant.max_depth != 0;
}

/// Whether runs of nibbles are noted (pack.h). Winograd's kernels take them apart.
bool has_runs(const GemmVariant& variant) {
  return variant.isa == Isa::kAvx2 && variant.weight_bits == 4 && variant.kr == 4;
}

/// Bytes before the weights.
size_t header_bytes(const GemmVariant& variant, size_t width, size_t k, size_t taps) {
  const size_t channels = width * (sizeof(int32_t) + sizeof(float));
  if (is_by_lanes(variant)) return channels + kGemmLaneNotes;
  if (has_runs(variant)) return channels + gemm_run_note_bytes(gemm_padded_k(variant, k) * taps);
  if (variant.kr != 16) return channels;
  return channels + gemm_note_bytes(variant.weight_bits, gemm_padded_k(variant, k) / 16, taps);
}

size_t panel_bytes(const GemmVariant& variant, size_t width, size_t k, size_t taps) {
  const size_t weights = width * gemm_padded_k(variant, k) * taps;
  return header_bytes(variant, width, k, taps) + (variant.weight_bits == 4 ? weights / 2 : weights);
}

/// Which sums of all 4-bit weights' products 16 bits hold (pack.h), of a panel with `taps` times `depth`
/// bytes a channel.
uint8_t fit_of(const uint8_t* weights, size_t width, size_t depth, size_t taps) {
  constexpr int32_t kMost = 255;
  const auto magnitude = [](int32_t w) { return w < 0 ? -w : w; };
  uint8_t fit = 3;
  for (size_t j = 0; j < width; ++j) {
    int32_t lanes[8] = {};
    for (size_t c = 0; c < depth * taps; ++c) {
      const uint8_t byte = weights[(c / 16 * width + j) * 16 + c % 16];
      lanes[c % 8] +=
          magnitude(int4_sign_extend(byte)) + magnitude(int4_sign_extend(static_cast<uint8_t>(byte >> 4)));
    }
    for (const int32_t* four = lanes; four != lanes + 8; four += 4) {
      const auto fits = [&](int32_t sum) { return sum <= kMost; };
      uint8_t here = 0;
      if (fits(four[0] + four[1] + four[2] + four[3])) {
        here = 3;
      } else if (fits(four[0] + four[1]) && fits(four[2] + four[3])) {
        here = 2;
      } else if (fits(four[0]) && fits(four[1]) && fits(four[2]) && fits(four[3])) {
        here = 1;
      }
      if (here < fit) fit = here;
    }
  }
  return fit;
}

/// Most pairs of groups of a part of 4-bit weights.
constexpr size_t kMostPairs = 255;

/// Writes the parts of a panel of 4-bit weights (pack.h), `groups` whole groups of 16 of all taps and `half`
/// a group. `fit`: as fit_of says.
void put_parts(const uint8_t* weights, size_t width, size_t groups, bool half, uint8_t fit, uint8_t* out) {
  constexpr int32_t kMost = 255;
  constexpr size_t kMostParts = kGemmNarrowPartBytes - 1;
  if (fit != 0) {
    *out = static_cast<uint8_t>(groups / 2);
    return;
  }
  if (half) return;
  std::vector<int32_t> sums(8 * width);
  // The magnitudes of a group in the lanes, on top of what these have.
  const auto add_group = [&](size_t group, std::vector<int32_t> lanes) {
    const uint8_t* bytes = weights + group / 2 * 16 * width;
    for (size_t i = 0; i < 16 * width; ++i) {
      const int32_t w = int4_sign_extend(static_cast<uint8_t>(bytes[i] >> (group % 2 * 4)));
      lanes[i / 16 * 8 + i % 8] += w < 0 ? -w : w;
    }
    return lanes;
  };
  const auto fits = [](const std::vector<int32_t>& lanes) {
    return *std::max_element(lanes.begin(), lanes.end()) <= kMost;
  };
  if (groups % 2 != 0) sums = add_group(0, std::move(sums));
  uint8_t parts[kGemmNarrowPartBytes] = {};
  size_t part = 0;
  for (size_t g = groups % 2; g < groups; g += 2) {
    std::vector<int32_t> more = add_group(g + 1, add_group(g, sums));
    if (!fits(more) || parts[part] == kMostPairs) {
      if (++part == kMostParts) return;
      more = add_group(g + 1, add_group(g, std::vector<int32_t>(8 * width)));
    }
    ++parts[part];
    sums = std::move(more);
  }
  std::memcpy(out, parts, sizeof parts);
}

/// Writes the most that the magnitudes of a channel's 4-bit weights add up to, of a panel with `bytes` bytes
/// a channel, `unit` of them side by side.
void put_most(const uint8_t* weights, size_t width, size_t unit, size_t bytes, uint8_t* out) {
  const auto magnitude = [](int32_t w) { return w < 0 ? -w : w; };
  uint32_t most = 0;
  for (size_t j = 0; j < width; ++j) {
    uint32_t sum = 0;
    for (size_t c = 0; c < bytes; ++c) {
      const uint8_t byte = weights[(c / unit * width + j) * unit + c % unit];
      sum += static_cast<uint32_t>(magnitude(int4_sign_extend(byte)) +
                                   magnitude(int4_sign_extend(static_cast<uint8_t>(byte >> 4))));
    }
    if (sum > most) most = sum;
  }
  std::memcpy(out, &most, sizeof most);
}

/// Writes the notes of a panel for tiles by lanes. A run ends where the magnitudes of a channel's weights
/// would add up to more than 255 (255 * 128 = 32,640): two runs in a row together have more, that is, at
/// least 37 places of 4 bits, so that there are at most 13 of the 240 places that such a variant takes.
void put_lane_notes(const uint8_t* weights, size_t width, size_t padded_k, size_t taps, uint8_t* out) {
  constexpr int32_t kMost = 255;
  constexpr size_t kFour = 4;
  std::memset(out, 0, kGemmLaneNotes);
  put_most(weights, width, 1, padded_k / 2 * taps, out + kGemmLaneMost);
  std::vector<int32_t> sums(width), here(width);
  for (size_t t = 0; t < taps; ++t) {
    for (size_t c = 0; c < padded_k; c += 8) {
      const size_t count = padded_k - c < 8 ? padded_k - c : 8;
      bool fits = true;
      here.assign(width, 0);
      for (size_t i = 0; i < count; i += 2, weights += width) {
        for (size_t j = 0; j < width; ++j) {
          const int32_t even = int4_sign_extend(weights[j]);
          const int32_t odd = int4_sign_extend(static_cast<uint8_t>(weights[j] >> 4));
          here[j] += (even < 0 ? -even : even) + (odd < 0 ? -odd : odd);
        }
      }
      for (size_t j = 0; j < width; ++j) fits = fits && sums[j] + here[j] <= kMost;
      if (!fits) ++out;
      for (size_t j = 0; j < width; ++j) sums[j] = here[j] + (fits ? sums[j] : 0);
      // Half of the last eight is left out where weights are zero, but not if that is all of a run.
      *out = static_cast<uint8_t>(*out + (taps == 1 && count <= kFour && *out != 0 ? 1 : 2));
    }
  }
}

/// Writes the runs of a panel of kWidth channels of nibbles, `pairs` pairs of groups of all taps. Compilers
/// make vectors of its loops, bytes and words.
template <size_t kWidth>
void put_run_notes(const uint8_t* weights, size_t pairs, uint8_t* out) {
  constexpr uint16_t kMost = 128;
  constexpr size_t kBytes = 4 * kWidth;  // of a pair of groups
  using Magnitudes = std::array<uint8_t, kBytes>;
  const auto exceeds = [](const Magnitudes& sums) {
    std::array<uint16_t, kBytes / 2> lanes;
    std::memcpy(lanes.data(), sums.data(), kBytes);
    uint16_t any = 0;
    for (uint16_t two : lanes) {
      const uint16_t sum = static_cast<uint16_t>((two & 0xFF) + (two >> 8));
      any = static_cast<uint16_t>(any | static_cast<uint16_t>(kMost - sum) >> 15);
    }
    return any != 0;
  };
  std::memset(out, 0, gemm_run_note_bytes(8 * pairs));
  Magnitudes above = {};
  Magnitudes below = {};
  for (; pairs > 0; --pairs, weights += kBytes) {
    Magnitudes more;
    Magnitudes less;
    for (size_t i = 0; i < kBytes; ++i) {
      const uint8_t even = static_cast<uint8_t>((weights[i] & 0x0F) ^ 8);  // plus 8
      const uint8_t odd = static_cast<uint8_t>((weights[i] >> 4) ^ 8);
      const uint8_t zero = 8;
      more[i] = static_cast<uint8_t>(std::max(even, zero) + std::max(odd, zero) - 2 * zero);
      less[i] = static_cast<uint8_t>(2 * zero - std::min(even, zero) - std::min(odd, zero));
      above[i] = static_cast<uint8_t>(above[i] + more[i]);
      below[i] = static_cast<uint8_t>(below[i] + less[i]);
    }
    if (*out == 255 || exceeds(above) || exceeds(below)) {
      ++out;
      above = more;
      below = less;
    }
    ++*out;
  }
}

/// Whether four products of every lane of two groups of 16 fit 16 bits.
bool adds_in_pairs(const uint8_t* groups, size_t width) {
  const auto magnitude = [&](size_t i) {
    const int32_t w = static_cast<int8_t>(groups[i]);
    return w < 0 ? -w : w;
  };
  for (size_t j = 0; j < width; ++j) {
    for (size_t i = 16 * j; i < 16 * j + 8; ++i) {
      const size_t next = i + 16 * width;
      if (magnitude(i) + magnitude(i + 8) + magnitude(next) + magnitude(next + 8) > 255) return false;
    }
  }
  return true;
}

/// Writes the notes of a panel.
void put_notes(const uint8_t* weights, int weight_bits, size_t width, size_t k, size_t padded_k, size_t taps,
               uint8_t* out) {
  const size_t groups = padded_k / 16;
  std::memset(out, 0, gemm_note_bytes(weight_bits, groups, taps));
  if (weight_bits == 4) {
    put_most(weights, width, 16, padded_k / 2 * taps, out + kGemmNarrowMost);
    const size_t eights = (k + 7) / 8;
    const size_t all_groups = eights / 2 * taps;
    if (all_groups / 2 <= kMostPairs) *out = fit_of(weights, width, padded_k / 2, taps);
    if (gemm_has_parts(k, taps))
      put_parts(weights, width, all_groups, eights % 2 != 0, *out, out + kGemmNarrowParts);
    return;
  }
  if (gemm_notes_are_bits(groups, taps)) {
    uint64_t bits = 0;
    uint64_t bit = uint64_t{1} << 63;
    for (size_t g = groups % 2; g < groups; g += 2, bit >>= 1) {
      if (adds_in_pairs(weights + g * 16 * width, width)) bits |= bit;
    }
    bits |= bit;
    std::memcpy(out, &bits, sizeof bits);
    return;
  }
  for (size_t t = 0; t < taps; ++t, weights += width * padded_k) {
    for (size_t g = groups % 2; g < groups; g += 2) *out++ = adds_in_pairs(weights + g * 16 * width, width);
  }
}

// Weights are copied in blocks of so many channels by so many input channels (whole group pairs of every
// variant): first each channel's to a row of the block, in the form of the panel, then group by group across
// the rows. Reads are sequential that way, and writes are, and the block stays in the first-level cache.
constexpr size_t kBlockChannels = 64;
constexpr size_t kBlockDepth = 256;

struct Block {
  uint8_t rows[kBlockChannels][kBlockDepth];
};

/// Fills a row with `count` weights from element `first` on, and zeros; returns their sum.
using Fill = int32_t (*)(WeightView weights, size_t first, size_t count, uint8_t (&row)[kBlockDepth]);

int32_t fill_bytes(WeightView weights, size_t first, size_t count, uint8_t (&row)[kBlockDepth]) {
  if (weights.bits == 8) {
    std::memcpy(row, weights.data + weights.first + first, count);
  } else {
    for (size_t i = 0; i < count; ++i) row[i] = static_cast<uint8_t>(weights.at(first + i));
  }
  std::memset(row + count, 0, kBlockDepth - count);
  int32_t sum = 0;
  for (size_t i = 0; i < kBlockDepth; ++i) sum += static_cast<int8_t>(row[i]);
  return sum;
}

/// W4: a byte holds a weight of an even group and its counterpart of the next group, kKr weights on.
template <size_t kKr>
int32_t fill_pairs(WeightView weights, size_t first, size_t count, uint8_t (&row)[kBlockDepth]) {
  uint8_t bytes[kBlockDepth];
  const int32_t sum = fill_bytes(weights, first, count, bytes);
  for (size_t i = 0; i < kBlockDepth / 2; ++i) {
    const uint8_t* even = bytes + i / kKr * 2 * kKr + i % kKr;
    row[i] = int4_pack(even[0], even[kKr]);
  }
  return sum;
}

/// The same for groups of four, eight weights at a time.
template <>
int32_t fill_pairs<4>(WeightView weights, size_t first, size_t count, uint8_t (&row)[kBlockDepth]) {
  constexpr size_t kWords = kBlockDepth / 8;
  const size_t index = weights.first + first;
  const size_t whole = count / 8;
  uint32_t words[kWords] = {};
  if (index % 2 == 0) {
    std::memcpy(words, weights.data + index / 2, 4 * whole);
  } else {
    for (size_t i = 0; i < whole; ++i) words[i] = int4_word(weights.data, index + 8 * i);
  }
  if (whole < kWords) words[whole] = int4_word(weights.data, index + 8 * whole, count % 8);
  const int32_t sum = int4_sum(words);
  for (uint32_t& word : words) word = int4_interleave(word);
  std::memcpy(row, words, sizeof words);
  return sum;
}

/// Whether nibbles hold the weight + 8 (pack.h).
bool flips_nibbles(const GemmVariant& variant) {
  return variant.weight_bits == 4 && variant.isa == Isa::kAvx2;
}

Fill fill_of(const GemmVariant& variant) {
  if (variant.weight_bits == 8) return fill_bytes;
  switch (variant.kr) {
    case 1:
      return fill_pairs<1>;
    case 2:
      return fill_pairs<2>;
    case 4:
      return fill_pairs<4>;
    case 8:
      return fill_pairs<8>;
    default:
      return fill_pairs<16>;
  }
}

/// Writes unit u of every row, counted from byte `begin`, side by side at out + u * step.
template <size_t kUnit>
void interleave(const Block& block, size_t begin, size_t channels, size_t units, size_t step, uint8_t* out) {
  for (size_t u = 0; u < units; ++u, out += step) {
    for (size_t j = 0; j < channels; ++j)
      std::memcpy(out + j * kUnit, block.rows[j] + begin + u * kUnit, kUnit);
  }
}

void interleave(size_t unit, const Block& block, size_t begin, size_t channels, size_t units, size_t step,
                uint8_t* out) {
  switch (unit) {
    case 1:
      return interleave<1>(block, begin, channels, units, step, out);
    case 2:
      return interleave<2>(block, begin, channels, units, step, out);
    case 4:
      return interleave<4>(block, begin, channels, units, step, out);
    case 8:
      return interleave<8>(block, begin, channels, units, step, out);
    default:
      return interleave<16>(block, begin, channels, units, step, out);
  }
}

}  // namespace

size_t gemm_padded_k(const GemmVariant& variant, size_t k) {
  const size_t unit = static_cast<size_t>(variant.kr) * (variant.weight_bits == 4 ? 2 : 1);
  return (k + unit - 1) / unit * unit - half_group(variant, k);
}

size_t gemm_packed_bytes(const GemmVariant& variant, size_t n, size_t k, size_t taps) {
  size_t bytes = 0;
  const size_t nr = static_cast<size_t>(variant.nr);
  const size_t full = n / nr;
  bytes = full * panel_bytes(variant, nr, k, taps);
  if (full * nr < n) {
    bytes += panel_bytes(variant, panel_width(n, full, nr, static_cast<size_t>(variant.nr_step)), k, taps);
  }
  return bytes;
}

void gemm_pack(const GemmVariant& variant, size_t n, size_t k, size_t taps, WeightView weights,
               const int32_t* bias, const float* scale, int32_t zp_lhs, uint8_t* packed) {
  const size_t nr = static_cast<size_t>(variant.nr);
  const size_t kr = static_cast<size_t>(variant.kr);
  const size_t divisor = variant.weight_bits == 4 ? 2 : 1;
  const size_t padded_k = gemm_padded_k(variant, k);
  const size_t units = padded_k / divisor / kr;  // of one tap: groups, or group pairs
  const size_t half = half_group(variant, k);
  const Fill fill = fill_of(variant);
  Block block;
  for (size_t panel = 0; panel * nr < n; ++panel) {
    const size_t width = panel_width(n, panel, nr, static_cast<size_t>(variant.nr_step));
    const size_t header = header_bytes(variant, width, k, taps);
    uint8_t* const out = packed + header;
    for (size_t from = 0; from < width; from += kBlockChannels) {
      const size_t channels = width - from < kBlockChannels ? width - from : kBlockChannels;
      const size_t first = panel * nr + from;
      const size_t real = first >= n ? 0 : n - first < channels ? n - first : channels;
      int32_t sums[kBlockChannels] = {};
      for (size_t t = 0; t < taps; ++t) {
        uint8_t* const tap = out + t * width * (padded_k / divisor);
        for (size_t u = 0; u * kr * divisor < padded_k; u += kBlockDepth / divisor / kr) {
          const size_t c = u * kr * divisor;
          const size_t count = k - c < kBlockDepth ? k - c : kBlockDepth;
          for (size_t j = 0; j < real; ++j) {
            const size_t row = ((first + j) * taps + t) * k;
            sums[j] = wrapping_add(sums[j], fill(weights, row + c, count, block.rows[j]));
          }
          if (real < channels) std::memset(block.rows[real], 0, (channels - real) * kBlockDepth);
          const size_t left = units - u;
          const size_t block_units = left < kBlockDepth / divisor / kr ? left : kBlockDepth / divisor / kr;
          interleave(kr, block, 0, channels, block_units, width * kr, tap + (u * width + from) * kr);
          const size_t end = block_units * kr;  // in the rows of the block
          if (half != 0 && u + block_units == units && end < kBlockDepth)
            interleave(half, block, end, channels, 1, 0, tap + units * width * kr + from * half);
        }
      }
      for (size_t j = 0; j < channels; ++j) {
        const bool exists = j < real;
        const int32_t start = exists && bias != nullptr ? bias[first + j] : 0;
        const int32_t folded = wrapping_add(start, wrapping_mul(-zp_lhs, sums[j]));
        const float multiplier = exists ? scale[first + j] : 0.0f;
        std::memcpy(packed + (from + j) * sizeof(int32_t), &folded, sizeof folded);
        std::memcpy(packed + (width + from + j) * sizeof(int32_t), &multiplier, sizeof multiplier);
      }
    }
    const size_t channel_bytes = width * (sizeof(int32_t) + sizeof(float));
    if (is_by_lanes(variant)) {
      put_lane_notes(out, width, padded_k, taps, packed + channel_bytes);
    } else if (has_runs(variant)) {
      const auto put = width == 8 ? put_run_notes<8> : put_run_notes<16>;
      put(out, padded_k * taps / 8, packed + channel_bytes);
    } else if (header > channel_bytes) {
      put_notes(out, variant.weight_bits, width, k, padded_k, taps, packed + channel_bytes);
    }
    packed += panel_bytes(variant, width, k, taps);
    if (flips_nibbles(variant)) {
      for (uint8_t* byte = out; byte != packed; ++byte) *byte = static_cast<uint8_t>(*byte ^ 0x88);
    }
  }
}

}  // namespace edgeq
