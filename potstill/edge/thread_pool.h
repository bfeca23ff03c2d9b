// ThreadPool: threads that wait close by. Decode hands out some 150 pieces of work a token, each of ten microseconds,
// so waking a thread through the kernel every time would cost more than the work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace potstill::edge {

class ThreadPool {
 public:
  // The calling thread is one of them; num_threads >= 1.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, thread) over [0, count) in pieces of `grain`, each by whichever thread is free, and returns
  // when all are done. The body must not throw. One caller at a time; a body may not call the pool.
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, const Body& body) {
    const auto call = [](const void* context, int64_t begin, int64_t end, int thread) {
      (*static_cast<const Body*>(context))(begin, end, thread);
    };
    run({call, &body, count, grain});
  }

 private:
  struct Work {
    void (*call)(const void* context, int64_t begin, int64_t end, int thread) = nullptr;
    const void* context = nullptr;
    int64_t count = 0, grain = 1;
  };
  void run(const Work& work);
  void take_pieces(int thread);
  void worker(int thread);

  // The number of the work in the upper half and its next piece in the lower one, so that a thread that slept through a
  // whole piece of work cannot take a piece of the next one by mistake, and nobody waits for a thread that took none.
  alignas(64) std::atomic<uint64_t> next_{0};
  alignas(64) std::atomic<int64_t> done_{0};  // pieces finished
  // Written while next_ says "closed", read before a piece is taken: a success proves that they belonged together.
  alignas(64) std::atomic<decltype(Work::call)> call_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<int64_t> count_{0}, grain_{1};
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace potstill::edge
