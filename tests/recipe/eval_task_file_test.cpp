#include "potstill/recipe/eval_task_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

TEST(EvalTaskFile, IsReadAndItsRowsStandBesideIt) {
  const auto path =
      std::filesystem::temp_directory_path() / ("potstill_eval_task_" + std::to_string(::getpid()) + ".yaml");
  write_file_atomically(path,
                        "name: tickets\nrows: rows.jsonl\nprompt: \"{text}\\nQueue:\"\nchoices: [a, b]\n"
                        "answer: label\nanswer_is: letter\nmetrics: [acc, acc_norm]\n");
  const auto config = read_eval_task(path);
  EXPECT_EQ(config.name, "tickets");
  EXPECT_EQ(config.rows, path.parent_path() / "rows.jsonl");
  EXPECT_EQ(config.prompt, "{text}\nQueue:");
  EXPECT_EQ(config.metrics, (std::vector<std::string>{"acc", "acc_norm"}));
  write_file_atomically(path, "name: tickets\nrow: rows.jsonl\n");
  try {
    read_eval_task(path);
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'rows'"), std::string::npos) << error.what();
  }
  write_file_atomically(path, "answer_is: colour\n");
  EXPECT_THROW(read_eval_task(path), Error);
  write_file_atomically(path, "a: [1\n");
  EXPECT_THROW(read_eval_task(path), Error);
  std::filesystem::remove(path);
  EXPECT_TRUE(is_eval_task_file("x.yaml"));
  EXPECT_FALSE(is_eval_task_file("arc_easy"));
}

}  // namespace
}  // namespace potstill
