#include "potstill/nn/retokenize.h"

#include <algorithm>
#include <vector>

#include "potstill/base/check.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/prune.h"
#include "potstill/nn/tensor_bridge.h"
#include "potstill/nn/transformer.h"

namespace potstill {
namespace {

constexpr std::string_view kTable = "model.embed_tokens.weight", kHead = "lm_head.weight";

at::Tensor rows_of(const at::Tensor& table, std::span<const TokenId> ids) {
  const at::Tensor index = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong);
  return table.index_select(0, index);
}

// Ids of roles come from the tokenizer: those of the old config mean other tokens now.
ModelConfig config_for(const ModelPackage& model, const Tokenizer& tokenizer, size_t num_ids, bool tied, DType dtype) {
  ModelConfig config = model.config;
  config.vocab_size = static_cast<int64_t>(num_ids);
  config.tie_word_embeddings = tied;
  config.torch_dtype = torch_dtype_name(dtype);
  const auto same_token = [&](int64_t old) -> std::optional<int64_t> {
    const auto& tokens = model.tokenizer->vocabulary().tokens;
    if (old < 0 || old >= static_cast<int64_t>(tokens.size())) return std::nullopt;
    const auto id = tokenizer.id_of(tokens[static_cast<size_t>(old)]);
    return id ? std::optional<int64_t>(*id) : std::nullopt;
  };
  if (config.bos_token_id) config.bos_token_id = same_token(*config.bos_token_id);
  if (config.pad_token_id) config.pad_token_id = same_token(*config.pad_token_id);
  config.eos_token_ids.clear();
  for (const int64_t old : model.config.eos_token_ids) {
    if (const auto id = same_token(old)) config.eos_token_ids.push_back(*id);
  }
  return config;
}

}  // namespace

void write_retokenized(const ModelPackage& model, std::shared_ptr<const Tokenizer> tokenizer,
                       std::span<const TokenId> input_ids, std::span<const TokenId> output_ids,
                       const std::filesystem::path& folder) {
  POTSTILL_CHECK(input_ids.size() == output_ids.size());
  const at::NoGradGuard no_grad;
  const bool tied = model.config.tie_word_embeddings && std::ranges::equal(input_ids, output_ids);
  const DType dtype = written_dtype("auto", model);
  const ModelConfig config = config_for(model, *tokenizer, input_ids.size(), tied, dtype);
  const auto weights = expected_weights(config);
  std::vector<TensorSpec> specs;
  for (const auto& weight : weights) specs.push_back({weight.name, dtype, weight.shape});
  SafetensorsFolderWriter writer(folder, specs);
  for (const auto& weight : weights) {
    const bool own_head = weight.name == kHead && model.config.tie_word_embeddings;
    const std::string source(own_head ? kTable : std::string_view(weight.name));
    at::Tensor tensor = load_weight(model.weights, source, scalar_type_of(dtype), at::kCPU);
    if (weight.name == kTable) tensor = rows_of(tensor, input_ids);
    if (weight.name == kHead) tensor = rows_of(tensor, output_ids);
    tensor = tensor.contiguous();
    writer.append(weight.name, view_of_tensor(weight.name, tensor).bytes);
  }
  writer.finish();
  ModelPackage written = model;
  written.tokenizer = std::move(tokenizer);
  written.generation_config = nlohmann::json::object();  // it names old ids
  write_model_files(written, config, folder);
}

}  // namespace potstill
