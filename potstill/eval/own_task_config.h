// A benchmark of the user's own, declared without code: rows in a JSONL, a prompt with {fields}, choices, the answer.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "potstill/base/fields.h"

namespace potstill {

struct OwnTaskConfig {
  std::string name;
  std::filesystem::path rows, fewshot_rows;
  std::string description, prompt, delimiter = " ";
  std::vector<std::string> choices;
  std::string choices_field, answer, answer_is = "text";
  std::vector<std::string> metrics{"acc"};

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "name in tables and in files of samples", any());
    visit("rows", self.rows, "the scored rows (.jsonl), relative to the task file", any());
    visit("fewshot_rows", self.fewshot_rows, "rows that --num-fewshot draws from; absent: the scored ones", any());
    visit("description", self.description, "text before everything", any());
    visit("prompt", self.prompt, "the question, with {fields} of the row; {{ and }} are braces", any());
    visit("delimiter", self.delimiter, "between prompt and choice", any());
    visit("choices", self.choices, "the choices, with {fields} of the row", any());
    visit("choices_field", self.choices_field, "in their place: the row's field that lists them", any());
    visit("answer", self.answer, "the row's field that tells the right choice", any());
    visit("answer_is", self.answer_is, "what that field holds; index counts from 0, number from 1",
          one_of({"text", "letter", "index", "number"}));
    visit("metrics", self.metrics, "acc, and acc_norm: log-likelihoods by characters", one_of({"acc", "acc_norm"}));
  }
};

}  // namespace potstill
