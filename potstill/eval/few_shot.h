// Few-shot examples and chat turns before a question, as lm-evaluation-harness 0.4.13 puts them there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "potstill/eval/python_random.h"
#include "potstill/eval/task.h"
#include "potstill/text/chat_template.h"

namespace potstill {

struct PromptStyle {
  const ChatTemplate* chat_template = nullptr;  // null: plain text
  bool fewshot_as_multiturn = true;             // with a template: each example is a turn; else one user turn holds all
};

// Draws a task's examples. The harness seeds one generator a task and draws once for every question that is asked, in
// the order of the rows: so must a caller.
class FewShotSampler {
 public:
  static constexpr uint32_t kSeed = 1234;  // --seed's fewshot part in the harness

  // pool: the few-shot split's questions, of this task alone. Throws Error(kInput) when it holds too few.
  FewShotSampler(const EvalTask& task, std::vector<Question> pool, int64_t num_fewshot);

  std::vector<const Question*> draw(const Question& asked);

 private:
  std::vector<Question> pool_;
  size_t count_;
  FewShotOrder order_;
  bool drops_asked_row_;
  std::string task_;
  PythonRandom random_{kSeed};
};

// Puts the examples (and the template, if any) before the question: its description, contexts and delimiter change.
void add_prompt(Question& question, const std::vector<const Question*>& examples, const PromptStyle& style);

}  // namespace potstill
