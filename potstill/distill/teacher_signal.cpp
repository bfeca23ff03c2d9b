#include "potstill/distill/teacher_signal.h"

#include "potstill/base/check.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/uld_loss.h"

namespace potstill {

std::string_view quantity_name(Quantity quantity) {
  switch (quantity) {
    case Quantity::kKl:
      return "kl";
    case Quantity::kTopKKl:
      return "kl_top_k";
    case Quantity::kUld:
      return "uld";
  }
  POTSTILL_CHECK(false);
}

std::string_view quantity_title(Quantity quantity) {
  switch (quantity) {
    case Quantity::kKl:
      return "KL";
    case Quantity::kTopKKl:
      return "KL over top-k and rest (at most the KL)";
    case Quantity::kUld:
      return "ULD (no KL: other tokens)";
  }
  POTSTILL_CHECK(false);
}

KlLossSums ExactSignal::loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                             const at::Tensor& positions, const KlLossOptions& options, double grad_scale,
                             at::Tensor* grad_hidden) const {
  const TeacherLogits teacher = [&](int64_t begin, int64_t end) {
    return logits(positions.narrow(0, begin, end - begin), hidden.device()).narrow(1, 0, options.vocab_limit);
  };
  if (options.divergence == Divergence::kUld) {
    const auto all = at::ones({labels.size(0)}, at::kBool);
    return uld_loss(hidden, head, labels, teacher, all, options, grad_scale, grad_hidden);
  }
  return kl_loss(hidden, head, labels, teacher, options, grad_scale, grad_hidden);
}

void ExactSignal::compare(const at::Tensor& student, const at::Tensor& labels, const at::Tensor& positions,
                          AgreementSums& sums) const {
  sums.add(student, logits(positions, student.device()).narrow(1, 0, student.size(1)), labels);
}

}  // namespace potstill
