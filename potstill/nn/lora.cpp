#include "potstill/nn/lora.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/error.h"
#include "potstill/base/rng.h"
#include "potstill/formats/peft_adapter.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {
namespace {

// The linears that get factors, in kLinearNames' order.
std::vector<std::string> target_linears(const std::vector<std::string>& modules) {
  const std::vector<std::string> all(std::begin(kLinearNames), std::end(kLinearNames));
  if (std::ranges::find(modules, "all-linear") != modules.end()) return all;
  for (const auto& module : modules) {
    if (std::ranges::find(all, module) != all.end()) continue;
    const std::string nearest = nearest_name(module, all);
    throw Error(ErrorKind::kUsage, "target_modules", fmt::format("'{}' is no linear of a decoder layer", module),
                nearest.empty() ? fmt::format("all-linear, or some of {}", fmt::join(all, ", "))
                                : fmt::format("did you mean '{}'?", nearest));
  }
  if (modules.empty()) throw Error(ErrorKind::kUsage, "target_modules", "is empty", "all-linear, or names of linears");
  std::vector<std::string> targets;
  std::ranges::copy_if(all, std::back_inserter(targets),
                       [&](const std::string& name) { return std::ranges::find(modules, name) != modules.end(); });
  return targets;
}

// PEFT's rule for a list: a module's whole path, or its end after a dot.
bool is_targeted(const std::string& path, const std::vector<std::string>& modules) {
  return std::ranges::any_of(modules, [&](const std::string& module) {
    return module == "all-linear" || path == module || path.ends_with("." + module);
  });
}

at::Tensor uniform(int64_t rows, int64_t cols, double bound, Rng& rng) {
  at::Tensor tensor = at::empty({rows, cols}, at::kFloat);
  float* values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < rows * cols; ++i) values[i] = static_cast<float>((2 * rng.uniform() - 1) * bound);
  return tensor;
}

void require_shape(const at::Tensor& weight, const PeftPair& pair, std::string_view where) {
  const auto &a = pair.lora_a.shape, &b = pair.lora_b.shape;
  if (a[1] == weight.size(1) && b[0] == weight.size(0)) return;
  throw Error(ErrorKind::kInput, where,
              fmt::format("the factors of '{}' are for a weight [{}, {}] but the model's is [{}, {}]", pair.module,
                          b[0], a[1], weight.size(0), weight.size(1)),
              "the adapter was trained on another base model");
}

}  // namespace

double LoraConfig::scale() const {
  const auto rank = static_cast<double>(r);
  return lora_alpha / (use_rslora ? std::sqrt(rank) : rank);
}

LoraAdapter attach_lora(Transformer& model, const LoraConfig& config, uint64_t seed) {
  LoraAdapter adapter{.config = config, .entries = {}};
  adapter.config.target_modules = target_linears(config.target_modules);
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    for (const auto& name : adapter.config.target_modules) {
      Linear& linear = model.layers[layer].linear(name);
      const int64_t out = linear.weight.size(0), in = linear.weight.size(1);
      const std::string path = linear_path(static_cast<int64_t>(layer), name);
      Rng rng(seed, "lora/" + path);
      auto pair = std::make_shared<LoraPair>();
      // kaiming_uniform(a = sqrt(5)) over fan-in, as PEFT's reset_lora_parameters
      pair->a = uniform(config.r, in, 1.0 / std::sqrt(static_cast<double>(in)), rng)
                    .to(linear.weight.device())
                    .set_requires_grad(true);
      pair->b = at::zeros({out, config.r}, linear.weight.options().dtype(at::kFloat)).set_requires_grad(true);
      pair->scale = config.scale();
      pair->dropout = config.lora_dropout;
      linear.lora = pair;
      adapter.entries.push_back({path, pair});
    }
  }
  return adapter;
}

void detach_lora(Transformer& model) {
  for (DecoderLayer& layer : model.layers) {
    for (const char* name : kLinearNames) layer.linear(name).lora = nullptr;
  }
}

std::vector<at::Tensor> lora_parameters(const LoraAdapter& adapter) {
  std::vector<at::Tensor> parameters;
  for (const auto& entry : adapter.entries) {
    parameters.push_back(entry.pair->a);
    parameters.push_back(entry.pair->b);
  }
  return parameters;
}

void save_adapter(const LoraAdapter& adapter, const std::string& base_model, const std::filesystem::path& folder) {
  const LoraConfig& config = adapter.config;
  const PeftConfig peft{.base_model = base_model,
                        .r = config.r,
                        .lora_alpha = config.lora_alpha,
                        .lora_dropout = config.lora_dropout,
                        .use_rslora = config.use_rslora,
                        .target_modules = config.target_modules,
                        .rank_pattern = {},
                        .alpha_pattern = {}};
  std::vector<at::Tensor> kept;  // alive until the file is written
  std::vector<PeftPair> pairs;
  for (const auto& [path, pair] : adapter.entries) {
    kept.push_back(pair->a.detach().cpu().contiguous());
    kept.push_back(pair->b.detach().cpu().contiguous());
    pairs.push_back({.module = path,
                     .lora_a = view_of_tensor(path + ".lora_A.weight", kept[kept.size() - 2]),
                     .lora_b = view_of_tensor(path + ".lora_B.weight", kept.back()),
                     .scale = pair->scale});
  }
  write_peft_adapter(folder, peft, pairs);
}

LoraAdapter load_adapter(Transformer& model, const std::filesystem::path& folder) {
  const PeftAdapter file(folder);
  const PeftConfig& peft = file.config();
  LoraAdapter adapter{.config = {.r = peft.r,
                                 .lora_alpha = peft.lora_alpha,
                                 .lora_dropout = peft.lora_dropout,
                                 .use_rslora = peft.use_rslora,
                                 .target_modules = {}},
                      .entries = {}};
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    for (const char* name : kLinearNames) {
      const std::string path = linear_path(static_cast<int64_t>(layer), name);
      if (!is_targeted(path, peft.target_modules)) continue;
      const PeftPair* found = file.find(path);
      if (!found) {
        throw Error(ErrorKind::kFormat, file.where(), fmt::format("has no factors for '{}'", path),
                    "its adapter_config.json targets this module: the adapter is incomplete or of a shallower model");
      }
      Linear& linear = model.layers[layer].linear(name);
      require_shape(linear.weight, *found, file.where());
      auto pair = std::make_shared<LoraPair>();
      const auto device = linear.weight.device();
      pair->a = tensor_from_view(found->lora_a).to(device, at::kFloat, false, /*copy=*/true).set_requires_grad(true);
      pair->b = tensor_from_view(found->lora_b).to(device, at::kFloat, false, /*copy=*/true).set_requires_grad(true);
      pair->scale = found->scale;
      pair->dropout = peft.lora_dropout;
      linear.lora = pair;
      adapter.entries.push_back({path, pair});
      auto& targets = adapter.config.target_modules;
      if (std::ranges::find(targets, name) == targets.end()) targets.emplace_back(name);
    }
  }
  for (const PeftPair& pair : file.pairs()) {
    if (std::ranges::find(adapter.entries, pair.module, &LoraAdapter::Entry::path) != adapter.entries.end()) continue;
    throw Error(ErrorKind::kInput, file.where(),
                fmt::format("factors for '{}' find no linear in the model", pair.module),
                "the adapter was trained on another base model");
  }
  return adapter;
}

}  // namespace potstill
