#include "potstill/optim/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <numeric>

namespace potstill {
namespace {

// Numbers of one step.
struct StepNumbers {
  double lr, correction1, correction2;  // corrections: of the moments' start at zero
  const AdamWOptions& options;
};

struct StepFloats {
  float keep_first, keep_second, add_second, rate, inverse_correction, eps, decay;
};

// One pass over a factor's `count` values; returns the sum of squares of what it added.
double step_values(const StepFloats& s, const float* __restrict gradient, int64_t count, float* __restrict parameter,
                   float* __restrict first, float* __restrict second) {
  constexpr int64_t kBlock = 64;  // independent sums, for the vectoriser
  float squares[kBlock] = {};
  const auto value = [&](int64_t i, int64_t lane) {
    const float g = gradient[i];
    first[i] = g + s.keep_first * (first[i] - g);
    second[i] = s.keep_second * second[i] + s.add_second * (g * g);
    // p - lr·wd·p + update, as one sum: its size is what update_rms reports.
    const float update =
        s.rate * first[i] / (std::sqrt(second[i]) * s.inverse_correction + s.eps) + s.decay * parameter[i];
    parameter[i] += update;
    squares[lane] += update * update;
  };
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    for (int64_t lane = 0; lane < kBlock; ++lane) value(i + lane, lane);
  }
  for (int64_t lane = 0; i < count; ++i, ++lane) value(i, lane);
  double total = 0;
  for (const float lane : squares) total += static_cast<double>(lane);
  return total;
}

at::Tensor gradient_of(const at::Tensor& parameter) {
  return parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter);
}

// A factor at a time in one pass, on the CPU; returns the sum of squares of all that was added.
double step_each(const StepNumbers& step, std::vector<at::Tensor>& parameters, std::vector<at::Tensor>& first,
                 std::vector<at::Tensor>& second) {
  const AdamWOptions& options = step.options;
  const StepFloats floats{.keep_first = static_cast<float>(options.beta1),
                          .keep_second = static_cast<float>(options.beta2),
                          .add_second = static_cast<float>(1 - options.beta2),
                          .rate = static_cast<float>(-step.lr / step.correction1),
                          .inverse_correction = static_cast<float>(1 / step.correction2),
                          .eps = static_cast<float>(options.eps),
                          .decay = static_cast<float>(-step.lr * options.weight_decay)};
  std::vector<double> sums(parameters.size());
  at::parallel_for(0, std::ssize(parameters), 8, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // a thread's own setting
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const auto gradient = gradient_of(parameters[i]).contiguous();
      sums[i] = step_values(floats, gradient.const_data_ptr<float>(), parameters[i].numel(),
                            parameters[i].mutable_data_ptr<float>(), first[i].mutable_data_ptr<float>(),
                            second[i].mutable_data_ptr<float>());
    }
  });
  for (const auto& parameter : parameters) parameter.unsafeGetTensorImpl()->bump_version();
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// The same by LibTorch's operators, on any device.
double step_all(const StepNumbers& step, std::vector<at::Tensor>& parameters, std::vector<at::Tensor>& first,
                std::vector<at::Tensor>& second) {
  const AdamWOptions& options = step.options;
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters) gradients.push_back(gradient_of(parameter));
  at::_foreach_lerp_(first, gradients, 1 - options.beta1);
  at::_foreach_mul_(second, options.beta2);
  at::_foreach_addcmul_(second, gradients, gradients, 1 - options.beta2);
  auto denominator = at::_foreach_sqrt(second);
  at::_foreach_div_(denominator, step.correction2);
  at::_foreach_add_(denominator, options.eps);
  auto update = at::_foreach_div(first, denominator);
  at::_foreach_mul_(update, -step.lr / step.correction1);
  if (options.weight_decay != 0) at::_foreach_add_(update, parameters, -step.lr * options.weight_decay);
  at::_foreach_add_(parameters, update);
  double squares = 0;
  for (const auto& tensor : update) squares += tensor.square().sum(at::kDouble).item<double>();
  return squares;
}

}  // namespace

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
  const StepNumbers step{.lr = lr,
                         .correction1 = 1 - std::pow(options_.beta1, t),
                         .correction2 = std::sqrt(1 - std::pow(options_.beta2, t)),
                         .options = options_};
  const bool on_cpu = parameters_.front().device().is_cpu();
  const double squares =
      on_cpu ? step_each(step, parameters_, first_, second_) : step_all(step, parameters_, first_, second_);
  int64_t count = 0;
  for (const auto& parameter : parameters_) count += parameter.numel();
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
