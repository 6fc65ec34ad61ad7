#ifndef EDGEQ_RUNTIME_THREAD_POOL_H_
#define EDGEQ_RUNTIME_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace edgeq {

/// A team of threads, the caller of `run` being number 0, that computes steps one after another, each cut
/// into parts.
///
/// Whoever ends the last part of a step opens the next one: between two steps there is no detour through the
/// caller. Parts have owners (a thread computes the same share of every step, whose data its caches hold),
/// but are claimed, not assigned: a thread that is through with its own takes those of threads that have not
/// come. So nobody waits for a thread that the system has put aside, only for parts in progress. Which thread
/// computes a part must not matter to the result.
///
/// Threads without work spin for a while, then sleep.
class ThreadPool {
 public:
  static constexpr int kMaxThreads = 32;
  static constexpr int kMaxParts = 32;
  static constexpr int kMaxSteps = (1 << 20) - 1;

  struct Step {
    uint8_t parts = 1;  // 1 to kMaxParts
    bool wake = false;  // whether sleeping threads are worth waking for it (some microseconds of one's time)
  };

  /// What a run computes.
  struct Program {
    const Step* steps = nullptr;
    int step_count = 0;  // 0 to kMaxSteps
    void* context = nullptr;
    /// Called once for each part in [0, parts) of each step, on any thread.
    void (*compute)(void* context, int step, int part, int thread) = nullptr;
    /// Null, or called after the last part of each step and before the next step, on any thread.
    void (*finished)(void* context, int step) = nullptr;
  };

  /// The threads start here and end in the destructor.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Returns when every step is done. One run at a time. What a step wrote is visible to every part of the
  /// next.
  void run(const Program& program);

 private:
  class Turn;

  void work(int thread);
  void stop();
  /// Opens a step of the current run, or ends it when `step` is one past the last.
  void open(const Program& program, int step);
  /// Claims a part; false when the state is not what it was any more.
  bool claim(uint64_t state, int part);
  /// Computes a claimed part of the open step, and opens the next one if it was the last.
  void compute(int step, int part, int thread);

  const int threads_;
  const bool crowded_;  // more threads than CPUs: spinning would only keep others from working
  std::vector<std::thread> workers_;

  // Written by the caller before it opens the first step, read only by threads that have claimed a part or
  // ended one; the caller returns after they are through with it.
  const Program* program_ = nullptr;

  // All that threads tell each other, in one word on a cache line of its own (thread_pool.cc has its fields):
  // what one thread writes another has after one transfer of a line.
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace edgeq

#endif  // EDGEQ_RUNTIME_THREAD_POOL_H_
