// Settings of the search: the recipe's [search] section and `potstill search`'s flags. The names of the searched
// settings are those of [train].
#pragma once

#include <cstdint>
#include <filesystem>
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
  // The optimizer's own, left to [train] by default: each dimension more costs trials, and sixteen are few.
  std::vector<double> momentum = {};
  std::vector<double> weight_decay = {};
  std::vector<double> beta1 = {}, beta2 = {};
  std::vector<double> max_grad_norm = {};
  std::vector<double> min_lr_ratio = {};

  std::vector<std::string> first = {};  // best.yaml of earlier searches

  // objective: accuracy
  std::vector<std::string> accuracy_tasks = {};
  std::filesystem::path accuracy_data;
  std::string accuracy_split;
  int64_t accuracy_limit = 200;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("trials", self.trials, "trials of the study, each one training run", in_range(1, 100000));
    visit("objective", self.objective,
          "what a trial is judged by on the held-out pairs: KL to the teacher at T = 1 after a quick merge and GPTQ "
          "(what will be deployed) or before them, the share of tokens where the two disagree, or the training loss "
          "itself, which is a different quantity for every alpha and temperature; or accuracy: the mean share of wrong "
          "answers to accuracy_tasks",
          one_of({"post-quant-kl", "kl", "agreement", "eval_loss", "accuracy"}));
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
    visit("momentum", self.momentum, "range of [train] momentum; empty = not searched", in_range(0, 0.9999));
    visit("weight_decay", self.weight_decay, "range of [train] weight_decay; empty = not searched", in_range(0, 10));
    visit("beta1", self.beta1, "range of [train] beta1; empty = not searched", in_range(0, 0.99999));
    visit("beta2", self.beta2, "range of [train] beta2; empty = not searched", in_range(0, 0.999999));
    visit("max_grad_norm", self.max_grad_norm, "range of [train] max_grad_norm; empty = not searched", at_least(0));
    visit("min_lr_ratio", self.min_lr_ratio, "range of [train] min_lr_ratio; empty = not searched", in_range(0, 1));
    visit("first", self.first,
          "files whose [train] settings are tried first, after [train]'s own: best.yaml of earlier searches", any());
    visit("accuracy_tasks", self.accuracy_tasks,
          "of the objective accuracy: benchmarks by name, or YAML files of your own tasks", any());
    visit("accuracy_data", self.accuracy_data, "folder with <task>/<split>.jsonl of the accuracy_tasks", any());
    visit(
        "accuracy_split", self.accuracy_split,
        "split that trials are judged on; empty = validation, or train for tasks whose validation rows are the scored "
        "ones. The scored split itself is refused",
        any());
    visit("accuracy_limit", self.accuracy_limit, "rows of each task; 0 = all", at_least(0));
  }

  std::string sampler_name() const { return sampler != "auto" ? sampler : trials <= 100 ? "gp" : "tpe"; }
  int64_t num_startup_trials() const {
    if (startup_trials > 0) return startup_trials;
    const int64_t quarter = trials / 4;
    return quarter < 2 ? 2 : quarter > 10 ? 10 : quarter;
  }
};

}  // namespace potstill
