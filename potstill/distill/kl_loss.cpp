#include "potstill/distill/kl_loss.h"

#include <algorithm>

#include "potstill/base/check.h"

namespace potstill {
namespace {

// [n, V] · [n, V] -> [n], without the product in between.
at::Tensor row_dot(const at::Tensor& a, const at::Tensor& b) {
  return at::bmm(a.unsqueeze(1), b.unsqueeze(2)).reshape({a.size(0)});
}

// Sums of one chunk; leaves dloss/dlogits in `student`. Both tensors are fp32 [n, V] and are used up.
KlLossSums chunk_loss(at::Tensor student, at::Tensor teacher, const at::Tensor& labels, const KlLossOptions& options,
                      bool want_gradient) {
  const double alpha = options.alpha, temperature = options.temperature;
  KlLossSums sums;
  sums.tokens = student.size(0);
  const auto label_logits = student.gather(1, labels.unsqueeze(1));
  const auto log_sum = at::logsumexp(student, 1, /*keepdim=*/true);
  sums.ce = (log_sum - label_logits).sum(at::kDouble).item<double>();

  // d(1 - α)·CE is put aside before the logits are overwritten; at α = 1, the usual case, there is none.
  at::Tensor ce_gradient;
  if (want_gradient && alpha < 1) {
    ce_gradient = at::exp(student - log_sum);
    ce_gradient.scatter_add_(1, labels.unsqueeze(1), at::full_like(label_logits, -1.0));
    ce_gradient.mul_(1 - alpha);
  }
  if (temperature != 1) {
    student.mul_(1 / temperature);
    teacher.mul_(1 / temperature);
  }
  student.sub_(temperature == 1 ? log_sum : at::logsumexp(student, 1, true));  // log q
  teacher.sub_(at::logsumexp(teacher, 1, true));                               // log p
  const auto p = at::exp(teacher);
  sums.kl = row_dot(p, teacher.sub_(student)).sum(at::kDouble).item<double>();
  sums.loss = alpha * temperature * temperature * sums.kl + (1 - alpha) * sums.ce;
  if (want_gradient) {
    student.exp_().sub_(p).mul_(alpha * temperature);
    if (ce_gradient.defined()) student.add_(ce_gradient);
  }
  return sums;
}

}  // namespace

KlLossSums& KlLossSums::operator+=(const KlLossSums& other) {
  loss += other.loss;
  kl += other.kl;
  ce += other.ce;
  tokens += other.tokens;
  return *this;
}

at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& head) {
  return at::mm(hidden.to(head.scalar_type()), head.t()).to(at::kFloat);
}

KlLossSums kl_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                   const TeacherLogits& teacher, const KlLossOptions& options, double grad_scale,
                   at::Tensor* grad_hidden) {
  const at::NoGradGuard no_grad;
  POTSTILL_CHECK(options.vocab_limit > 0 && options.vocab_limit <= head.size(0));
  POTSTILL_CHECK(labels.size(0) == hidden.size(0) && options.rows > 0);
  const auto real_head = head.narrow(0, 0, options.vocab_limit);
  if (grad_hidden) *grad_hidden = at::empty_like(hidden);
  KlLossSums total;
  for (int64_t begin = 0; begin < hidden.size(0); begin += options.rows) {
    const int64_t count = std::min(options.rows, hidden.size(0) - begin);
    at::Tensor logits = head_logits(hidden.narrow(0, begin, count), real_head);
    total += chunk_loss(logits, teacher(begin, begin + count), labels.narrow(0, begin, count), options,
                        grad_hidden != nullptr);
    if (!grad_hidden) continue;
    // Scaled first: in 16 bits the product's range matters.
    const auto gradient = at::mm(logits.mul_(grad_scale).to(head.scalar_type()), real_head);
    grad_hidden->narrow(0, begin, count).copy_(gradient);
  }
  return total;
}

}  // namespace potstill
