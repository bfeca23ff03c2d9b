// The exact knowledge cache: the teacher's final hidden states at every answer position. Its logits are made again from
// them and the teacher's LM head, chunk by chunk, at whatever temperature: all trials of a search share one teacher
// pass.
//
//   knowledge.json      teacher, data, dtype, the error that the stored dtype brings
//   hidden.safetensors  "hidden" [positions, D], "position_offsets" [records + 1]
//   tokenizer.json      the teacher's, to compare a student's with
//   lm_head.safetensors with copy_head: "lm_head" [V, D]; else the head is read from the teacher's own files
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "potstill/distill/distill_config.h"
#include "potstill/distill/records.h"
#include "potstill/distill/teacher_signal.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/layer_stream.h"

namespace potstill {

// What storing the hidden states in the cache's dtype does to the teacher's logits, on positions spread over the data.
struct CacheError {
  double max_logit = 0, rms_logit = 0;
  double kl = 0;  // mean KL(exact || stored) a token at T = 1, nats
  int64_t positions = 0;
};

struct CacheReport {
  int64_t records = 0, tokens = 0, positions = 0;
  uint64_t bytes = 0;  // of the hidden states
  CacheError error;
};

// Runs the teacher over the data, layer by layer, and writes the cache into an existing folder. The pass starts again
// when it was killed: nothing of it is kept but a whole cache.
CacheReport write_knowledge_cache(const ModelPackage& teacher, const DistillData& data, const TeachConfig& config,
                                  const LayerStreamOptions& options, const std::filesystem::path& folder);

// Whether a folder is a knowledge cache (has a knowledge.json).
bool is_knowledge_cache(const std::filesystem::path& folder);

class KnowledgeCache final : public TeacherSignal {
 public:
  // Hidden states stay mapped; the head is loaded in `head_dtype` on `device`. Throws Error(kIo | kFormat | kInput):
  // not a cache, a teacher that has moved or changed, shapes that do not fit.
  KnowledgeCache(const std::filesystem::path& folder, at::ScalarType head_dtype, at::Device device);

  int64_t num_positions() const override { return hidden_.size(0); }
  int64_t vocab_limit() const override { return head_.size(0); }
  at::Tensor logits(const at::Tensor& positions, at::Device device) const override;
  std::string where() const override { return folder_.string(); }

  const nlohmann::json& manifest() const { return manifest_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

  // Throws Error(kInput) unless the cache was made from exactly these token sequences and answer positions.
  void require_data(const DistillData& data) const;

 private:
  void load_head(at::ScalarType dtype, at::Device device);

  std::filesystem::path folder_;
  nlohmann::json manifest_;
  std::unique_ptr<Tokenizer> tokenizer_;
  at::Tensor hidden_;  // [positions, D] as stored, mapped
  at::Tensor head_;    // [real tokens, D]
};

// Throws Error(kInput) naming the ids that differ unless both give every id the same token.
void require_same_tokenizer(const Tokenizer& student, std::string_view student_name, const Tokenizer& teacher,
                            std::string_view teacher_name);

// Hash of the token ids and answer masks of all records, in order.
std::string sequences_hash(const DistillData& data);

}  // namespace potstill
