#include "potstill/lm/inspect_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "potstill/base/checked_math.h"
#include "potstill/base/log.h"
#include "potstill/formats/compressed_tensors.h"
#include "potstill/formats/gguf_checkpoint.h"

namespace potstill {
namespace {

using Json = nlohmann::ordered_json;

struct TypeTotals {
  int64_t tensors = 0, parameters = 0;
  uint64_t bytes = 0;
};

// Name of the stored type and its bytes; a packed linear counts its scales.
std::pair<std::string, uint64_t> stored_as(const ModelPackage& model, const WeightInfo& weight) {
  const auto* packed = dynamic_cast<const QuantizedCheckpoint*>(model.weights.get());
  if (packed == nullptr || !packed->is_quantized(weight.name)) {
    return {std::string(dtype_name(weight.dtype)), tensor_bytes(weight.dtype, weight.shape).value_or(0)};
  }
  return {packed->bits(weight.name) == 8 ? "INT8" : "INT4", packed->stored_bytes(weight.name)};
}

Json shape_json(const ModelConfig& config) {
  Json json = {{"vocab_size", config.vocab_size},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_hidden_layers", config.num_hidden_layers},
               {"num_attention_heads", config.num_attention_heads},
               {"num_key_value_heads", config.num_key_value_heads},
               {"head_dim", config.head_dim},
               {"max_position_embeddings", config.max_position_embeddings},
               {"tie_word_embeddings", config.tie_word_embeddings},
               {"rope_theta", config.rope_theta},
               {"rope_type", config.rope_scaling.rope_type}};
  if (config.rope_scaling.rope_type != "default") json["rope_factor"] = config.rope_scaling.factor;
  if (config.sliding_window > 0) json["sliding_window"] = config.sliding_window;
  return json;
}

std::string_view pre_tokenizer_name(PreTokenizer pre) {
  switch (pre) {
    case PreTokenizer::kGpt2:
      return "gpt-2";
    case PreTokenizer::kLlama3:
      return "llama-3";
    case PreTokenizer::kQwen2:
      return "qwen2";
    case PreTokenizer::kSmolLm:
      return "smollm";
  }
  return "";
}

Json tokenizer_json(const ModelPackage& model) {
  const Vocabulary& vocabulary = model.tokenizer->vocabulary();
  const auto token = [&](int64_t id) {
    const bool known = id >= 0 && id < static_cast<int64_t>(vocabulary.tokens.size());
    return Json{{"id", id}, {"token", known ? Json(vocabulary.tokens[static_cast<size_t>(id)]) : Json(nullptr)}};
  };
  Json json = {{"type", "byte-level BPE"},
               {"pre_tokenizer", pre_tokenizer_name(vocabulary.pre)},
               {"tokens", model.tokenizer->size()},
               {"merges", vocabulary.merges.size()},
               {"added_tokens", vocabulary.added.size()},
               {"adds_bos", vocabulary.add_bos}};
  json["bos"] = vocabulary.bos ? token(*vocabulary.bos) : Json(nullptr);
  json["pad"] = vocabulary.pad ? token(*vocabulary.pad) : Json(nullptr);
  json["stops"] = Json::array();
  for (const TokenId id : stop_token_ids(model)) json["stops"].push_back(token(id));
  return json;
}

Json quantization_json(const ModelPackage& model, const std::map<std::string, TypeTotals>& by_type) {
  if (const auto* packed = dynamic_cast<const QuantizedCheckpoint*>(model.weights.get())) {
    const bool wide = by_type.contains("INT8"), narrow = by_type.contains("INT4");
    Json json = {{"method", model.format}, {"bits", wide && !narrow ? 8 : 4}, {"symmetric", packed->symmetric()}};
    if (wide && narrow) json["linears_in_8_bits"] = by_type.at("INT8").tensors;
    json["group_size"] = packed->group_size() > 0 ? Json(packed->group_size()) : Json("channel");
    const auto* folder = dynamic_cast<const CompressedTensorsCheckpoint*>(packed);
    if (folder != nullptr && !folder->config().actorder.empty()) json["actorder"] = folder->config().actorder;
    return json;
  }
  Json types = Json::array();
  for (const auto& [name, totals] : by_type) {
    if (name.starts_with('Q')) types.push_back(name);
  }
  return types.empty() ? Json(nullptr) : Json{{"method", "gguf"}, {"types", types}};
}

// "49,152"
std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), 1, ',');
  return digits;
}

std::string architecture_text(const Json& inspection) {
  const Json& shape = inspection["shape"];
  const auto size = [&](const char* key) { return shape[key].get<int64_t>(); };
  return fmt::format("{}: {} layers, hidden {}, {} heads ({} key/value) of {}, feed-forward {}, context {}",
                     inspection["architecture"].get<std::string>(), size("num_hidden_layers"), size("hidden_size"),
                     size("num_attention_heads"), size("num_key_value_heads"), size("head_dim"),
                     size("intermediate_size"), grouped(size("max_position_embeddings")));
}

std::string tokenizer_text(const Json& tokenizer) {
  std::vector<std::string> stops;
  for (const Json& stop : tokenizer["stops"]) {
    stops.push_back(stop["token"].is_string() ? stop["token"].get<std::string>() : stop["id"].dump());
  }
  return fmt::format("{}, cut as {}; {} tokens, {} of them added; stops at {}", tokenizer["type"].get<std::string>(),
                     tokenizer["pre_tokenizer"].get<std::string>(), grouped(tokenizer["tokens"].get<int64_t>()),
                     tokenizer["added_tokens"].get<int64_t>(),
                     stops.empty() ? "nothing" : fmt::format("{}", fmt::join(stops, " ")));
}

std::string quantization_text(const Json& quantization) {
  if (quantization.is_null()) return "none";
  if (quantization["method"] == "gguf") {
    return fmt::format("GGUF blocks of 32: {}", fmt::join(quantization["types"].get<std::vector<std::string>>(), ", "));
  }
  const Json& group = quantization["group_size"];
  const std::string bits = quantization.contains("linears_in_8_bits") ? "4 and 8" : quantization["bits"].dump();
  return fmt::format("{}: {} bits, {}, {}", quantization["method"].get<std::string>(), bits,
                     quantization["symmetric"].get<bool>() ? "symmetric" : "asymmetric",
                     group.is_number() ? fmt::format("groups of {}", group.get<int64_t>()) : "one scale a row");
}

}  // namespace

nlohmann::ordered_json inspect_model(const ModelPackage& model, const InspectOptions& options) {
  std::map<std::string, TypeTotals> by_type;
  TypeTotals all;
  Json tensors = Json::array();
  for (const WeightInfo& weight : model.weights->weights()) {
    const auto [type, bytes] = stored_as(model, weight);
    const int64_t parameters = num_elements(weight.shape).value_or(0);
    for (TypeTotals* totals : {&by_type[type], &all}) {
      totals->tensors += 1;
      totals->parameters += parameters;
      totals->bytes += bytes;
    }
    if (options.tensors) tensors.push_back({{"name", weight.name}, {"type", type}, {"shape", weight.shape}});
  }
  Json json = {{"path", model.path.string()},
               {"format", model.format},
               {"architecture", model.config.model_type},
               {"parameters", num_parameters(model.config)},
               {"weights_bytes", all.bytes},
               {"bits_per_weight", 8.0 * static_cast<double>(all.bytes) / static_cast<double>(all.parameters)},
               {"shape", shape_json(model.config)}};
  for (const auto& [name, totals] : by_type) {
    json["types"][name] = {{"tensors", totals.tensors}, {"parameters", totals.parameters}, {"bytes", totals.bytes}};
  }
  json["quantization"] = quantization_json(model, by_type);
  json["tokenizer"] = tokenizer_json(model);
  json["chat_template"] = model.chat_template.name();
  if (options.tensors) json["tensors"] = std::move(tensors);
  return json;
}

std::string inspection_text(const nlohmann::ordered_json& inspection) {
  std::string text =
      fmt::format("{} ({}, {} of weights)\n", inspection["path"].get<std::string>(),
                  inspection["format"].get<std::string>(), format_bytes(inspection["weights_bytes"].get<uint64_t>()));
  const auto line = [&](std::string_view label, const std::string& value) {
    text += fmt::format("  {:<14}{}\n", label, value);
  };
  line("architecture", architecture_text(inspection));
  line("parameters",
       fmt::format("{}{}; {:.2f} bits a weight", grouped(inspection["parameters"].get<int64_t>()),
                   inspection["shape"]["tie_word_embeddings"].get<bool>() ? ", head tied to the table" : "",
                   inspection["bits_per_weight"].get<double>()));
  std::string_view label = "weights";
  for (const auto& [name, totals] : inspection["types"].items()) {
    line(label,
         fmt::format("{:<5} {:>5} tensors {:>15} values {:>10}", name, totals["tensors"].get<int64_t>(),
                     grouped(totals["parameters"].get<int64_t>()), format_bytes(totals["bytes"].get<uint64_t>())));
    label = "";
  }
  line("quantization", quantization_text(inspection["quantization"]));
  line("tokenizer", tokenizer_text(inspection["tokenizer"]));
  line("chat template", inspection["chat_template"].get<std::string>());
  if (inspection.contains("tensors")) {
    for (const auto& tensor : inspection["tensors"]) {
      text += fmt::format("  {:<5} {:<16} {}\n", tensor["type"].get<std::string>(),
                          fmt::format("[{}]", fmt::join(tensor["shape"].get<std::vector<int64_t>>(), ", ")),
                          tensor["name"].get<std::string>());
    }
  }
  text.pop_back();
  return text;
}

}  // namespace potstill
