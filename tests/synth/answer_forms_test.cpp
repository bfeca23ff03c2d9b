// Whole runs of every answer form over a scripted teacher.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/lm/scripted_model.h"
#include "potstill/synth/blind.h"
#include "potstill/synth/prompts.h"
#include "potstill/synth/self_instruct.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

constexpr const char* kThings[24] = {"apple",  "bench",  "candle", "desert", "engine", "feather", "garden", "hammer",
                                     "island", "jacket", "kettle", "ladder", "mirror", "needle",  "orchid", "pencil",
                                     "quartz", "rocket", "saddle", "teapot", "urchin", "velvet",  "window", "zipper"};

std::string last_after(const std::string& text, const std::string& mark) {
  const size_t at = text.rfind(mark);
  if (at == std::string::npos) return {};
  return text.substr(at + mark.size(), text.find_first_of("\n.", at + mark.size()) - at - mark.size());
}

class AnswerForms : public testing::Test {
 protected:
  AnswerForms()
      : folder_(fs::temp_directory_path() /
                fmt::format("potstill_forms_{}_{}", ::getpid(),
                            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    set_verbosity(Verbosity::kQuiet);
    task_.name = task_.description = "things";
    task_.answer_form = "multiple_choice";
    task_.question_instruction = "Ask about the topic.";
    task_.answer_instruction = "Answer it.";
    task_.wrong_instruction = "Write three wrong answers.";
    task_.instruction = "Question: {question}\n{options}\nAnswer:";
    task_.output = "{letter}";
    task_.seeds = {{.topic = "grass",
                    .question = "Which hue does grass have in spring?",
                    .answer = "green",
                    .wrong = {"red", "blue", "black"}}};
    for (const char* thing : kThings) task_.subtopics.push_back({.name = thing});
    task_.filter.answer_shape = "phrase";
    task_.filter.min_answer_words = 1;
    task_.filter.max_longest_share = 1.0;
    task_.filter.max_letter_excess = 100.0;
    task_.filter.max_rouge = 0.9;  // the scripted sentences differ in one word
    config_.pairs = 12;
    config_.blind = "none";
  }
  ~AnswerForms() override { fs::remove_all(folder_); }

  // Every thing has a shade of its own name; one of the wrong answers names another thing's.
  static ScriptedModel teacher() {
    ScriptedModel model;
    model.on_generate = [](const GenerateRequest& request) {
      GenerateResult result;
      result.tokens.resize(4);
      const std::string& prompt = request.prompt;
      const std::string topic = last_after(prompt, "Topic: "),
                        question = last_after(prompt, "Question: Which shade has the ");
      if (prompt.ends_with("JSON:")) {
        result.text = fmt::format(
            R"( {{"question": "Which shade has the {0} at noon?", "answer": "{0} grey", "wrong": ["{0} red", "{0} blue", "{0} pink"]}})",
            topic);
        if (topic[0] == 'a') result.text = " I would rather not.";
        if (topic[0] == 'b') result.text.resize(result.text.find("wrong") + 12);  // cut off in the list
      } else if (prompt.ends_with("Question:")) {
        result.text = fmt::format(" Which shade has the {} at noon?", topic);
      } else if (prompt.ends_with("Wrong answers:")) {
        const std::string thing = question.substr(0, question.find(' '));
        result.text = fmt::format(" {0} red; {0} blue; {0} pink; {0} red", thing);
        if (thing[0] == 'c') result.text = fmt::format(" {0} red; {0} red", thing);
      } else {
        const std::string thing = question.substr(0, question.find(' '));
        result.text = fmt::format(" {} grey.", thing);
      }
      return result;
    };
    return model;
  }

  SynthOutcome run(ScriptedModel& model, ScriptedModel* critic = nullptr, const ContaminationIndex* rows = nullptr) {
    static int number = 0;
    AnswerStore store(model, folder_ / fmt::format("{}.jsonl", ++number), 5);
    std::optional<AnswerStore> critic_store;
    if (critic != nullptr) critic_store.emplace(*critic, folder_ / fmt::format("{}.critic.jsonl", number), 5);
    auto outcome = self_instruct(task_, config_, 3,
                                 {.teacher = store, .critic = critic ? &*critic_store : nullptr, .benchmarks = rows});
    bytes_.clear();
    for (const auto* list : {&outcome.accepted, &outcome.rejected}) {
      for (const auto& candidate : *list) bytes_ += to_record(candidate, task_, {.teacher = "t"}).dump() + "\n";
    }
    return outcome;
  }

  fs::path folder_;
  Task task_;
  SynthConfig config_;
  std::string bytes_;
};

TEST_F(AnswerForms, StepsMakeShuffledOptionsAndTheirLetter) {
  auto model = teacher();
  config_.pairs = 20;
  const auto outcome = run(model);
  ASSERT_EQ(outcome.accepted.size(), 20u) << outcome.yield_table();
  std::set<int64_t> keys;
  for (const auto& candidate : outcome.accepted) {
    const Pair& pair = candidate.pair;
    ASSERT_EQ(pair.options.size(), 4u);
    EXPECT_EQ(pair.options[static_cast<size_t>(pair.key)], pair.answer);
    EXPECT_EQ(pair.answer, pair.unit.subtopic + " grey") << "the full stop is no part of an option";
    keys.insert(pair.key);
    const auto record = to_record(candidate, task_, {.teacher = "t"});
    EXPECT_EQ(record["output"], std::string(1, static_cast<char>('A' + pair.key)));
    EXPECT_EQ(record["answer_key"], record["output"]);
    EXPECT_NE(record["instruction"].get<std::string>().find("\nD. "), std::string::npos);
    const auto messages = to_messages(candidate, task_);
    EXPECT_EQ(messages["messages"][0]["content"], record["instruction"]);
    EXPECT_EQ(messages["messages"][1]["role"], "assistant");
    EXPECT_EQ(messages["messages"][1]["content"], record["output"]);
  }
  EXPECT_EQ(keys.size(), 4u);
  EXPECT_EQ(outcome.yield()["rules"]["options"], 1) << "two of the candle's are one";
}

TEST_F(AnswerForms, LettersStayInBalanceAndTheRestIsUnbalanced) {
  auto model = teacher();
  config_.pairs = 16;
  config_.surplus = 0.2;
  task_.filter.max_letter_excess = 0.0;
  const auto outcome = run(model);
  const auto balance = outcome.balance();
  for (const auto& [letter, count] : balance["letters"].items()) EXPECT_LE(count.get<int>(), 4) << letter;
  EXPECT_GT(outcome.yield()["rules"]["letter"], 0) << outcome.yield_table();
  EXPECT_EQ(outcome.yield()["refused"]["unbalanced"], outcome.yield()["rules"]["letter"]);
}

TEST_F(AnswerForms, JsonItemsAreReadRepairedAndCompleted) {
  auto model = teacher();
  config_.writing = "json";
  config_.pairs = 20;
  const auto outcome = run(model);
  std::set<std::string> accepted;
  int repaired = 0;
  for (const auto& candidate : outcome.accepted) {
    accepted.insert(candidate.pair.unit.subtopic);
    repaired += candidate.repaired;
    EXPECT_EQ(candidate.sources[0].what, "item");
    if (candidate.repaired) {
      EXPECT_EQ(candidate.sources.back().what, "wrong") << "what was cut off was asked for by itself";
    }
  }
  EXPECT_TRUE(accepted.contains("bench")) << outcome.yield_table();
  EXPECT_FALSE(accepted.contains("apple")) << "it holds nothing of an item";
  EXPECT_EQ(repaired, 1);
}

TEST_F(AnswerForms, ItemSchemaAsksForWhatTheTaskWrites) {
  const auto schema = item_schema(task_);
  EXPECT_EQ(schema["required"], (nlohmann::ordered_json{"question", "answer", "wrong"}));
  EXPECT_EQ(schema["properties"]["wrong"]["minItems"], 3);
  EXPECT_EQ(nlohmann::ordered_json::parse(item_request(task_, config_, {.subtopic = "x"}, 0, 1).json_schema), schema);
}

TEST_F(AnswerForms, SameBytesWhateverTheOrderOfAnswers) {
  for (const std::string writing : {"steps", "json"}) {
    config_.writing = writing;
    config_.blind = "votes";
    auto model = teacher();
    run(model);
    const std::string expected = bytes_;
    auto shuffled = teacher();
    Rng rng(5, "order");
    shuffled.order = [&rng](size_t size) {
      std::vector<size_t> indices(size);
      std::iota(indices.begin(), indices.end(), size_t{0});
      rng.shuffle(indices);
      return indices;
    };
    run(shuffled);
    EXPECT_EQ(bytes_, expected) << writing;
  }
}

TEST_F(AnswerForms, BlindAnswersByLikelihoodMustAgree) {
  auto model = teacher();
  config_.blind = "likelihood";
  task_.instruction = "Question: {question}\nAnswer:";
  task_.output = "{answer}";
  model.on_score = [](const ScoreRequest& request) {
    // Of the engine the critic thinks otherwise; a longer option is not better for its length.
    const bool favoured =
        request.continuation == " engine pink" ||
        (request.continuation.ends_with("grey") && request.context.find("engine") == std::string::npos);
    return ScoreResult{
        .log_likelihood = (favoured ? -0.1 : -1.0) * static_cast<double>(request.continuation.size() - 1),
        .is_greedy = false,
        .num_tokens = 2};
  };
  config_.pairs = 20;
  const auto outcome = run(model);
  ASSERT_FALSE(outcome.accepted.empty());
  EXPECT_EQ(outcome.yield()["refused"]["wrong_by_majority"], 1) << outcome.yield_table();
  for (const auto& candidate : outcome.accepted) {
    double characters = 0;
    for (const auto& option : candidate.pair.options) characters += static_cast<double>(option.size());
    EXPECT_NEAR(*candidate.agreement, 1 / (1 + 3 * std::exp(-0.9 * characters / 4)), 1e-9);
  }
}

TEST_F(AnswerForms, VotesOfAnotherModelDecide) {
  auto model = teacher();
  ScriptedModel critic;
  critic.model_name = "critic";
  critic.on_generate = [](const GenerateRequest& request) {
    GenerateResult result;
    const std::string& text = request.messages.at(0).content;
    const size_t grey = text.find(" grey");
    const std::string letter(1, text[text.rfind('\n', grey) + 1]);
    result.text = "The answer is " + letter + ".";
    if (text.find("desert") != std::string::npos) result.text = "unanswerable";
    if (text.find("engine") != std::string::npos) result.text = letter == "A" ? "B" : "A";
    return result;
  };
  config_.blind = "votes";
  config_.pairs = 20;
  const auto outcome = run(model, &critic);
  EXPECT_EQ(outcome.yield()["refused"].value("wrong_by_majority", 0), 1) << outcome.yield_table();
  EXPECT_EQ(outcome.yield()["refused"].value("unanswerable", 0), 1);
  EXPECT_GT(critic.num_answers, 0);
  for (const auto& [text, times] : model.times_asked) EXPECT_EQ(text.find("letter of the right"), std::string::npos);
}

TEST_F(AnswerForms, GivenLabelsAreBalancedAndReadAgain) {
  task_ = Task{};
  task_.name = task_.description = "messages";
  task_.answer_form = "multiple_choice";
  task_.choices = {"billing", "repair"};
  task_.fixed_question = "Which department?";
  task_.instruction = "{question}";
  task_.context_instruction = "Write a message.";
  task_.seeds = {{.topic = "shoes", .context = "I was charged twice for these boots.", .answer = "billing"}};
  for (const char* thing : kThings) task_.subtopics.push_back({.name = thing});
  task_.filter.max_rouge = 0.95;
  ScriptedModel model;
  model.on_generate = [](const GenerateRequest& request) {
    GenerateResult result;
    const std::string topic = last_after(request.prompt, "Topic: "), label = last_after(request.prompt, "Answer: ");
    result.text = fmt::format(" My {} arrived and I write to you about {} of it now.", topic, label);
    return result;
  };
  const auto outcome = run(model);
  ASSERT_EQ(outcome.accepted.size(), 12u) << outcome.yield_table();
  std::map<std::string, int> labels;
  for (const auto& candidate : outcome.accepted) {
    ++labels[candidate.pair.answer];
    EXPECT_NE(candidate.pair.context.find(candidate.pair.answer), std::string::npos);
    const auto record = to_record(candidate, task_, {.teacher = "t"});
    EXPECT_EQ(record["input"], candidate.pair.context);
    EXPECT_EQ(record["output"], candidate.pair.answer);
  }
  EXPECT_LE(labels["billing"], 7);
  EXPECT_LE(labels["repair"], 7);
}

TEST_F(AnswerForms, BorrowedOptionsAreOtherPairsAnswers) {
  task_.distractors = "borrowed";
  auto model = teacher();
  const auto outcome = run(model);
  ASSERT_EQ(outcome.accepted.size(), 12u) << outcome.yield_table();
  for (const auto& candidate : outcome.accepted) {
    for (const auto& option : candidate.pair.wrong) {
      EXPECT_TRUE(option.ends_with(" grey") || option == "green") << option;
      EXPECT_NE(option, candidate.pair.answer);
    }
  }
  for (const auto& [text, times] : model.times_asked) EXPECT_EQ(text.find("Write three wrong"), std::string::npos);
}

TEST_F(AnswerForms, ContaminatedPairsAndSeedsAreLeftOut) {
  ContaminationIndex rows;
  rows.add({.where = "x/test.jsonl:4",
            .question = "Which shade has the engine at noon?",
            .options = {"engine red", "engine grey", "engine blue", "engine pink"},
            .answer = "engine grey"});
  auto model = teacher();
  config_.pairs = 20;
  const auto outcome = run(model, nullptr, &rows);
  EXPECT_EQ(outcome.yield()["refused"]["contaminated"], 1) << outcome.yield_table();
  for (const auto& candidate : outcome.rejected) {
    if (candidate.refusal->rule != "contaminated") continue;
    EXPECT_EQ(candidate.pair.unit.subtopic, "engine");
    EXPECT_NE(candidate.refusal->detail.find("x/test.jsonl:4"), std::string::npos);
  }
  rows.add({.where = "y:1", .question = "Which hue does grass have in spring?", .options = {}, .answer = "green"});
  EXPECT_THROW(run(model, nullptr, &rows), std::exception) << "its only seed is a scored row";
}

TEST_F(AnswerForms, QuotasHoldForASubtopic) {
  task_.subtopics.resize(2);
  task_.subtopics[0].quota = 1;
  auto model = teacher();
  const auto plain = model.on_generate;
  model.on_generate = [plain](const GenerateRequest& request) {
    auto result = plain(request);
    if (request.prompt.ends_with("Question:")) {
      const auto n = request.sampling.seed % 1000;
      result.text = fmt::format(" Which shade has the {} in year {} after {} of king {}?",
                                last_after(request.prompt, "Topic: "), n, n * 7, n * 13);
    }
    return result;
  };
  task_.filter.max_rouge = 0.99;
  config_.pairs = 3;
  const auto outcome = run(model);
  EXPECT_EQ(
      std::ranges::count_if(outcome.accepted, [](const Candidate& c) { return c.pair.unit.subtopic == kThings[0]; }),
      1);
}

}  // namespace
}  // namespace potstill
