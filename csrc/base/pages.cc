#include "base/pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/act.h"

namespace edgeq {
namespace {

constexpr size_t kLargePage = size_t{2} << 20;

size_t page_bytes() {
  static const size_t bytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

}  // namespace

bool Pages::available() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#else
  return true;
#endif
}

Pages::~Pages() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void Pages::swap(Pages& other) {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

bool Pages::map(size_t bytes, size_t filled) {
  *this = Pages();
  if (!available() || bytes == 0 || bytes > SIZE_MAX / 2) return false;
  const size_t wanted = round_up(bytes, page_bytes());
  const size_t large = std::min(filled, wanted) / kLargePage * kLargePage;
  const size_t reserved = large > 0 ? wanted + kLargePage : wanted;
  void* mapped =
      ::mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  data_ = static_cast<uint8_t*>(mapped);
  size_ = wanted;
  if (large == 0) return true;
  // Large pages cover aligned addresses only: the range begins at one, the rest goes back.
  const size_t skip =
      round_up(reinterpret_cast<uintptr_t>(mapped), kLargePage) - reinterpret_cast<uintptr_t>(mapped);
  if (skip > 0) ::munmap(mapped, skip);
  data_ += skip;
  if (skip < kLargePage) ::munmap(data_ + wanted, kLargePage - skip);
#if defined(MADV_HUGEPAGE)
  (void)::madvise(data_, large, MADV_HUGEPAGE);
#endif
  return true;
}

void Pages::shrink(size_t bytes) {
  const size_t kept = round_up(bytes, page_bytes());
  if (kept >= size_) return;
  if (kept == 0) {
    *this = Pages();
    return;
  }
  ::munmap(data_ + kept, size_ - kept);
  size_ = kept;
}

void populate(uint8_t* begin, size_t bytes) {
#if defined(MADV_POPULATE_WRITE)
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin) / page_bytes() * page_bytes();
  const uintptr_t last = round_up(reinterpret_cast<uintptr_t>(begin) + bytes, page_bytes());
  // Older systems refuse, and the pages come one by one as they are written.
  (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_POPULATE_WRITE);
#else
  (void)begin;
  (void)bytes;
#endif
}

void drop_file_pages(const uint8_t* begin, size_t bytes) {
  const uintptr_t first = round_up(reinterpret_cast<uintptr_t>(begin), page_bytes());
  const uintptr_t last = (reinterpret_cast<uintptr_t>(begin) + bytes) / page_bytes() * page_bytes();
  if (first < last) (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

void Slab::reserve(size_t capacity, size_t filled) {
  // A large page comes whole with its first byte, while the file that the weights are packed from is still in
  // memory as a whole: the peak grows by one. That is nothing beside large models only.
  (void)pages_.map(capacity, filled >= 8 * kLargePage ? filled : 0);
}

uint8_t* Slab::take(size_t bytes) {
  constexpr size_t kAlignment = 64;
  if (bytes > pages_.size()) return nullptr;
  const size_t end = round_up(used_ + bytes + kReadSlack, kAlignment);
  if (end > pages_.size()) return nullptr;
  uint8_t* taken = pages_.data() + used_;
  used_ = end;
  // A large buffer is made present by whoever fills it, piece by piece.
  if (bytes > kPopulated) {
    present_ = std::max(present_, used_);
  } else if (used_ > present_) {
    const size_t next = std::min(used_ + kPopulated, pages_.size());
    populate(pages_.data() + present_, next - present_);
    present_ = next;
  }
  return taken;
}

}  // namespace edgeq
