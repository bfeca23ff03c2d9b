// What the edge runtime reaches on this machine, beside what the machine's memory allows.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "potstill/edge/edge_model.h"

namespace potstill::edge {

struct BenchOptions {
  int64_t prompt = 512, generate = 128;  // tokens
  int64_t repetitions = 5;               // medians are reported: a shared machine stalls for seconds at a time
};

// {"prompt_tokens_per_s", "decode_tokens_per_s", …, "peak_rss_mb", …}: medians, their spread over the repetitions,
// latency percentiles over every decoded token, bytes a token reads, GB/s that makes, and the machine's measured read
// bandwidth. Throws Error(kUsage) when prompt and generate do not fit the context, Error(kInterrupted) on Ctrl-C.
nlohmann::ordered_json run_bench(EdgeModel& model, const BenchOptions& options);
// The same as a few lines for people.
std::string bench_text(const nlohmann::ordered_json& result);

// Bytes a second that `pool` reads from memory: best of a few passes over 256 MB, far more than any cache here holds.
double read_bandwidth(ThreadPool& pool);

}  // namespace potstill::edge
