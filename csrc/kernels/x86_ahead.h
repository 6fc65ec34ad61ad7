#ifndef EDGEQ_KERNELS_X86_AHEAD_H_
#define EDGEQ_KERNELS_X86_AHEAD_H_

// Only x86_*.cc files and the headers that they alone include include this.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace edgeq {
namespace {

/// Packed weights that are fetched while tiles are computed: the next panel's. Bringing them into the form
/// that products take is mostly loads and stores, and would wait for a cache that all cores share, while the
/// products keep memory idle.
class Ahead {
 public:
  Ahead() = default;

  /// `bytes` at `begin`, shared out over `tiles` tiles.
  Ahead(const uint8_t* begin, size_t bytes, size_t tiles)
      : next_(begin), end_(begin + bytes), tile_bytes_(bytes / tiles + 1) {}

  /// A tile's share.
  inline __attribute__((always_inline)) void fetch() {
    constexpr size_t kLine = 64;
    for (size_t got = 0; got < tile_bytes_ && next_ < end_; got += kLine, next_ += kLine) {
      _mm_prefetch(reinterpret_cast<const char*>(next_), _MM_HINT_T1);
    }
  }

 private:
  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  size_t tile_bytes_ = 0;
};

}  // namespace
}  // namespace edgeq

#endif  // EDGEQ_KERNELS_X86_AHEAD_H_
