// A teacher with another tokenizer than its student's: the same conversations, other tokens.
#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "potstill/distill/knowledge_cache.h"
#include "potstill/distill/teacher_signal.h"

namespace potstill {

// For each answer position of the student the teacher's position to learn from: the i-th answer token of a record goes
// with the teacher's i-th; -1 where the teacher's answer is shorter. [student positions] int64. Throws Error(kInput)
// when a record's conversation is not in the cache.
at::Tensor aligned_positions(const KnowledgeManifest& teacher, const DistillData& student);

// The loss is uld_loss(); compare() adds ULD at T = 1 in kl's place and counts a first choice as the same where both
// spell the same bytes. Positions without a teacher have cross entropy alone and are left out of comparisons.
class CrossTokenizerSignal final : public TeacherSignal {
 public:
  CrossTokenizerSignal(std::unique_ptr<KnowledgeCache> teacher, std::shared_ptr<const Tokenizer> student,
                       at::Tensor positions);

  int64_t num_positions() const override { return positions_.size(0); }
  int64_t vocab_limit() const override { return student_->size(); }
  Quantity quantity() const override { return Quantity::kUld; }
  int64_t head_width() const override { return teacher_->head_width(); }
  std::string where() const override { return teacher_->where(); }
  KlLossSums loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                  const at::Tensor& positions, const KlLossOptions& options, double grad_scale,
                  at::Tensor* grad_hidden) const override;
  void compare(const at::Tensor& student, const at::Tensor& labels, const at::Tensor& positions,
               AgreementSums& sums) const override;

 private:
  std::unique_ptr<KnowledgeCache> teacher_;
  std::shared_ptr<const Tokenizer> student_;
  at::Tensor positions_;   // [student positions]
  at::Tensor student_id_;  // [teacher's tokens]: the student's id of the same bytes, or -1
};

}  // namespace potstill
