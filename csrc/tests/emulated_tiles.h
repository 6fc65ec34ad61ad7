#ifndef EDGEQ_TESTS_EMULATED_TILES_H_
#define EDGEQ_TESTS_EMULATED_TILES_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/x86_amx_tiles.h"

namespace edgeq {

/// The tile unit in plain C++, as the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2,
/// states each instruction (palette 1). What raises an exception there, or what no kernel may rely on, ends
/// the test.
class TileUnit {
 public:
  /// LDTILECFG.
  void configure(const uint8_t (&bytes)[64]) {
    TileConfig config;
    std::memcpy(&config, bytes, sizeof config);
    if (config.palette == 0) {
      release();
      return;
    }
    require(config.palette == 1, "#GP: a palette that does not exist");
    // The hardware takes another row to start at; edgeq never interrupts a load.
    require(config.start_row == 0, "a start row");
    for (const uint8_t byte : config.reserved) require(byte == 0, "#GP: a reserved byte that is not zero");
    for (int t = 0; t < 16; ++t) {
      const size_t row_bytes = config.row_bytes[t];
      const size_t rows = config.rows[t];
      require(t < kTiles || (row_bytes == 0 && rows == 0), "#GP: a tile that does not exist has a shape");
      require(row_bytes <= kTileBytes, "#GP: too many bytes in a row");
      require(rows <= kTileRows, "#GP: too many rows");
      require((row_bytes == 0) == (rows == 0), "#GP: rows without bytes, or bytes without rows");
    }
    config_ = config;
    configured_ = true;
    std::memset(data_, 0, sizeof data_);
    ++configurations;
  }

  /// TILERELEASE.
  void release() {
    configured_ = false;
    config_ = TileConfig{};
    std::memset(data_, 0, sizeof data_);
  }

  /// STTILECFG.
  void store_config(uint8_t (&bytes)[64]) const {
    std::memset(bytes, 0, sizeof bytes);
    if (configured_) std::memcpy(bytes, &config_, sizeof bytes);
  }

  /// TILELOADD: rows beyond the shape's become zero, and so do bytes beyond the row's.
  void load(int tile, const uint8_t* from, ptrdiff_t stride) {
    require_tile(tile);
    std::memset(data_[tile], 0, sizeof data_[tile]);
    for (int r = 0; r < config_.rows[tile]; ++r) {
      std::memcpy(data_[tile][r], from + r * stride, config_.row_bytes[tile]);
    }
    ++loads;
  }

  /// TILESTORED.
  void store(int tile, uint8_t* to, ptrdiff_t stride) {
    require_tile(tile);
    for (int r = 0; r < config_.rows[tile]; ++r) {
      std::memcpy(to + r * stride, data_[tile][r], config_.row_bytes[tile]);
    }
    ++stores;
  }

  /// TILEZERO.
  void zero(int tile) {
    require_tile(tile);
    std::memset(data_[tile], 0, sizeof data_[tile]);
  }

  /// TDPBUSD sum, left, right.
  void multiply_add(int sum, int left, int right) {
    require_tile(sum);
    require_tile(left);
    require_tile(right);
    require(sum != left && left != right && sum != right, "#UD: one tile in two operands");
    const int columns = config_.row_bytes[sum] / 4;
    const int rows = config_.rows[sum];
    const int depth = config_.row_bytes[left] / 4;
    require(config_.row_bytes[sum] == config_.row_bytes[right],
            "#UD: columns of the sums and of the right side");
    require(rows == config_.rows[left], "#UD: rows of the sums and of the left side");
    require(depth == config_.rows[right], "#UD: depth of the left side and of the right side");
    for (int m = 0; m < rows; ++m) {
      for (int n = 0; n < columns; ++n) {
        uint32_t value;
        std::memcpy(&value, data_[sum][m] + 4 * n, sizeof value);
        for (int k = 0; k < depth; ++k) {
          for (int i = 0; i < 4; ++i) {
            const int32_t product =
                int32_t{data_[left][m][4 * k + i]} * int32_t{static_cast<int8_t>(data_[right][k][4 * n + i])};
            value += static_cast<uint32_t>(product);
          }
        }
        std::memcpy(data_[sum][m] + 4 * n, &value, sizeof value);
      }
    }
    ++products;
  }

  bool configured() const { return configured_; }
  const TileConfig& config() const { return config_; }

  size_t configurations = 0;
  size_t loads = 0;
  size_t stores = 0;
  size_t products = 0;

 private:
  static void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "FAIL tile unit: %s\n", what);
    std::abort();
  }
  void require_tile(int tile) const {
    require(configured_, "#UD: no configuration is loaded");
    require(tile >= 0 && tile < kTiles, "#UD: a tile that does not exist");
    require(config_.rows[tile] != 0, "#UD: a tile without a shape");
    require(config_.row_bytes[tile] % 4 == 0, "#UD: a row that is no whole number of dwords");
  }

  bool configured_ = false;
  TileConfig config_;
  uint8_t data_[kTiles][kTileRows][kTileBytes] = {};
};

/// What x86_amx.h takes for a tile unit.
struct EmulatedTiles {
  TileUnit& unit;

  void configure(const TileConfig& config) {
    uint8_t bytes[64];
    std::memcpy(bytes, &config, sizeof bytes);
    unit.configure(bytes);
  }
  void release() { unit.release(); }
  template <int kTile>
  void load(const void* from, ptrdiff_t stride) {
    unit.load(kTile, static_cast<const uint8_t*>(from), stride);
  }
  template <int kTile>
  void store(void* to, ptrdiff_t stride) {
    unit.store(kTile, static_cast<uint8_t*>(to), stride);
  }
  template <int kTile>
  void zero() {
    unit.zero(kTile);
  }
  template <int kSum, int kLeft, int kRight>
  void multiply_add() {
    unit.multiply_add(kSum, kLeft, kRight);
  }
};

}  // namespace edgeq

#endif  // EDGEQ_TESTS_EMULATED_TILES_H_
