#ifndef EDGEQ_BASE_ALIGNED_BUFFER_H_
#define EDGEQ_BASE_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/act.h"
#include "base/pages.h"

namespace edgeq {

/// Zero-filled bytes aligned to a cache line, with kReadSlack readable bytes after the last one: its own, or
/// a piece of a slab that outlives it. Move only.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;

  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept { swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    AlignedBuffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { release(); }

  /// Replaces the content by `bytes` zeros. False when there is no memory; the buffer is then empty.
  bool allocate(size_t bytes) {
    release();
    if (bytes > SIZE_MAX - 4 * kAlignment) return false;
    const size_t rounded = (bytes + kReadSlack + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes >= kMapped && pages_.map(rounded, bytes)) {
      // Zeros that cost nothing until they are used.
      data_ = pages_.data();
      size_ = bytes;
      return true;
    }
    data_ = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, rounded));
    if (data_ == nullptr) return false;
    std::memset(data_, 0, rounded);
    size_ = bytes;
    return true;
  }

  /// Holds `bytes` zeros of a slab.
  void borrow(uint8_t* data, size_t bytes) {
    release();
    data_ = data;
    size_ = bytes;
    borrowed_ = true;
  }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  // From here on whole pages are asked for: the C library would do so too, but the zeros would be written
  // again.
  static constexpr size_t kMapped = size_t{128} << 10;

  void release() {
    if (!borrowed_ && pages_.size() == 0) std::free(data_);
    pages_ = Pages();
    data_ = nullptr;
    size_ = 0;
    borrowed_ = false;
  }

  void swap(AlignedBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(borrowed_, other.borrowed_);
    std::swap(pages_, other.pages_);
  }

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool borrowed_ = false;
  Pages pages_;
};

}  // namespace edgeq

#endif  // EDGEQ_BASE_ALIGNED_BUFFER_H_
