#ifndef EDGEQ_RUNTIME_THREAD_POOL_H_
#define EDGEQ_RUNTIME_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace edgeq {

/// A team of threads, the caller of `run` being number 0. The others spin for some microseconds after their
/// last part, then sleep.
///
/// Parts are claimed, not assigned: each thread begins with its own, and takes those of threads that have not
/// come. So the caller never waits for a thread that the system has put aside, only for parts in progress.
/// Which thread computes a part must not matter to the result.
class ThreadPool {
 public:
  static constexpr int kMaxThreads = 32;
  static constexpr int kMaxParts = 32;

  using Task = void (*)(void* context, int part, int thread);

  /// The threads start here and end in the destructor.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls task(context, part, thread) once for each part in [0, parts) and returns when all calls have. One
  /// run at a time. What a run wrote is visible to every thread in the next.
  ///
  /// Args:
  ///   parts: 1 to kMaxParts.
  ///   wake: Whether sleeping threads are worth waking (some microseconds of the caller's time).
  void run(int parts, bool wake, Task task, void* context);

  /// CPUs that the process may use (its affinity mask where the system has one), at least 1.
  static int available_cpus();

 private:
  void work(int thread);
  void stop();
  /// Claims a part of the current run, the thread's own first; -1 when none is left.
  int claim(int thread);

  const int threads_;
  std::vector<std::thread> workers_;

  // Written by the caller before it publishes a run, read only by threads that have claimed a part of it; the
  // caller waits for those before it writes again.
  Task task_ = nullptr;
  void* context_ = nullptr;

  // The number of the run in the upper half, a bit for each unclaimed part in the lower one: a thread that
  // comes late cannot claim a part of a run that is over. On cache lines of their own, since one side polls
  // what the other writes.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int> pending_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace edgeq

#endif  // EDGEQ_RUNTIME_THREAD_POOL_H_
