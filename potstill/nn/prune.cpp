#include "potstill/nn/prune.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "potstill/base/error.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/layer_stream.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {
namespace {

constexpr int64_t kSequenceLength = 256;

std::vector<std::vector<TokenId>> calibration_sequences(const ModelPackage& model, std::string_view text,
                                                        int64_t max_tokens) {
  std::vector<TokenId> tokens = model.tokenizer->encode(text);
  tokens.resize(std::min(tokens.size(), static_cast<size_t>(max_tokens)));
  if (tokens.size() < 16) {
    throw Error(ErrorKind::kInput, "prune", fmt::format("the calibration text has {} tokens", tokens.size()),
                "give a text of a few hundred words, or none for the built-in one");
  }
  std::vector<std::vector<TokenId>> sequences;
  for (auto begin = tokens.begin(); begin != tokens.end();) {
    const auto end = begin + std::min<ptrdiff_t>(kSequenceLength, tokens.end() - begin);
    sequences.emplace_back(begin, end);
    begin = end;
  }
  return sequences;
}

// Sum over tokens of the cosine between rows of a and b.
double cosine_sum(const at::Tensor& a, const at::Tensor& b) {
  return at::cosine_similarity(a.to(at::kFloat), b.to(at::kFloat), 1).sum(at::kDouble).item<double>();
}

// Block influence of every layer.
std::vector<double> block_influence(const ModelPackage& model, CorpusState corpus, const LayerStreamOptions& stream,
                                    const std::function<void(int64_t, int64_t)>& progress) {
  std::vector<double> influence;
  const int64_t num_layers = model.config.num_hidden_layers;
  const auto visit = [&](int64_t, DecoderLayer& layer, CorpusState& all, const RotaryTable& rotary) {
    double sum = 0;
    int64_t tokens = 0;
    for (size_t b = 0; b < all.batches.size(); ++b) {
      const auto after = layer.forward(all.hidden[b], all.batches[b], rotary, model.config);
      sum += cosine_sum(all.hidden[b], after);
      tokens += after.size(0);
      all.hidden[b] = after;
    }
    influence.push_back(1.0 - sum / static_cast<double>(tokens));
    if (progress) progress(static_cast<int64_t>(influence.size()), num_layers);
  };
  run_layers(model, corpus, stream, 0, num_layers, visit);
  return influence;
}

// Source name of each tensor of the child, by the child's name.
struct ChildTensor {
  TensorSpec spec;
  std::string source;
};
std::vector<ChildTensor> child_tensors(const ModelPackage& model, const PrunePlan& plan, DType dtype) {
  constexpr std::string_view kLayers = "model.layers.";
  std::vector<ChildTensor> tensors;
  for (const WeightInfo& weight : model.weights->weights()) {
    if (weight.name.starts_with(kLayers)) continue;
    if (model.config.tie_word_embeddings && weight.name == "lm_head.weight") continue;
    tensors.push_back({{weight.name, dtype, weight.shape}, weight.name});
  }
  for (size_t child = 0; child < plan.keep.size(); ++child) {
    const std::string prefix = fmt::format("{}{}.", kLayers, plan.keep[child]);
    for (const WeightInfo& weight : model.weights->weights()) {
      if (!weight.name.starts_with(prefix)) continue;
      const std::string name = fmt::format("{}{}.{}", kLayers, child, weight.name.substr(prefix.size()));
      tensors.push_back({{name, dtype, weight.shape}, weight.name});
    }
  }
  return tensors;
}

}  // namespace

DType written_dtype(const std::string& name, const ModelPackage& model) {
  if (name == "fp32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name == "fp16") return DType::kF16;
  for (const WeightInfo& weight : model.weights->weights()) {
    if (is_block_quantized(weight.dtype)) return DType::kF16;
  }
  return model.weights->require("model.embed_tokens.weight").dtype;
}

const char* torch_dtype_name(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kBF16 ? "bfloat16" : "float16";
}

PrunePlan plan_by_influence(const ModelPackage& model, int64_t layers, std::string_view text,
                            const PruneOptions& options) {
  const int64_t num_layers = model.config.num_hidden_layers;
  if (layers < 1 || layers >= num_layers) {
    throw Error(ErrorKind::kUsage, "prune", fmt::format("{} layers asked of a model that has {}", layers, num_layers),
                fmt::format("ask for 1 to {}", num_layers - 1));
  }
  const at::NoGradGuard no_grad;
  LayerStreamOptions stream;
  stream.device = compute_device(options.device);
  stream.dtype = compute_dtype(options.dtype, stream.device);
  const auto sequences = calibration_sequences(model, text, options.tokens);
  PrunePlan plan;
  for (const auto& sequence : sequences) plan.calibration_tokens += static_cast<int64_t>(sequence.size());
  plan.influence = block_influence(model, embed_corpus(model, sequences, stream), stream, options.progress);
  for (const double value : plan.influence) {
    if (!std::isfinite(value)) {
      throw Error(ErrorKind::kNumeric, model.path.string(), "a layer's hidden states are no numbers",
                  "the weights hold NaN or infinity, or overflow in this dtype; try --dtype fp32");
    }
  }
  std::vector<int64_t> by_influence(static_cast<size_t>(num_layers));
  std::iota(by_influence.begin(), by_influence.end(), 0);
  std::ranges::stable_sort(by_influence, {}, [&](int64_t layer) { return plan.influence[static_cast<size_t>(layer)]; });
  const auto split = by_influence.begin() + (num_layers - layers);
  plan.removed.assign(by_influence.begin(), split);
  plan.keep.assign(split, by_influence.end());
  std::ranges::sort(plan.keep);
  return plan;
}

PrunePlan plan_by_hand(const ModelPackage& model, std::span<const int64_t> keep) {
  const int64_t num_layers = model.config.num_hidden_layers;
  PrunePlan plan{.keep = {keep.begin(), keep.end()}, .removed = {}, .influence = {}};
  const bool ascending = std::adjacent_find(keep.begin(), keep.end(), std::greater_equal<>()) == keep.end();
  if (keep.empty() || !ascending || keep.front() < 0 || keep.back() >= num_layers) {
    throw Error(ErrorKind::kUsage, "prune", fmt::format("keep is {} of {} layers", plan.keep, num_layers),
                fmt::format("name layers from 0 to {} in ascending order, each once", num_layers - 1));
  }
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (!std::binary_search(keep.begin(), keep.end(), layer)) plan.removed.push_back(layer);
  }
  return plan;
}

void write_pruned(const ModelPackage& model, const PrunePlan& plan, const std::string& dtype_name_asked,
                  const std::filesystem::path& folder) {
  const DType dtype = written_dtype(dtype_name_asked, model);
  const auto tensors = child_tensors(model, plan, dtype);
  std::vector<TensorSpec> specs;
  for (const ChildTensor& tensor : tensors) specs.push_back(tensor.spec);
  SafetensorsFolderWriter writer(folder, specs);
  for (const ChildTensor& tensor : tensors) {
    const auto view = model.weights->view(tensor.source);
    if (view && view->dtype == dtype) {
      writer.append(tensor.spec.name, view->bytes);
      continue;
    }
    const auto weight = load_weight(model.weights, tensor.source, scalar_type_of(dtype), at::kCPU).contiguous();
    if (!weight.isfinite().all().item<bool>()) {
      throw Error(ErrorKind::kNumeric, tensor.source,
                  fmt::format("holds values that {} cannot hold", dtype_name(dtype)), "use --dtype bf16 or fp32");
    }
    writer.append(tensor.spec.name, view_of_tensor(tensor.spec.name, weight).bytes);
  }
  writer.finish();
  ModelConfig config = model.config;
  config.num_hidden_layers = static_cast<int64_t>(plan.keep.size());
  config.torch_dtype = torch_dtype_name(dtype);
  write_model_files(model, config, folder);
}

}  // namespace potstill
