#ifndef EDGEQ_KERNELS_DEPTHWISE_PACK_H_
#define EDGEQ_KERNELS_DEPTHWISE_PACK_H_

#include "kernels/depthwise/depthwise.h"

namespace edgeq {

// Packed depthwise weights. Biases hold bias(c) - zp_in * sum of the weights of c; padding channels have zero
// weights, biases and scales.
//
// Linear (C16 = channels rounded up to 16):
//   | bias int32 [C16] | scale float32 [C16] | tap (0,0): weight [C16] | tap (0,1) | ... |
//   W4: a tap is C16 / 2 bytes, the low nibble the even channel.
//
// Quads of a vector of B bytes (64 or 32):
//   | header [64] | block | block | ...
//
// The first four bytes of the header are 1 where a result may overflow an int32 before the clamp (see
// large_results), else 0.
//
// A block is `width` channels: B, B / 2 or (B = 64) B / 4 of them, as depthwise_block_width() says. The
// channels of a narrow block stand in the vector 2 or 4 times, because its kernel works on as many stretches
// of the output row at once. So every block has B channels of memory:
//
//   | bias int32 [B] | scale float32 [B] | set 0: quad | quad | ... | set 1: quad | ...
//
// A quad holds, for each channel, four taps as the four bytes of a dword. DepthwiseQuads says which taps. Set
// 1, where there is one, holds the same with every tap one row lower: the weights of the output row below
// over the input rows of the one above.
//
// Interleaving four rows of input byte by byte and then word by word works within 128-bit lanes, so the
// dwords stand in its order: vector v (of B / 4 dwords), lane l, dword d belong to channel (16 * l + 4 * v +
// d) % width. Bias and scale stand in the same order; packing the four result vectors with saturation
// restores the channels' own order.
//
// Where the CPU lacks VNNI, a quad of 4-bit weights is two pairs of bytes (kBytes), which lie beside each
// other for each half of the channels, in the order of interleaving bytes alone: vector v (of 4), lane l,
// word e: channel (16 * l + v / 2 * 8 + e) % width, taps v % 2 * 2 and the next.
//
//   W4: the vectors of both sets in a row, two in one: byte j of the first in the low nibbles, of the second
//   in the high ones. They are widened once for each block and call.

// Blocks of L = 16 channels, on 32-bit machines 8 (kDepthwiseBlock), for Arm without the dot product:
//   | header [64] | block | block | ... |
//
// The first four bytes of the header are 1 where sums and results are small (see small_results), else 0.
// Block i holds channel depthwise_block_first(i * L) and the L - 1 next ones: the last block ends with the
// last channel, so that it shares some with the one before and stores whole vectors.
//
//   | bias int32 [L] | scale float32 [L] | tap (0,0): weight [L] | tap (0,1) | ... |
//   W4: two taps in one vector, the even one in the low nibbles.

// Quads of 8 channels, for Arm with the dot product and 3x3 kernels: header and blocks as before with L = 8,
// and the weights of a block are
//
//   | column 0: quads of channels 0 .. 3 [16], of channels 4 .. 7 [16] | column 1 | column 2 |
//   W4: each column is one vector, channels 0 .. 3 in the low nibbles.
//
// A quad holds a column's three taps, from above, and a zero.

// Pairs of 8 channels, for 8-bit weights on AVX2:
//   | header [64] as of quads | block | block | ... |
//
//   | bias int32 [8] | scale float32 [8] | set 0: column 0: pair 0, pair 1, .. | column 1 | ... | set 1 | ...
//   |
//
// A pair is two taps below each other of each channel, int16 [8][2]; DepthwisePairs says how many there are.

// Planes of 16 channels, for 8-bit weights of 3x3 and 5x5 filters at stride 1 on AVX2:
//   | header [64] | block | block | ... |
//
//   | start int32 [16] | scale float32 [16] | bias int32 [16] | plane 0 | plane 1 | ... |
//
// A plane holds a filter of one row that came of minimal filtering (x86_avx2_minimal.h), g0, g1, .. of each
// channel, as pairs of columns for outputs of even and of odd columns:
//
//   even: g0 g1 | g2 g3 | g4 0 |   odd: 0 g0 | g1 g2 | g3 g4 |   each int16 [16][2]
//
// Sums come out doubled: start is twice the bias, scale half of it. The first four bytes of the header are 1
// where doubled sums may overflow, scales be too small to be halved, or results be large; then start is 0 and
// scale itself.

/// How the bytes of a quad stand in memory.
enum class QuadOrder { kQuads, kBytes };

/// Which rows the kernel of pairs interleaves: for `rows` output rows at a time, each input row goes into one
/// pair, with the row below it.
///
/// At stride 1 the second output row's taps lie one row lower in the same pairs (set 1 of the weights). At
/// stride 2 they lie one pair lower. Otherwise output rows share nothing.
struct DepthwisePairs {
  size_t rows;   // of output
  size_t sets;   // of weights
  size_t taps;   // pairs of one output row, in each column
  size_t pairs;  // of all rows, in each column

  explicit DepthwisePairs(const DepthwiseShape& shape) {
    rows = shape.dilation_h == 1 && shape.stride_h <= 2 ? 2 : 1;
    sets = rows == 2 && shape.stride_h == 1 ? 2 : 1;
    taps = (shape.kernel_h + sets) / 2;
    pairs = sets == 2 ? taps : taps + rows - 1;
  }

  static constexpr size_t kChannels = 8;
  static constexpr size_t kBytes = kChannels * 2 * sizeof(int16_t);  // of a pair

  size_t block_bytes(const DepthwiseShape& shape) const {
    return kChannels * 8 + sets * shape.kernel_w * taps * kBytes;
  }

  /// Outputs that a chunk of a row has at most: what they read of all channels stays in the first-level
  /// cache, their columns of one block do in any case.
  size_t chunk(const DepthwiseShape& shape) const {
    constexpr size_t kNear = 20 * 1024;
    const size_t read = 2 * pairs * shape.stride_w * shape.channels;
    const size_t outputs = kNear / read;
    return outputs < 8 ? 8 : outputs > 32 ? 32 : outputs;
  }

  /// Of the columns of a chunk and of a tile beyond it.
  size_t scratch_bytes(const DepthwiseShape& shape) const {
    constexpr size_t kTile = 8;
    const size_t outputs = chunk(shape) + kTile;
    return ((outputs - 1) * shape.stride_w + (shape.kernel_w - 1) * shape.dilation_w + 1) * pairs * kBytes;
  }
};

/// Sizes of the kernel of minimal filtering, of a square filter.
struct DepthwisePlanes {
  size_t kernel;

  explicit DepthwisePlanes(size_t kernel_width) : kernel(kernel_width) {}

  static constexpr size_t kChannels = 16;
  static constexpr size_t kHeads = 3 * kChannels * 4;  // bytes of start, scale and bias

  /// F(2, 3) has four products, F(2, 2) three.
  static constexpr int planes_of(size_t kernel) { return kernel == 3 ? 4 : 7; }
  size_t planes() const { return static_cast<size_t>(planes_of(kernel)); }
  size_t taps() const { return (kernel + 1) / 2; }  // pairs of columns that an output reads

  size_t block_bytes() const { return kHeads + planes() * 2 * taps() * kChannels * 2 * sizeof(int16_t); }

  /// Outputs that a chunk of a row has at most, whole tiles of four: what they read of all channels stays in
  /// the first-level cache, their planes of 16 channels do in any case.
  size_t chunk(size_t channels) const {
    constexpr size_t kNear = 20 * 1024;
    const size_t outputs = kNear / ((kernel + 1) * channels) / 4 * 4;
    return outputs < 8 ? 8 : outputs > 32 ? 32 : outputs;
  }

  /// Scratch: the planes of a chunk's columns, two rows of its sums, a row of padding.
  size_t columns_bytes(size_t channels) const {
    const size_t pairs = chunk(channels) / 2 + taps() - 1;
    return pairs * planes() * kChannels * 2 * sizeof(int16_t);
  }
  size_t sums_bytes(size_t channels) const { return chunk(channels) * kChannels * sizeof(int32_t); }
};

/// Which taps the quads hold, and so what the kernel interleaves.
///
/// First come `groups` * kernel_w quads of taps below each other: group g holds rows 4g .. 4g+3 (zero where
/// the kernel has no such row), one quad a column. A 5x5 kernel has one group; its last row's taps lie in two
/// quads `across`, side by side, since a group of that one row would leave three of four bytes of the
/// multiplier idle in every column: columns 0 .. 3, and the four columns from the next output's first one,
/// where tap 4 is the last (stride 1) or the last but one (stride 2) and the others are zero. So the second
/// quad's operands are the next output's first quad's.
struct DepthwiseQuads {
  size_t groups;
  size_t across;
  size_t sets;   // 2 where pairs of output rows are worth it
  size_t count;  // quads of one set

  explicit DepthwiseQuads(const DepthwiseShape& shape) {
    const bool five = shape.kernel_h == 5 && shape.kernel_w == 5 && shape.dilation_h == 1 &&
                      shape.dilation_w == 1 && shape.stride_w <= 2;
    groups = five ? 1 : (shape.kernel_h + 3) / 4;
    across = five ? 2 : 0;
    // Two output rows of stride 1 share their columns if the last group has room for one row more.
    const bool pairs = shape.stride_h == 1 && shape.stride_w == 1 && shape.dilation_h == 1;
    sets = pairs && !five && shape.kernel_h % 4 != 0 ? 2 : 1;
    count = groups * shape.kernel_w + across;
  }
};

/// The scratch of a quad kernel, and how it cuts an output row so that its part of it stays in the
/// first-level cache.
struct DepthwiseScratch {
  size_t chunk;          // outputs of one stretch, at most
  size_t chunk_columns;  // columns of a chunk, where they are interleaved into memory
  size_t columns;        // offset of the interleaved columns, or of the words of a row's first half
  size_t codes;          // offset of two rows' codes before the table
  size_t weights;        // offset of the widened weights of one block
  size_t zero_row;       // offset of a row of padding: width_in pixels, and kReadSlack more bytes

  DepthwiseScratch(const DepthwiseShape& shape, const DepthwiseQuads& quads, size_t width_out,
                   size_t vector_bytes) {
    const size_t overlap = (shape.kernel_w - 1) * shape.dilation_w;
    chunk = width_out < 32 ? width_out : 32;
    chunk_columns = (chunk - 1) * shape.stride_w + overlap + 1;
    columns = 0;
    codes = columns + quads.groups * chunk_columns * 4 * vector_bytes;
    weights = codes + 2 * chunk * vector_bytes;
    zero_row = weights + (shape.weight_bits == 4 ? quads.sets * quads.count * 4 * vector_bytes : 0);
  }
};

constexpr size_t kDepthwiseBlock = sizeof(void*) == 8 ? 16 : 8;

/// The first channel of the block of `width` that would begin at `first`.
static inline size_t depthwise_block_first(size_t first, size_t channels, size_t width) {
  if (first + width <= channels) return first;
  return channels < width ? 0 : channels - width;
}

/// Bytes of a block of kDepthwiseBlock channels.
static inline size_t depthwise_block_bytes(const DepthwiseShape& shape) {
  const size_t taps = shape.kernel_h * shape.kernel_w;
  return kDepthwiseBlock * (8 + (shape.weight_bits == 4 ? (taps + 1) / 2 : taps));
}

constexpr size_t kDepthwiseQuadBlock = 8;

/// Bytes of a block of kDepthwiseQuadBlock channels.
static inline size_t depthwise_quad_block_bytes(const DepthwiseShape& shape) {
  return kDepthwiseQuadBlock * 8 + 3 * (shape.weight_bits == 4 ? 16 : 32);
}

/// The scratch of the kernels that work on such blocks.
struct DepthwiseBlockScratch {
  size_t padded_width;  // columns that a row's windows reach
  size_t columns;       // offset of the rows of a window, a block's channels of each column
  size_t codes;         // offset of two rows of outputs, where there are fewer channels than a block has
  size_t weights;       // offset of the widened weights of one block
  size_t zero_row;      // offset of a row of padding: width_in pixels, and kReadSlack more bytes

  DepthwiseBlockScratch(const DepthwiseShape& shape, size_t width_out) {
    padded_width = (width_out - 1) * shape.stride_w + (shape.kernel_w - 1) * shape.dilation_w + 1;
    columns = 0;
    codes = columns + ((shape.kernel_h - 1) * shape.dilation_h + 1) * padded_width * kDepthwiseBlock;
    weights = codes + (shape.channels < kDepthwiseBlock ? 2 * width_out * kDepthwiseBlock : 0);
    const size_t taps = shape.kernel_h * shape.kernel_w;
    zero_row = weights + (shape.weight_bits == 4 ? (taps + 1) / 2 * 2 * kDepthwiseBlock : 0);
  }
};

/// Channels of the block that starts with `left` channels still to do, in vectors of `widest` bytes (64 or
/// 32).
static inline size_t depthwise_block_width(size_t left, size_t widest) {
  if (widest == 64 && left > 48) return 64;
  return left > 16 ? 32 : 16;
}

constexpr size_t kDepthwiseHeader = 64;

size_t depthwise_linear_bytes(const DepthwiseShape& shape);
void depthwise_linear_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed);

size_t depthwise_blocks_bytes(const DepthwiseShape& shape);
void depthwise_blocks_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed);

size_t depthwise_quads8_bytes(const DepthwiseShape& shape);
void depthwise_quads8_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed);

// quads64 and quads32 for VNNI, planes16, pairs8 and bytes32 for AVX2.
size_t depthwise_quads64_bytes(const DepthwiseShape& shape);
void depthwise_quads64_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed);
size_t depthwise_quads32_bytes(const DepthwiseShape& shape);
void depthwise_quads32_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed);
size_t depthwise_planes16_bytes(const DepthwiseShape& shape);
void depthwise_planes16_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                             const float* scale, int32_t zp_in, uint8_t* packed);
size_t depthwise_pairs8_bytes(const DepthwiseShape& shape);
void depthwise_pairs8_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                           const float* scale, int32_t zp_in, uint8_t* packed);
size_t depthwise_bytes32_bytes(const DepthwiseShape& shape);
void depthwise_bytes32_pack(const DepthwiseShape& shape, WeightView weights, const int32_t* bias,
                            const float* scale, int32_t zp_in, uint8_t* packed);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_DEPTHWISE_PACK_H_
