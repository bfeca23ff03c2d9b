// Recipe: one YAML file that says how a task gets from its teachers to the 4-bit student. Sections carry the same keys
// as the flags of the commands (lora_alpha here, --lora-alpha there), since both come from the same config structs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "potstill/base/fields.h"
#include "potstill/distill/distill_config.h"
#include "potstill/eval/eval_config.h"
#include "potstill/nn/prune_config.h"
#include "potstill/quant/quant_config.h"
#include "potstill/search/search_config.h"
#include "potstill/synth/synth_config.h"

namespace potstill {

// The keys outside every section.
struct RecipeConfig {
  std::string name;
  std::string description;
  int64_t seed = 0;
  std::string dtype = "auto";
  std::string device = "auto";
  std::string task;          // task file of synth
  std::string pairs;         // pairs of the user's own; synth is then left out
  std::string data_teacher;  // T1
  std::string teacher;       // T2
  std::string student;       // S1, or what S1 is pruned from

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "name of the run: its folder is runs/<name>", any());
    visit("description", self.description, "one line for the report", any());
    visit("seed", self.seed, "seed of every random choice", at_least(0));
    visit("dtype", self.dtype, "arithmetic of training and evaluation", one_of({"auto", "fp32", "bf16"}));
    visit("device", self.device, "auto, cpu, cuda or cuda:N", any());
    visit("task", self.task, "task file: what the pairs are about", any());
    visit("pairs", self.pairs, "question/answer pairs of your own (.jsonl), in synth's place", any());
    visit("data_teacher", self.data_teacher,
          "T1, writes the pairs: Hugging Face folder, GGUF, or the address of an OpenAI-compatible endpoint "
          "(http://…/v1)",
          any());
    visit("teacher", self.teacher, "T2, whose distributions the student learns", any());
    visit("student", self.student, "S1; with a [prune] section, the model that S1 is made of", any());
  }
};

struct MergeConfig {
  std::string dtype = "auto";

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("dtype", self.dtype, "dtype of the merged weights; auto = the student's own",
          one_of({"auto", "fp32", "bf16", "fp16"}));
  }
};

struct Recipe {
  std::filesystem::path file;
  RecipeConfig top;
  std::optional<PruneConfig> prune;  // absent: the student is used as it is
  SynthConfig synth;
  TeachConfig teach;
  DistillDataConfig data;
  std::optional<SearchConfig> search;  // absent: [train] says everything
  DistillConfig train;
  MergeConfig merge;
  QuantizeConfig quantize;
  ExportConfig export_;
  EvalConfig evaluate;

  // A path of the recipe: as it stands where that exists, else relative to the recipe's folder.
  std::filesystem::path resolve(const std::string& path) const;
};

// `overrides` are "section.key=value" or "key=value", as --set gives them. Throws Error(kUsage | kIo) with file and
// line: unknown or misspelt section or key (with the nearest name), wrong type, value out of range, missing model or
// task.
Recipe load_recipe(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});

}  // namespace potstill
