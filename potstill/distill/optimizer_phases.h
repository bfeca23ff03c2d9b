// Which optimizer trains which part of a run, at which rate.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "potstill/distill/distill_config.h"
#include "potstill/optim/optimizer.h"

namespace potstill {

// "adamw:0.5,muon:0.5" -> the optimizers in turn. At a switch the factors, the data order and the schedule go on; the
// new optimizer's own state begins at zero, its step count too, and it has its own default rate where `lr` is 0. Throws
// Error(kUsage).
struct OptimizerPhase {
  std::string optimizer;
  double until = 1;  // share of the steps
};
std::vector<OptimizerPhase> optimizer_phases(const std::string& text);

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, const DistillConfig& config,
                                          std::vector<at::Tensor> parameters);

}  // namespace potstill
