#include "potstill/server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/machine.h"

namespace potstill::server {
namespace {

void line(std::string& out, std::string_view name, std::string_view type, std::string_view help, double value) {
  out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n", name, help, type, value);
}

}  // namespace

void Histogram::observe(double seconds) {
  const auto bucket = std::lower_bound(kBounds.begin(), kBounds.end(), seconds) - kBounds.begin();
  counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  double sum = sum_.load(std::memory_order_relaxed);
  while (!sum_.compare_exchange_weak(sum, sum + seconds, std::memory_order_relaxed)) {
  }
}

void Histogram::write(std::string& out, std::string_view name, std::string_view help) const {
  out += fmt::format("# HELP {0} {1}\n# TYPE {0} histogram\n", name, help);
  uint64_t total = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    total += counts_[i].load(std::memory_order_relaxed);
    const std::string bound = i < kBounds.size() ? fmt::format("{}", kBounds[i]) : "+Inf";
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, bound, total);
  }
  out += fmt::format("{0}_sum {1}\n{0}_count {2}\n", name, sum_.load(std::memory_order_relaxed), total);
}

void Metrics::count_request(std::string_view endpoint, int status) {
  const std::lock_guard lock(mutex_);
  ++requests_[{std::string(endpoint), status}];
}

std::string Metrics::text(const EngineStats& engine, int64_t num_connections) const {
  std::string out = "# HELP potstill_requests_total Requests answered\n# TYPE potstill_requests_total counter\n";
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, count] : requests_) {
      out += fmt::format("potstill_requests_total{{endpoint=\"{}\",status=\"{}\"}} {}\n", key.first, key.second, count);
    }
  }
  const auto number = [](uint64_t value) { return static_cast<double>(value); };
  line(out, "potstill_answers_abandoned_total", "counter", "Answers whose client hung up or read too slowly",
       number(answers_abandoned));
  line(out, "potstill_connections", "gauge", "Open connections", static_cast<double>(num_connections));
  line(out, "potstill_sequences_queued", "gauge", "Answers that wait for a slot", static_cast<double>(engine.queued));
  line(out, "potstill_sequences_running", "gauge", "Answers under way", static_cast<double>(engine.running));
  line(out, "potstill_slots", "gauge", "Answers that can be under way", static_cast<double>(engine.slots));
  line(out, "potstill_prompt_tokens_total", "counter", "Prompt tokens, those found in a cache included",
       number(engine.prompt_tokens));
  line(out, "potstill_prompt_tokens_cached_total", "counter", "Prompt tokens found in a cache",
       number(engine.cached_tokens));
  line(out, "potstill_generated_tokens_total", "counter", "Tokens of answers", number(engine.new_tokens));
  line(out, "potstill_decode_steps_total", "counter", "Steps of the model that made tokens of answers",
       number(engine.steps));
  line(out, "potstill_decode_step_tokens_total", "counter", "Tokens that those steps made", number(engine.step_tokens));
  line(out, "potstill_answers_set_aside_total", "counter", "Times that an answer made room for one that waited",
       number(engine.set_aside));
  request_seconds.write(out, "potstill_request_seconds", "From a request's last byte to the end of its answer");
  first_token_seconds.write(out, "potstill_first_token_seconds", "From a request's last byte to its first token");
  between_tokens_seconds.write(out, "potstill_between_tokens_seconds", "Between two tokens of one answer");
  line(out, "process_resident_memory_bytes", "gauge", "Memory in use", number(rss_bytes()));
  line(out, "potstill_peak_memory_bytes", "gauge", "Memory in use at most", number(peak_rss_bytes()));
  return out;
}

}  // namespace potstill::server
