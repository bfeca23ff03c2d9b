// ThreadPool: threads that wait close by. Decode hands out some 150 pieces of work a token, each of ten microseconds,
// so waking a thread through the kernel every time would cost more than the work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace potstill::edge {

// Memory that the next piece of work will read: a thread with nothing to do fetches its share into its cache.
struct Ahead {
  const std::byte* data = nullptr;
  size_t bytes = 0;
};

class ThreadPool {
 public:
  static constexpr int kMostThreads = 32;  // pieces of a work are bits of a word

  // The calling thread is one of them; num_threads in [1, kMostThreads]. Where the threads are as many as the CPUs that
  // the process may use, each of the others is held to a CPU of its own: none is moved while it works. Fewer threads
  // stay free, for another program's may be held to the same first CPUs.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, thread) over [0, count) in at most 32 pieces of at least `grain`, and returns when all are
  // done. A thread begins with a share of neighbours that is its own for equal counts, then takes from the others. The
  // body must not throw. One caller at a time; a body may not call the pool.
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, const Body& body, Ahead ahead = {}) {
    const auto call = [](const void* context, int64_t begin, int64_t end, int thread) {
      (*static_cast<const Body*>(context))(begin, end, thread);
    };
    run({call, &body, count, grain, ahead});
  }

 private:
  struct Work {
    void (*call)(const void* context, int64_t begin, int64_t end, int thread) = nullptr;
    const void* context = nullptr;
    int64_t count = 0, grain = 1;
    Ahead ahead;
  };
  void run(const Work& work);
  void take_pieces(int thread);
  void worker(int thread);

  // The number of the work in the upper half and the pieces that are left in the lower one, so that a thread that slept
  // through a whole work cannot take a piece of the next one by mistake, and nobody waits for a thread that took none.
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int> done_{0};  // pieces finished
  // Written while state_ has no pieces, read before one is taken: a success proves that they belonged together.
  alignas(64) std::atomic<decltype(Work::call)> call_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<int64_t> count_{0};
  std::atomic<int> pieces_{0};
  std::atomic<const std::byte*> ahead_{nullptr};
  std::atomic<size_t> ahead_bytes_{0};
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace potstill::edge
