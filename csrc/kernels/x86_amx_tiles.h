#ifndef EDGEQ_KERNELS_X86_AMX_TILES_H_
#define EDGEQ_KERNELS_X86_AMX_TILES_H_

#include <cstddef>
#include <cstdint>

namespace edgeq {

/// What LDTILECFG reads (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, "Tile
/// configuration"). Palette 1 has eight tiles of at most 16 rows of 64 bytes; a tile that is not used has 0
/// rows of 0 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;  // where an interrupted load or store goes on: 0
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64 && offsetof(TileConfig, row_bytes) == 16 &&
                  offsetof(TileConfig, rows) == 48,
              "the layout that LDTILECFG reads");

constexpr int kTiles = 8;
constexpr size_t kTileRows = 16;
constexpr size_t kTileBytes = 64;  // a row

#if defined(__AMX_TILE__) && defined(__AMX_INT8__)
namespace {

/// The tile unit. Its registers are state of the thread; the compiler neither uses nor saves them.
///
/// The instructions are written out: the intrinsics take the number of a tile as a literal only, which a
/// template cannot hand on, and GCC 12's _tile_loadd does not say that it reads memory, so that stores to a
/// buffer may sink below the load that wants them.
struct AmxTiles {
  /// Sets the shapes of all tiles and zeroes them. About 200 cycles (Intel's optimization manual).
  void configure(const TileConfig& config) { __asm__ volatile("ldtilecfg %0" : : "m"(config)); }

  /// Back to the initial state, in which the operating system saves no tiles with the thread.
  void release() { __asm__ volatile("tilerelease"); }

  /// Row r of the tile from `from` + r * stride.
  template <int kTile>
  inline __attribute__((always_inline)) void load(const void* from, ptrdiff_t stride) {
    __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride) : "memory");
  }

  template <int kTile>
  inline __attribute__((always_inline)) void store(void* to, ptrdiff_t stride) {
    __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(to), "r"(stride) : "memory");
  }

  template <int kTile>
  inline __attribute__((always_inline)) void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }

  /// sum[i][j] += the products of the bytes of row i of `left` (unsigned) and, for dword d of it, of dword j
  /// of row d of `right` (signed); modulo 2^32.
  template <int kSum, int kLeft, int kRight>
  inline __attribute__((always_inline)) void multiply_add() {
    __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kLeft), "i"(kRight));
  }
};

}  // namespace
#endif  // AMX

}  // namespace edgeq

#endif  // EDGEQ_KERNELS_X86_AMX_TILES_H_
