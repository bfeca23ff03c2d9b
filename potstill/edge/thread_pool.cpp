#include "potstill/edge/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <bit>

#include "potstill/base/check.h"

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

// A thread's share of the memory that comes next, at most a part of an L2.
class Fetcher {
 public:
  Fetcher(const std::byte* data, size_t bytes, int thread, int num_threads) {
    constexpr size_t kMost = 64 << 10;
    if (data == nullptr) return;
    const size_t share = bytes / static_cast<size_t>(num_threads);
    next_ = data + share * static_cast<size_t>(thread);
    left_ = std::min(share, kMost) / 64;
  }
  // A few lines a call, so that the end of the wait is seen at once.
  void fetch_or_pause() {
    if (left_ == 0) return pause();
    for (int i = 0; i < 4 && left_ > 0; ++i, --left_, next_ += 64) __builtin_prefetch(next_, 0, 2);
  }

 private:
  const std::byte* next_ = nullptr;
  size_t left_ = 0;
};

// Waits for done() without sleeping; false when it took too long.
template <class Done>
bool wait_briefly(const Done& done, Fetcher fetcher) {
  for (int i = 0; i < kSpins; ++i) {
    if (done()) return true;
    fetcher.fetch_or_pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (done()) return true;
    std::this_thread::yield();
  }
  return false;
}

uint32_t number_of(uint64_t state) { return static_cast<uint32_t>(state >> 32); }
uint32_t pieces_of(uint64_t state) { return static_cast<uint32_t>(state); }

// The CPUs that this thread may use, if they are as many as num_threads; else none.
std::vector<int> cpus_to_hold(int num_threads) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) != num_threads) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// The calling thread: sched_setaffinity, which Android has as well. A system that refuses leaves it free, which costs
// time alone.
void hold_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ::sched_setaffinity(0, sizeof(set), &set);
}

// The thread's own pieces [first, last), front to back, then whatever is left, from the back.
uint32_t choose_piece(uint32_t left, int pieces, int thread, int num_threads) {
  const int first = pieces * thread / num_threads, last = pieces * (thread + 1) / num_threads;
  const uint32_t below_last = last == 32 ? ~0u : (1u << last) - 1, own = left & below_last & ~((1u << first) - 1);
  return static_cast<uint32_t>(first < last && own != 0 ? std::countr_zero(own) : 31 - std::countl_zero(left));
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  POTSTILL_CHECK(num_threads >= 1 && num_threads <= kMostThreads);
  const auto cpus = cpus_to_hold(num_threads);
  for (int thread = 1; thread < num_threads; ++thread) {
    const int cpu = cpus.empty() ? -1 : cpus[static_cast<size_t>(thread)];
    workers_.emplace_back([this, thread, cpu] {
      if (cpu >= 0) hold_to(cpu);
      worker(thread);
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& thread : workers_) thread.join();
}

void ThreadPool::run(const Work& work) {
  if (work.count <= 0) return;
  if (workers_.empty() || work.count <= work.grain) return work.call(work.context, 0, work.count, 0);
  const auto pieces = static_cast<int>(std::min<int64_t>(32, (work.count + work.grain - 1) / work.grain));
  const uint64_t number = (uint64_t{number_of(state_.load(std::memory_order_relaxed))} + 1) << 32;
  state_.store(number, std::memory_order_relaxed);
  // Released, so that whoever reads one of these finds the new number when it tries to take a piece of the old work.
  call_.store(work.call, std::memory_order_release);
  context_.store(work.context, std::memory_order_release);
  count_.store(work.count, std::memory_order_release);
  pieces_.store(pieces, std::memory_order_release);
  ahead_.store(work.ahead.data, std::memory_order_relaxed);
  ahead_bytes_.store(work.ahead.bytes, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  // Sequentially consistent, as the load of asleep_: one of the two sides sees the other.
  state_.store(number | ((uint64_t{1} << pieces) - 1));
  if (asleep_.load() > 0) {
    const std::lock_guard lock(mutex_);  // a worker between its last look and its sleep holds it
    wake_.notify_all();
  }
  take_pieces(0);
  const auto done = [this, pieces] { return done_.load(std::memory_order_acquire) == pieces; };
  if (wait_briefly(done, Fetcher(work.ahead.data, work.ahead.bytes, 0, size()))) return;
  while (!done()) std::this_thread::yield();  // more threads than free CPUs: they need ours
}

void ThreadPool::take_pieces(int thread) {
  const int num_threads = size();
  int taken = 0;
  uint64_t state = state_.load(std::memory_order_acquire);
  while (pieces_of(state) != 0) {
    const auto call = call_.load(std::memory_order_acquire);
    const void* context = context_.load(std::memory_order_acquire);
    const int64_t count = count_.load(std::memory_order_acquire);
    const int pieces = pieces_.load(std::memory_order_acquire);
    const uint32_t piece = choose_piece(pieces_of(state), pieces, thread, num_threads);
    const uint64_t rest = state & ~(uint64_t{1} << piece);
    if (!state_.compare_exchange_weak(state, rest, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    call(context, count * piece / pieces, count * (piece + 1) / pieces, thread);
    ++taken;
    state = state_.load(std::memory_order_acquire);
  }
  if (taken > 0) done_.fetch_add(taken, std::memory_order_release);
}

void ThreadPool::worker(int thread) {
  uint32_t seen = 0;
  Fetcher fetcher(nullptr, 0, 0, 1);
  for (;;) {
    const auto changed = [this, &seen] {
      const uint64_t state = state_.load();
      return stop_.load(std::memory_order_relaxed) || (number_of(state) != seen && pieces_of(state) != 0);
    };
    if (!wait_briefly(changed, fetcher)) {
      std::unique_lock lock(mutex_);
      asleep_.fetch_add(1);
      wake_.wait(lock, changed);
      asleep_.fetch_sub(1);
    }
    if (stop_.load()) return;
    seen = number_of(state_.load(std::memory_order_acquire));
    const std::byte* ahead = ahead_.load(std::memory_order_relaxed);
    const size_t ahead_bytes = ahead_bytes_.load(std::memory_order_relaxed);
    take_pieces(thread);
    // Torn between two works the hint may be wrong, and a prefetch of any address is harmless.
    fetcher = Fetcher(ahead, ahead_bytes, thread, size());
  }
}

}  // namespace potstill::edge
