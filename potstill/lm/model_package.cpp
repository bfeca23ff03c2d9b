#include "potstill/lm/model_package.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/formats/compressed_tensors.h"
#include "potstill/formats/gguf_checkpoint.h"
#include "potstill/formats/gptq_checkpoint.h"
#include "potstill/formats/hf_checkpoint.h"
#include "potstill/formats/model_weights.h"
#include "potstill/lm/gguf_vocabulary.h"
#include "potstill/lm/model_origin.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

// null when the file is absent
nlohmann::json read_optional_json(const fs::path& path) {
  return fs::exists(path) ? read_json_file(path) : nlohmann::json(nullptr);
}

void add_id(std::vector<int64_t>& ids, int64_t id) {
  if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
}

// eos_token_id of a generation_config.json: absent, an id or a list.
std::vector<int64_t> generation_eos_ids(const nlohmann::json& generation_config, std::string_view where) {
  const auto eos = generation_config.find("eos_token_id");
  if (eos == generation_config.end() || eos->is_null()) return {};
  std::vector<int64_t> ids;
  for (const auto& id : eos->is_array() ? *eos : nlohmann::json::array({*eos})) {
    if (!id.is_number_integer()) {
      throw Error(ErrorKind::kFormat, where, fmt::format("'eos_token_id' is {}, not token ids", eos->dump()));
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

// A file of its own in newer folders; else a string, or a list of named templates, in tokenizer_config.json.
std::string read_chat_template(const fs::path& folder, const nlohmann::json& tokenizer_config) {
  const fs::path jinja = folder / "chat_template.jinja";
  if (fs::exists(jinja)) return read_file(jinja);
  if (!tokenizer_config.is_object()) return {};
  const auto found = tokenizer_config.find("chat_template");
  if (found == tokenizer_config.end() || found->is_null()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const auto& named : *found) {
      const bool is_default = named.is_object() && named.value("name", nlohmann::json()) == "default";
      if (is_default && named.contains("template") && named["template"].is_string()) {
        return named["template"].get<std::string>();
      }
    }
  }
  throw Error(ErrorKind::kFormat, (folder / "tokenizer_config.json").string(),
              "'chat_template' is neither a string nor a list with a 'default'");
}

// The table may have more rows than there are tokens (it is padded), never fewer.
void check_vocabulary(const ModelPackage& model) {
  const int64_t tokens = model.tokenizer->size();
  if (tokens <= model.config.vocab_size) return;
  throw Error(
      ErrorKind::kInput, model.path.string(),
      fmt::format("the tokenizer has {} tokens but the embedding table {} rows", tokens, model.config.vocab_size),
      "the tokenizer is of another model");
}

struct OpenedWeights {
  std::shared_ptr<const WeightSource> source;
  std::string format;
};

OpenedWeights open_folder_weights(const fs::path& folder, const nlohmann::json& config_json, bool tied) {
  const auto quantization = config_json.find("quantization_config");
  if (quantization == config_json.end() || quantization->is_null()) {
    return {std::make_shared<HfCheckpoint>(folder, tied), "safetensors"};
  }
  const auto method = quantization->is_object() ? quantization->value("quant_method", nlohmann::json()) : nullptr;
  if (method == "compressed-tensors") {
    return {std::make_shared<CompressedTensorsCheckpoint>(folder, tied), "compressed-tensors"};
  }
  if (method == "gptq") return {std::make_shared<GptqCheckpoint>(folder, tied), "gptq"};
  throw Error(ErrorKind::kInput, (folder / "config.json").string(),
              fmt::format("quantization method {} is not supported", method.dump()),
              "supported: unquantized weights, compressed-tensors W4A16 (pack-quantized), 4-bit gptq");
}

ModelPackage open_folder(const fs::path& folder) {
  const fs::path config_path = folder / "config.json";
  if (!fs::exists(config_path)) {
    throw Error(ErrorKind::kIo, folder.string(), "has no config.json",
                "give the folder of a Hugging Face model, or a .gguf file");
  }
  const auto config_json = read_json_file(config_path);
  ModelConfig config = model_config_from_json(config_json, config_path.string());
  const fs::path generation_path = folder / "generation_config.json";
  nlohmann::json generation_config = read_optional_json(generation_path);
  if (!generation_config.is_object()) generation_config = nlohmann::json::object();
  for (const int64_t id : generation_eos_ids(generation_config, generation_path.string())) {
    if (id >= 0 && id < config.vocab_size) add_id(config.eos_token_ids, id);
  }
  auto [weights, format] = open_folder_weights(folder, config_json, config.tie_word_embeddings);
  check_weights(config, *weights);
  const fs::path tokenizer_path = folder / "tokenizer.json";
  if (!fs::exists(tokenizer_path)) {
    throw Error(ErrorKind::kIo, folder.string(), "has no tokenizer.json",
                "load the tokenizer with transformers' AutoTokenizer and save it: it then writes one");
  }
  const auto tokenizer_config = read_optional_json(folder / "tokenizer_config.json");
  auto tokenizer = std::make_shared<Tokenizer>(
      Tokenizer::from_tokenizer_json(read_json_file(tokenizer_path), tokenizer_config, tokenizer_path.string()));
  return {.path = folder,
          .config = std::move(config),
          .weights = std::move(weights),
          .tokenizer = std::move(tokenizer),
          .chat_template = ChatTemplate::detect(read_chat_template(folder, tokenizer_config), folder.string()),
          .generation_config = std::move(generation_config),
          .format = std::move(format)};
}

ModelPackage open_gguf(const fs::path& path) {
  auto weights = std::make_shared<GgufCheckpoint>(path);
  const GgufFile& file = weights->file();
  ModelConfig config = weights->config();
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    const auto id = file.integer(key);
    if (id && *id >= 0 && *id < config.vocab_size) add_id(config.eos_token_ids, *id);
  }
  const std::string jinja = file.string("tokenizer.chat_template").value_or("");
  return {.path = path,
          .config = std::move(config),
          .weights = weights,
          .tokenizer = std::make_shared<Tokenizer>(vocabulary_from_gguf(file), path.string()),
          .chat_template = ChatTemplate::detect(jinja, path.string()),
          .generation_config = nlohmann::json::object(),
          .format = "gguf"};
}

nlohmann::ordered_json generation_config_of(const ModelPackage& model, const ModelConfig& config) {
  if (!model.generation_config.empty()) return model.generation_config;
  nlohmann::ordered_json json = {{"_from_model_config", true}};
  const auto config_json = model_config_to_json(config);
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (!config_json[key].is_null()) json[key] = config_json[key];
  }
  return json;
}

nlohmann::ordered_json special_tokens_map(const Vocabulary& vocabulary) {
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  const auto add = [&](const char* key, std::optional<TokenId> id) {
    if (id) map[key] = vocabulary.tokens[static_cast<size_t>(*id)];
  };
  add("bos_token", vocabulary.bos);
  add("eos_token", vocabulary.eos);
  add("pad_token", vocabulary.pad);
  add("unk_token", vocabulary.unk);
  return map;
}

}  // namespace

ModelPackage open_model(const fs::path& path) {
  if (!fs::exists(path)) {
    throw Error(ErrorKind::kIo, path.string(), "does not exist",
                "give the folder of a Hugging Face model, or a .gguf file");
  }
  ModelPackage model = fs::is_directory(path) ? open_folder(path) : open_gguf(path);
  check_vocabulary(model);
  return model;
}

std::vector<TokenId> stop_token_ids(const ModelPackage& model) {
  std::vector<int64_t> ids = model.config.eos_token_ids;
  for (const int64_t id : generation_eos_ids(model.generation_config, model.path.string())) add_id(ids, id);
  const std::string_view end_of_turn = model.chat_template.end_of_turn();
  if (const auto id = end_of_turn.empty() ? std::nullopt : model.tokenizer->id_of(end_of_turn)) add_id(ids, *id);
  std::vector<TokenId> stops;
  for (const int64_t id : ids) stops.push_back(static_cast<TokenId>(id));
  return stops;
}

void write_model_files(const ModelPackage& model, const ModelConfig& config, const fs::path& folder) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) throw Error(ErrorKind::kIo, folder.string(), fmt::format("cannot make: {}", failure.message()));
  auto tokenizer_config = model.tokenizer->to_tokenizer_config();
  if (!model.chat_template.jinja_source().empty()) {
    tokenizer_config["chat_template"] = model.chat_template.jinja_source();
  }
  const auto write = [&](const char* name, const nlohmann::ordered_json& json) {
    write_file_atomically(folder / name, json.dump(2) + "\n");
  };
  write("config.json", model_config_to_json(config));
  write("generation_config.json", generation_config_of(model, config));
  write("tokenizer.json", model.tokenizer->to_tokenizer_json());
  write("tokenizer_config.json", tokenizer_config);
  write("special_tokens_map.json", special_tokens_map(model.tokenizer->vocabulary()));
  // licence and base model travel with the weights; a stage with more to say writes a fuller card over this one
  if (!fs::exists(model.path)) return;
  const auto origin = derived_origin(read_model_origin(model.path));
  write_file_atomically(folder / "README.md", model_card(origin, folder.filename().string(), {},
                                                         fmt::format("Made of {} by potstill.\n", origin.name)));
}

}  // namespace potstill
