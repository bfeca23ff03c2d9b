// The sparse knowledge cache: of each answer position the teacher's k likeliest tokens with their log-probabilities, as
// an endpoint tells them. Approximate: what mass they cover is in knowledge.json ("covered_mass"), and the rest enters
// the loss as one bucket (top_k_loss.h).
//
//   top_k.safetensors   "ids" [positions, k] int32, the likeliest first, -1 = the endpoint gave fewer; "log_probs"
//                       [positions, k] fp32, natural, at T = 1; "label_log_probs" [positions] fp32: of the token that
//                       stands there
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/distill/knowledge.h"
#include "potstill/distill/top_k_loss.h"

namespace potstill {

class TopKCache final : public TeacherSignal {
 public:
  // Throws Error(kFormat) for tensors that are not what knowledge.json says, ids that are no tokens, log-probabilities
  // above 0.
  explicit TopKCache(KnowledgeManifest manifest);

  int64_t num_positions() const override { return ids_.size(0); }
  int64_t vocab_limit() const override { return manifest_.tokenizer->size(); }
  Quantity quantity() const override { return Quantity::kTopKKl; }
  std::string where() const override { return manifest_.folder.string(); }
  // Forward KL alone: other divergences weigh the teacher's tail, which is not known. Throws Error(kUsage).
  KlLossSums loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                  const at::Tensor& positions, const KlLossOptions& options, double grad_scale,
                  at::Tensor* grad_hidden) const override;
  void compare(const at::Tensor& student, const at::Tensor& labels, const at::Tensor& positions,
               AgreementSums& sums) const override;

 private:
  TopKRows rows_at(const at::Tensor& positions, at::Device device) const;

  KnowledgeManifest manifest_;
  at::Tensor ids_, log_probs_, label_log_probs_;
};

// What an endpoint said of all answer positions, as it is written. ids -1 and log_probs -inf fill short rows.
struct TopKTable {
  at::Tensor ids;              // [positions, k] int32
  at::Tensor log_probs;        // [positions, k] fp32
  at::Tensor label_log_probs;  // [positions] fp32
};
void write_top_k_table(const std::filesystem::path& folder, const TopKTable& table);

}  // namespace potstill
