#include "potstill/optim/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/error.h"

namespace potstill {

void Optimizer::load_state(const std::vector<NamedTensor>& saved, std::string_view where) {
  const auto own = state();
  if (saved.size() != own.size()) {
    throw Error(ErrorKind::kFormat, where,
                fmt::format("holds {} tensors of optimizer state but this optimizer has {}", saved.size(), own.size()),
                "the checkpoint is of other settings; delete it to start afresh");
  }
  const at::NoGradGuard no_grad;
  for (const NamedTensor& mine : own) {
    const auto found = std::ranges::find(saved, mine.name, &NamedTensor::name);
    if (found == saved.end() || found->tensor.sizes() != mine.tensor.sizes()) {
      throw Error(ErrorKind::kFormat, where,
                  fmt::format("optimizer state '{}' {}", mine.name,
                              found == saved.end() ? "is missing" : "is of another shape"),
                  "the checkpoint is of other settings; delete it to start afresh");
    }
    at::Tensor(mine.tensor).copy_(found->tensor);
  }
}

double clip_grad_norm(const std::vector<at::Tensor>& parameters, double max_norm) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters) {
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  }
  if (gradients.empty()) return 0;
  // In fp64: thousands of small squares, and the factor below must not depend on how they are summed.
  const double norm = at::stack(at::_foreach_norm(gradients, 2, at::kDouble)).square().sum().sqrt().item<double>();
  if (max_norm > 0 && std::isfinite(norm) && norm > max_norm) at::_foreach_mul_(gradients, max_norm / norm);
  return norm;
}

void zero_grad(const std::vector<at::Tensor>& parameters) {
  for (const auto& parameter : parameters) at::Tensor(parameter).mutable_grad() = at::Tensor();
}

}  // namespace potstill
