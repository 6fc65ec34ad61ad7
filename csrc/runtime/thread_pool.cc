#include "runtime/thread_pool.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include <algorithm>

namespace edgeq {
namespace {

// Some tens of microseconds before a worker sleeps, and a few before a waiting caller offers its CPU to
// others: where there are more threads than free CPUs, the one that is waited for needs it.
constexpr int kSpinsBeforeSleep = 2000;
constexpr int kSpinsBeforeYield = 500;

void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__) || defined(__ARM_ARCH_7A__)
  asm volatile("yield");
#endif
}

constexpr uint64_t kParts = 0xFFFFFFFFu;

}  // namespace

int ThreadPool::available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int threads) : threads_(std::min(std::max(threads, 1), kMaxThreads)) {
  workers_.reserve(static_cast<size_t>(threads_ - 1));
  try {
    for (int thread = 1; thread < threads_; ++thread) workers_.emplace_back([this, thread] { work(thread); });
  } catch (...) {
    // The system has no more threads: those that started must end before the error goes on.
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_.store(true, std::memory_order_seq_cst);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int parts, bool wake, Task task, void* context) {
  if (threads_ == 1 || parts == 1) {
    for (int part = 0; part < parts; ++part) task(context, part, 0);
    return;
  }
  task_ = task;
  context_ = context;
  pending_.store(parts, std::memory_order_relaxed);
  const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(number << 32 | (parts == kMaxParts ? kParts : (uint64_t{1} << parts) - 1),
                std::memory_order_seq_cst);
  // A worker counts itself as a sleeper before it looks at the ticket for the last time, so that one of the
  // two sides always sees the other.
  if (wake && sleepers_.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }
  for (int part = claim(0); part >= 0; part = claim(0)) {
    task(context, part, 0);
    pending_.fetch_sub(1, std::memory_order_release);
  }
  for (int spins = 0; pending_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpinsBeforeYield) {
      pause_cpu();
    } else {
      std::this_thread::yield();
    }
  }
}

int ThreadPool::claim(int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while ((ticket & kParts) != 0) {
    // The thread's own part if it is free, else the next one after it, round about.
    const uint32_t free = static_cast<uint32_t>(ticket);
    const int own = thread % kMaxParts;
    const uint32_t behind = free >> own << own;
    const int part = __builtin_ctz(behind != 0 ? behind : free);
    if (ticket_.compare_exchange_weak(ticket, ticket & ~(uint64_t{1} << part), std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      return part;
    }
  }
  return -1;
}

void ThreadPool::work(int thread) {
  for (int spins = 0; !stop_.load(std::memory_order_relaxed);) {
    const int part = claim(thread);
    if (part >= 0) {
      task_(context_, part, thread);
      pending_.fetch_sub(1, std::memory_order_release);
      spins = 0;
      continue;
    }
    if (++spins < kSpinsBeforeSleep) {
      pause_cpu();
      continue;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [this] {
      return stop_.load(std::memory_order_seq_cst) || (ticket_.load(std::memory_order_seq_cst) & kParts) != 0;
    });
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    spins = 0;
  }
}

}  // namespace edgeq
