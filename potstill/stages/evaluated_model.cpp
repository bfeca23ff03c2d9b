#include "potstill/stages/evaluated_model.h"

#include <fmt/format.h>

#include <cstdlib>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/edge/edge_model.h"
#include "potstill/eval/benchmarks.h"
#include "potstill/formats/peft_adapter.h"
#include "potstill/lm/http_client.h"
#include "potstill/lm/openai_model.h"
#include "potstill/nn/layer_major_model.h"
#include "potstill/nn/loaded_model.h"
#include "potstill/nn/lora.h"
#include "potstill/nn/torch_model.h"
#include "potstill/stages/threads.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

constexpr double kMemoryShare = 0.8;     // of what is free: weights above it are run layer by layer
constexpr int64_t kRowsOfStream = 2048;  // share a pass over the weights: some 200,000 tokens' hidden states

std::unique_ptr<LanguageModel> open_endpoint(const EvaluatedModel& model) {
  if (model.endpoint_model.empty()) {
    throw Error(ErrorKind::kUsage, model.path.string(), "is an endpoint, and the model's name there is not given",
                "--endpoint-model NAME");
  }
  OpenAiOptions options;
  options.http.url = model.path.string();
  if (const char* key = std::getenv("POTSTILL_TEACHER_API_KEY")) options.http.key = key;
  options.model = model.endpoint_model;
  return std::make_unique<OpenAiModel>(options);
}

}  // namespace

bool is_adapter_folder(const fs::path& path) {
  return fs::exists(path / "adapter_config.json") && !fs::exists(path / "config.json");
}

fs::path base_of(const EvaluatedModel& model) {
  if (!model.base.empty()) return model.base;
  const fs::path named = PeftAdapter(model.path).config().base_model;
  if (!named.empty() && fs::exists(named)) return named;
  throw Error(ErrorKind::kInput, model.path.string(),
              fmt::format("is an adapter of '{}', which is not here", named.string()),
              "give its base with --base MODEL");
}

uint64_t weights_bytes(const fs::path& model) {
  if (!fs::is_directory(model)) return fs::file_size(model);
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(model)) {
    const auto extension = entry.path().extension();
    if (entry.is_regular_file() && (extension == ".safetensors" || extension == ".gguf")) bytes += entry.file_size();
  }
  return bytes;
}

OpenedModel::OpenedModel(const EvaluatedModel& model, std::string dtype, std::string device)
    : model_(model), dtype_(std::move(dtype)), device_(std::move(device)) {
  if (potstill::is_endpoint(model.path.string())) return;
  fs::path path = model.path;
  if (is_adapter_folder(path)) {
    adapter_ = path;
    path = base_of(model);
  } else if (!model.base.empty()) {
    throw Error(ErrorKind::kUsage, "--base", fmt::format("{} is no PEFT adapter folder", path.string()),
                "an adapter folder holds adapter_config.json");
  }
  package_ = open_model(path);
}

std::string OpenedModel::format() const {
  return is_endpoint() ? "endpoint" : has_adapter() ? "adapter" : package_->format;
}

uint64_t OpenedModel::weights_bytes() const {
  return potstill::weights_bytes(package_->path) + (has_adapter() ? potstill::weights_bytes(adapter_) : 0);
}

Transformer OpenedModel::transformer(at::ScalarType dtype, at::Device device) const {
  Transformer model = load_transformer(*package_, dtype, device);
  if (has_adapter()) load_adapter(model, adapter_);
  return model;
}

bool OpenedModel::wants_layer_major(const std::string& setting) const {
  if (setting != "auto") return setting == "always";
  if (is_endpoint() || has_adapter()) return false;
  const at::Device device = compute_device(device_);
  if (!device.is_cpu()) return false;
  const double bytes = static_cast<double>(num_parameters(package_->config)) *
                       static_cast<double>(at::elementSize(compute_dtype(dtype_, device)));
  const bool too_large = bytes > kMemoryShare * static_cast<double>(available_memory_bytes());
  if (too_large) {
    log_info("evaluate: {} of weights do not fit into memory: each layer is read once for many rows",
             format_bytes(static_cast<uint64_t>(bytes)));
  }
  return too_large;
}

std::unique_ptr<LanguageModel> OpenedModel::open(const std::string& engine, bool layer_major) const {
  if (is_endpoint()) return open_endpoint(model_);
  if (engine == "edge") {
    if (has_adapter()) {
      throw Error(ErrorKind::kUsage, adapter_.string(), "is an adapter, which the edge runtime does not run",
                  "merge it first: `potstill merge`");
    }
    // as `potstill-edge chat` and `serve` run it: the same bits, and the time that a user will see
    return std::make_unique<edge::EdgeModel>(
        model_.path, edge::EdgeOptions{.threads = num_threads(), .repack = edge::Repack::kWhereItPays});
  }
  const at::Device device = compute_device(device_);
  const at::ScalarType dtype = compute_dtype(dtype_, device);
  if (layer_major) {
    if (has_adapter()) {
      throw Error(ErrorKind::kUsage, adapter_.string(), "is an adapter, which is not run layer by layer",
                  "merge it first: `potstill merge`");
    }
    LayerStreamOptions options;
    options.device = device;
    options.dtype = dtype;
    return make_layer_major_model(*package_, options);
  }
  if (has_adapter()) {
    return make_loaded_model(*package_, transformer(dtype, device),
                             fmt::format("{} on {}", adapter_.string(), package_->path.string()));
  }
  return make_torch_model(*package_, {.dtype = dtype_, .device = device_, .num_slots = 1});
}

LanguageModel& OpenedModel::language_model(const std::string& engine, const std::string& layer_major) {
  const bool streamed = engine == "torch" && wants_layer_major(layer_major);
  const std::string as = engine + (streamed ? ", layer-major" : "");
  if (opened_ && opened_as_ == as) return *opened_;
  opened_.reset();
  opened_ = open(engine, streamed);
  opened_as_ = as;
  streamed_ = streamed;
  return *opened_;
}

int64_t OpenedModel::rows_at_a_time() const { return streamed_ ? kRowsOfStream : BenchmarkOptions{}.rows_at_a_time; }

}  // namespace potstill
