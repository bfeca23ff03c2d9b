#include "potstill/edge/thread_pool.h"

#include <algorithm>
#include <chrono>

namespace potstill::edge {
namespace {

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int kSpins = 4000;  // about 100 µs: longer than any serial stretch of a decoder layer
constexpr int kYields = 32;   // then let others run: on a busy machine the thread we wait for may need this CPU

// Waits for done() without sleeping; false when it took too long.
template <class Done>
bool wait_briefly(const Done& done) {
  for (int i = 0; i < kSpins; ++i) {
    if (done()) return true;
    pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (done()) return true;
    std::this_thread::yield();
  }
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { worker(thread); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    epoch_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& thread : workers_) thread.join();
}

void ThreadPool::run(const Work& work) {
  if (work.count <= 0) return;
  if (workers_.empty() || work.count <= work.grain) return work.call(work.context, 0, work.count, 0);
  work_ = work;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1);  // sequentially consistent, as the load of asleep_: one of the two sides sees the other
  if (asleep_.load() > 0) {
    const std::lock_guard lock(mutex_);  // a worker between its last look and its sleep holds it
    wake_.notify_all();
  }
  take_pieces(0);
  const auto done = [this] { return busy_.load(std::memory_order_acquire) == 0; };
  if (wait_briefly(done)) return;
  while (!done()) std::this_thread::yield();  // more threads than free CPUs: they need ours
}

void ThreadPool::take_pieces(int thread) {
  for (;;) {
    const int64_t begin = next_.fetch_add(work_.grain, std::memory_order_relaxed);
    if (begin >= work_.count) return;
    work_.call(work_.context, begin, std::min(begin + work_.grain, work_.count), thread);
  }
}

void ThreadPool::worker(int thread) {
  uint32_t seen = 0;
  for (;;) {
    const auto changed = [this, seen] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!wait_briefly(changed)) {
      std::unique_lock lock(mutex_);
      asleep_.fetch_add(1);
      wake_.wait(lock, changed);
      asleep_.fetch_sub(1);
    }
    ++seen;
    if (stop_.load()) return;
    take_pieces(thread);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace potstill::edge
