// EvalTask: a multiple-choice benchmark as lm-evaluation-harness 0.4.13 asks it, byte for byte.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/lm/language_model.h"

namespace potstill {

// A line of a data set, its fields in the order of the file (the harness's hash of a row depends on it).
struct Row {
  nlohmann::ordered_json doc;
  std::string where;  // "arc_easy/test.jsonl:17"

  // Fields that a task needs; dots go into objects ("choices.text"). Throw Error(kInput) naming the field and the line.
  std::string text(std::string_view field) const;
  std::vector<std::string> texts(std::string_view field) const;
  int64_t integer(std::string_view field) const;    // a number, or a text that spells one
  std::string shown(std::string_view field) const;  // a text, a number, true or false
};
std::vector<Row> read_rows(const std::filesystem::path& path);

// A row, ready to be asked.
struct Question {
  std::string description;                 // stands before everything; empty for most tasks
  std::vector<std::string> contexts;       // one a choice; the same for all, but for winogrande
  std::string delimiter = " ";             // between context and continuation
  std::vector<std::string> continuations;  // one a choice
  std::vector<std::string> choices;        // acc_norm divides by their length
  int64_t gold = 0;                        // index of the right choice
  nlohmann::ordered_json doc;              // as the harness logs it
  nlohmann::json target;                   // as the harness logs it

  std::vector<ScoreRequest> requests() const;
  // What a few-shot prompt shows for this row: contexts[gold] + delimiter + continuations[gold]; an empty continuation
  // leaves the context alone.
  std::string example() const;
};

enum class FewShotOrder { kRandom, kFirst };  // Python's random.sample, or the first rows in the file's order

struct EvalTask {
  std::string name;    // the harness's
  std::string folder;  // DIR/<folder>/<split>.jsonl
  std::string split;   // the scored one
  nlohmann::json version;
  std::vector<std::string> metrics;  // "acc", "acc_norm"
  std::function<Question(const Row&)> ask;
  // For a benchmark that is a group of tasks (MMLU): the task that a row belongs to.
  std::function<std::string(const Row&)> subtask;
  std::vector<std::string> only_subtasks = {};  // of the group; empty: all
  // Few-shot examples come from DIR/<folder>/<fewshot_split>.jsonl.
  std::string fewshot_split = "train";
  FewShotOrder fewshot_order = FewShotOrder::kRandom;
  // One example more is drawn and the asked row dropped from among them. The harness does so for tasks whose files name
  // neither a few-shot nor a test split.
  bool drops_asked_row = false;
  std::filesystem::path file = {};          // of a user's own task: the rows, in place of DIR/<folder>/<split>.jsonl
  std::filesystem::path fewshot_file = {};  // likewise; empty = the scored rows themselves

  std::filesystem::path rows_path(const std::filesystem::path& data) const {
    return file.empty() ? data / folder / (split + ".jsonl") : file;
  }
  std::filesystem::path fewshot_path(const std::filesystem::path& data) const {
    if (file.empty()) return data / folder / (fewshot_split + ".jsonl");
    return fewshot_file.empty() ? file : fewshot_file;
  }
};

// A group's children and its size-weighted accuracy: mmlu -> mmlu_stem -> mmlu_astronomy.
struct EvalTaskGroup {
  std::string name, alias;
  std::vector<std::string> children;  // tasks or groups
};

// The known tasks, each in its own file below tasks/.
EvalTask arc_easy_task();
EvalTask commonsense_qa_task();
EvalTask hellaswag_task();
EvalTask mmlu_task();
EvalTask openbookqa_task();
EvalTask piqa_task();
EvalTask social_iqa_task();
EvalTask winogrande_task();

std::vector<EvalTaskGroup> mmlu_groups();  // children before parents

// By the harness's name or the folder's; of MMLU also a group ("mmlu_stem") or a subject ("mmlu_anatomy"). Throws
// Error(kUsage) with the nearest name.
EvalTask find_task(std::string_view name);

// Shared by the tasks' files.
// One context, choices after a space.
Question plain_question(const Row& row, std::string context, std::vector<std::string> choices, int64_t gold);
// "A. …\nB. …" below a question, answered by a letter.
Question lettered_question(const Row& row, std::string_view question, const std::vector<std::string>& options,
                           int64_t gold);
// Index of `answer` among `labels`. Throws Error(kInput) when it is none of them.
int64_t label_index(const Row& row, const std::vector<std::string>& labels, const std::string& answer);

}  // namespace potstill
