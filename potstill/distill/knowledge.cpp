#include "potstill/distill/knowledge.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/sha256.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/cross_tokenizer.h"
#include "potstill/distill/knowledge_cache.h"
#include "potstill/distill/rendered_sample.h"
#include "potstill/distill/tensor_files.h"
#include "potstill/distill/top_k_cache.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> whole_numbers(const KnowledgeManifest& manifest, const SafetensorsFile& file,
                                   const std::string& name, int64_t count) {
  const TensorView& view = file.require(name);
  if (view.dtype != DType::kI64 || view.shape != std::vector<int64_t>{count}) {
    manifest.refuse(fmt::format("records.safetensors: '{}' is not [{}] of int64", name, count));
  }
  const at::Tensor tensor = tensor_from_view(view);
  const int64_t* values = tensor.const_data_ptr<int64_t>();
  return {values, values + count};
}

std::vector<int64_t> labels_of(const DistillData& data) {
  std::vector<int64_t> labels;
  for (const auto& record : data.records) {
    for (const int64_t i : record.answer_positions()) labels.push_back(record.tokens[static_cast<size_t>(i) + 1]);
  }
  return labels;
}

}  // namespace

bool is_knowledge_cache(const fs::path& folder) { return fs::exists(folder / "knowledge.json"); }

void KnowledgeManifest::refuse(std::string_view what) const {
  throw Error(ErrorKind::kFormat, folder.string(), what, "make the cache again with `potstill teach`");
}

KnowledgeManifest KnowledgeManifest::open(const fs::path& folder) {
  KnowledgeManifest manifest{.folder = folder,
                             .json = read_json_file(folder / "knowledge.json"),
                             .tokenizer = nullptr,
                             .offsets = {},
                             .lines = {},
                             .texts = {},
                             .labels = {}};
  const auto& json = manifest.json;
  const std::string kind = json.is_object() ? json.value("kind", "") : "";
  if (!json.is_object() || json.value("version", 0) != kKnowledgeVersion || (kind != "exact" && kind != "top-k")) {
    manifest.refuse(fmt::format("is not a knowledge cache of version {}", kKnowledgeVersion));
  }
  const auto records = json.value("records", int64_t{-1}), positions = json.value("positions", int64_t{-1});
  if (records <= 0 || positions <= 0) manifest.refuse("knowledge.json names no records or positions");
  const SafetensorsFile file(folder / "records.safetensors");
  manifest.offsets = whole_numbers(manifest, file, "offsets", records + 1);
  manifest.lines = whole_numbers(manifest, file, "lines", records);
  manifest.texts = whole_numbers(manifest, file, "texts", records);
  manifest.labels = at::tensor(whole_numbers(manifest, file, "labels", positions), at::kLong);
  if (!std::ranges::is_sorted(manifest.offsets) || manifest.offsets.front() != 0 ||
      manifest.offsets.back() != positions) {
    manifest.refuse("records.safetensors: 'offsets' does not count the answer positions");
  }
  manifest.tokenizer = std::make_unique<Tokenizer>(Tokenizer::from_tokenizer_json(
      read_json_file(folder / "tokenizer.json"), read_json_file(folder / "tokenizer_config.json"), folder.string()));
  return manifest;
}

void KnowledgeManifest::require_data(const DistillData& data) const {
  if (sequences_hash(data) == json.value("sequences_sha256", "")) return;
  throw Error(
      ErrorKind::kInput, folder.string(),
      fmt::format("was made from other token sequences ({} pairs, {} answer tokens, template {}) than this data "
                  "gives ({} pairs, {} answer tokens)",
                  json.value("records", int64_t{0}), json.value("positions", int64_t{0}),
                  json.value("chat_template", "?"), data.records.size(), answer_position_offsets(data).back()),
      "run `potstill teach` on the same pairs with the same --max-sequence-length; teacher and student must "
      "share the chat template");
}

void write_knowledge_manifest(const fs::path& folder, nlohmann::ordered_json json, const DistillData& data,
                              const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  const auto offsets = answer_position_offsets(data);
  std::vector<int64_t> lines, texts;
  int64_t tokens = 0;
  for (const auto& record : data.records) {
    lines.push_back(record.line);
    texts.push_back(record.text_hash);
    tokens += static_cast<int64_t>(record.tokens.size());
  }
  write_tensors(folder / "records.safetensors", {{"offsets", at::tensor(offsets, at::kLong)},
                                                 {"lines", at::tensor(lines, at::kLong)},
                                                 {"texts", at::tensor(texts, at::kLong)},
                                                 {"labels", at::tensor(labels_of(data), at::kLong)}});
  write_file_atomically(folder / "tokenizer.json", tokenizer.to_tokenizer_json().dump());
  write_file_atomically(folder / "tokenizer_config.json", tokenizer.to_tokenizer_config().dump());
  json["version"] = kKnowledgeVersion;
  json["chat_template"] = chat_template.name();
  json["sequences_sha256"] = sequences_hash(data);
  json["records"] = data.records.size();
  json["tokens"] = tokens;
  json["positions"] = offsets.back();
  json["samples"] = rendered_samples(data, tokenizer);
  write_file_atomically(folder / "knowledge.json", json.dump(2) + "\n");
}

std::string knowledge_summary(const nlohmann::json& manifest, Quantity quantity) {
  if (quantity == Quantity::kUld) return "other tokens than the student's: ULD, which is no KL";
  if (manifest.value("kind", "") != "top-k") return "exact";
  return fmt::format("approximate: covers {:.1f} % of the mass ({} likeliest tokens a position)",
                     100 * manifest.at("covered_mass").get<double>(), manifest.at("k").get<int64_t>());
}

void require_same_tokenizer(const Tokenizer& student, std::string_view student_name, const Tokenizer& teacher,
                            std::string_view teacher_name) {
  const TokenizerComparison comparison = compare_tokenizers(student, teacher);
  if (comparison.same) return;
  throw Error(ErrorKind::kInput, student_name,
              fmt::format("its tokenizer differs from that of the teacher {}: {}", teacher_name, comparison.difference),
              "a teacher's distributions only mean something over the same tokens: take models of one family, or ask "
              "for another loss, which compares sorted probabilities: --cross-tokenizer uld");
}

void require_fitting_tokenizer(const ModelPackage& student, const Tokenizer& teacher, std::string_view teacher_name,
                               const DistillDataConfig& config) {
  if (config.cross_tokenizer == "uld") return;
  require_same_tokenizer(*student.tokenizer, student.path.string(), teacher, teacher_name);
}

std::unique_ptr<TeacherSignal> open_knowledge(const fs::path& folder, const ModelPackage& student,
                                              const DistillData& data, const DistillDataConfig& config,
                                              at::ScalarType head_dtype, at::Device device) {
  KnowledgeManifest manifest = KnowledgeManifest::open(folder);
  require_fitting_tokenizer(student, *manifest.tokenizer, folder.string(), config);
  const bool same = compare_tokenizers(*student.tokenizer, *manifest.tokenizer).same;
  if (same) {
    manifest.require_data(data);
    if (manifest.is_top_k()) return std::make_unique<TopKCache>(std::move(manifest));
    return std::make_unique<KnowledgeCache>(std::move(manifest), head_dtype, device);
  }
  if (manifest.is_top_k()) {
    throw Error(ErrorKind::kInput, folder.string(),
                "holds the likeliest tokens of an endpoint alone, in another tokenizer than the student's",
                "ULD needs whole distributions: a teacher whose weights are here");
  }
  const at::Tensor positions = aligned_positions(manifest, data);
  return std::make_unique<CrossTokenizerSignal>(
      std::make_unique<KnowledgeCache>(std::move(manifest), head_dtype, device), student.tokenizer, positions);
}

std::string sequences_hash(const DistillData& data) {
  std::string bytes;
  for (const auto& record : data.records) {
    const auto count = static_cast<uint64_t>(record.tokens.size());
    bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
    bytes.append(reinterpret_cast<const char*>(record.tokens.data()), count * sizeof(TokenId));
    bytes.append(reinterpret_cast<const char*>(record.is_answer.data()), count);
  }
  return sha256_hex(bytes);
}

}  // namespace potstill
