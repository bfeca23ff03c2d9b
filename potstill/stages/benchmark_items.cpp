#include "potstill/stages/benchmark_items.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "potstill/base/error.h"
#include "potstill/eval/task.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

BenchmarkItem item_with(std::string question, std::vector<std::string> options, int64_t gold) {
  BenchmarkItem item{.where = {}, .question = std::move(question), .options = std::move(options), .answer = {}};
  if (gold >= 0 && gold < static_cast<int64_t>(item.options.size())) {
    item.answer = item.options[static_cast<size_t>(gold)];
  }
  return item;
}

BenchmarkItem labelled(const Row& row, const char* question) {
  std::string answer = row.text("answerKey");
  answer.erase(0, answer.find_first_not_of(" \t\n\r"));
  return item_with(row.text(question), row.texts("choices.text"), label_index(row, row.texts("choices.label"), answer));
}

// The question as it stands in the row, without the harness's words around it.
const std::map<std::string, std::function<BenchmarkItem(const Row&)>>& readers() {
  static const std::map<std::string, std::function<BenchmarkItem(const Row&)>> kReaders{
      {"arc_easy", [](const Row& row) { return labelled(row, "question"); }},
      {"arc_challenge", [](const Row& row) { return labelled(row, "question"); }},
      {"commonsense_qa", [](const Row& row) { return labelled(row, "question"); }},
      {"openbookqa", [](const Row& row) { return labelled(row, "question_stem"); }},
      {"hellaswag",
       [](const Row& row) { return item_with(row.text("ctx"), row.texts("endings"), row.integer("label")); }},
      {"mmlu",
       [](const Row& row) { return item_with(row.text("question"), row.texts("choices"), row.integer("answer")); }},
      {"piqa",
       [](const Row& row) {
         return item_with(row.text("goal"), {row.text("sol1"), row.text("sol2")}, row.integer("label"));
       }},
      {"siqa",
       [](const Row& row) {
         return item_with(row.text("context") + " " + row.text("question"),
                          {row.text("answerA"), row.text("answerB"), row.text("answerC")}, row.integer("label") - 1);
       }},
      {"winogrande",
       [](const Row& row) {
         return item_with(row.text("sentence"), {row.text("option1"), row.text("option2")}, row.integer("answer") - 1);
       }},
  };
  return kReaders;
}

void collect_texts(const nlohmann::ordered_json& value, std::string& text) {
  if (value.is_string()) text += value.get<std::string>() + "\n";
  if (value.is_structured()) {
    for (const auto& each : value) collect_texts(each, text);
  }
}

void read_file_of(const fs::path& file, const std::string& task, const fs::path& root, ContaminationIndex& index) {
  const auto reader = readers().find(task);
  int64_t number = 0;
  const std::string name = file.lexically_relative(root).string();
  for (const Row& row : read_rows(file)) {
    BenchmarkItem item;
    if (reader != readers().end()) {
      item = reader->second(row);
    } else {
      collect_texts(row.doc, item.question);
    }
    item.where = fmt::format("{}:{}", name, ++number);
    index.add(std::move(item));
  }
}

std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder)) entries.push_back(entry.path());
  std::ranges::sort(entries);
  return entries;
}

}  // namespace

fs::path decontamination_folder(const std::string& decontaminate) {
  if (decontaminate == "none" || decontaminate.empty()) return {};
  if (decontaminate != "auto") {
    if (fs::is_directory(decontaminate)) return decontaminate;
    throw Error(ErrorKind::kIo, decontaminate, "is no folder of benchmark rows",
                "it holds <task>/<split>.jsonl; `make benchmarks` brings rows, 'none' goes without");
  }
  const char* named = std::getenv("POTSTILL_BENCHMARKS");
  const fs::path folder = named != nullptr ? fs::path(named) : fs::path(".deps") / "benchmarks";
  return fs::is_directory(folder) ? folder : fs::path();
}

ContaminationIndex read_benchmark_items(const fs::path& folder) {
  ContaminationIndex index;
  for (const auto& task : sorted_entries(folder)) {
    if (!fs::is_directory(task)) continue;
    std::string name = task.filename().string();
    if (name == "social_iqa") name = "siqa";
    const bool known = readers().contains(name);
    for (const auto& file : sorted_entries(task)) {
      const std::string split = file.stem().string();
      if (file.extension() != ".jsonl" || (known && split != "test" && split != "validation")) continue;
      read_file_of(file, name, folder, index);
    }
  }
  if (index.size() > 0) return index;
  throw Error(ErrorKind::kInput, folder.string(), "holds no <task>/test.jsonl or <task>/validation.jsonl",
              "`make benchmarks` brings rows; --decontaminate none goes without");
}

}  // namespace potstill
