// How D_gen is made; what it is about stands in the task file (task_config.h).
#pragma once

#include <cstdint>
#include <string>

#include "potstill/base/fields.h"

namespace potstill {

struct SynthConfig {
  int64_t pairs = 64;
  int64_t batch = 32;
  int64_t max_rounds = 4;
  double surplus = 0.25;
  std::string prompting = "completion", writing = "steps";
  std::string critique = "expected", blind = "auto";
  int64_t votes = 3;
  double temperature = 0.7;
  double min_p = 0.1;
  int64_t max_context_tokens = 400, max_question_tokens = 40, max_answer_tokens = 96;
  double heldout_share = 0.2;
  std::string subject, seeds, documents, decontaminate = "auto";
  int64_t passage_words = 120;
  std::string engine = "auto", critic, critic_model;
  // of a teacher behind an endpoint:
  std::string teacher_model;
  int64_t concurrency = 8;
  int64_t budget_tokens = 0;
  double budget_cost = 0;
  double prompt_price = 0, answer_price = 0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("pairs", self.pairs, "question/answer pairs to accept", in_range(1, 1e6));
    visit("batch", self.batch, "requests that the teacher gets at a time", in_range(1, 4096));
    visit("max_rounds", self.max_rounds, "rounds over the subtopics before giving up", in_range(1, 1000));
    visit("surplus", self.surplus, "share of further candidates from which the best by score are kept",
          in_range(0.0, 10.0));
    visit("prompting", self.prompting, "how the teacher is asked: as a text to go on with, or in chat turns",
          one_of({"completion", "chat"}));
    visit("writing", self.writing,
          "steps: one request for each part of a pair, which weak teachers need; json: all parts as one JSON object",
          one_of({"steps", "json"}));
    visit("critique", self.critique,
          "how ratings are read: the expected value of the score token, or from a critique written as JSON; none: they "
          "are left out, as a teacher too weak to rate is no judge",
          one_of({"expected", "json", "none"}));
    visit("blind", self.blind,
          "a second answer, given without seeing the first, must agree: by the likelihood of each option, by the "
          "letter's probability, or by votes in words; auto: of pairs with options, likelihood in completion prompting "
          "and votes in chat",
          one_of({"auto", "none", "likelihood", "letter", "votes"}));
    visit("votes", self.votes, "blind answers to a question, for blind: votes", in_range(1, 99));
    visit("temperature", self.temperature, "sampling temperature of the questions; answers are greedy",
          in_range(0.0, 2.0));
    visit("min_p", self.min_p, "tokens below this share of the likeliest one's probability are not drawn",
          in_range(0.0, 1.0));
    visit("max_context_tokens", self.max_context_tokens, "longer contexts are cut and dropped", in_range(4, 32768));
    visit("max_question_tokens", self.max_question_tokens, "longer questions are cut and dropped", in_range(4, 4096));
    visit("max_answer_tokens", self.max_answer_tokens, "longer answers are cut and dropped", in_range(4, 32768));
    visit("heldout_share", self.heldout_share, "share of the pairs kept from training, to evaluate on",
          in_range(0.0, 0.9));
    visit("subject", self.subject, "of a task of many subjects (mmlu), the one to write about", any());
    visit("seeds", self.seeds, "JSON lines whose rows are the seeds, read by the task's seed_rows", any());
    visit("documents", self.documents, "folder of .txt and .md files: every pair rests on a passage of theirs", any());
    visit("passage_words", self.passage_words, "words of a passage, about", in_range(20, 2000));
    visit("decontaminate", self.decontaminate,
          "folder of benchmark rows (<task>/<split>.jsonl) that no pair may match; auto: .deps/benchmarks where it is "
          "there; none",
          any());
    visit("engine", self.engine,
          "what runs a local teacher: torch, the edge runtime (GGUF and W4A16), or auto: edge for a GGUF on the CPU",
          one_of({"auto", "torch", "edge"}));
    visit("critic", self.critic, "another model that rates and answers blind: folder, GGUF or endpoint", any());
    visit("critic_model", self.critic_model, "the critic's name, where it is an endpoint", any());
    visit("teacher_model", self.teacher_model, "the model's name, where the teacher is an endpoint (http://…/v1)",
          any());
    visit("concurrency", self.concurrency, "requests that an endpoint gets at a time; fewer while it is busy",
          in_range(1, 1024));
    visit("budget_tokens", self.budget_tokens,
          "stop cleanly when an endpoint has read and written so many (0 = any number)", in_range(0, 1e15));
    visit("budget_cost", self.budget_cost, "stop cleanly when they cost so much (0 = any)", in_range(0.0, 1e9));
    visit("prompt_price", self.prompt_price, "price of a million tokens read", in_range(0.0, 1e6));
    visit("answer_price", self.answer_price, "price of a million tokens written", in_range(0.0, 1e6));
  }
};

}  // namespace potstill
