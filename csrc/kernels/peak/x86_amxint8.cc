#include <immintrin.h>

#include "kernels/peak/peak.h"
#include "kernels/x86_amx_tiles.h"

namespace edgeq {

// Six tiles of sums: a product takes 16 cycles and its result is there after 52.
void peak_amxint8(const PeakParams& p) {
  TileConfig config;
  for (int t = 0; t < kTiles; ++t) {
    config.row_bytes[t] = kTileBytes;
    config.rows[t] = kTileRows;
  }
  alignas(64) uint8_t bytes[kTileRows * kTileBytes];
  for (uint8_t& byte : bytes) byte = 3;
  AmxTiles tiles;
  tiles.configure(config);  // the sums are zero now
  tiles.load<6>(bytes, kTileBytes);
  tiles.load<7>(bytes, kTileBytes);
  for (size_t i = 0; i < p.iterations; ++i) {
    tiles.multiply_add<0, 6, 7>();
    tiles.multiply_add<1, 6, 7>();
    tiles.multiply_add<2, 6, 7>();
    tiles.multiply_add<3, 6, 7>();
    tiles.multiply_add<4, 6, 7>();
    tiles.multiply_add<5, 6, 7>();
  }
  alignas(64) int32_t sums[kTileRows * kTileBytes / sizeof(int32_t)];
  tiles.store<0>(sums, kTileBytes);
  tiles.release();
  for (int i = 0; i < 16; ++i) p.sink[i] = sums[i];
}

}  // namespace edgeq
