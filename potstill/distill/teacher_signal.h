// TeacherSignal: what the teacher says at each answer position, from wherever it was kept, and the loss against it.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "potstill/distill/kl_loss.h"

namespace potstill {

struct AgreementSums;

// By what a student is compared with a teacher. Values of different quantities say nothing about each other.
enum class Quantity {
  kKl,      // KL over the whole vocabulary
  kTopKKl,  // KL over the teacher's likeliest tokens and one bucket for all others: a lower bound of kKl
  kUld,     // sum of |p - q| over both distributions in descending order: teachers with tokens of their own
};
std::string_view quantity_name(Quantity quantity);   // "kl", "kl_top_k", "uld": the key in logs and results
std::string_view quantity_title(Quantity quantity);  // for tables

class TeacherSignal {
 public:
  virtual ~TeacherSignal() = default;

  // Answer positions of the whole data set are numbered record after record, in the order of DistillData::records.
  virtual int64_t num_positions() const = 0;
  // The student's ids below this are real tokens; rows of its head past it only pad.
  virtual int64_t vocab_limit() const = 0;
  virtual Quantity quantity() const = 0;
  // Width of the head that makes its logits in each step: what it costs; 0 = none.
  virtual int64_t head_width() const { return 0; }
  virtual std::string where() const = 0;

  // kl_loss() of answer positions [N] int64 (CPU) against this teacher. options.vocab_limit must be at most ours.
  virtual KlLossSums loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                          const at::Tensor& positions, const KlLossOptions& options, double grad_scale,
                          at::Tensor* grad_hidden) const = 0;
  // Adds the comparison at T = 1 of n positions: student logits fp32 [n, real tokens of the student], labels [n].
  virtual void compare(const at::Tensor& student, const at::Tensor& labels, const at::Tensor& positions,
                       AgreementSums& sums) const = 0;
};

// A teacher whose distributions are known whole, over the student's own tokens.
class ExactSignal : public TeacherSignal {
 public:
  // positions [N] int64 (CPU) -> fp32 logits [N, vocab_limit()] on `device`.
  virtual at::Tensor logits(const at::Tensor& positions, at::Device device) const = 0;

  Quantity quantity() const override { return Quantity::kKl; }
  KlLossSums loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                  const at::Tensor& positions, const KlLossOptions& options, double grad_scale,
                  at::Tensor* grad_hidden) const override;
  void compare(const at::Tensor& student, const at::Tensor& labels, const at::Tensor& positions,
               AgreementSums& sums) const override;
};

}  // namespace potstill
