#include "potstill/text/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "potstill/base/error.h"
#include "potstill/text/byte_alphabet.h"

namespace potstill {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// One object of the file, with the path to it for messages.
struct Node {
  const json& value;
  std::string where;

  [[noreturn]] void fail(ErrorKind kind, std::string_view what) const {
    throw Error(kind, where, what,
                "the tokenizers of Llama 3, Qwen2, GPT-2 and SmolLM are understood (byte-level BPE)");
  }
  bool has(const char* key) const { return value.is_object() && value.contains(key) && !value[key].is_null(); }
  Node at(const char* key) const {
    if (!has(key)) fail(ErrorKind::kFormat, fmt::format("key '{}' is missing", key));
    return {value[key], fmt::format("{}.{}", where, key)};
  }
  std::vector<Node> items(const char* key) const {
    const Node list = at(key);
    if (!list.value.is_array())
      list.fail(ErrorKind::kFormat, fmt::format("is {} but must be an array", list.value.type_name()));
    std::vector<Node> nodes;
    for (size_t i = 0; i < list.value.size(); ++i)
      nodes.push_back({list.value[i], fmt::format("{}[{}]", list.where, i)});
    return nodes;
  }
  const std::string& text(const char* key) const {
    const Node node = at(key);
    if (!node.value.is_string())
      node.fail(ErrorKind::kFormat, fmt::format("is {} but must be a string", node.value.type_name()));
    return node.value.get_ref<const std::string&>();
  }
  std::string text_or(const char* key, std::string_view otherwise) const {
    return has(key) ? text(key) : std::string(otherwise);
  }
  bool flag_or(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    const Node node = at(key);
    if (!node.value.is_boolean())
      node.fail(ErrorKind::kFormat, fmt::format("is {} but must be true or false", node.value.type_name()));
    return node.value.get<bool>();
  }
  TokenId id(const json& number) const {
    if (!number.is_number_integer() || number.get<int64_t>() < 0 || number.get<int64_t>() > INT32_MAX) {
      fail(ErrorKind::kFormat,
           fmt::format("{} is no token id", number.dump(-1, ' ', false, json::error_handler_t::replace)));
    }
    return number.get<TokenId>();
  }
};

void require_byte_level(const Node& node, bool use_regex) {
  if (node.text("type") != "ByteLevel")
    node.fail(ErrorKind::kInput, fmt::format("is '{}' but must be 'ByteLevel'", node.text("type")));
  if (node.flag_or("add_prefix_space", true))
    node.fail(ErrorKind::kInput, "add_prefix_space is true, which is not supported");
  if (node.flag_or("use_regex", true) != use_regex) {
    node.fail(ErrorKind::kInput, fmt::format("use_regex is {} but must be {} here", !use_regex, use_regex));
  }
}

PreTokenizer read_split(const Node& split) {
  if (split.text_or("behavior", "") != "Isolated" || split.flag_or("invert", false)) {
    split.fail(ErrorKind::kInput, "only behavior 'Isolated' without invert is supported");
  }
  const std::string& pattern = split.at("pattern").text("Regex");
  if (pattern == kLlama3Pattern) return PreTokenizer::kLlama3;
  if (pattern == kQwen2Pattern) return PreTokenizer::kQwen2;
  split.fail(ErrorKind::kInput, fmt::format("unknown pattern {}", pattern));
}

PreTokenizer read_pre_tokenizer(const Node& node) {
  if (node.text("type") != "Sequence") {
    require_byte_level(node, /*use_regex=*/true);
    return PreTokenizer::kGpt2;
  }
  const std::vector<Node> parts = node.items("pretokenizers");
  if (parts.size() == 1) return read_pre_tokenizer(parts[0]);
  if (parts.size() != 2)
    node.fail(ErrorKind::kInput, fmt::format("{} steps, none of the known sequences", parts.size()));
  const std::string& first = parts[0].text("type");
  if (first == "Digits" && parts[0].flag_or("individual_digits", false)) {
    require_byte_level(parts[1], /*use_regex=*/true);
    return PreTokenizer::kSmolLm;
  }
  if (first != "Split") parts[0].fail(ErrorKind::kInput, fmt::format("unknown pre-tokenizer '{}'", first));
  require_byte_level(parts[1], /*use_regex=*/false);
  return read_split(parts[0]);
}

bool read_normalizer_is_nfc(const Node& node) {
  const std::string& type = node.text("type");
  if (type == "NFC") return true;
  if (type != "Sequence") node.fail(ErrorKind::kInput, fmt::format("unknown normalizer '{}'", type));
  bool nfc = false;
  for (const Node& part : node.items("normalizers")) nfc = read_normalizer_is_nfc(part) || nfc;
  return nfc;
}

// The token that a TemplateProcessing puts before the text, if any; other templates are refused.
void read_post_processor(const Node& node, Vocabulary& vocabulary) {
  const std::string& type = node.text("type");
  if (type == "ByteLevel") return;  // changes offsets only
  if (type == "Sequence") {
    for (const Node& part : node.items("processors")) read_post_processor(part, vocabulary);
    return;
  }
  if (type != "TemplateProcessing") node.fail(ErrorKind::kInput, fmt::format("unknown post-processor '{}'", type));
  const std::vector<Node> single = node.items("single");
  const bool has_bos = single.size() == 2 && single[0].has("SpecialToken");
  if (single.size() != (has_bos ? 2 : 1) || !single.back().has("Sequence")) {
    node.fail(ErrorKind::kInput, "only a template of one BOS token and the text is supported");
  }
  if (!has_bos) return;
  const std::string& name = single[0].at("SpecialToken").text("id");
  const std::vector<Node> ids = node.at("special_tokens").at(name.c_str()).items("ids");
  if (ids.size() != 1) node.fail(ErrorKind::kInput, fmt::format("'{}' is {} ids, 1 is supported", name, ids.size()));
  vocabulary.add_bos = true;
  vocabulary.bos = ids[0].id(ids[0].value);
}

AddedToken read_added_token(const Node& node) {
  AddedToken token{.content = node.text("content"), .id = node.id(node.at("id").value)};
  token.special = node.flag_or("special", false);
  token.lstrip = node.flag_or("lstrip", false);
  token.rstrip = node.flag_or("rstrip", false);
  token.single_word = node.flag_or("single_word", false);
  token.normalized = node.flag_or("normalized", !token.special);
  return token;
}

void read_tokens(const Node& model, const std::vector<Node>& added, Vocabulary& vocabulary) {
  const Node vocab = model.at("vocab");
  if (!vocab.value.is_object()) vocab.fail(ErrorKind::kFormat, "must be an object of token: id");
  TokenId max_id = -1;
  for (const auto& entry : vocab.value.items()) max_id = std::max(max_id, vocab.id(entry.value()));
  for (const Node& node : added) {
    vocabulary.added.push_back(read_added_token(node));
    max_id = std::max(max_id, vocabulary.added.back().id);
  }
  // ids may leave holes, but a hostile one must not make us allocate more than the file is worth
  const size_t entries = vocab.value.size() + added.size();
  if (static_cast<size_t>(max_id) + 1 > 2 * entries + 65536) {
    vocab.fail(ErrorKind::kFormat, fmt::format("id {} in a vocabulary of {} tokens", max_id, entries));
  }
  vocabulary.tokens.resize(static_cast<size_t>(max_id) + 1);
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kUnused);
  for (const auto& entry : vocab.value.items()) {
    const auto id = static_cast<size_t>(entry.value().get<TokenId>());
    if (vocabulary.types[id] != TokenType::kUnused) {
      vocab.fail(ErrorKind::kFormat,
                 fmt::format("id {} is both '{}' and '{}'", id, vocabulary.tokens[id], entry.key()));
    }
    vocabulary.tokens[id] = entry.key();
    vocabulary.types[id] = TokenType::kNormal;
  }
  std::stable_sort(vocabulary.added.begin(), vocabulary.added.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  for (const AddedToken& token : vocabulary.added) {
    const auto id = static_cast<size_t>(token.id);
    if (vocabulary.types[id] != TokenType::kUnused && vocabulary.tokens[id] != token.content) {
      vocab.fail(ErrorKind::kFormat,
                 fmt::format("id {} is both '{}' and '{}'", id, vocabulary.tokens[id], token.content));
    }
    vocabulary.tokens[id] = token.content;
    vocabulary.types[id] = token.special ? TokenType::kControl : TokenType::kUserDefined;
  }
}

void read_merges(const Node& model, Vocabulary& vocabulary) {
  const Node list = model.at("merges");
  if (!list.value.is_array()) list.fail(ErrorKind::kFormat, "must be an array");
  vocabulary.merges.reserve(list.value.size());
  for (const json& merge : list.value) {  // "left right", or ["left", "right"] since tokenizers 0.20
    if (merge.is_string()) {
      const auto& line = merge.get_ref<const std::string&>();
      if (line.rfind("#version", 0) != 0) vocabulary.merges.push_back(line);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      vocabulary.merges.push_back(merge[0].get_ref<const std::string&>() + " " +
                                  merge[1].get_ref<const std::string&>());
    } else {
      list.fail(ErrorKind::kFormat,
                fmt::format("entry {} is neither \"left right\" nor [\"left\", \"right\"]", &merge - &list.value[0]));
    }
  }
}

void read_model(const Node& model, const std::vector<Node>& added, Vocabulary& vocabulary) {
  if (const std::string type = model.text_or("type", "BPE"); type != "BPE") {
    model.fail(ErrorKind::kInput, fmt::format("type is '{}' but must be 'BPE'", type));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.text_or(key, "").empty()) model.fail(ErrorKind::kInput, fmt::format("{} is not supported", key));
  }
  if (model.flag_or("byte_fallback", false))
    model.fail(ErrorKind::kInput, "byte_fallback means a SentencePiece vocabulary");
  if (model.has("dropout") && model.value["dropout"] != 0)
    model.fail(ErrorKind::kInput, "dropout makes ids random; set it to null");
  vocabulary.ignore_merges = model.flag_or("ignore_merges", false);
  read_tokens(model, added, vocabulary);
  read_merges(model, vocabulary);
  if (!model.has("unk_token")) return;
  for (int byte = 0; byte < 256; ++byte) {  // with all of them there is nothing unknown
    if (!model.value["vocab"].contains(spell_bytes(std::string(1, static_cast<char>(byte))))) {
      model.fail(ErrorKind::kInput,
                 fmt::format("has an unk_token, but no token for byte 0x{:02x} that would need it", byte));
    }
  }
}

// A special token of tokenizer_config.json: its text, or an AddedToken object.
std::optional<TokenId> read_config_token(const Node& config, const char* key, const Vocabulary& vocabulary) {
  if (!config.has(key)) return std::nullopt;
  const Node node = config.at(key);
  const std::string& content = node.value.is_object() ? node.text("content") : config.text(key);
  for (const AddedToken& token : vocabulary.added) {
    if (token.content == content) return token.id;
  }
  const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), content);
  if (content.empty() || found == vocabulary.tokens.end()) {
    node.fail(ErrorKind::kInput, fmt::format("'{}' is no token of the vocabulary", content));
  }
  return static_cast<TokenId>(found - vocabulary.tokens.begin());
}

ordered_json added_token_flags(const AddedToken& token) {
  return {{"content", token.content}, {"single_word", token.single_word}, {"lstrip", token.lstrip},
          {"rstrip", token.rstrip},   {"normalized", token.normalized},   {"special", token.special}};
}

ordered_json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

ordered_json pre_tokenizer_json(PreTokenizer pre) {
  if (pre == PreTokenizer::kGpt2) return byte_level(/*use_regex=*/true);
  ordered_json steps = ordered_json::array();
  if (pre == PreTokenizer::kSmolLm) {
    steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  } else {
    const std::string_view pattern = pre == PreTokenizer::kLlama3 ? kLlama3Pattern : kQwen2Pattern;
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back(byte_level(/*use_regex=*/pre == PreTokenizer::kSmolLm));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

ordered_json post_processor_json(const Vocabulary& vocabulary) {
  if (!vocabulary.add_bos) return nullptr;
  const std::string& bos = vocabulary.tokens[static_cast<size_t>(*vocabulary.bos)];
  const auto special = [&](int type_id) -> ordered_json {
    return {{"SpecialToken", {{"id", bos}, {"type_id", type_id}}}};
  };
  const auto text = [](const char* id, int type_id) -> ordered_json {
    return {{"Sequence", {{"id", id}, {"type_id", type_id}}}};
  };
  ordered_json tokens;
  tokens[bos] = {{"id", bos}, {"ids", {*vocabulary.bos}}, {"tokens", {bos}}};
  return {{"type", "TemplateProcessing"},
          {"single", ordered_json::array({special(0), text("A", 0)})},
          {"pair", ordered_json::array({special(0), text("A", 0), special(1), text("B", 1)})},
          {"special_tokens", std::move(tokens)}};
}

// The package numbers an added token anew if no vocabulary has its id, so added tokens go into the vocabulary as well.
ordered_json model_json(const Vocabulary& vocabulary) {
  ordered_json model = {{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"ignore_merges", vocabulary.ignore_merges}};
  // not ordered_json: its operator[] searches from the front, 49k keys would take seconds
  std::vector<std::pair<std::string, ordered_json>> vocab;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (!vocabulary.tokens[i].empty()) vocab.emplace_back(vocabulary.tokens[i], i);
  }
  ordered_json object = ordered_json::object();
  auto& members = object.get_ref<ordered_json::object_t&>();
  members.reserve(vocab.size());
  for (auto& [token, id] : vocab)
    members.std::vector<std::pair<const std::string, ordered_json>>::emplace_back(token, std::move(id));
  model["vocab"] = std::move(object);
  ordered_json merges = ordered_json::array();
  for (const std::string& merge : vocabulary.merges) {
    const size_t blank = merge.find(' ', 1);
    merges.push_back({merge.substr(0, blank), merge.substr(blank + 1)});
  }
  model["merges"] = std::move(merges);
  return model;
}

}  // namespace

Vocabulary vocabulary_from_json(const json& tokenizer_json, const json& tokenizer_config, std::string_view where) {
  const Node root{tokenizer_json, std::string(where)};
  if (!tokenizer_json.is_object()) root.fail(ErrorKind::kFormat, "is no JSON object");
  Vocabulary vocabulary;
  read_model(root.at("model"), root.has("added_tokens") ? root.items("added_tokens") : std::vector<Node>{}, vocabulary);
  vocabulary.pre = read_pre_tokenizer(root.at("pre_tokenizer"));
  vocabulary.nfc = root.has("normalizer") && read_normalizer_is_nfc(root.at("normalizer"));
  const Node config{tokenizer_config, "tokenizer_config.json"};
  vocabulary.bos = read_config_token(config, "bos_token", vocabulary);
  vocabulary.eos = read_config_token(config, "eos_token", vocabulary);
  vocabulary.pad = read_config_token(config, "pad_token", vocabulary);
  vocabulary.unk = read_config_token(config, "unk_token", vocabulary);
  if (root.has("post_processor")) read_post_processor(root.at("post_processor"), vocabulary);
  return vocabulary;
}

ordered_json vocabulary_to_tokenizer_json(const Vocabulary& vocabulary) {
  ordered_json added = ordered_json::array();
  for (const AddedToken& token : vocabulary.added) {
    ordered_json object = {{"id", token.id}};
    object.update(added_token_flags(token));
    added.push_back(std::move(object));
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", vocabulary.nfc ? ordered_json{{"type", "NFC"}} : ordered_json(nullptr)},
          {"pre_tokenizer", pre_tokenizer_json(vocabulary.pre)},
          {"post_processor", post_processor_json(vocabulary)},
          {"decoder", byte_level(/*use_regex=*/true)},
          {"model", model_json(vocabulary)}};
}

ordered_json vocabulary_to_tokenizer_config(const Vocabulary& vocabulary) {
  ordered_json decoder = ordered_json::object();
  for (const AddedToken& token : vocabulary.added) decoder[std::to_string(token.id)] = added_token_flags(token);
  ordered_json config = {{"add_prefix_space", false},
                         {"added_tokens_decoder", std::move(decoder)},
                         {"clean_up_tokenization_spaces", false},
                         {"tokenizer_class", "PreTrainedTokenizerFast"}};
  const auto name = [&](const char* key, std::optional<TokenId> id) {
    if (id) config[key] = vocabulary.tokens[static_cast<size_t>(*id)];
  };
  name("bos_token", vocabulary.bos);
  name("eos_token", vocabulary.eos);
  name("pad_token", vocabulary.pad);
  name("unk_token", vocabulary.unk);
  return config;
}

}  // namespace potstill
