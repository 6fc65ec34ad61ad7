#ifndef EDGEQ_TESTS_TILE_TRAPS_H_
#define EDGEQ_TESTS_TILE_TRAPS_H_

#include <cstddef>

namespace edgeq {

/// While it lives, tile instructions that the CPU lacks run on an emulated tile unit: each raises SIGILL,
/// whose handler decodes the machine code as the manual states the encodings. So the compiled kernels
/// themselves are tested, and not only their source. One at a time, one thread.
class TileTraps {
 public:
  TileTraps();
  ~TileTraps();
  TileTraps(const TileTraps&) = delete;
  TileTraps& operator=(const TileTraps&) = delete;

  /// Whether this build can trap them: Linux on x86-64.
  static bool available();

  size_t instructions() const;  // so far
  bool configured() const;      // whether a configuration is loaded
};

}  // namespace edgeq

#endif  // EDGEQ_TESTS_TILE_TRAPS_H_
