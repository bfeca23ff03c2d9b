// Settings of `potstill evaluate` and the recipe's [evaluate] section: what models are measured on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "potstill/base/fields.h"

namespace potstill {

struct EvalConfig {
  std::vector<std::string> tasks;
  std::filesystem::path data;
  std::string split;
  int64_t limit = 0;
  int64_t num_fewshot = 0;
  bool apply_chat_template = false;
  bool fewshot_as_multiturn = true;
  std::string engine = "torch";
  std::string layer_major = "auto";
  std::filesystem::path text;
  int64_t text_tokens = 16384;
  int64_t latency_tokens = 32;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("tasks", self.tasks, "benchmarks by name (arc_easy, mmlu, hellaswag, …), or YAML files of your own tasks",
          any());
    visit("data", self.data, "folder with <task>/<split>.jsonl, rows under the Hub's field names", any());
    visit("split", self.split, "split to score in place of the one that lm-evaluation-harness scores", any());
    visit("limit", self.limit, "score the first N rows of each task; 0 = all", at_least(0));
    visit("num_fewshot", self.num_fewshot, "solved examples before each question", in_range(0, 100));
    visit("apply_chat_template", self.apply_chat_template, "ask through the model's own chat template", any());
    visit("fewshot_as_multiturn", self.fewshot_as_multiturn,
          "with a chat template: each example is a turn of its own; else one turn holds all", any());
    visit("engine", self.engine, "what scores the benchmarks: LibTorch, or the edge runtime that will run the file",
          one_of({"torch", "edge"}));
    visit("layer_major", self.layer_major,
          "read each layer's weights once for many rows, for a model larger than memory; auto = when it is",
          one_of({"auto", "always", "never"}));
    visit("text", self.text, "plain text to measure perplexity on, in windows of 512 tokens", any());
    visit("text_tokens", self.text_tokens, "tokens of that text; 0 = all", at_least(0));
    visit("latency_tokens", self.latency_tokens, "tokens generated to measure the time of one; 0 = do not",
          in_range(0, 4096));
  }
};

}  // namespace potstill
