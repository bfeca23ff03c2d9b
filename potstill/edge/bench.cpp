#include "potstill/edge/bench.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <thread>

#include "potstill/base/energy.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/machine.h"
#include "potstill/base/rng.h"

namespace potstill::edge {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int64_t kTokensAPass = 16;  // tokens for each measurement of the memory between them

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The value below which `share` of the sorted values lie.
double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

nlohmann::ordered_json spread(const std::vector<double>& rates) {
  return {{"min", percentile(rates, 0)}, {"max", percentile(rates, 1)}};
}

}  // namespace

constexpr int64_t kWords = int64_t{256} << 20 >> 4;

void ReadBandwidth::Free::operator()(Word* words) const { std::free(words); }

ReadBandwidth::ReadBandwidth(int num_threads) : pool_(num_threads), sums_(static_cast<size_t>(num_threads)) {
  constexpr size_t kHugePage = size_t{2} << 20;
  memory_.reset(static_cast<Word*>(std::aligned_alloc(kHugePage, kWords * sizeof(Word))));
  if (memory_ == nullptr) throw std::bad_alloc();
  ::madvise(memory_.get(), kWords * sizeof(Word), MADV_HUGEPAGE);  // pages are not to be what it measures
  std::fill_n(memory_.get(), kWords, Word{1, 2});
}

double ReadBandwidth::measure() {
  std::this_thread::sleep_for(std::chrono::milliseconds(1));  // another pool's threads, which wait awake, go to sleep
  const Word* memory = memory_.get();
  const auto start = Clock::now();
  pool_.parallel_for(kWords, 1 << 14, [&](int64_t begin, int64_t end, int thread) {
    Word sum[4] = {};
    for (int64_t i = begin; i < end; i += 4) {
      for (int j = 0; j < 4; ++j) sum[j] += memory[i + j];
    }
    sums_[static_cast<size_t>(thread)] += sum[0] + sum[1] + sum[2] + sum[3];
  });
  const double rate = static_cast<double>(kWords * sizeof(Word)) / seconds_since(start);
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return rate;
}

nlohmann::ordered_json run_bench(EdgeModel& model, const BenchOptions& options) {
  KvCache& cache = model.cache();
  if (options.prompt < 1 || options.generate < 1 || options.repetitions < 1 ||
      options.prompt + options.generate > cache.capacity()) {
    throw Error(ErrorKind::kUsage, "bench",
                fmt::format("--prompt {} and --generate {} must be at least 1 and fit the context of {}",
                            options.prompt, options.generate, cache.capacity()),
                "--context sets it, up to the model's own");
  }
  Rng rng(1, "bench");
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < options.prompt + options.generate; ++i) {
    tokens.push_back(static_cast<TokenId>(rng.below(static_cast<uint64_t>(model.config().vocab_size))));
  }
  const auto prompt = std::span(tokens).first(static_cast<size_t>(options.prompt));
  std::vector<double> prompt_rates, decode_rates, latencies, token_joules, bandwidths;
  std::optional<ReadBandwidth> memory;
  double peak_rss = 0;
  for (int64_t repetition = -1; repetition < options.repetitions;
       ++repetition) {  // the first one warms caches and pages
    cache.set_length(0);
    auto start = Clock::now();
    model.forward().prompt(prompt, cache);
    const double prompt_seconds = seconds_since(start);
    double decode_seconds = 0, other_joules = 0;
    const EnergyMeter energy;
    for (int64_t i = 0; i < options.generate; ++i) {
      throw_if_interrupted();
      start = Clock::now();
      model.forward().decode(tokens[static_cast<size_t>(options.prompt + i)], cache);
      const double latency = seconds_since(start);
      decode_seconds += latency;
      if (repetition < 0) continue;
      latencies.push_back(latency * 1e3);
      if (i % kTokensAPass != 0) continue;
      const double before = energy.joules();
      bandwidths.push_back(memory->measure());
      other_joules += energy.joules() - before;
    }
    if (repetition < 0) {
      peak_rss = static_cast<double>(peak_rss_bytes());  // what follows allocates nothing but the next line's 256 MB
      memory.emplace(model.threads());
      continue;
    }
    if (energy.readable())
      token_joules.push_back((energy.joules() - other_joules) / static_cast<double>(options.generate));
    prompt_rates.push_back(static_cast<double>(options.prompt) / prompt_seconds);
    decode_rates.push_back(static_cast<double>(options.generate) / decode_seconds);
  }
  // A decoded token reads every weight and, on average, the cache of the prompt and half of the answer.
  const double kv_bytes = static_cast<double>(cache.bytes_per_position()) *
                          (static_cast<double>(options.prompt) + static_cast<double>(options.generate) / 2);
  const double bytes = static_cast<double>(model.weights().bytes_per_token()) + kv_bytes;
  const double decode_rate = percentile(decode_rates, 0.5), bandwidth = percentile(bandwidths, 0.5);
  const size_t passes = bandwidths.size() / decode_rates.size();
  std::vector<double> shares;  // of the bandwidth in the same repetition
  for (size_t i = 0; i < decode_rates.size(); ++i) {
    const auto first = bandwidths.begin() + static_cast<ptrdiff_t>(i * passes);
    shares.push_back(decode_rates[i] * bytes / percentile({first, first + static_cast<ptrdiff_t>(passes)}, 0.5));
  }
  nlohmann::ordered_json result{
      {"model", model.package().path.filename().string()},
      {"processor", cpu_name()},
      {"isa", kernels::kernels().name},
      {"activations", model.forward().mode() == ActivationMode::kFast ? "8-bit" : "16-bit"},
      {"kv_cache", cache.layout().type == kernels::KvType::kByte ? "8-bit" : "16-bit"},
      {"weights", model.weights().arena ? "repacked" : "mapped"},
      {"threads", model.threads()},
      {"prompt", options.prompt},
      {"generate", options.generate},
      {"repetitions", options.repetitions},
      {"prompt_tokens_per_s", percentile(prompt_rates, 0.5)},
      {"prompt_tokens_per_s_range", spread(prompt_rates)},
      {"decode_tokens_per_s", decode_rate},
      {"decode_tokens_per_s_range", spread(decode_rates)},
      {"latency_ms",
       {{"p50", percentile(latencies, 0.5)},
        {"p95", percentile(latencies, 0.95)},
        {"p99", percentile(latencies, 0.99)}}},
      {"bytes_per_token", static_cast<int64_t>(bytes)},
      {"decode_gb_per_s", decode_rate * bytes / 1e9},
      {"memory_gb_per_s", bandwidth / 1e9},
      {"memory_gb_per_s_range", {{"min", percentile(bandwidths, 0) / 1e9}, {"max", percentile(bandwidths, 1) / 1e9}}},
      {"bandwidth_share", percentile(shares, 0.5)},
      {"file_mb", static_cast<double>(model_bytes(model.package().path)) / 1e6},
      {"kv_cache_mb", static_cast<double>(cache.bytes_per_position()) * static_cast<double>(cache.length()) / 1e6},
      {"peak_rss_mb", peak_rss / 1e6}};
  // null where the counters cannot be read: in a virtual machine, or by anyone but root
  result["joules_per_token"] = nullptr;
  if (!token_joules.empty()) result["joules_per_token"] = percentile(token_joules, 0.5);
  return result;
}

std::string bench_text(const nlohmann::ordered_json& result) {
  const auto number = [&](const char* key) { return result.at(key).get<double>(); };
  const auto range = [&](const char* key) {
    return fmt::format("{:.1f} to {:.1f}", result.at(key).at("min").get<double>(),
                       result.at(key).at("max").get<double>());
  };
  const auto& latency = result.at("latency_ms");
  const auto& joules = result.at("joules_per_token");
  return fmt::format(
      "{} on {} ({}, {} threads, {} activations)\n"
      "  prompt  {:8.1f} tokens/s  ({} over {} runs of {} tokens)\n"
      "  decode  {:8.1f} tokens/s  ({} over {} runs of {} tokens)\n"
      "  latency {:8.2f} ms a token at the median, {:.2f} at p95, {:.2f} at p99\n"
      "  memory  {:8.1f} GB/s of {:.1f} measured ({:.0f} %): {:.1f} MB a token\n"
      "  peak    {:8.1f} MB resident; the file has {:.1f} MB, the KV cache {:.1f} MB\n"
      "  energy  {}",
      result.at("model").get<std::string>(), result.at("processor").get<std::string>(),
      result.at("isa").get<std::string>(), result.at("threads").get<int>(), result.at("activations").get<std::string>(),
      number("prompt_tokens_per_s"), range("prompt_tokens_per_s_range"), result.at("repetitions").get<int>(),
      result.at("prompt").get<int>(), number("decode_tokens_per_s"), range("decode_tokens_per_s_range"),
      result.at("repetitions").get<int>(), result.at("generate").get<int>(), latency.at("p50").get<double>(),
      latency.at("p95").get<double>(), latency.at("p99").get<double>(), number("decode_gb_per_s"),
      number("memory_gb_per_s"), number("bandwidth_share") * 100, number("bytes_per_token") / 1e6,
      number("peak_rss_mb"), number("file_mb"), number("kv_cache_mb"),
      joules.is_null() ? std::string("   not readable here (RAPL wants root and no virtual machine)")
                       : fmt::format("{:8.3f} J a token, of all that the processor does", joules.get<double>()));
}

}  // namespace potstill::edge
