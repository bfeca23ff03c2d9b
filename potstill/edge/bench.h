// What the edge runtime reaches on this machine, beside what the machine's memory allows.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/edge/edge_model.h"

namespace potstill::edge {

struct BenchOptions {
  int64_t prompt = 512, generate = 128;  // tokens
  int64_t repetitions = 5;               // medians are reported: a shared machine stalls for seconds at a time
};

// {"prompt_tokens_per_s", "decode_tokens_per_s", …, "peak_rss_mb", …}: medians, their spread over the repetitions,
// latency percentiles over every decoded token, bytes a token reads, GB/s that makes, and the machine's read bandwidth,
// measured between the tokens: shared machines change from one second to the next. Throws Error(kUsage)
// when prompt and generate do not fit the context, Error(kInterrupted) on Ctrl-C.
nlohmann::ordered_json run_bench(EdgeModel& model, const BenchOptions& options);
// The same as a few lines for people.
std::string bench_text(const nlohmann::ordered_json& result);

// Measures how fast a pool's threads read memory: 256 MB in huge pages, far more than any cache here holds.
class ReadBandwidth {
 public:
  explicit ReadBandwidth(int num_threads);  // takes the memory
  double measure();                         // bytes a second of one pass, some 10 ms

 private:
  using Word = uint64_t __attribute__((vector_size(16)));
  struct Free {
    void operator()(Word* words) const;
  };
  ThreadPool pool_;
  std::unique_ptr<Word, Free> memory_;
  std::vector<Word> sums_;  // a thread's; read by nobody, but the compiler cannot know
};

}  // namespace potstill::edge
