#include "potstill/stages/study_calibration.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <set>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class StudyCalibration : public testing::Test {
 protected:
  StudyCalibration() : folder_(fs::path(testing::TempDir()) / ("potstill_study_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
    std::string lines, text;
    for (int i = 0; i < 40; ++i) {
      lines += to_json_line({{"instruction", "What is " + std::to_string(i) + "?"}, {"output", "A number."}}) + "\n";
      text += "Sentence " + std::to_string(i) + " of a text that has nothing to do with any of the questions.\n";
    }
    write_file_atomically(pairs(), lines);
    write_file_atomically(text_file(), text);
  }
  ~StudyCalibration() override { fs::remove_all(folder_); }

  fs::path pairs() const { return folder_ / "pairs.jsonl"; }
  fs::path text_file() const { return folder_ / "text.txt"; }
  std::vector<nlohmann::json> drawn(const std::string& source, int64_t sequences, uint64_t draw) const {
    const fs::path file = folder_ / "drawn.jsonl";
    write_file_atomically(file, study_calibration({source, sequences, pairs(), text_file()}, {}, 1, draw));
    std::vector<nlohmann::json> records;
    for (const auto& record : read_jsonl(file)) records.push_back(record.value);
    return records;
  }

  fs::path folder_;
};

TEST_F(StudyCalibration, PairsHeldOutAreNeverDrawn) {
  DistillDataConfig data;
  data.held_out = 0.25;
  EXPECT_EQ(training_pairs(pairs(), data, 1).size(), 30u);
  EXPECT_NE(training_pairs(pairs(), data, 1), training_pairs(pairs(), data, 2));
  auto records = training_pairs(pairs(), {}, 1);
  records[3]["split"] = "heldout";
  std::string lines;
  for (const auto& record : records) lines += to_json_line(record) + "\n";
  write_file_atomically(pairs(), lines);
  EXPECT_EQ(training_pairs(pairs(), data, 1).size(), records.size() - 1);  // the file's own word counts
}

TEST_F(StudyCalibration, ASetIsDrawnByItsSeedAndDiffersInItsSubjectAlone) {
  const auto own = drawn("D_gen", 16, 5), random = drawn("random", 16, 5), mixed = drawn("mixed", 16, 5);
  ASSERT_EQ(own.size(), 16u);
  EXPECT_EQ(own, drawn("D_gen", 16, 5));
  EXPECT_NE(own, drawn("D_gen", 16, 6));
  std::set<std::string> questions;
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT_TRUE(questions.insert(own[i].at("instruction")).second);  // without replacement
    EXPECT_TRUE(random[i].contains("text"));
    EXPECT_EQ(mixed[i], i < 8 ? own[i] : random[i]);
    EXPECT_NEAR(static_cast<double>(random[i].at("text").get<std::string>().size()), 64, 16);
  }
  EXPECT_EQ(drawn("D_gen", 1000, 5).size(), 36u);  // all there are
}

TEST_F(StudyCalibration, ATextTooShortIsAnError) {
  write_file_atomically(text_file(), "Too short.");
  EXPECT_THROW(drawn("random", 4, 5), Error);
}

}  // namespace
}  // namespace potstill
