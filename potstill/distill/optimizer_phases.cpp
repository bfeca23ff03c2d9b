#include "potstill/distill/optimizer_phases.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "potstill/base/error.h"
#include "potstill/optim/adamw.h"
#include "potstill/optim/lora_muon.h"
#include "potstill/optim/muon.h"

namespace potstill {

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, const DistillConfig& config,
                                          std::vector<at::Tensor> parameters) {
  if (name == "adamw") {
    return std::make_unique<AdamW>(
        std::move(parameters),
        AdamWOptions{.beta1 = config.beta1, .beta2 = config.beta2, .weight_decay = config.weight_decay});
  }
  if (name == "lora-muon") {
    return std::make_unique<LoraMuon>(
        std::move(parameters), LoraMuonOptions{.momentum = config.momentum, .weight_decay = config.weight_decay});
  }
  return std::make_unique<Muon>(std::move(parameters), MuonOptions{.momentum = config.momentum,
                                                                   .weight_decay = config.weight_decay,
                                                                   .scale = parse_muon_scale(config.muon_scale)});
}

std::vector<OptimizerPhase> optimizer_phases(const std::string& text) {
  constexpr const char* kHow = "muon, adamw or lora-muon; or several in turn with their shares, adamw:0.5,muon:0.5";
  const auto refuse = [&](const std::string& what) { throw Error(ErrorKind::kUsage, "optimizer", what, kHow); };
  std::vector<OptimizerPhase> phases;
  double until = 0;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t colon = part.find(':');
    const std::string name = part.substr(0, colon);
    if (name != "muon" && name != "adamw" && name != "lora-muon") refuse(fmt::format("'{}' is no optimizer", name));
    double share = 1;
    if (colon != std::string::npos) {
      char* rest = nullptr;
      share = std::strtod(part.c_str() + colon + 1, &rest);
      if (*rest != 0 || !(share > 0 && share <= 1)) refuse(fmt::format("'{}' is no share of the steps", part));
    }
    until += share;
    phases.push_back({name, until});
  }
  if (std::abs(until - 1) > 1e-6) refuse(fmt::format("the shares of '{}' add up to {}, not 1", text, until));
  return phases;
}

double DistillConfig::peak_lr() const { return peak_lr(optimizer_phases(optimizer).front().optimizer); }

double DistillConfig::peak_lr(const std::string& name) const {
  if (lr > 0) return lr;
  if (name == "adamw") return 5e-4;
  if (name == "lora-muon") return 0.01;
  switch (parse_muon_scale(muon_scale)) {
    case MuonScale::kOriginal:
      return 0.01;
    case MuonScale::kMatchRmsAdamw:
      return 5e-3;
    case MuonScale::kSpectralUnclamped:
      return 0.01;
  }
  return lr;
}

}  // namespace potstill
