// for_each_chunk: independent pieces of work over threads. Which thread takes which piece changes nothing in the
// result.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace potstill::quant {

// Calls work(i) for i in [0, count), on as many threads as LibTorch uses. work must not throw.
// Plain threads: at::parallel_for is serial in code compiled without OpenMP.
template <class Work>
void for_each_chunk(int64_t count, const Work& work) {
  const int64_t num_threads = std::min<int64_t>(at::get_num_threads(), count);
  std::atomic<int64_t> next{0};
  const auto run = [&] {
    for (int64_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> others;
  for (int64_t t = 1; t < num_threads; ++t) others.emplace_back(run);
  run();
}

}  // namespace potstill::quant
