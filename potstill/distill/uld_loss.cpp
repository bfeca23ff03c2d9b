#include "potstill/distill/uld_loss.h"

#include <algorithm>

namespace potstill {
namespace {

struct SortedPair {
  at::Tensor difference;  // [n, max(Vs, Vt)] q_(r) - p_(r)
  at::Tensor q;           // [n, Vs] by token
  at::Tensor order;       // [n, Vs] token of each rank
};

SortedPair sort_both(const at::Tensor& student, const at::Tensor& teacher, double temperature) {
  SortedPair pair;
  pair.q = at::softmax(student / temperature, 1);
  at::Tensor sorted;
  std::tie(sorted, pair.order) = pair.q.sort(1, /*descending=*/true);
  const at::Tensor p = std::get<0>(at::softmax(teacher / temperature, 1).sort(1, /*descending=*/true));
  const int64_t width = std::max(sorted.size(1), p.size(1));
  pair.difference =
      at::constant_pad_nd(sorted, {0, width - sorted.size(1)}) - at::constant_pad_nd(p, {0, width - p.size(1)});
  return pair;
}

}  // namespace

at::Tensor uld_rows(const at::Tensor& student, const at::Tensor& teacher, double temperature) {
  return sort_both(student, teacher, temperature).difference.abs().sum(1, false, at::kDouble);
}

KlLossSums uld_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                    const TeacherLogits& teacher, const at::Tensor& has_teacher, const KlLossOptions& options,
                    double grad_scale, at::Tensor* grad_hidden) {
  const auto chunk = [&](at::Tensor logits, int64_t begin, const at::Tensor& chunk_labels, at::Tensor* gradient) {
    const int64_t count = logits.size(0);
    const auto mask = has_teacher.narrow(0, begin, count).to(logits.device());
    const SortedPair pair = sort_both(logits, teacher(begin, begin + count), options.temperature);
    const auto rows = pair.difference.abs().sum(1, false, at::kDouble).mul_(mask);
    const CrossEntropyPart ce = cross_entropy_part(logits, chunk_labels, gradient ? 1 - options.alpha : 0);
    KlLossSums sums{.loss = 0, .kl = rows.sum().item<double>(), .ce = ce.sum, .tokens = count};
    sums.loss = options.alpha * sums.kl + (1 - options.alpha) * sums.ce;
    if (!gradient) return sums;
    // d|p - q|/dq is the sign at the token's rank; through the softmax, q (s - Σ q s) / T.
    const int64_t vocabulary = logits.size(1);
    const auto sign = at::empty_like(pair.q).scatter_(1, pair.order, pair.difference.narrow(1, 0, vocabulary).sign());
    const auto mean = (pair.q * sign).sum(1, true);
    *gradient = pair.q * (sign - mean) * (options.alpha / options.temperature) * mask.unsqueeze(1);
    if (ce.gradient.defined()) gradient->add_(ce.gradient);
    gradient->mul_(grad_scale);
    return sums;
  };
  return fused_head_loss(hidden, head, labels, options.vocab_limit, options.rows, chunk, grad_hidden);
}

}  // namespace potstill
