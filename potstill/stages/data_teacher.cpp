#include "potstill/stages/data_teacher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "potstill/edge/batch_model.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/torch_model.h"
#include "potstill/nn/transformer.h"
#include "potstill/stages/artifact.h"
#include "potstill/stages/threads.h"

namespace potstill {
namespace {

// Positions of a slot's cache in the edge runtime: examples, passage and answer. A model's own maximum would be
// gigabytes.
constexpr int64_t kEdgeContext = 4096;
constexpr int64_t kEdgeSlots = 16;

// The key comes out of the environment alone, and goes nowhere but to the endpoint.
OpenAiOptions endpoint_options(const DataTeacherSource& source, const SynthConfig& config) {
  const char* key = std::getenv(source.key_variable);
  OpenAiOptions options;
  options.http.url = source.path_or_url;
  options.http.key = key != nullptr ? key : "";
  options.http.concurrency = static_cast<int>(config.concurrency);
  options.model = source.model;
  options.budget_tokens = config.budget_tokens;
  options.budget_cost = config.budget_cost;
  options.prompt_price = config.prompt_price;
  options.answer_price = config.answer_price;
  return options;
}

// auto: the edge runtime for a GGUF on the CPU, where it writes two to three times as fast as LibTorch.
bool wants_edge(const std::string& engine, const ModelPackage& package, const std::string& device) {
  if (engine != "auto") return engine == "edge";
  return package.format == "gguf" && compute_device(device).is_cpu();
}

}  // namespace

DataTeacher open_data_teacher(const DataTeacherSource& source, const SynthConfig& config) {
  DataTeacher teacher;
  if (is_endpoint(source.path_or_url)) {
    auto endpoint = std::make_unique<OpenAiModel>(endpoint_options(source, config));
    teacher.endpoint = endpoint.get();
    teacher.model = std::move(endpoint);
    teacher.revision = fmt::format("{} {}", source.path_or_url, source.model);
    return teacher;
  }
  const std::filesystem::path path = source.path_or_url;
  teacher.revision = fingerprint(path);
  const ModelPackage package = open_model(path);
  if (wants_edge(config.engine, package, source.device)) {
    edge::EdgeOptions options{.threads = num_threads()};
    options.context = std::min(kEdgeContext, package.config.max_position_embeddings);
    teacher.model =
        std::make_unique<edge::BatchModel>(path, options, static_cast<int>(std::min(kEdgeSlots, config.batch)));
    return teacher;
  }
  teacher.model =
      make_torch_model(package, {.dtype = source.dtype, .device = source.device, .num_slots = config.batch});
  return teacher;
}

}  // namespace potstill
