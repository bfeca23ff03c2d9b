#include "potstill/stages/study_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "potstill/base/error.h"
#include "potstill/lm/http_client.h"
#include "potstill/lm/model_package.h"

namespace potstill {
namespace {

constexpr const char* kDistilled = "S'";
constexpr const char* kQuantized = "S''";

StudyArm optimizer_arm(const std::string& optimizer) {
  return {.name = optimizer, .what = "optimizer " + optimizer, .overrides = {"train.optimizer=" + optimizer}};
}

// AdamW against Muon and LoRA-Muon, each with a search of its own where the recipe has one.
StudyPlan plan_optimizer() {
  return {.arms = {optimizer_arm("adamw"), optimizer_arm("muon"), optimizer_arm("lora-muon")},
          .models = {"S1", kDistilled, kQuantized},
          .until = "quantize"};
}

// No search: one rate for two optimizers is no rate; each has its own default.
StudyPlan plan_switch() {
  StudyPlan plan{.arms = {}, .models = {kDistilled, kQuantized}, .until = "quantize"};
  for (const char* optimizer : {"adamw", "muon", "adamw:0.5,muon:0.5", "muon:0.5,adamw:0.5"}) {
    StudyArm arm = optimizer_arm(optimizer);
    arm.overrides = {fmt::format("train.optimizer=\"{}\"", optimizer), "train.lr=0"};
    arm.searches = false;
    plan.arms.push_back(std::move(arm));
  }
  return plan;
}

StudyPlan plan_ablation() {
  return {.arms = {{.name = "recipe", .what = "the recipe as it stands", .overrides = {}}},
          .models = {"S1", "S1 + RTN", "S1 + GPTQ", kDistilled, kQuantized},
          .until = "baseline-gptq"};
}

StudyPlan plan_calibration(const StudyOptions& options) {
  if (options.text.empty()) {
    throw Error(ErrorKind::kUsage, "study calibration", "needs a text that is not the task's",
                "--text FILE: plain text, such as WikiText's training split");
  }
  StudyPlan plan{.arms = {}, .models = {kDistilled, kQuantized}, .until = "quantize"};
  for (const char* source : {"random", "D_gen", "mixed"}) {
    for (const int64_t sequences : {16, 64, 128, 256}) {
      plan.arms.push_back({.name = fmt::format("{} {}", source, sequences),
                           .what = fmt::format("calibrated on {} sequences of {}", sequences, source),
                           .overrides = {},
                           .sequences = sequences});
    }
  }
  return plan;
}

// What a teacher of another vocabulary can teach by ULD, beside the same teacher aligned; and what its ids would do if
// nothing compared them. ULD between aligned models tells the price of the loss from that of the vocabulary.
StudyPlan plan_tokenizer(const Recipe& recipe) {
  if (is_endpoint(recipe.top.teacher)) {
    throw Error(ErrorKind::kUsage, "study tokenizer", fmt::format("teacher {} is an endpoint", recipe.top.teacher),
                "teachers of other vocabularies are made of the weights: give a model on the disk");
  }
  const auto other = [](const char* name, const char* what, const char* teacher, std::vector<std::string> overrides) {
    return StudyArm{.name = name, .what = what, .overrides = std::move(overrides), .teacher = teacher};
  };
  return {.arms = {other("aligned", "the recipe's teacher", "", {}),
                   other("aligned, ULD", "the recipe's teacher by sorted probabilities", "", {"train.divergence=uld"}),
                   other("other ids, ULD", "the teacher under shuffled ids", "other-ids", {"data.cross_tokenizer=uld"}),
                   other("fewer merges, ULD", "the teacher read through half of the merges", "fewer-merges",
                         {"data.cross_tokenizer=uld"}),
                   other("misaligned", "shuffled ids taken for the student's own: what the guard refuses", "misaligned",
                         {})},
          .models = {"S1", kDistilled},
          .until = "merge"};
}

// The methods that this build quantizes by.
struct MethodNames {
  std::vector<std::string> names;
  void operator()(const char* name, const std::string&, const char*, const FieldLimits& limits) {
    if (std::string_view(name) == "method") names = limits.choices;
  }
  template <class T>
  void operator()(const char*, const T&, const char*, const FieldLimits&) {}
};

// Groups that do not divide the student's widths cannot be made, and are left out.
StudyPlan plan_quantizer(const Recipe& recipe) {
  const ModelConfig config = open_model(recipe.resolve(recipe.top.student)).config;
  StudyPlan plan{.arms = {}, .models = {kDistilled, kQuantized}, .until = "quantize"};
  QuantizeConfig known;
  MethodNames methods;
  QuantizeConfig::fields(known, methods);
  for (const char* optimizer : {"adamw", "muon"}) {
    for (const std::string method : {"rtn", "awq", "gptq", "gptaq"}) {
      if (std::ranges::find(methods.names, method) == methods.names.end()) continue;
      for (const int64_t group : {32, 64, 128}) {
        if (config.hidden_size % group != 0 || config.intermediate_size % group != 0) continue;
        plan.arms.push_back(
            {.name = fmt::format("{} {} g{}", optimizer, method, group),
             .what = fmt::format("{}-tuned, {} in groups of {}", optimizer, method, group),
             .overrides = {fmt::format("train.optimizer={}", optimizer), fmt::format("quantize.method={}", method),
                           fmt::format("quantize.group_size={}", group)}});
      }
    }
  }
  return plan;
}

}  // namespace

std::vector<std::string> study_kinds() {
  return {"optimizer", "calibration", "switch", "tokenizer", "quantizer", "ablation"};
}

std::string stage_of_model(const std::string& label) {
  if (label == "S1 + RTN") return "baseline-rtn";
  if (label == "S1 + GPTQ") return "baseline-gptq";
  return label == kDistilled ? "merge" : label == kQuantized ? "quantize" : "prune";
}

StudyPlan plan_study(const StudyOptions& options, const Recipe& recipe) {
  StudyPlan plan;
  if (options.kind == "optimizer") plan = plan_optimizer();
  if (options.kind == "switch") plan = plan_switch();
  if (options.kind == "ablation") plan = plan_ablation();
  if (options.kind == "calibration") plan = plan_calibration(options);
  if (options.kind == "tokenizer") plan = plan_tokenizer(recipe);
  if (options.kind == "quantizer") plan = plan_quantizer(recipe);
  if (plan.arms.empty()) {
    throw Error(ErrorKind::kUsage, "study", fmt::format("there is no study '{}'", options.kind),
                fmt::format("known: {}", fmt::join(study_kinds(), ", ")));
  }
  if (recipe.evaluate.tasks.empty()) {
    throw Error(ErrorKind::kUsage, recipe.file.string(), "names no task to compare the models on",
                "--set evaluate.tasks=[arc_easy] --set evaluate.data=DIR");
  }
  for (const auto& wanted : options.arms) {
    if (std::ranges::find(plan.arms, wanted, &StudyArm::name) != plan.arms.end()) continue;
    std::vector<std::string> names;
    for (const auto& arm : plan.arms) names.push_back(arm.name);
    throw Error(ErrorKind::kUsage, "--arm", fmt::format("this study has no arm '{}'", wanted),
                fmt::format("arms: {}", fmt::join(names, "; ")));
  }
  if (!options.arms.empty()) {
    std::erase_if(plan.arms,
                  [&](const StudyArm& arm) { return std::ranges::find(options.arms, arm.name) == options.arms.end(); });
  }
  return plan;
}

}  // namespace potstill
