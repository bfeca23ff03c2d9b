#include "potstill/optim/newton_schulz.h"

#include <algorithm>
#include <cmath>

#include "potstill/base/check.h"

namespace potstill {
namespace {

// [n, short, long]: both forms work with the Gram matrix of the short side.
at::Tensor wide(const at::Tensor& g) { return g.size(1) > g.size(2) ? g.transpose(1, 2) : g; }

// Divides each matrix by its Frobenius norm. The norm is taken in fp64: squares of fp32 gradients under 1e-19 vanish.
at::Tensor normalised(const at::Tensor& x, double eps) {
  const auto norm = x.to(at::kDouble).square().sum({1, 2}, /*keepdim=*/true).sqrt().clamp_min(eps);
  return (x / norm).to(at::kFloat);
}

}  // namespace

at::Tensor newton_schulz_direct(const at::Tensor& g, const NewtonSchulzOptions& options) {
  POTSTILL_CHECK(g.dim() == 3 && g.scalar_type() == at::kFloat);
  at::Tensor x = normalised(wide(g), options.eps);
  for (int64_t step = 0; step < options.steps; ++step) {
    const auto gram = at::bmm(x, x.transpose(1, 2));
    const auto update = at::baddbmm(gram, gram, gram, /*beta=*/options.b, /*alpha=*/options.c);
    x = at::baddbmm(x, update, x, /*beta=*/options.a, /*alpha=*/1.0);
  }
  return g.size(1) > g.size(2) ? x.transpose(1, 2) : x;
}

at::Tensor newton_schulz_gram(const at::Tensor& g, const NewtonSchulzOptions& options, at::Tensor* result_gram) {
  POTSTILL_CHECK(g.dim() == 3 && g.scalar_type() == at::kFloat);
  const at::Tensor x = wide(g), x64 = x.to(at::kDouble);
  at::Tensor gram = at::bmm(x64, x64.transpose(1, 2));
  // Its trace is the squared Frobenius norm: x itself need not be divided.
  const auto norm = gram.diagonal(0, 1, 2).sum(-1).sqrt().clamp_min(options.eps).view({-1, 1, 1});
  gram.div_(norm.square());
  const at::Tensor start = gram;
  const auto identity = at::eye(gram.size(1), gram.options()).unsqueeze(0);
  at::Tensor product = identity.expand_as(gram);  // P_t
  for (int64_t step = 0; step < options.steps; ++step) {
    const auto m = options.a * identity + options.b * gram + options.c * at::bmm(gram, gram);
    product = step == 0 ? m : at::bmm(m, product);
    if (step + 1 == options.steps) break;
    gram = at::bmm(at::bmm(m, gram), m);
    gram = 0.5 * (gram + gram.transpose(1, 2));  // rounding must not build up a skew part
  }
  if (result_gram) *result_gram = at::bmm(at::bmm(product, start), product.transpose(1, 2));
  const auto result = at::bmm((product / norm).to(at::kFloat), x);
  return g.size(1) > g.size(2) ? result.transpose(1, 2) : result;
}

void OrthogonalityError::add(const at::Tensor& gram) {
  const auto identity = at::eye(gram.size(1), gram.options());
  const auto errors = (gram - identity).square().sum({1, 2}).sqrt() / std::sqrt(static_cast<double>(gram.size(1)));
  const auto has_direction = gram.diagonal(0, 1, 2).sum(1).gt(0);
  sum_ += at::where(has_direction, errors, 0.0).sum().item<double>();
  count_ += has_direction.sum().item<int64_t>();
}

at::Tensor newton_schulz(const at::Tensor& g, const NewtonSchulzOptions& options, at::Tensor* gram) {
  const int64_t short_side = std::min(g.size(1), g.size(2));
  const int64_t long_side = std::max(g.size(1), g.size(2));
  if (long_side >= 2 * short_side) return newton_schulz_gram(g, options, gram);
  const auto result = newton_schulz_direct(g, options);
  if (gram) {
    const auto x = wide(result);
    *gram = at::bmm(x, x.transpose(1, 2)).to(at::kDouble);
  }
  return result;
}

}  // namespace potstill
