// Where the buffers of a plan lie in its arena.

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "ops/check.h"
#include "runtime/plan.h"

namespace edgeq {
namespace {

/// Buffers with their sizes for one batch, to be laid out.
struct Pieces {
  const std::vector<Buffer>& buffers;
  std::vector<uint64_t> size;
};

/// Which of the buffers that have a place are alive together with another one. A tree over the steps holds
/// each buffer in the few nodes that make up its life; another one meets those alive at its first step, which
/// are on the way from that step's leaf to the root, and those that begin later, by their first step.
class Lives {
 public:
  explicit Lives(const std::vector<Buffer>& buffers) : buffers_(buffers) {
    for (const Buffer& buffer : buffers) lowest_ = std::min(lowest_, buffer.first);
    int highest = lowest_;
    for (const Buffer& buffer : buffers) highest = std::max(highest, buffer.last);
    while (leaves_ < static_cast<size_t>(highest - lowest_ + 1)) leaves_ *= 2;
    nodes_.resize(2 * leaves_);
  }

  void add(size_t i) {
    for (size_t low = leaf(buffers_[i].first), high = leaf(buffers_[i].last) + 1; low < high;
         low /= 2, high /= 2) {
      if (low % 2 == 1) nodes_[low++].push_back(i);
      if (high % 2 == 1) nodes_[--high].push_back(i);
    }
    beginnings_.insert({buffers_[i].first, i});
  }

  /// Appends the buffers that live together with buffer i.
  void together(size_t i, std::vector<size_t>& found) const {
    for (size_t node = leaf(buffers_[i].first); node > 0; node /= 2) {
      found.insert(found.end(), nodes_[node].begin(), nodes_[node].end());
    }
    for (auto at = beginnings_.upper_bound({buffers_[i].first, SIZE_MAX});
         at != beginnings_.end() && at->first <= buffers_[i].last; ++at) {
      found.push_back(at->second);
    }
  }

 private:
  size_t leaf(int step) const { return leaves_ + static_cast<size_t>(step - lowest_); }

  const std::vector<Buffer>& buffers_;
  int lowest_ = 0;
  size_t leaves_ = 1;
  std::vector<std::vector<size_t>> nodes_;
  std::set<std::pair<int, size_t>> beginnings_;
};

/// The largest first, each at the lowest place that is free for all of its life. False when that would take
/// long: the work grows with the number of pairs that live together.
bool place_by_size(const Pieces& pieces, ArenaLayout& layout) {
  constexpr size_t kMostPairs = size_t{1} << 20;
  const std::vector<Buffer>& buffers = pieces.buffers;
  std::vector<size_t> by_size(buffers.size());
  for (size_t i = 0; i < by_size.size(); ++i) by_size[i] = i;
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return pieces.size[a] > pieces.size[b]; });
  Lives placed(buffers);
  std::vector<size_t> others;
  size_t pairs = 0;
  for (size_t i : by_size) {
    others.clear();
    placed.together(i, others);
    pairs += others.size();
    if (pairs > kMostPairs) return false;
    std::sort(others.begin(), others.end(),
              [&](size_t a, size_t b) { return layout.offset[a] < layout.offset[b]; });
    uint64_t at = 0;
    for (size_t other : others) {
      if (layout.offset[other] >= at + pieces.size[i]) break;
      at = std::max(at, layout.offset[other] + pieces.size[other]);
    }
    layout.offset[i] = at;
    layout.bytes = std::max(layout.bytes, at + pieces.size[i]);
    placed.add(i);
  }
  return true;
}

/// Bytes that are free, as gaps that touch nowhere.
class Gaps {
 public:
  struct Gap {
    uint64_t offset;
    uint64_t bytes;
  };

  void add(uint64_t offset, uint64_t bytes) {
    auto next = by_offset_.lower_bound(offset);
    if (next != by_offset_.end() && next->first == offset + bytes) {
      bytes += next->second;
      next = remove(next);
    }
    if (next != by_offset_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == offset) {
        offset = before->first;
        bytes += before->second;
        remove(before);
      }
    }
    by_offset_.emplace(offset, bytes);
    by_bytes_.insert({bytes, offset});
  }

  /// Removes the tightest gap of at least `bytes`; one of 0 bytes when there is none.
  Gap take(uint64_t bytes) {
    const auto tightest = by_bytes_.lower_bound({bytes, 0});
    if (tightest == by_bytes_.end()) return {0, 0};
    const Gap gap = {tightest->second, tightest->first};
    remove(by_offset_.find(gap.offset));
    return gap;
  }

  /// Removes the gap that ends at `end`; one of 0 bytes at `end` when there is none.
  Gap take_last(uint64_t end) {
    if (by_offset_.empty()) return {end, 0};
    const auto last = std::prev(by_offset_.end());
    const Gap gap = {last->first, last->second};
    if (gap.offset + gap.bytes != end) return {end, 0};
    remove(last);
    return gap;
  }

 private:
  std::map<uint64_t, uint64_t>::iterator remove(std::map<uint64_t, uint64_t>::iterator gap) {
    by_bytes_.erase({gap->second, gap->first});
    return by_offset_.erase(gap);
  }

  std::map<uint64_t, uint64_t> by_offset_;
  std::set<std::pair<uint64_t, uint64_t>> by_bytes_;
};

/// As memory is taken and given back while a model runs, each buffer in the tightest gap, at the end of it
/// that is an end of the arena: the activations of a chain alternate between bottom and top, and their
/// largest pair is all that the arena has to hold.
void place_in_order(const Pieces& pieces, ArenaLayout& layout) {
  const std::vector<Buffer>& buffers = pieces.buffers;
  std::vector<size_t> by_first(buffers.size());
  for (size_t i = 0; i < by_first.size(); ++i) by_first[i] = i;
  std::vector<size_t> by_last = by_first;
  std::stable_sort(by_first.begin(), by_first.end(),
                   [&](size_t a, size_t b) { return buffers[a].first < buffers[b].first; });
  std::stable_sort(by_last.begin(), by_last.end(),
                   [&](size_t a, size_t b) { return buffers[a].last < buffers[b].last; });
  // First what lives at the same time: the arena cannot be smaller.
  uint64_t alive = 0;
  size_t ended = 0;
  for (size_t i : by_first) {
    for (; buffers[by_last[ended]].last < buffers[i].first; ++ended) alive -= pieces.size[by_last[ended]];
    alive += pieces.size[i];
    layout.bytes = std::max(layout.bytes, alive);
  }
  Gaps gaps;
  if (layout.bytes > 0) gaps.add(0, layout.bytes);
  ended = 0;
  for (size_t i : by_first) {
    for (; buffers[by_last[ended]].last < buffers[i].first; ++ended) {
      gaps.add(layout.offset[by_last[ended]], pieces.size[by_last[ended]]);
    }
    const uint64_t bytes = pieces.size[i];
    Gaps::Gap gap = gaps.take(bytes);
    if (gap.bytes == 0) {
      // In pieces too small: the arena grows at its end.
      gap = gaps.take_last(layout.bytes);
      gap.bytes = bytes;
      layout.bytes = gap.offset + bytes;
    }
    const uint64_t rest = gap.bytes - bytes;
    const bool at_end = gap.offset > 0 && gap.offset + gap.bytes == layout.bytes;
    layout.offset[i] = at_end ? gap.offset + rest : gap.offset;
    if (rest > 0) gaps.add(at_end ? gap.offset : gap.offset + bytes, rest);
  }
}

}  // namespace

Result<ArenaLayout> layout_arena(const std::vector<Buffer>& buffers, int64_t batch, uint64_t limit) {
  constexpr uint64_t kAlignment = AlignedBuffer::kAlignment;
  Pieces pieces = {buffers, std::vector<uint64_t>(buffers.size())};
  for (size_t i = 0; i < buffers.size(); ++i) {
    const uint64_t per_image = static_cast<uint64_t>(buffers[i].bytes_per_image);
    if (per_image > limit / static_cast<uint64_t>(batch)) {
      return Status::out_of_memory(format(
          "an activation of %llu bytes at batch %lld exceeds the %llu bytes that the session may use; raise "
          "max_memory_bytes or use a smaller batch",
          static_cast<unsigned long long>(per_image), static_cast<long long>(batch),
          static_cast<unsigned long long>(limit)));
    }
    pieces.size[i] =
        (per_image * static_cast<uint64_t>(batch) + kReadSlack + kAlignment - 1) / kAlignment * kAlignment;
  }
  // Which of the two is better depends on the graph: by size where few large activations rule, in order where
  // many of one size follow each other.
  ArenaLayout layout;
  layout.offset.resize(buffers.size());
  place_in_order(pieces, layout);
  ArenaLayout other;
  other.offset.resize(buffers.size());
  if (place_by_size(pieces, other) && other.bytes <= layout.bytes) layout = std::move(other);
  if (layout.bytes > limit) {
    return Status::out_of_memory(format(
        "the activations take %llu bytes at batch %lld, but the session may use %llu; raise max_memory_bytes "
        "or use a smaller batch",
        static_cast<unsigned long long>(layout.bytes), static_cast<long long>(batch),
        static_cast<unsigned long long>(limit)));
  }
  return layout;
}

}  // namespace edgeq
