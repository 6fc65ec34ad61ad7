// Where the buffers of a plan lie in its arena.

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "ops/check.h"
#include "runtime/plan.h"

namespace edgeq {
namespace {

using Pair = std::pair<uint64_t, uint64_t>;

/// Buffers with their sizes for one batch, to be laid out.
struct Pieces {
  const std::vector<Buffer>& buffers;
  std::vector<uint64_t> size;
};

/// 0 to count - 1 by rising key.
template <typename Key>
std::vector<size_t> sorted(size_t count, Key key) {
  std::vector<Pair> pairs(count);
  for (size_t i = 0; i < count; ++i) pairs[i] = {key(i), i};
  std::sort(pairs.begin(), pairs.end());
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = static_cast<size_t>(pairs[i].second);
  return order;
}

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
    beginnings_.insert({order_of(buffers_[i].first), i});
  }

  /// Appends the buffers that live together with buffer i.
  void together(size_t i, std::vector<size_t>& found) const {
    for (size_t node = leaf(buffers_[i].first); node > 0; node /= 2) {
      found.insert(found.end(), nodes_[node].begin(), nodes_[node].end());
    }
    const uint64_t last = order_of(buffers_[i].last);
    for (auto at = beginnings_.lower_bound({order_of(buffers_[i].first) + 1, 0});
         at != beginnings_.end() && at->first <= last; ++at) {
      found.push_back(static_cast<size_t>(at->second));
    }
  }

 private:
  uint64_t order_of(int step) const { return static_cast<uint64_t>(step - lowest_); }
  size_t leaf(int step) const { return leaves_ + static_cast<size_t>(step - lowest_); }

  const std::vector<Buffer>& buffers_;
  int lowest_ = 0;
  size_t leaves_ = 1;
  std::vector<std::vector<size_t>> nodes_;
  std::set<Pair> beginnings_;  // (first step, buffer)
};

/// The largest first, each at the lowest place that is free for all of its life. False when that would take
/// long: the work grows with the number of pairs that live together.
bool place_by_size(const Pieces& pieces, ArenaLayout& layout) {
  constexpr size_t kMostPairs = size_t{1} << 20;
  const std::vector<Buffer>& buffers = pieces.buffers;
  const std::vector<size_t> by_size =
      sorted(buffers.size(), [&](size_t i) { return UINT64_MAX - pieces.size[i]; });
  Lives placed(buffers);
  std::vector<size_t> others;
  std::vector<Pair> by_offset;
  size_t pairs = 0;
  for (size_t i : by_size) {
    others.clear();
    placed.together(i, others);
    pairs += others.size();
    if (pairs > kMostPairs) return false;
    by_offset.clear();
    for (size_t other : others) by_offset.push_back({layout.offset[other], other});
    std::sort(by_offset.begin(), by_offset.end());
    uint64_t at = 0;
    for (const Pair& other : by_offset) {
      if (other.first >= at + pieces.size[i]) break;
      at = std::max(at, other.first + pieces.size[other.second]);
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
  std::set<Pair> by_bytes_;  // (bytes, offset)
};

/// As memory is taken and given back while a model runs, each buffer in the tightest gap, at the end of it
/// that is an end of the arena: the activations of a chain alternate between bottom and top, and their
/// largest pair is all that the arena has to hold.
void place_in_order(const Pieces& pieces, ArenaLayout& layout) {
  const std::vector<Buffer>& buffers = pieces.buffers;
  // Steps begin at -1.
  const auto by_first =
      sorted(buffers.size(), [&](size_t i) { return static_cast<uint64_t>(buffers[i].first + 1); });
  const auto by_last =
      sorted(buffers.size(), [&](size_t i) { return static_cast<uint64_t>(buffers[i].last + 1); });
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
