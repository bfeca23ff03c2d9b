#include "potstill/recipe/task_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "potstill/base/error.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class TaskFile : public testing::Test {
 protected:
  TaskFile()
      : folder_(fs::path(testing::TempDir()) / (std::string("potstill_task_") + std::to_string(::getpid()) +
                                                testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(folder_ / "tasks");
  }
  ~TaskFile() override { fs::remove_all(folder_); }

  Task read(const std::string& text) {
    std::ofstream(folder_ / "t.yaml") << text;
    return read_task(folder_ / "t.yaml");
  }
  std::string complaint(const std::string& text) {
    try {
      read(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  fs::path folder_;
};

constexpr const char* kTask =
    "name: birds\ndescription: birds\nseeds:\n  - {topic: owls, question: \"When do owls hunt?\", answer: At night.}\n";

TEST_F(TaskFile, ReadsListsOfMapsAndOfPlainNames) {
  const Task task = read(std::string(kTask) + "subtopics:\n  - nests\n  - {name: eggs}\nfilter: {max_rouge: 0.5}\n" +
                         "rubric:\n  - {name: faithful, measure: likelihood, worst: -2, best: 0}\n");
  EXPECT_EQ(task.name, "birds");
  ASSERT_EQ(task.seeds.size(), 1u);
  EXPECT_EQ(task.seeds[0].answer, "At night.");
  ASSERT_EQ(task.subtopics.size(), 2u);
  EXPECT_EQ(task.subtopics[0].name, "nests");
  EXPECT_EQ(task.subtopics[1].name, "eggs");
  EXPECT_EQ(task.filter.max_rouge, 0.5);
  ASSERT_EQ(task.rubric.size(), 1u);
  EXPECT_EQ(task.rubric[0].measure, "likelihood");
}

TEST_F(TaskFile, SaysWhereATaskCannotWork) {
  const std::string task = kTask;
  EXPECT_THAT(complaint("description: d\nseeds: [{topic: a, question: b, answer: c}]\n"), HasSubstr("no 'name'"));
  EXPECT_THAT(complaint("name: n\nseeds: [{topic: a, question: b, answer: c}]\n"), HasSubstr("no 'description'"));
  EXPECT_THAT(complaint("name: n\ndescription: d\n"), HasSubstr("no 'seeds'"));
  EXPECT_THAT(complaint("name: n\ndescription: d\nseeds:\n  - {topic: a, question: b}\n"),
              AllOf(HasSubstr("t.yaml:4"), HasSubstr("seed 1")));
  EXPECT_THAT(complaint(task + "subtopic: [a]\n"), AllOf(HasSubstr("t.yaml:5"), HasSubstr("subtopics")));
  EXPECT_THAT(complaint(task + "subtopics: nests\n"), HasSubstr("must be a list"));
  EXPECT_THAT(complaint(task + "subtopics:\n  - {facts: [x]}\n"), HasSubstr("subtopic 1 has no name"));
  EXPECT_THAT(complaint(task + "subtopics:\n  - {name: eggs, facts: [Eggs are oval.]}\n"),
              HasSubstr("no seed has one"));
  EXPECT_THAT(complaint(task + "rubric:\n  - {name: score, measure: likelihood}\n"), HasSubstr("other than 'score'"));
  EXPECT_THAT(complaint(task + "rubric:\n  - {name: a, measure: rating, anchors: [b]}\n"), HasSubstr("no 'question'"));
  EXPECT_THAT(complaint(task + "rubric:\n  - {name: a, measure: rating, question: q, anchors: [b]}\n"),
              HasSubstr("1 anchors but needs 5"));
  EXPECT_THAT(complaint(task + "rubric:\n  - {name: a, measure: likelihood, worst: 1, best: 0}\n"),
              HasSubstr("must be less than best"));
  EXPECT_THAT(complaint(task + "rubric:\n  - {name: a, measure: likelihood}\n  - {name: a, measure: likelihood}\n"),
              HasSubstr("two criteria are named 'a'"));
  EXPECT_THAT(complaint(task + "filter: {min_answer_words: 9, max_answer_words: 3}\n"), HasSubstr("above the most"));
  EXPECT_THAT(complaint("- a list\n"), HasSubstr("key: value"));
  EXPECT_THAT(complaint("name: [\n"), HasSubstr("not valid YAML"));
}

TEST_F(TaskFile, IsFoundAsGivenAndBesideTheRecipe) {
  std::ofstream(folder_ / "tasks" / "birds.yaml") << kTask;
  EXPECT_EQ(find_task("birds", folder_), folder_ / "tasks" / "birds.yaml");
  EXPECT_EQ(find_task("tasks/birds.yaml", folder_), folder_ / "tasks/birds.yaml");
  EXPECT_EQ(find_task(folder_ / "tasks" / "birds.yaml"), folder_ / "tasks" / "birds.yaml");
  try {
    find_task("fish", folder_);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("fish"), HasSubstr((folder_ / "tasks" / "fish.yaml").string())));
  }
}

TEST_F(TaskFile, TheTasksOfTheProjectLoad) {
  for (const auto& entry : fs::directory_iterator(POTSTILL_SOURCE_DIR "/recipes/tasks")) {
    EXPECT_NO_THROW(read_task(entry.path())) << entry.path();
  }
}

}  // namespace
}  // namespace potstill
