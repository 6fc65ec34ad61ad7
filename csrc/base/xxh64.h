#ifndef EDGEQ_BASE_XXH64_H_
#define EDGEQ_BASE_XXH64_H_

#include <cstddef>
#include <cstdint>

namespace edgeq {

/// XXH64 of `size` bytes. Little-endian machines only, as the whole file reader is.
uint64_t xxh64(const uint8_t* data, size_t size, uint64_t seed = 0);

}  // namespace edgeq

#endif  // EDGEQ_BASE_XXH64_H_
