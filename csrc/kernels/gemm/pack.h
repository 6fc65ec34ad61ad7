#ifndef EDGEQ_KERNELS_GEMM_PACK_H_
#define EDGEQ_KERNELS_GEMM_PACK_H_

#include <cstddef>
#include <cstdint>

#include "base/int4.h"
#include "kernels/gemm/gemm.h"

namespace edgeq {

// Packed weights: panels of nr output channels, the last one narrower (what is left, rounded up to nr_step).
// A panel of width w:
//
//   | bias int32 [w] | scale float32 [w] | tap 0: group 0 | group 1 | ... | tap 1: group 0 | ...
//
// W8, a group is kr input channels of one tap, for each output channel side by side:
//
//   | j=0: c0 c1 .. c(kr-1) | j=1: c0 .. | ... | j=w-1: .. |                          w * kr bytes
//
// With kr = 16 (plain NEON, which takes 8 or 16 bytes at a time) the last group of a tap is 8 deep where no
// more than 8 channels are left for it; every channel has 8 bytes there. Behind the scales stand notes, in
// whole sixteens of bytes: which sums of products 16 bits hold, because the magnitudes of the weights add up
// to 255 at most (255 * 128 = 32,640). W8, of each pair of whole groups of a tap, from the second group on
// where their number is odd:
//
//   1   the four products in places i, i + 8, i + 16 and i + 24 of the pair, for every i < 8 and channel
//   0   only two products are known to fit (2 * 127 * 128 = 32,512)
//
// A byte for each pair; but where there is one tap of at most 63 pairs, a bit, the first pair's the highest
// of a uint64, and a 1 behind the last one's: a shift yields both the bit and the end.
//
// W4, a byte, where lane i of a channel adds the products in the places i, i + 8, i + 16, ... of all taps:
//
//   3   lanes 0 to 3 together, and lanes 4 to 7, of every channel
//   2   lanes 2 * i and 2 * i + 1 together
//   1   each lane
//   0   not each lane, or there are more than 255 pairs of groups
//
// and from byte 4 on, a uint32: the most that the magnitudes of a channel's weights add up to.
//
// From byte 8 on, a byte for each of the parts that the depth is cut into, so that each lane holds the sums
// of a part: how many pairs of groups it has, all taps being one; 0 ends them. An odd number of groups begins
// with one more. Where the byte above is not 0, there is one part, with half a group behind it. There are
// none if taps have other than whole pairs of groups, unless there is one, or where a part would end in half
// a group, or there would be more than 7.
//
// Weights for tiles by lanes (plain NEON, kr = 1) have 32 bytes of notes: how many fours of a tap's places,
// one after the other, the products of every channel are added of in 16 bits; how many then, and so on; 0.
// They come in pairs, but for the last four of a tap alone, where the rest of its eight is padding. The
// uint32 stands behind, from byte 16 on.
//
// W4, a group pair in the same number of bytes: the low nibble of a byte belongs to the even group, the high
// one to the odd group; so a shift or a mask of the whole register yields a W8 group, with no shuffle. A tap
// is padded to an even number of groups.
//
// Where the instruction set multiplies unsigned by signed bytes without VNNI (kAvx2), each nibble has its top
// bit flipped: it holds the weight + 8, a number without a sign. Panels with kr = 4 have notes behind the
// scales: a byte for each run of pairs of groups whose products 16 bits hold, its pairs. The magnitudes of
// the positive weights that meet in a lane, two channels of each group, add up to 128 at most, and those of
// the negative ones (128 * 255 = 32,640). Padded to whole cache lines.
//
// Padding weights (channels beyond n, depth beyond k) are zero, padding biases and scales too. The bias is
// bias(j) - zp_lhs * sum of the weights of j: lhs enters the kernel without its zero point taken off.

/// Depth of one tap after padding.
size_t gemm_padded_k(const GemmVariant& variant, size_t k);

/// Whether the notes of 8-bit weights are bits, of taps with `groups` whole groups of 16.
static inline bool gemm_notes_are_bits(size_t groups, size_t taps) { return taps == 1 && groups / 2 < 64; }

/// Bytes of the notes of a panel with groups of 16, of which a tap has `groups` whole ones.
static inline size_t gemm_note_bytes(int weight_bits, size_t groups, size_t taps) {
  if (weight_bits == 4 || gemm_notes_are_bits(groups, taps)) return 16;
  return (taps * (groups / 2) + 15) / 16 * 16;
}

/// Bytes of the notes of a panel for tiles by lanes.
constexpr size_t kGemmLaneNotes = 32;

/// Where the uint32 of 4-bit weights stands in the notes.
constexpr size_t kGemmNarrowMost = 4;

/// Where the parts of 4-bit weights stand in the notes, and how many bytes they have.
constexpr size_t kGemmNarrowParts = 8;
constexpr size_t kGemmNarrowPartBytes = 8;

/// Whether panels of 4-bit weights with kr = 16 may have parts.
static inline bool gemm_has_parts(size_t k, size_t taps) { return taps == 1 || (k + 7) / 8 % 4 == 0; }

constexpr size_t kGemmLaneMost = 16;

/// Bytes of the notes of a panel of kAvx2's nibbles, of `depth` channels of all taps. A run ends before a
/// pair that does not fit, and four pairs always do: 4 * 4 * 7 <= 128.
static inline size_t gemm_run_note_bytes(size_t depth) { return ((depth + 31) / 32 + 63) / 64 * 64; }

/// Bytes of the packed form.
size_t gemm_packed_bytes(const GemmVariant& variant, size_t n, size_t k, size_t taps);

/// Packs weights [n][taps][k] (OHWI), bias [n] and scale [n].
///
/// Args:
///   weights: 8-bit, or 4-bit in the file's packing; its bits must equal the variant's or, for an 8-bit
///     variant, may be 4 (the values are widened).
///   bias: May be null (zeros).
///   zp_lhs: Zero point of the input, act domain.
///   packed: gemm_packed_bytes bytes, 64-byte aligned.
void gemm_pack(const GemmVariant& variant, size_t n, size_t k, size_t taps, WeightView weights,
               const int32_t* bias, const float* scale, int32_t zp_lhs, uint8_t* packed);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_GEMM_PACK_H_
