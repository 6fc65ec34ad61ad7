#ifndef EDGEQ_BASE_PAGES_H_
#define EDGEQ_BASE_PAGES_H_

#include <cstddef>
#include <cstdint>

namespace edgeq {

/// Whole pages from the operating system: zeros that take no memory until they are written. Move only.
class Pages {
 public:
  Pages() = default;
  Pages(Pages&& other) noexcept { swap(other); }
  Pages& operator=(Pages&& other) noexcept {
    Pages moved(static_cast<Pages&&>(other));
    swap(moved);
    return *this;
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages();

  /// At least `bytes` bytes in place of what was held; false when the system gives none.
  ///
  /// Args:
  ///   filled: How many of them, from the front, will surely be used: for whole large pages of those, large
  ///   pages are
  ///     asked for (fewer page faults now, fewer page walks later, and no memory more).
  bool map(size_t bytes, size_t filled);

  /// Gives back what lies behind the first `bytes`.
  void shrink(size_t bytes);

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

  /// Whether this build can map pages. Those with sanitizers do not: they watch the ends of heap blocks.
  static bool available();

 private:
  void swap(Pages& other);

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

/// Makes the pages of a range that is about to be written present, all at once: a fraction of the time of as
/// many page faults. The range is part of one allocation.
void populate(uint8_t* begin, size_t bytes);

/// Takes the pages that lie wholly within a mapped file's range out of memory; reading them again reads the
/// file.
void drop_file_pages(const uint8_t* begin, size_t bytes);

/// Memory for many buffers that live and go together, side by side in one mapping: fewer page faults, and
/// nothing lost between them. The pages of buffers of up to kPopulated bytes are made present as they are
/// taken.
class Slab {
 public:
  static constexpr size_t kPopulated = size_t{128} << 10;

  /// Reserves addresses for `capacity` bytes, of which at least `filled` will be taken. Without success, or
  /// without this call, `take` has nothing to give.
  void reserve(size_t capacity, size_t filled);

  /// `bytes` zeros aligned to a cache line, with kReadSlack readable bytes behind them; null when they do not
  /// fit.
  uint8_t* take(size_t bytes);

  /// Gives back what was not taken.
  void finish() { pages_.shrink(used_); }

 private:
  Pages pages_;
  size_t used_ = 0;
  size_t present_ = 0;
};

}  // namespace edgeq

#endif  // EDGEQ_BASE_PAGES_H_
