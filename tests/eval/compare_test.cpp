#include "potstill/eval/compare.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

// tests/golden/eval/paired_statistics.py: scipy and statsmodels.
class PairedStatisticsGolden : public ::testing::Test {
 protected:
  const nlohmann::json golden_ = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/eval/paired_statistics.json");
};

TEST_F(PairedStatisticsGolden, McNemarAndHolmEqualStatsmodels) {
  for (const auto& item : golden_["mcnemar"]) {
    const double p = item["p"];
    EXPECT_NEAR(mcnemar_exact(item["only_first"], item["only_second"]), p, 1e-10 * p) << item;
  }
  for (const auto& item : golden_["holm"]) {
    const auto adjusted = holm(item["p"].get<std::vector<double>>());
    for (size_t i = 0; i < adjusted.size(); ++i) {
      EXPECT_NEAR(adjusted[i], item["adjusted"][i].get<double>(), 1e-15) << item;
    }
  }
}

// Both intervals are of random resamples: ends lie on multiples of 1/n and may fall a step apart.
TEST_F(PairedStatisticsGolden, BootstrapIntervalsEqualScipyWithinAStep) {
  for (const auto& item : golden_["bootstrap"]) {
    const size_t n = item["n"], lost = item["lost"], gained = item["gained"];
    std::vector<double> differences(n, 0.0);
    std::fill_n(differences.begin(), lost, -1.0);
    std::fill_n(differences.begin() + static_cast<ptrdiff_t>(lost), gained, 1.0);
    const auto interval = percentile_interval(bootstrap_means(differences, 20000, 3));
    const double step = 1.0 / static_cast<double>(n) + 1e-12;
    EXPECT_NEAR(interval.low, item["low"].get<double>(), step) << item;
    EXPECT_NEAR(interval.high, item["high"].get<double>(), step) << item;
  }
}

TEST_F(PairedStatisticsGolden, ChoiceKlEqualsScipy) {
  for (const auto& item : golden_["kl"]) {
    const auto first = item["first"].get<std::vector<double>>(), second = item["second"].get<std::vector<double>>();
    const double kl = item["kl"];
    EXPECT_NEAR(choice_kl(first, second), kl, 1e-12 + 1e-10 * kl);
    EXPECT_EQ(choice_kl(first, first), 0.0);
  }
}

class CompareTest : public ::testing::Test {
 protected:
  CompareTest() : folder_(fs::temp_directory_path() / ("potstill_compare_" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~CompareTest() override { fs::remove_all(folder_); }

  // A results file and its samples: row i is answered right where right(i); two choices, "yes" is right.
  template <class Right>
  fs::path write(const std::string& name, int rows, Right right, const std::string& prompt = "p") const {
    std::string samples;
    for (int i = 0; i < rows; ++i) {
      const bool good = right(i);
      samples += fmt::format(
          R"({{"arguments":{{"gen_args_0":{{"arg_0":"Question {}?","arg_1":" yes"}},"gen_args_1":{{"arg_0":"Question {}?","arg_1":" no"}}}},)"
          R"("filtered_resps":[["{}","False"],["{}","False"]],"metrics":["acc"],"doc_hash":"{}","prompt_hash":"{}","acc":{}}})",
          i, i, good ? -1.0 : -3.0, -2.0, i % 997, prompt, good ? 1.0 : 0.0);
      samples += "\n";
    }
    write_file_atomically(folder_ / ("samples_own_" + name + ".jsonl"), samples);
    write_file_atomically(folder_ / (name + ".json"),
                          fmt::format(R"({{"results":{{"own":{{}}}},"samples":{{"own":"samples_own_{}.jsonl"}},)"
                                      R"("measured":{{"size_bytes":1000,"ms_per_token":2.5}}}})",
                                      name));
    return folder_ / (name + ".json");
  }
  ModelComparison compare(const fs::path& first, const fs::path& second) const {
    return compare_models(read_scored_models(first).at(0), read_scored_models(second).at(0), {});
  }
  fs::path folder_;
};

TEST_F(CompareTest, AFewFlipsAreNoDifference) {
  const auto first = write("a", 500, [](int i) { return i % 2 == 0; });
  const auto second = write("b", 500, [](int i) { return i % 2 == 0 && i != 4 && i != 8; });
  const auto result = compare(first, second);
  const auto& task = result.tasks.at(0);
  EXPECT_EQ(task.num_rows, 500);
  EXPECT_EQ(task.only_first, 2);
  EXPECT_EQ(task.mcnemar_p, 0.5);
  EXPECT_NEAR(task.difference, -0.004, 1e-12);
  EXPECT_NE(verdict(task, "a", "b").find("no difference shown at n = 500"), std::string::npos);
  ASSERT_EQ(task.flips.size(), 2u);
  EXPECT_FALSE(task.flips[0].gained);
  EXPECT_EQ(task.flips[0].first_choice, "yes");
  EXPECT_EQ(task.flips[0].second_choice, "no");
  // 2 of 1000 log-likelihoods moved by 2 nats.
  EXPECT_NEAR(task.mean_abs_delta_ll, 0.004, 1e-12);
}

TEST_F(CompareTest, ALossIsNamedWithItsInterval) {
  const auto first = write("a", 500, [](int i) { return i % 2 == 0; });
  const auto second = write("b", 500, [](int i) { return i % 4 == 0; });
  const auto result = compare(first, second);
  EXPECT_NEAR(result.difference, -0.25, 1e-12);
  EXPECT_LT(result.interval.high, -0.2);
  EXPECT_NE(verdict(result).find("b is worse than a on the one task by 25.00 points at n = 500"), std::string::npos)
      << verdict(result);
  EXPECT_NEAR(comparison_to_json(result)["tasks"]["own"]["accuracy_lost_relative"].get<double>(), 0.5, 1e-12);
}

TEST_F(CompareTest, RowsArePairedByTheirHashAndPromptsAreLookedAt) {
  const auto first = write("a", 300, [](int) { return true; });
  const auto second = write(
      "b", 200, [](int) { return true; }, "another prompt");
  const auto task = compare(first, second).tasks.at(0);
  EXPECT_EQ(task.num_rows, 200);
  EXPECT_EQ(task.num_unpaired, 100);
  EXPECT_EQ(task.num_other_prompts, 200);
  EXPECT_EQ(task.mcnemar_p, 1.0);
  // Equal rows keep their places: 1100 rows under 997 hashes.
  const auto many = write("c", 1100, [](int) { return true; });
  EXPECT_EQ(compare(many, many).tasks.at(0).num_rows, 1100);
}

TEST_F(CompareTest, ReadsTheHarnessOwnNames) {
  write("a", 10, [](int) { return true; });
  fs::rename(folder_ / "samples_own_a.jsonl", folder_ / "samples_own_2026-01-02T03-04-05.6.jsonl");
  write_file_atomically(folder_ / "results_2026-01-02T03-04-05.6.json", R"({"results":{"own":{"acc,none":1.0}}})");
  EXPECT_EQ(read_scored_models(folder_ / "results_2026-01-02T03-04-05.6.json").at(0).tasks.at("own").size(), 10u);
}

TEST_F(CompareTest, BrokenSamplesAreNamedByTheirLine) {
  const auto first = write("a", 3, [](int) { return true; });
  write_file_atomically(folder_ / "samples_own_a.jsonl", "{\"doc_hash\": \"x\"}\n");
  try {
    read_scored_models(first);
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("samples_own_a.jsonl:1"), std::string::npos) << error.what();
  }
  for (
      const char* line :
      {R"({"arguments":[],"filtered_resps":[],"metrics":[],"doc_hash":"x"})",
       R"({"arguments":{"gen_args_0":{"arg_0":1,"arg_1":2}},"filtered_resps":[],"metrics":[],"doc_hash":"x"})",
       R"({"arguments":{"gen_args_0":{"arg_0":"a","arg_1":"b"}},"filtered_resps":[["x"]],"metrics":[],"doc_hash":"x"})",
       R"({"arguments":{"gen_args_0":{"arg_0":"a","arg_1":"b"}},"filtered_resps":[["1"]],"metrics":["acc"],"doc_hash":"x"})",
       R"([1])"}) {
    write_file_atomically(folder_ / "samples_own_a.jsonl", std::string(line) + "\n");
    EXPECT_THROW(read_scored_models(first), Error) << line;
  }
  fs::remove(folder_ / "samples_own_a.jsonl");
  EXPECT_THROW(read_scored_models(first), Error);
}

}  // namespace
}  // namespace potstill
