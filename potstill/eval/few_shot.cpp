#include "potstill/eval/few_shot.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "potstill/base/error.h"

namespace potstill {
namespace {

constexpr const char* kBetweenExamples = "\n\n";

const std::string& shown_context(const Question& question) {
  return question.contexts[static_cast<size_t>(question.gold)];
}
const std::string& shown_answer(const Question& question) {
  return question.continuations[static_cast<size_t>(question.gold)];
}

// Rows are compared as Python compares dicts: the order of the keys does not count.
bool same_row(const Question& a, const Question& b) { return nlohmann::json(a.doc) == nlohmann::json(b.doc); }

std::string plain_examples(const std::vector<const Question*>& examples) {
  std::string text;
  for (const Question* example : examples) {
    text += example->example();
    if (!shown_answer(*example).empty()) text += kBetweenExamples;  // an empty answer is no turn to the harness
  }
  return text;
}

std::vector<ChatMessage> turns(const Question& question, const std::string& context,
                               const std::vector<const Question*>& examples, const PromptStyle& style) {
  std::vector<ChatMessage> messages;
  if (!question.description.empty()) messages.push_back({"system", question.description});
  if (!style.fewshot_as_multiturn) {
    messages.push_back({"user", plain_examples(examples) + context});
    return messages;
  }
  for (const Question* example : examples) {
    messages.push_back({"user", shown_context(*example)});
    if (!shown_answer(*example).empty()) messages.push_back({"assistant", shown_answer(*example)});
  }
  messages.push_back({"user", context});
  return messages;
}

}  // namespace

FewShotSampler::FewShotSampler(const EvalTask& task, std::vector<Question> pool, int64_t num_fewshot)
    : pool_(std::move(pool)),
      count_(static_cast<size_t>(num_fewshot)),
      order_(task.fewshot_order),
      drops_asked_row_(task.drops_asked_row),
      task_(task.name) {
  const size_t drawn = count_ + (drops_asked_row_ && order_ == FewShotOrder::kRandom ? 1 : 0);
  if (pool_.size() < drawn) {
    throw Error(ErrorKind::kInput, task_,
                fmt::format("{} examples need {} rows in {}.jsonl but it has {}", count_, drawn, task.fewshot_split,
                            pool_.size()),
                "ask for fewer with --num-fewshot, or bring the whole split");
  }
}

std::vector<const Question*> FewShotSampler::draw(const Question& asked) {
  std::vector<const Question*> examples;
  if (order_ == FewShotOrder::kFirst) {
    for (size_t i = 0; i < count_; ++i) examples.push_back(&pool_[i]);
    return examples;
  }
  if (!drops_asked_row_) {
    for (const size_t i : random_.sample(pool_.size(), count_)) examples.push_back(&pool_[i]);
    return examples;
  }
  // One more than is needed, so that the asked row can be dropped (even where it cannot be among them: the harness
  // compares split names that both are None).
  for (const size_t i : random_.sample(pool_.size(), count_ + 1)) {
    if (examples.size() < count_ && !same_row(pool_[i], asked)) examples.push_back(&pool_[i]);
  }
  if (examples.size() == count_) return examples;
  examples.clear();  // the row was drawn twice: the pool holds copies of it
  std::vector<const Question*> others;
  for (const auto& row : pool_) {
    if (!same_row(row, asked)) others.push_back(&row);
  }
  if (others.size() < count_) {
    throw Error(ErrorKind::kInput, task_, "too few rows remain when copies of the asked one are left out",
                "ask for fewer with --num-fewshot");
  }
  for (const size_t i : random_.sample(others.size(), count_)) examples.push_back(others[i]);
  return examples;
}

void add_prompt(Question& question, const std::vector<const Question*>& examples, const PromptStyle& style) {
  if (style.chat_template == nullptr) {
    question.description += plain_examples(examples);
    return;
  }
  const auto render = [&](const std::string& context) {
    auto messages = turns(question, context, examples, style);
    try {
      return style.chat_template->render(messages, /*add_generation_prompt=*/true);
    } catch (const Error&) {  // a family without a system role: the harness asks again without it
      if (messages.front().role != "system") throw;
      messages.erase(messages.begin());
      return style.chat_template->render(messages, /*add_generation_prompt=*/true);
    }
  };
  // The template ends the user's turn, so an answer begins at once. One context for all choices is kept once.
  const bool shared = std::ranges::all_of(question.contexts, [&](const auto& c) { return c == question.contexts[0]; });
  std::vector<std::string> contexts(question.contexts.size());
  std::string prompt;
  if (shared) {
    prompt = render(question.contexts[0]);
  } else {
    for (size_t i = 0; i < contexts.size(); ++i) contexts[i] = render(question.contexts[i]);
  }
  question.description = std::move(prompt);
  question.contexts = std::move(contexts);
  question.delimiter.clear();
}

}  // namespace potstill
