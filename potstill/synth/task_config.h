// Task: what D_gen is about, as its YAML file says it (read by recipe/task_file.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "potstill/base/fields.h"

namespace potstill {

// An example written by hand, or a row of a data set; shown to the teacher, never part of D_gen.
struct TaskSeed {
  std::string topic, fact = {}, context = {}, question = {}, answer = {};
  std::vector<std::string> wrong = {};  // wrong options, where the answer form has options

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("topic", self.topic, "what the example is about", any());
    visit("fact", self.fact, "a true statement that the answer rests on (optional)", any());
    visit("context", self.context, "the text that the question is about, where the task has one", any());
    visit("question", self.question, "the question", any());
    visit("answer", self.answer, "the answer", any());
    visit("wrong", self.wrong, "the wrong options, where the answer form has options", any());
  }
};

// Rows of a JSONL file as seeds. A field is named by its key in the row ("choices.text" goes into objects), or made of
// several by a template ("{context} {question}").
struct SeedRows {
  std::string file, topic, fact, context, question, answer, labels;
  std::vector<std::string> options;
  std::string answer_is = "text";
  int64_t limit = 12;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("file", self.file, "JSON lines, relative to the task file; --seeds gives another", any());
    visit("topic", self.topic, "field with the topic; the task's name where there is none", any());
    visit("fact", self.fact, "field with the fact", any());
    visit("context", self.context, "field with the context", any());
    visit("question", self.question, "field with the question", any());
    visit("options", self.options, "field with the list of options, or one field for each option", any());
    visit("labels", self.labels, "field with the options' labels, for answer_is: label", any());
    visit("answer", self.answer, "field with the answer", any());
    visit("answer_is", self.answer_is,
          "what that field holds: the answer's text, its place from 0 or from 1, or its label",
          one_of({"text", "index", "number", "label"}));
    visit("limit", self.limit, "rows to take; which ones is drawn by the seed", in_range(1, 1000));
  }
};

// With facts, the teacher asks and answers about one fact at a time (a weak teacher reads better than it remembers);
// without, about the subtopic by its name.
struct Subtopic {
  std::string name;
  std::vector<std::string> facts = {};
  int64_t quota = 0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "the subtopic in a few words", any());
    visit("facts", self.facts, "true statements for the questions to rest on (optional)", any());
    visit("quota", self.quota, "pairs to keep of it at most (0 = filter.max_subtopic_share of all)", in_range(0, 1e6));
  }
};

// One line of the rubric: the teacher's critique of a pair as a score from 1 to 5. A capable teacher rates in words or
// by its score token ("rating"); a weak one cannot, but what it finds likely tells right from wrong all the same:
//   likelihood  log p(answer | fact, question)                                a token, nats
//   relevance   log p(answer | question) - log p(answer)                      an answer that would fit any question: 0
//   round_trip  log p(question | the answer in the fact's place)              does the answer lead back to the
//   question?
//   blind       share or probability of the right answer among blind ones       0 scores 1, 1 scores 5
// Likelihoods are put on the scale by `worst` (score 1) and `best` (score 5), linearly.
struct Criterion {
  std::string name, measure = "rating", question = {};
  std::vector<std::string> anchors = {};
  double weight = 1.0, least = 1.0, worst = -2.0, best = 0.0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "the criterion's name among the scores", any());
    visit("measure", self.measure, "how the score is read",
          one_of({"rating", "likelihood", "relevance", "round_trip", "blind"}));
    visit("question", self.question, "rating: what the critic is asked", any());
    visit("anchors", self.anchors, "rating: what the scores 1, 2, 3, 4, 5 mean", any());
    visit("weight", self.weight, "its weight in the score", in_range(0.0, 100.0));
    visit("least", self.least, "pairs below this score are refused, whatever the others", in_range(1.0, 5.0));
    visit("worst", self.worst, "other measures: nats a token that score 1", in_range(-100.0, 100.0));
    visit("best", self.best, "other measures: nats a token that score 5", in_range(-100.0, 100.0));
  }
};

struct TaskFilter {
  std::string question_shape = "question", answer_shape = "sentence";
  int64_t min_context_words = 5, max_context_words = 400;
  int64_t min_question_words = 3, max_question_words = 30;
  int64_t min_answer_words = 3, max_answer_words = 60;
  double max_rouge = 0.7, max_jaccard = 0.8;
  double max_question_overlap = 0.9;
  double min_grounding = 0.6;
  double min_question_grounding = 0.75;
  double min_agreement = 0.5;
  double max_option_ratio = 4.0, max_longest_share = 0.5, max_letter_excess = 0.1;
  double max_subtopic_share = 1.0;
  double min_score = 3.0;
  std::string charset = "latin", language = "english";

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("question_shape", self.question_shape,
          "question: ends with '?'; text: any sentence or beginning of one; gap: has one '_' to be filled",
          one_of({"question", "text", "gap"}));
    visit("answer_shape", self.answer_shape,
          "sentence: one or more whole ones; phrase: a few words, as options are; text: any; json: an object",
          one_of({"sentence", "phrase", "text", "json"}));
    visit("min_context_words", self.min_context_words, "shorter contexts are refused", in_range(0, 100000));
    visit("max_context_words", self.max_context_words, "longer contexts are refused", in_range(1, 100000));
    visit("min_question_words", self.min_question_words, "shorter questions are refused", in_range(0, 10000));
    visit("max_question_words", self.max_question_words, "longer questions are refused", in_range(1, 10000));
    visit("min_answer_words", self.min_answer_words, "shorter answers and options are refused", in_range(0, 10000));
    visit("max_answer_words", self.max_answer_words, "longer answers and options are refused", in_range(1, 10000));
    visit("max_rouge", self.max_rouge, "ROUGE-L to an accepted question from which one is no longer new",
          in_range(0.0, 1.0));
    visit("max_jaccard", self.max_jaccard,
          "share of common word runs with an accepted pair (MinHash) from which one is no longer new",
          in_range(0.0, 1.0));
    visit("max_question_overlap", self.max_question_overlap,
          "share of an answer's words that may stand in its question: above it, the answer only repeats",
          in_range(0.0, 1.0));
    visit("min_grounding", self.min_grounding,
          "share of an answer's content words that must stand in its fact or question (where there is a fact)",
          in_range(0.0, 1.0));
    visit("min_question_grounding", self.min_question_grounding,
          "share of a question's content words that must stand in its fact (where there is a fact)",
          in_range(0.0, 1.0));
    visit("min_agreement", self.min_agreement,
          "share of blind answers that must agree; of open ones, also how much of the words (F1) makes two agree",
          in_range(0.0, 1.0));
    visit("max_option_ratio", self.max_option_ratio,
          "how many times longer than the mean of the wrong options the right one may be, or shorter",
          in_range(1.0, 1000.0));
    visit("max_longest_share", self.max_longest_share, "share of the pairs whose right option may be the longest",
          in_range(0.0, 1.0));
    visit("max_letter_excess", self.max_letter_excess,
          "how much more often than its share a letter may be the right one (0.1 = by a tenth)", in_range(0.0, 100.0));
    visit("max_subtopic_share", self.max_subtopic_share, "share of the pairs that one subtopic may have",
          in_range(0.001, 1.0));
    visit("min_score", self.min_score, "weighted mean of the rubric's scores", in_range(1.0, 5.0));
    visit("charset", self.charset, "letters a pair may hold", one_of({"latin", "any"}));
    visit("language", self.language,
          "english: other languages are refused, and the agreement and answer_form rules check its grammar",
          one_of({"english", "any"}));
  }
};

// An item has up to four parts, written in this order: context, question, answer, wrong options. A part is written when
// it has an instruction. `instruction`, `input` and `output` say how a pair's Alpaca fields are made of them, so that
// what is learned is what is asked later (synth/render.h has the {names}).
struct Task {
  std::string name, description;
  std::string answer_form = "open";
  int64_t num_options = 0;  // of multiple_choice, completion and binary; 0 = as many as `choices`, else 4, 4, 2
  std::vector<std::string> choices;  // the same options for every pair: labels, or yes and no
  std::string subject;               // of a task whose subtopics are subjects of their own (MMLU)
  std::string distractors = "written";
  std::string topic_label = "Topic", fact_label = "Fact", context_label = "Text", question_label = "Question",
              answer_label = "Answer", wrong_label = "Wrong answers";
  std::string context_instruction, question_instruction, answer_instruction, wrong_instruction;
  std::string fixed_question;  // asked of every pair; the teacher then writes none
  std::string instruction = "{question}", input = "{context}", output = "{answer}";
  std::vector<std::string> forbidden;  // words or phrases, matched without case at word borders; /…/: an expression
  int64_t num_subtopics = 40;          // asked from the teacher when the file lists none
  SeedRows seed_rows;
  std::vector<TaskSeed> seeds;
  std::vector<Subtopic> subtopics;
  std::vector<Criterion> rubric;
  TaskFilter filter;
  bool given_contexts = false;  // the facts are passages of documents, and stand as contexts: no key of the file

  // The plain keys; seeds, seed_rows, subtopics, rubric and filter are sections of their own.
  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "the task's name in records", any());
    visit("description", self.description, "what the questions are about", any());
    visit("answer_form", self.answer_form,
          "open: an answer in words; multiple_choice: one of several options; completion: one of several endings; "
          "binary: one of two",
          one_of({"open", "multiple_choice", "completion", "binary"}));
    visit("options", self.num_options, "number of options (0 = as many as 'choices', else 4, and 2 of binary)",
          in_range(0, 26));
    visit("choices", self.choices, "the same options for every pair: labels, or yes and no", any());
    visit("subject", self.subject, "{subject} in the templates; the subtopic's name where it is empty", any());
    visit("distractors", self.distractors,
          "where wrong options come from: written by the teacher, or borrowed from other pairs' right answers",
          one_of({"written", "borrowed"}));
    visit("topic_label", self.topic_label, "how the teacher is shown the topic", any());
    visit("fact_label", self.fact_label, "how the teacher is shown the fact; its lower case names it in records",
          any());
    visit("context_label", self.context_label, "how the teacher is shown the context", any());
    visit("question_label", self.question_label, "how the teacher is shown the question", any());
    visit("answer_label", self.answer_label, "how the teacher is shown the answer", any());
    visit("wrong_label", self.wrong_label, "how the teacher is shown the wrong options", any());
    visit("context_instruction", self.context_instruction, "what the teacher is told when it writes the context",
          any());
    visit("question_instruction", self.question_instruction, "what the teacher is told when it writes a question",
          any());
    visit("answer_instruction", self.answer_instruction, "what the teacher is told when it answers", any());
    visit("wrong_instruction", self.wrong_instruction, "what the teacher is told when it writes wrong options", any());
    visit("question", self.fixed_question, "the question of every pair, in place of one that the teacher writes",
          any());
    visit("instruction", self.instruction, "the pair's 'instruction' as a template", any());
    visit("input", self.input, "the pair's 'input' as a template", any());
    visit("output", self.output, "the pair's 'output' as a template", any());
    visit("forbidden", self.forbidden, "words or phrases that no pair may hold; between slashes, a regular expression",
          any());
    visit("num_subtopics", self.num_subtopics, "subtopics to ask for when none are listed", in_range(1, 10000));
  }

  bool has_options() const { return answer_form != "open"; }
  // Of one pair; 0 for open tasks.
  int64_t options_of_a_pair() const {
    if (!has_options()) return 0;
    if (!choices.empty()) return static_cast<int64_t>(choices.size());
    if (num_options > 0) return num_options;
    return answer_form == "binary" ? 2 : 4;
  }
  bool writes_context() const { return !context_instruction.empty() && !given_contexts; }
  bool writes_question() const { return fixed_question.empty(); }
  // With the same choices for every pair the label is given and the text is written for it, so that labels stay
  // balanced; a document's label is found.
  bool gives_label() const { return !choices.empty() && !given_contexts; }
  bool writes_answer() const { return !gives_label(); }
  bool writes_wrong() const { return has_options() && choices.empty() && distractors == "written"; }
};

}  // namespace potstill
