#ifndef EDGEQ_RUNTIME_THREAD_POOL_H_
#define EDGEQ_RUNTIME_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace edgeq {

/// A fixed team of threads, the caller of `run` being number 0. Between runs the others spin for some
/// microseconds, then sleep; within a run they keep in step at a spinning barrier.
class ThreadPool {
 public:
  static constexpr int kMaxThreads = 64;

  /// The threads start here and end in the destructor.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls task(context, i) on every thread i of the team and returns when all calls have. One run at a time.
  void run(void (*task)(void* context, int thread), void* context);

  /// Called by every thread of the team within a task: returns when all of them have called it. What any of
  /// them wrote before is then visible to all.
  void barrier();

  /// CPUs that the process may use (its affinity mask where the system has one), at least 1.
  static int available_cpus();

 private:
  void work(int thread);

  const int threads_;
  std::vector<std::thread> workers_;
  void (*task_)(void*, int) = nullptr;
  void* context_ = nullptr;

  // Each counter on a cache line of its own: they are polled by one side and written by the other.
  alignas(64) std::atomic<uint64_t> generation_{0};
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
};

}  // namespace edgeq

#endif  // EDGEQ_RUNTIME_THREAD_POOL_H_
