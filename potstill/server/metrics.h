// Metrics: counters and histograms in Prometheus' text format.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "potstill/lm/text_engine.h"

namespace potstill::server {

// Seconds, in buckets from a millisecond to two minutes. Thread-safe.
class Histogram {
 public:
  void observe(double seconds);
  void write(std::string& out, std::string_view name, std::string_view help) const;

 private:
  static constexpr std::array<double, 14> kBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                  0.25,  0.5,    1,     2.5,  10,    30,   120};
  std::array<std::atomic<uint64_t>, kBounds.size() + 1> counts_{};
  std::atomic<double> sum_{0};
};

class Metrics {
 public:
  Histogram request_seconds, first_token_seconds, between_tokens_seconds;
  std::atomic<uint64_t> answers_abandoned{0};  // the client hung up or was too slow

  void count_request(std::string_view endpoint, int status);  // endpoint: one of ours, never what a client wrote
  std::string text(const EngineStats& engine, int64_t num_connections) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> requests_;
};

}  // namespace potstill::server
