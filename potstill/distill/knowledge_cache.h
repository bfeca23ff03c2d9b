// The exact knowledge cache: the teacher's final hidden states at every answer position. Its logits are made again from
// them and the teacher's LM head, chunk by chunk, at whatever temperature: all trials of a search share one teacher
// pass (teach.h makes it).
//
//   knowledge.json …    as every kind has them (knowledge.h); teacher, dtype, the error that the stored dtype brings
//   hidden.safetensors  "hidden" [positions, D]
//   lm_head.safetensors with copy_head: "lm_head" [V, D]; else the head is read from the teacher's own files
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/distill/knowledge.h"
#include "potstill/distill/teacher_signal.h"
#include "potstill/lm/model_package.h"

namespace potstill {

class KnowledgeCache final : public ExactSignal {
 public:
  // Hidden states stay mapped; the head is loaded in `head_dtype` on `device`. Throws Error(kIo | kFormat | kInput):
  // a teacher that has moved or changed, shapes that do not fit.
  KnowledgeCache(KnowledgeManifest manifest, at::ScalarType head_dtype, at::Device device);
  KnowledgeCache(const std::filesystem::path& folder, at::ScalarType head_dtype, at::Device device)
      : KnowledgeCache(KnowledgeManifest::open(folder), head_dtype, device) {}

  int64_t num_positions() const override { return hidden_.size(0); }
  int64_t vocab_limit() const override { return head_.size(0); }
  int64_t head_width() const override { return head_.size(1); }
  at::Tensor logits(const at::Tensor& positions, at::Device device) const override;
  std::string where() const override { return manifest_.folder.string(); }

  const nlohmann::json& manifest() const { return manifest_.json; }
  const Tokenizer& tokenizer() const { return *manifest_.tokenizer; }
  const at::Tensor& labels() const { return manifest_.labels; }  // the teacher's own tokens at its answer positions
  void require_data(const DistillData& data) const { manifest_.require_data(data); }

 private:
  void load_head(at::ScalarType dtype, at::Device device);

  KnowledgeManifest manifest_;
  at::Tensor hidden_;  // [positions, D] as stored, mapped
  at::Tensor head_;    // [real tokens, D]
};

// A hash of 64 rows of a model's LM head, spread over it: says whether a teacher is still the one that was cached.
std::string head_hash(const ModelPackage& teacher);
// The tensor that is a model's LM head, and how many of its rows are real tokens.
std::string head_name(const ModelPackage& model);
int64_t real_vocabulary(const ModelPackage& model);

}  // namespace potstill
