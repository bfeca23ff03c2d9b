// Task: what D_gen is about, as its YAML file says it (read by recipe/task_file.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "potstill/base/fields.h"

namespace potstill {

// An example written by hand; shown to the teacher, never part of D_gen.
struct TaskSeed {
  std::string topic, fact, question, answer;  // fact may be empty

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("topic", self.topic, "what the example is about", any());
    visit("fact", self.fact, "a true statement that the answer rests on (optional)", any());
    visit("question", self.question, "the question", any());
    visit("answer", self.answer, "the answer", any());
  }
};

// With facts, the teacher asks and answers about one fact at a time (a weak teacher reads better than it remembers);
// without, about the subtopic by its name.
struct Subtopic {
  std::string name;
  std::vector<std::string> facts;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "the subtopic in a few words", any());
    visit("facts", self.facts, "true statements for the questions to rest on (optional)", any());
  }
};

// One line of the rubric: the teacher's critique of a pair as a score from 1 to 5. A capable teacher rates in words or
// by its score token ("rating"); a weak one cannot, but what it finds likely tells right from wrong all the same:
//   likelihood  log p(answer | fact, question)                                a token, nats
//   relevance   log p(answer | question) - log p(answer)                      an answer that would fit any question: 0
//   round_trip  log p(question | the answer in the fact's place)              does the answer lead back to the
//   question?
// These are put on the scale by `worst` (score 1) and `best` (score 5), linearly.
struct Criterion {
  std::string name, measure = "rating", question = {};
  std::vector<std::string> anchors = {};
  double weight = 1.0, least = 1.0, worst = -2.0, best = 0.0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "the criterion's name among the scores", any());
    visit("measure", self.measure, "how the score is read",
          one_of({"rating", "likelihood", "relevance", "round_trip"}));
    visit("question", self.question, "rating: what the critic is asked", any());
    visit("anchors", self.anchors, "rating: what the scores 1, 2, 3, 4, 5 mean", any());
    visit("weight", self.weight, "its weight in the score", in_range(0.0, 100.0));
    visit("least", self.least, "pairs below this score are refused, whatever the others", in_range(1.0, 5.0));
    visit("worst", self.worst, "other measures: nats a token that score 1", in_range(-100.0, 100.0));
    visit("best", self.best, "other measures: nats a token that score 5", in_range(-100.0, 100.0));
  }
};

struct TaskFilter {
  int64_t min_question_words = 3, max_question_words = 30;
  int64_t min_answer_words = 3, max_answer_words = 60;
  double max_rouge = 0.7;
  double max_question_overlap = 0.9;
  double min_grounding = 0.6;
  double min_question_grounding = 0.75;
  double min_score = 3.0;
  std::string charset = "latin", language = "english";

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("min_question_words", self.min_question_words, "shorter questions are refused", in_range(0, 10000));
    visit("max_question_words", self.max_question_words, "longer questions are refused", in_range(1, 10000));
    visit("min_answer_words", self.min_answer_words, "shorter answers are refused", in_range(0, 10000));
    visit("max_answer_words", self.max_answer_words, "longer answers are refused", in_range(1, 10000));
    visit("max_rouge", self.max_rouge, "ROUGE-L to an accepted question from which one is no longer new",
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
    visit("min_score", self.min_score, "weighted mean of the rubric's scores", in_range(1.0, 5.0));
    visit("charset", self.charset, "letters a pair may hold", one_of({"latin", "any"}));
    visit("language", self.language, "whose grammar the agreement and answer_form rules check",
          one_of({"english", "any"}));
  }
};

struct Task {
  std::string name, description;
  std::string answer_form = "open";
  std::string question_instruction, answer_instruction;
  std::vector<std::string> forbidden;  // words or phrases, matched without case at word borders
  int64_t num_subtopics = 40;          // asked from the teacher when the file lists none
  std::vector<TaskSeed> seeds;
  std::vector<Subtopic> subtopics;
  std::vector<Criterion> rubric;
  TaskFilter filter;

  // The plain keys; seeds, subtopics, rubric and filter are sections of their own.
  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("name", self.name, "the task's name in records", any());
    visit("description", self.description, "what the questions are about", any());
    visit("answer_form", self.answer_form, "open: a question and an answer in words", one_of({"open"}));
    visit("question_instruction", self.question_instruction, "what the teacher is told when it writes a question",
          any());
    visit("answer_instruction", self.answer_instruction, "what the teacher is told when it answers", any());
    visit("forbidden", self.forbidden, "words or phrases that no pair may hold", any());
    visit("num_subtopics", self.num_subtopics, "subtopics to ask for when none are listed", in_range(1, 10000));
  }
};

}  // namespace potstill
