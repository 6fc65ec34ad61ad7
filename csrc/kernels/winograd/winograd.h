#ifndef EDGEQ_KERNELS_WINOGRAD_WINOGRAD_H_
#define EDGEQ_KERNELS_WINOGRAD_WINOGRAD_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/act.h"
#include "base/cpu_features.h"
#include "base/int4.h"
#include "base/requantize.h"
#include "kernels/gemm/gemm.h"

namespace edgeq {

/// 3x3 convolution of stride 1 over rows of NHWC pixels, by Winograd's minimal filtering (Lavin and Gray,
/// Fast Algorithms for Convolutional Neural Networks, 2015). Computes, for output row y, column x, channel j:
///
///   acc = bias(j) + sum over ky, kx < 3, c < k of (in(ky, kx, c) - zp_in) * rhs(j, ky, kx, c)    (mod 2^32)
///   q   = requantize(acc, scale(j), range)
///   q   = table[q]                      if there is a table
///   dst = residual addition of q        if there is one, else q
///
///   in(ky, kx, c) = rows[y + ky][(x + kx - pad_left) * src_pixel_stride + c]
///
/// and zp_in where that column is not in [0, width_in) or the row pointer is null (a row of the top or bottom
/// padding). With d a block of one input channel and g a 3x3 filter, the outputs of the block are
///
///   A^T [ sum over channels of (G g G^T) . (B^T d B) ] A,   "." element by element.
///
/// It is exact, in integers of 16 bits with sums of 32. Only G has fractions, and kernels take whole
/// multiples of its rows.
///
/// F(2x2, 3x3), plain NEON: four outputs from 16 products instead of 36.
///
///         | 1  0 -1  0 |         | 2  0  0 |
///   B^T = | 0  1  1  0 |   2 G = | 1  1  1 |   A^T = | 1  1  1  0 |
///         | 0 -1  1  0 |         | 1 -1  1 |         | 0  1 -1 -1 |
///         | 0  1  0 -1 |         | 0  0  2 |
///
/// With (2 G) g (2 G)^T the result is four times the sum, whose last two bits are zero. An element of B^T d B
/// is a sum of four activations with signs, one of (2 G) g (2 G)^T is within 9 * 127 = 1,143. Intermediate
/// sums may wrap in 32 bits; the last one is right as long as four times the true sum fits: 4 * 255 times the
/// magnitudes of a channel's weights.
///
/// F(4x4, 3x3), x86: 16 outputs from 36 products instead of 144.
///
///         | 4  0 -5  0  1  0 |        | 6   0   0 |
///         | 0  4  4 -1 -1  0 |        | 4   4   4 |            | 1  1  1  1  1  0 |
///   B^T = | 0 -4  4  1 -1  0 |   H =  | 4  -4   4 |   24 A^T = | 0  1 -1  2 -2  0 |   (of H g H^T)
///         | 0 -2 -1  2  1  0 |        | 1   2   4 |            | 0  1  1  4  4  0 |
///         | 0  2 -1 -2  1  0 |        | 1  -2   4 |            | 0  1 -1  8 -8  2 |
///         | 0  4  0 -5  0  1 |        | 0   0  12 |
///
/// The magnitudes of a row of B^T add up to 10 at most: of activations less 128, which differ in the one
/// element whose row adds up to 6, an element of B^T d B is within 100 * 128 = 12,800. One of H g H^T is
/// within 144 * 127 = 18,288. The result is 24^2 = 9 * 2^6 times the sum S of activations less 128.
/// Everything, the result too, may wrap in 32 bits: it is known modulo 2^32, its product with the inverse of
/// 9 is 2^6 S modulo 2^32, and that gives S if it is within 26 bits. 128 times the magnitudes of a channel's
/// weights must be below 2^25, which 229 channels of 8-bit weights reach in the worst case, and those of
/// trained networks not at all.
///
/// Filters are transformed in each run, panel by panel: that takes a few percent of the time of the
/// multiplications, where transformed filters in memory would be four to eight times as large.
///
/// `packed` and `scratch` are 64-byte aligned; kernels may read kReadSlack bytes past the end of each input
/// pixel's channels and of the residual operand's. dst must not overlap the input; residual.src may be dst
/// itself.
struct WinogradParams {
  size_t k = 0;  // input channels
  size_t n = 0;  // output channels
  size_t width_in = 0;
  size_t width_out = 0;
  size_t pad_left = 0;
  const act_t* const* rows = nullptr;  // [rows of output + 2]
  ptrdiff_t src_pixel_stride = 0;
  const act_t* zero_pixel = nullptr;  // k bytes of zp_in, and kReadSlack more that are readable
  const uint8_t* packed = nullptr;
  act_t* dst = nullptr;
  ptrdiff_t dst_pixel_stride = 0;
  ptrdiff_t dst_row_stride = 0;
  OutputRange range = {0, 0, 0};
  const act_t* table = nullptr;  // 256 entries or null
  GemmResidual residual;         // row_stride: bytes from pixel to pixel
  ptrdiff_t residual_row_stride = 0;
  bool large_scales = true;  // as of a GemmParams
  uint8_t* scratch = nullptr;
};

/// What selection looks at.
struct WinogradShape {
  size_t height_out;
  size_t width_out;
  size_t k;
  size_t n;
  int weight_bits;
};

struct WinogradVariant {
  const char* name;
  Isa isa;
  int block;    // F(block x block, 3x3)
  int mr;       // blocks that are multiplied at a time
  int nr;       // output channels of a full panel
  int kr;       // channels of one multiply instruction
  int nr_step;  // the last panel is as wide as what is left, rounded up to this
  int weight_bits;

  /// Computes output rows [row_begin, row_end) of panels [panel_begin, panel_end). Any split gives the same
  /// bytes; whole blocks of rows are faster.
  void (*run)(const WinogradParams& params, size_t row_begin, size_t row_end, size_t panel_begin,
              size_t panel_end);

  /// Bytes of scratch that one call needs.
  size_t (*scratch_bytes)(size_t k, size_t n);
};

/// All variants that `isas` can run, best first, of both weight widths.
std::vector<const WinogradVariant*> winograd_variants(IsaSet isas);

/// The variant for this shape, or null where a matrix product over the nine taps is thought faster.
const WinogradVariant* select_winograd(const WinogradShape& shape, IsaSet isas);

/// The most that the magnitudes of an output channel's weights may add up to for the variant to be exact.
size_t winograd_most(const WinogradVariant& variant);

/// Whether they do not add up to more, for weights [n][3][3][k]. Reads them only where there are enough of
/// them for that.
bool winograd_takes(const WinogradVariant& variant, size_t n, size_t k, WeightView weights);

/// Number of panels of n output channels.
static inline size_t winograd_panels(const WinogradVariant& variant, size_t n) {
  const size_t nr = static_cast<size_t>(variant.nr);
  return (n + nr - 1) / nr;
}

/// Bytes of the packed form, which is that of a matrix product with nine taps (gemm/pack.h) and this
/// variant's nr, kr and nr_step; of 4-bit weights on plain NEON, notes (lanes.h) stand behind it.
size_t winograd_packed_bytes(const WinogradVariant& variant, size_t n, size_t k);

/// Packs weights [n][3][3][k] (OHWI), bias [n] (null: zeros) and scale [n]; zp_in in the act domain.
void winograd_pack(const WinogradVariant& variant, size_t n, size_t k, WeightView weights,
                   const int32_t* bias, const float* scale, int32_t zp_in, uint8_t* packed);

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_WINOGRAD_WINOGRAD_H_
