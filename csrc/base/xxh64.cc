#include "base/xxh64.h"

#include <cstring>

namespace edgeq {

// XXH64 as its specification states it (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md):
// four lanes over 32-byte stripes, merged, then the tail in 8, 4 and 1 bytes and a final avalanche.
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9u;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5u;

inline uint64_t rotate_left(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

template <typename T>
inline uint64_t read(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

inline uint64_t round(uint64_t lane, uint64_t input) {
  return rotate_left(lane + input * kPrime2, 31) * kPrime1;
}

inline uint64_t merge(uint64_t hash, uint64_t lane) { return (hash ^ round(0, lane)) * kPrime1 + kPrime4; }

}  // namespace

uint64_t xxh64(const uint8_t* data, size_t size, uint64_t seed) {
  const uint8_t* at = data;
  size_t left = size;
  uint64_t hash;
  if (left >= 32) {
    // Four variables, not an array: they stay in registers however little the compiler unrolls.
    uint64_t a = seed + kPrime1 + kPrime2, b = seed + kPrime2, c = seed, d = seed - kPrime1;
    for (; left >= 32; at += 32, left -= 32) {
      a = round(a, read<uint64_t>(at));
      b = round(b, read<uint64_t>(at + 8));
      c = round(c, read<uint64_t>(at + 16));
      d = round(d, read<uint64_t>(at + 24));
    }
    hash = rotate_left(a, 1) + rotate_left(b, 7) + rotate_left(c, 12) + rotate_left(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d);
  } else {
    hash = seed + kPrime5;
  }
  hash += size;
  for (; left >= 8; at += 8, left -= 8) {
    hash = rotate_left(hash ^ round(0, read<uint64_t>(at)), 27) * kPrime1 + kPrime4;
  }
  for (; left >= 4; at += 4, left -= 4) {
    hash = rotate_left(hash ^ read<uint32_t>(at) * kPrime1, 23) * kPrime2 + kPrime3;
  }
  for (; left > 0; ++at, --left) hash = rotate_left(hash ^ *at * kPrime5, 11) * kPrime1;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace edgeq
