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

constexpr uint64_t kClosed = 0xffffffff;  // as the next piece: none to take

uint64_t number_of(uint64_t state) { return state >> 32; }
uint64_t piece_of(uint64_t state) { return state & 0xffffffff; }

}  // namespace

ThreadPool::ThreadPool(int num_threads) : next_(kClosed) {
  for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { worker(thread); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    next_.store((number_of(next_.load()) + 1) << 32 | kClosed);
  }
  wake_.notify_all();
  for (auto& thread : workers_) thread.join();
}

void ThreadPool::run(const Work& work) {
  if (work.count <= 0) return;
  if (workers_.empty() || work.count <= work.grain) return work.call(work.context, 0, work.count, 0);
  const uint64_t number = (number_of(next_.load(std::memory_order_relaxed)) + 1) << 32;
  next_.store(number | kClosed);
  call_.store(work.call, std::memory_order_relaxed);
  context_.store(work.context, std::memory_order_relaxed);
  count_.store(work.count, std::memory_order_relaxed);
  grain_.store(work.grain, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  next_.store(number);  // sequentially consistent, as the load of asleep_: one of the two sides sees the other
  if (asleep_.load() > 0) {
    const std::lock_guard lock(mutex_);  // a worker between its last look and its sleep holds it
    wake_.notify_all();
  }
  take_pieces(0);
  const int64_t pieces = (work.count + work.grain - 1) / work.grain;
  const auto done = [this, pieces] { return done_.load(std::memory_order_acquire) == pieces; };
  if (wait_briefly(done)) return;
  while (!done()) std::this_thread::yield();  // more threads than free CPUs: they need ours
}

void ThreadPool::take_pieces(int thread) {
  uint64_t state = next_.load(std::memory_order_acquire);
  for (;;) {
    const auto call = call_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    const int64_t count = count_.load(std::memory_order_relaxed), grain = grain_.load(std::memory_order_relaxed);
    const int64_t begin = static_cast<int64_t>(piece_of(state)) * grain;
    if (piece_of(state) == kClosed || begin >= count) return;
    if (!next_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    call(context, begin, std::min(begin + grain, count), thread);
    done_.fetch_add(1, std::memory_order_release);
    state = next_.load(std::memory_order_acquire);
  }
}

void ThreadPool::worker(int thread) {
  uint64_t seen = 0;
  for (;;) {
    const auto changed = [this, seen] {
      const uint64_t state = next_.load();
      return stop_.load(std::memory_order_relaxed) || (number_of(state) != seen && piece_of(state) != kClosed);
    };
    if (!wait_briefly(changed)) {
      std::unique_lock lock(mutex_);
      asleep_.fetch_add(1);
      wake_.wait(lock, changed);
      asleep_.fetch_sub(1);
    }
    if (stop_.load()) return;
    const uint64_t state = next_.load();
    if (piece_of(state) == kClosed) continue;  // the next one is being written
    seen = number_of(state);
    take_pieces(thread);
  }
}

}  // namespace potstill::edge
