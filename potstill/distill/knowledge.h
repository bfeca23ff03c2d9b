// A teacher's knowledge on the disk, of whichever kind: what it was made from, and opened against a student.
//
//   knowledge.json                          what it is: "kind" exact (knowledge_cache.h) or top-k (top_k_cache.h)
//   tokenizer.json, tokenizer_config.json   the teacher's
//   records.safetensors                     "offsets" [records + 1] answer positions before each record, "lines" and
//                                           "texts" [records] data line and hash of the conversation, "labels"
//                                           [positions] the teacher's tokens there
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/distill/distill_config.h"
#include "potstill/distill/records.h"
#include "potstill/distill/teacher_signal.h"
#include "potstill/lm/model_package.h"

namespace potstill {

inline constexpr int kKnowledgeVersion = 2;

// Whether a folder is a knowledge cache (has a knowledge.json).
bool is_knowledge_cache(const std::filesystem::path& folder);

// All of a cache but the distributions. Throws Error(kIo | kFormat).
struct KnowledgeManifest {
  std::filesystem::path folder;
  nlohmann::json json;
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<int64_t> offsets, lines, texts;  // by record
  at::Tensor labels;                           // [positions] int64

  static KnowledgeManifest open(const std::filesystem::path& folder);
  bool is_top_k() const { return json.at("kind") == "top-k"; }
  // Throws Error(kInput) unless the cache was made from exactly these token sequences and answer positions.
  void require_data(const DistillData& data) const;
  [[noreturn]] void refuse(std::string_view what) const;  // Error(kFormat): the cache must be made again
};

// Writes the three files into an existing folder; `json` gets kind, version and what the data gives added.
void write_knowledge_manifest(const std::filesystem::path& folder, nlohmann::ordered_json json, const DistillData& data,
                              const Tokenizer& tokenizer, const ChatTemplate& chat_template);

// How the teacher of a cache is told of in one line: "exact", "approximate: covers 93.1 % of the mass (20 likeliest
// tokens a position)", "other tokens: ULD, no KL".
std::string knowledge_summary(const nlohmann::json& manifest, Quantity quantity);

// The cache as a signal for this student's records. Checked before a weight of either is read: the tokenizers give
// every id the same token (rows that only pad apart) and the cache holds exactly these sequences; or, where the
// tokenizers differ and config.cross_tokenizer is "uld", the same conversations. Throws Error(kInput) in words
// otherwise. head_dtype, device: of the teacher's LM head.
std::unique_ptr<TeacherSignal> open_knowledge(const std::filesystem::path& folder, const ModelPackage& student,
                                              const DistillData& data, const DistillDataConfig& config,
                                              at::ScalarType head_dtype, at::Device device);

// The tokenizer check alone, for use before a teacher's pass: what open_knowledge would refuse. teacher: a model or a
// cache.
void require_fitting_tokenizer(const ModelPackage& student, const Tokenizer& teacher, std::string_view teacher_name,
                               const DistillDataConfig& config);

// Throws Error(kInput) naming the ids that differ unless both give every id the same token.
void require_same_tokenizer(const Tokenizer& student, std::string_view student_name, const Tokenizer& teacher,
                            std::string_view teacher_name);

// Hash of the token ids and answer masks of all records, in order.
std::string sequences_hash(const DistillData& data);

}  // namespace potstill
