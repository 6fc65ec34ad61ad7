#include "runtime/thread_pool.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <chrono>

#include "runtime/cpu_limits.h"

namespace edgeq {
namespace {

// The state of a run, from the lowest bit: one bit for each part of the open step that nobody has claimed (32
// bits); how many parts are not done (6 bits); how many parts the step has (6 bits); the step's index (20
// bits). With no part that is not done the run is over, and the index is the number of its steps.
//
// The word describes itself: a thread that has read it long ago and then swaps successfully has claimed a
// part of the step that is open now, whatever happened in between.
constexpr int kPendingShift = 32;
constexpr int kPartsShift = 38;
constexpr int kStepShift = 44;
constexpr uint64_t kOnePending = uint64_t{1} << kPendingShift;

uint64_t all_parts(int parts) { return (uint64_t{1} << parts) - 1; }
uint32_t unclaimed(uint64_t state) { return static_cast<uint32_t>(state); }
int pending(uint64_t state) { return static_cast<int>(state >> kPendingShift & 0x3F); }
int parts_of(uint64_t state) { return static_cast<int>(state >> kPartsShift & 0x3F); }
int step_of(uint64_t state) { return static_cast<int>(state >> kStepShift); }

uint64_t opened(int step, int parts) {
  return uint64_t(step) << kStepShift | uint64_t(parts) << kPartsShift | uint64_t(parts) << kPendingShift |
         all_parts(parts);
}

void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__) || defined(__ARM_ARCH_7A__)
  asm volatile("yield");
#endif
}

/// Waits without work, first at the cost of power, then of answering late.
class Spin {
 public:
  explicit Spin(bool crowded) : crowded_(crowded) {}

  void reset() { rounds_ = 0; }

  /// One short wait. False when the thread has waited long enough to sleep.
  bool once() {
    constexpr int kRounds = 32;  // a microsecond or two, after which a look at the clock costs little
    constexpr auto kBeforeYield = std::chrono::microseconds(20);
    constexpr auto kBeforeSleep = std::chrono::microseconds(200);
    if (++rounds_ % kRounds != 0) {
      pause_cpu();
      return true;
    }
    const auto now = std::chrono::steady_clock::now();
    if (rounds_ == kRounds) since_ = now;
    // Where there are more threads than free CPUs, the one that is waited for needs this one's.
    if (crowded_ || now - since_ >= kBeforeYield) std::this_thread::yield();
    return now - since_ < kBeforeSleep;
  }

 private:
  const bool crowded_;
  int rounds_ = 0;
  std::chrono::steady_clock::time_point since_;
};

}  // namespace

/// Which parts a thread should claim.
class ThreadPool::Turn {
 public:
  Turn(int thread, int threads) : thread_(thread), threads_(threads) {}

  /// A part of the open step, or -1 for none.
  int choose(uint64_t state) {
    const uint32_t free = unclaimed(state);
    if (free == 0) return -1;
    if (step_of(state) != step_) {
      step_ = step_of(state);
      rounds_ = 0;
    }
    // Part p belongs to thread p * threads / parts.
    const int parts = parts_of(state);
    const int first = (thread_ * parts + threads_ - 1) / threads_;
    const int last = ((thread_ + 1) * parts + threads_ - 1) / threads_;
    const uint32_t own = static_cast<uint32_t>(free & (all_parts(last) ^ all_parts(first)));
    if (own != 0) return __builtin_ctz(own);
    // The owner has not come while this thread computed its share; where it had none, the owner gets some
    // time to come, since its caches hold the step's weights. From the end, where owners come last.
    constexpr int kGrace = 64;
    if (first == last && ++rounds_ < kGrace) return -1;
    return 31 - __builtin_clz(free);
  }

 private:
  const int thread_;
  const int threads_;
  int step_ = -1;
  int rounds_ = 0;
};

ThreadPool::ThreadPool(int threads)
    : threads_(std::min(std::max(threads, 1), kMaxThreads)), crowded_(threads_ > usable_cpus()) {
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

void ThreadPool::run(const Program& program) {
  if (threads_ == 1) {
    for (int step = 0; step < program.step_count; ++step) {
      for (int part = 0; part < program.steps[step].parts; ++part)
        program.compute(program.context, step, part, 0);
      if (program.finished != nullptr) program.finished(program.context, step);
    }
    return;
  }
  if (program.step_count == 0) return;
  program_ = &program;
  open(program, 0);
  Turn turn(0, threads_);
  Spin spin(crowded_);
  while (true) {
    uint64_t state = state_.load(std::memory_order_acquire);
    if (pending(state) == 0 && step_of(state) == program.step_count) return;
    const int part = turn.choose(state);
    if (part < 0) {
      (void)spin.once();
    } else if (claim(state, part)) {
      compute(step_of(state), part, 0);
      spin.reset();
    }
  }
}

void ThreadPool::open(const Program& program, int step) {
  if (step == program.step_count) {
    // With this the caller returns: nothing of the program may be touched any more.
    state_.store(uint64_t(step) << kStepShift, std::memory_order_release);
    return;
  }
  const Step& next = program.steps[step];
  const bool wake = next.wake && next.parts > 1;
  state_.store(opened(step, next.parts), std::memory_order_seq_cst);
  // A worker counts itself as a sleeper before it looks at the state for the last time, so that one of the
  // two sides always sees the other.
  if (wake && sleepers_.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }
}

bool ThreadPool::claim(uint64_t state, int part) {
  return state_.compare_exchange_strong(state, state & ~(uint64_t{1} << part), std::memory_order_acq_rel,
                                        std::memory_order_relaxed);
}

void ThreadPool::compute(int step, int part, int thread) {
  const Program& program = *program_;
  program.compute(program.context, step, part, thread);
  if (pending(state_.fetch_sub(kOnePending, std::memory_order_acq_rel)) != 1) return;
  if (program.finished != nullptr) program.finished(program.context, step);
  open(program, step + 1);
}

void ThreadPool::work(int thread) {
  Turn turn(thread, threads_);
  Spin spin(crowded_);
  uint64_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint64_t state = state_.load(std::memory_order_acquire);
    const int part = turn.choose(state);
    if (part >= 0) {
      if (claim(state, part)) compute(step_of(state), part, thread);
      spin.reset();
      continue;
    }
    if (state != seen) spin.reset();
    seen = state;
    if (spin.once()) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [this] {
      const uint64_t now = state_.load(std::memory_order_seq_cst);
      return stop_.load(std::memory_order_seq_cst) || (unclaimed(now) != 0 && parts_of(now) > 1);
    });
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    spin.reset();
  }
}

}  // namespace edgeq
