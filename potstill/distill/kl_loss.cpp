#include "potstill/distill/kl_loss.h"

#include <fmt/format.h>

#include <cmath>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/distill/loss_rows.h"

namespace potstill {
namespace {

// [n, V] · [n, V] -> [n], without the product in between.
at::Tensor row_dot(const at::Tensor& a, const at::Tensor& b) {
  return at::bmm(a.unsqueeze(1), b.unsqueeze(2)).reshape({a.size(0)});
}

// q (f - Σ q f), the slope of Σ q f along the logits where f's own change cancels.
at::Tensor centred(const at::Tensor& q, const at::Tensor& f, const at::Tensor& mean) {
  return at::mul(q, f.sub(mean.unsqueeze(1)));
}

// The sum over rows, given log q and log p [n, V], which it uses up; with want_gradient leaves T · its slope along the
// logits in log_q. Slopes: TRL's generalized_jsd_loss by autograd gives the same (tests/golden/distill/divergences.py).
double divergence(at::Tensor& log_q, at::Tensor& log_p, const KlLossOptions& options, bool want_gradient) {
  const auto total = [](const at::Tensor& rows) { return rows.sum(at::kDouble).item<double>(); };
  if (options.divergence == Divergence::kForwardKl) {
    const auto p = at::exp(log_p);
    const double sum = total(row_dot(p, log_p.sub_(log_q)));
    if (want_gradient) log_q.exp_().sub_(p);
    return sum;
  }
  const auto q = at::exp(log_q);
  if (options.divergence == Divergence::kReverseKl) {
    const auto ratio = log_q.sub(log_p), rows = row_dot(q, ratio);
    if (want_gradient) log_q.copy_(centred(q, ratio, rows));
    return total(rows);
  }
  const double beta = options.jsd_beta;
  const auto log_m = at::logaddexp(log_p.add(std::log(beta)), log_q.add(std::log1p(-beta)));
  const double from_p = total(row_dot(at::exp(log_p), log_p.sub(log_m)));
  const auto ratio = log_q.sub(log_m), rows = row_dot(q, ratio);
  if (want_gradient) log_q.copy_(centred(q, ratio, rows).mul_(1 - beta));
  return beta * from_p + (1 - beta) * total(rows);
}

// Sums of one chunk; leaves dloss/dlogits in `student`. Both tensors are fp32 [n, V] and are used up.
KlLossSums chunk_loss(at::Tensor student, at::Tensor teacher, const at::Tensor& labels, const KlLossOptions& options,
                      bool want_gradient) {
  const double alpha = options.alpha, temperature = options.temperature;
  KlLossSums sums;
  sums.tokens = student.size(0);
  // d(1 - α)·CE is put aside before the logits are overwritten; at α = 1, the usual case, there is none.
  const CrossEntropyPart ce = cross_entropy_part(student, labels, want_gradient ? 1 - alpha : 0);
  sums.ce = ce.sum;
  if (temperature != 1) {
    student.mul_(1 / temperature);
    teacher.mul_(1 / temperature);
  }
  student.sub_(temperature == 1 ? ce.log_sum : at::logsumexp(student, 1, true));  // log q
  teacher.sub_(at::logsumexp(teacher, 1, true));                                  // log p
  sums.kl = divergence(student, teacher, options, want_gradient);
  sums.loss = alpha * temperature * temperature * sums.kl + (1 - alpha) * sums.ce;
  if (want_gradient) {
    student.mul_(alpha * temperature);
    if (ce.gradient.defined()) student.add_(ce.gradient);
  }
  return sums;
}

KlLossSums row_sums(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels,
                    const KlLossOptions& options, double grad_scale, const at::Tensor& gradient) {
  const auto [kl, ce] =
      kl_loss_rows(student, teacher, labels, options.alpha, options.temperature, grad_scale, gradient);
  const double squared = options.temperature * options.temperature;
  return {
      .loss = options.alpha * squared * kl + (1 - options.alpha) * ce, .kl = kl, .ce = ce, .tokens = student.size(0)};
}

}  // namespace

Divergence parse_divergence(std::string_view name) {
  if (name == "forward-kl") return Divergence::kForwardKl;
  if (name == "reverse-kl") return Divergence::kReverseKl;
  if (name == "jsd") return Divergence::kJsd;
  if (name == "uld") return Divergence::kUld;
  throw Error(ErrorKind::kUsage, "divergence", fmt::format("'{}' is none", name), "forward-kl, reverse-kl, jsd or uld");
}

KlLossSums kl_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                   const TeacherLogits& teacher, const KlLossOptions& options, double grad_scale,
                   at::Tensor* grad_hidden) {
  POTSTILL_CHECK(options.divergence != Divergence::kUld);
  const auto chunk = [&](at::Tensor logits, int64_t begin, const at::Tensor& chunk_labels, at::Tensor* gradient) {
    const auto teacher_logits = teacher(begin, begin + logits.size(0));
    if (logits.device().is_cpu() && options.divergence == Divergence::kForwardKl) {
      if (gradient) {  // scaled before it is rounded: in 16 bits the product's range matters
        const bool in_place = head.scalar_type() == at::kFloat;
        *gradient = in_place ? logits : at::empty(logits.sizes(), logits.options().dtype(head.scalar_type()));
      }
      return row_sums(logits, teacher_logits, chunk_labels, options, grad_scale, gradient ? *gradient : at::Tensor());
    }
    const KlLossSums sums = chunk_loss(logits, teacher_logits, chunk_labels, options, gradient != nullptr);
    if (gradient) *gradient = logits.mul_(grad_scale);
    return sums;
  };
  return fused_head_loss(hidden, head, labels, options.vocab_limit, options.rows, chunk, grad_hidden);
}

}  // namespace potstill
