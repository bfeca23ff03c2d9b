#include "potstill/stages/report_evaluation.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "potstill/base/jsonl.h"
#include "potstill/eval/compare.h"
#include "potstill/eval/scored_model.h"

namespace potstill {
namespace {

using Json = nlohmann::ordered_json;

// First words of the labels that the pipeline gives (pipeline.cpp).
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kQuestions = {{
    {"S1", "S' (distilled)"},
    {"S' (distilled)", "S'' (distilled, 4 bits)"},
    {"S1 + GPTQ", "S'' (distilled, 4 bits)"},
}};

constexpr size_t kMaxFlips = 40;  // a browser's worth; `potstill compare` shows all

bool has_benchmarks(const std::filesystem::path& evaluation) {
  if (!std::filesystem::exists(evaluation)) return false;
  const auto json = read_json_file(evaluation);
  const auto models = json.find("models");
  return models != json.end() && !models->empty() && models->front().contains("samples");
}

void shorten_flips(Json& comparison) {
  for (auto& task : comparison["tasks"]) {
    Json& flips = task["flips"];
    task["num_flips"] = flips.size();
    if (flips.size() > kMaxFlips) flips.erase(flips.begin() + kMaxFlips, flips.end());
  }
}

}  // namespace

Json evaluation_comparisons(const std::filesystem::path& evaluation) {
  Json comparisons = Json::array();
  if (!has_benchmarks(evaluation)) return comparisons;
  const auto models = read_scored_models(evaluation);
  const auto find = [&](std::string_view label) {
    return std::ranges::find_if(models, [&](const ScoredModel& model) { return model.label == label; });
  };
  for (const auto& [first, second] : kQuestions) {
    const auto a = find(first), b = find(second);
    if (a == models.end() || b == models.end()) continue;
    Json json = comparison_to_json(compare_models(*a, *b, CompareConfig{}));
    shorten_flips(json);
    comparisons.push_back(std::move(json));
  }
  return comparisons;
}

}  // namespace potstill
