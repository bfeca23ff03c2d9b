#include "potstill/distill/top_k_loss.h"

#include <cmath>
#include <limits>

namespace potstill {
namespace {

constexpr double kLeastMass = 1e-30;  // keeps r / R and c / C finite where the student gives one side no mass at all

// The terms of L for n rows, in double where masses are subtracted.
struct TopKTerms {
  at::Tensor log_q;               // [n, V] at T = 1
  at::Tensor p_within, q_within;  // [n, k] at T, each row sums to 1
  at::Tensor within;              // [n] KL within the k tokens at T
  at::Tensor c, r, log_c, log_r;  // [n] double: the teacher's masses, log of the student's
  at::Tensor split;               // [n] c log(c / C) + r log(r / R)
};

TopKTerms terms_of(const at::Tensor& student, const at::Tensor& log_sum, const TopKRows& teacher, double temperature) {
  TopKTerms t;
  const double minus_inf = -std::numeric_limits<double>::infinity();
  t.log_q = student - log_sum;
  const auto known = teacher.log_probs.isfinite();
  const auto q_known = t.log_q.gather(1, teacher.ids).masked_fill(~known, minus_inf).to(at::kDouble);
  const auto p_known = teacher.log_probs.to(at::kDouble);
  const auto log_p = at::log_softmax(p_known / temperature, 1), log_q = at::log_softmax(q_known / temperature, 1);
  t.p_within = log_p.exp();
  t.q_within = log_q.exp();
  t.within = at::where(known, t.p_within * (log_p - log_q), 0.0).sum(1);
  // Rounded log-probabilities may add up to a little over one.
  const auto mass = p_known.exp().sum(1).clamp_max(1.0);
  t.c = mass;
  t.r = 1 - mass;
  t.log_c = at::logsumexp(q_known, 1).clamp_min(std::log(kLeastMass));
  // By a sum of its own: 1 - C has no digits left where C is nearly 1.
  t.log_r =
      at::logsumexp(t.log_q.scatter(1, teacher.ids, minus_inf), 1).to(at::kDouble).clamp_min(std::log(kLeastMass));
  t.split = at::xlogy(t.c, t.c) - t.c * t.log_c + at::xlogy(t.r, t.r) - t.r * t.log_r;
  return t;
}

}  // namespace

at::Tensor top_k_rows(const at::Tensor& student, const TopKRows& teacher, double temperature) {
  const auto t = terms_of(student, at::logsumexp(student, 1, true), teacher, temperature);
  return temperature * temperature * t.c * t.within + t.split;
}

KlLossSums top_k_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                      const TopKRows& teacher, const KlLossOptions& options, double grad_scale,
                      at::Tensor* grad_hidden) {
  const double alpha = options.alpha, temperature = options.temperature;
  const auto chunk = [&](at::Tensor logits, int64_t begin, const at::Tensor& chunk_labels, at::Tensor* gradient) {
    const int64_t count = logits.size(0);
    const TopKRows rows{.ids = teacher.ids.narrow(0, begin, count),
                        .log_probs = teacher.log_probs.narrow(0, begin, count)};
    const CrossEntropyPart ce = cross_entropy_part(logits, chunk_labels, gradient ? 1 - alpha : 0);
    const TopKTerms t = terms_of(logits, ce.log_sum, rows, temperature);
    const double within = (t.c * t.within).sum().item<double>(), split = t.split.sum().item<double>();
    KlLossSums sums{.loss = 0, .kl = within + split, .ce = ce.sum, .tokens = count};
    sums.loss = alpha * (temperature * temperature * within + split) + (1 - alpha) * ce.sum;
    if (!gradient) return sums;
    // The split's slope along token v is q_v ([v among the k] - C) (r / R - c / C).
    const auto slope = ((t.r / t.log_r.exp()) - (t.c / t.log_c.exp()));  // [n]
    const auto q = t.log_q.exp();
    *gradient = q * (-alpha * t.log_c.exp() * slope).unsqueeze(1).to(at::kFloat);
    const auto among = q.gather(1, rows.ids).to(at::kDouble) * slope.unsqueeze(1) +
                       temperature * t.c.unsqueeze(1) * (t.q_within - t.p_within);
    gradient->scatter_add_(1, rows.ids, at::where(rows.log_probs.isfinite(), alpha * among, 0.0).to(at::kFloat));
    if (ce.gradient.defined()) gradient->add_(ce.gradient);
    gradient->mul_(grad_scale);
    return sums;
  };
  return fused_head_loss(hidden, head, labels, options.vocab_limit, options.rows, chunk, grad_hidden);
}

}  // namespace potstill
