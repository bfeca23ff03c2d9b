#include "potstill/optim/adamw.h"

#include <fmt/format.h>

#include <cmath>

namespace potstill {

AdamW::AdamW(std::vector<at::Tensor> parameters, const AdamWOptions& options)
    : options_(options), parameters_(std::move(parameters)), num_steps_(at::zeros({}, at::kLong)) {
  const at::NoGradGuard no_grad;
  for (const auto& parameter : parameters_) {
    first_.push_back(at::zeros_like(parameter));
    second_.push_back(at::zeros_like(parameter));
  }
}

void AdamW::step(double lr) {
  const at::NoGradGuard no_grad;
  if (parameters_.empty()) return;
  num_steps_.add_(1);
  const auto t = static_cast<double>(num_steps_.item<int64_t>());
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters_) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter));
  }
  at::_foreach_lerp_(first_, gradients, 1 - options_.beta1);
  at::_foreach_mul_(second_, options_.beta2);
  at::_foreach_addcmul_(second_, gradients, gradients, 1 - options_.beta2);

  const double correction1 = 1 - std::pow(options_.beta1, t);
  const double correction2 = std::sqrt(1 - std::pow(options_.beta2, t));
  auto denominator = at::_foreach_sqrt(second_);
  at::_foreach_div_(denominator, correction2);
  at::_foreach_add_(denominator, options_.eps);
  auto update = at::_foreach_div(first_, denominator);
  at::_foreach_mul_(update, -lr / correction1);
  // p - lr·wd·p + update, as one sum: its size is what update_rms reports.
  if (options_.weight_decay != 0) at::_foreach_add_(update, parameters_, -lr * options_.weight_decay);
  at::_foreach_add_(parameters_, update);

  double squares = 0;
  int64_t count = 0;
  for (const auto& tensor : update) {
    squares += tensor.square().sum(at::kDouble).item<double>();
    count += tensor.numel();
  }
  update_rms_ = std::sqrt(squares / static_cast<double>(count));
}

std::vector<NamedTensor> AdamW::state() const {
  std::vector<NamedTensor> tensors = {{"adamw.num_steps", num_steps_}};
  for (size_t i = 0; i < first_.size(); ++i) {
    tensors.push_back({fmt::format("adamw.exp_avg.{}", i), first_[i]});
    tensors.push_back({fmt::format("adamw.exp_avg_sq.{}", i), second_[i]});
  }
  return tensors;
}

}  // namespace potstill
