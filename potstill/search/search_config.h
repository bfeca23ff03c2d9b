// Settings of the search: the recipe's [search] section and `potstill search`'s flags. The names of the searched
// settings are those of [train].
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "potstill/base/fields.h"

namespace potstill {

struct SearchConfig {
  int64_t trials = 16;
  std::string objective = "post-quant-kl";
  std::string sampler = "auto";
  int64_t startup_trials = 0;
  std::string pruning = "none";
  int64_t replicates = 0;

  // A range is [low, high], one number is a fixed value, an empty list leaves the setting to [train].
  std::vector<double> alpha = {0.0, 1.0};
  std::vector<double> temperature = {1.0, 8.0};
  std::vector<double> lr = {};  // empty: a fifth of [train]'s rate to five times it
  std::vector<double> lora_dropout = {0.0, 0.1};
  std::vector<double> warmup_ratio = {0.0, 0.2};
  // Lists of choices.
  std::vector<int64_t> rank = {4, 8, 16, 32};
  std::vector<double> lora_alpha_ratio = {0.5, 1.0, 2.0, 4.0};

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("trials", self.trials, "trials of the study, each one training run", in_range(1, 100000));
    visit("objective", self.objective,
          "what a trial is judged by on the held-out pairs: KL to the teacher at T = 1 after a quick merge and GPTQ "
          "(what will be deployed) or before them, the share of tokens where the two disagree, or the training loss "
          "itself, which is a different quantity for every alpha and temperature",
          one_of({"post-quant-kl", "kl", "agreement", "eval_loss"}));
    visit("sampler", self.sampler,
          "how the next point is chosen: Gaussian process, Parzen estimators, or at random; auto = gp up to 100 "
          "trials, tpe beyond",
          one_of({"auto", "gp", "tpe", "random"}));
    visit("pruning", self.pruning,
          "median: measure at a quarter, half and three quarters of a trial and give it up where it is behind the "
          "median of the others",
          one_of({"none", "median"}));
    visit("replicates", self.replicates, "further runs of the best settings, each under a seed of its own",
          in_range(0, 1000));
    visit("startup_trials", self.startup_trials,
          "trials before the model of the objective takes over; 0 = a quarter of all, 2 to 10", at_least(0));
    visit("alpha", self.alpha, "range of [train] alpha", in_range(0, 1));
    visit("temperature", self.temperature, "range of [train] temperature, by its logarithm", in_range(0.05, 100));
    visit("lr", self.lr, "range of [train] lr, by its logarithm; empty = a fifth to five times [train]'s own",
          in_range(1e-9, 100));
    visit("lora_dropout", self.lora_dropout, "range of [train] lora_dropout", in_range(0, 0.95));
    visit("warmup_ratio", self.warmup_ratio, "range of [train] warmup_ratio", in_range(0, 1));
    visit("rank", self.rank, "choices of [train] rank", in_range(1, 4096));
    visit("lora_alpha_ratio", self.lora_alpha_ratio, "choices of lora_alpha / rank", in_range(1e-3, 1e3));
  }

  std::string sampler_name() const { return sampler != "auto" ? sampler : trials <= 100 ? "gp" : "tpe"; }
  int64_t num_startup_trials() const {
    if (startup_trials > 0) return startup_trials;
    const int64_t quarter = trials / 4;
    return quarter < 2 ? 2 : quarter > 10 ? 10 : quarter;
  }
};

}  // namespace potstill
