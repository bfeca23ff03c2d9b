// MODEL, as `potstill evaluate` takes it: a file or folder, an adapter on its base, or an endpoint.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "potstill/eval/eval_config.h"
#include "potstill/lm/language_model.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/transformer.h"

namespace potstill {

struct EvaluatedModel {
  std::string label;  // "S1"
  // Hugging Face folder (compressed-tensors and GPTQ too), GGUF, PEFT adapter folder, or the address of an endpoint
  std::filesystem::path path;
  std::filesystem::path base = {};  // of an adapter; empty: the one that its config names
  std::string endpoint_model = {};  // the name that an endpoint knows it by
};

bool is_adapter_folder(const std::filesystem::path& path);  // adapter_config.json, and no model of its own
// The base of an adapter. Throws Error(kInput) when it is neither given nor where the adapter's config says.
std::filesystem::path base_of(const EvaluatedModel& model);

// A MODEL, opened one way at a time: the last one's weights are let go first.
class OpenedModel {
 public:
  OpenedModel(const EvaluatedModel& model, std::string dtype, std::string device);

  bool is_endpoint() const { return !package_; }
  // Of a model on this machine; an adapter has its base's.
  const ModelPackage& package() const { return *package_; }
  std::string format() const;  // "safetensors", "gguf", …, "adapter", "endpoint"
  uint64_t weights_bytes() const;

  // Base and adapter, if it is one. Its weights are not packed: for measurements that run it whole.
  Transformer transformer(at::ScalarType dtype, at::Device device) const;
  bool has_adapter() const { return !adapter_.empty(); }

  // engine, layer_major: EvalConfig's. Throws Error(kUsage) for what does not go together.
  LanguageModel& language_model(const std::string& engine, const std::string& layer_major);
  int64_t rows_at_a_time() const;  // that suit it: BenchmarkOptions'

 private:
  std::unique_ptr<LanguageModel> open(const std::string& engine, bool layer_major) const;
  bool wants_layer_major(const std::string& setting) const;

  EvaluatedModel model_;
  std::string dtype_, device_;
  std::filesystem::path adapter_;
  std::optional<ModelPackage> package_;
  std::unique_ptr<LanguageModel> opened_;
  std::string opened_as_;
  bool streamed_ = false;  // it is run layer by layer
};

// Bytes of the files that hold a model's weights.
uint64_t weights_bytes(const std::filesystem::path& model);

}  // namespace potstill
