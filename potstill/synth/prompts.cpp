#include "potstill/synth/prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace potstill {
namespace {

constexpr size_t kMaxExamples = 4;  // every request pays for each of them

struct Example {
  std::vector<std::pair<std::string, std::string>> given;  // label -> text
  std::string wanted;
};

std::string given_lines(const Example& example) {
  std::string lines;
  for (const auto& [label, text] : example.given) lines += fmt::format("{}: {}\n", label, text);
  return lines;
}

// The same examples as a text that goes on, or as earlier turns of a chat.
GenerateRequest few_shot(const SynthConfig& config, std::string_view instruction, std::string_view label,
                         const std::vector<Example>& examples, const Example& query) {
  GenerateRequest request;
  if (config.prompting == "chat") {
    request.messages.push_back({"system", std::string(instruction)});
    for (const auto& example : examples) {
      request.messages.push_back({"user", given_lines(example)});
      request.messages.push_back({"assistant", example.wanted});
    }
    request.messages.push_back({"user", given_lines(query)});
    for (auto& message : request.messages) {
      while (message.content.ends_with('\n')) message.content.pop_back();
    }
    return request;
  }
  request.prompt = fmt::format("{}\n\n", instruction);
  for (const auto& example : examples) {
    request.prompt += fmt::format("{}{}: {}\n\n", given_lines(example), label, example.wanted);
  }
  request.prompt += fmt::format("{}{}:", given_lines(query), label);
  request.stop = {"\n"};
  return request;
}

// Seeds with a fact for units with a fact, and those of any kind, shown by their topic, for the others.
std::vector<const TaskSeed*> seeds_for(const Task& task, const Unit& unit, int64_t round) {
  std::vector<const TaskSeed*> seeds;
  for (const auto& seed : task.seeds) {
    if (unit.fact.empty() || !seed.fact.empty()) seeds.push_back(&seed);
  }
  if (seeds.size() > kMaxExamples) {
    std::rotate(seeds.begin(), seeds.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(round) % seeds.size()),
                seeds.end());
    seeds.resize(kMaxExamples);
  }
  return seeds;
}

std::pair<std::string, std::string> about(std::string_view topic, std::string_view fact, bool with_fact) {
  return with_fact ? std::pair{std::string("Fact"), std::string(fact)}
                   : std::pair{std::string("Topic"), std::string(topic)};
}

std::string shown(const Pair& pair) {
  const std::string fact = pair.unit.fact.empty() ? "" : fmt::format("Fact: {}\n", pair.unit.fact);
  return fmt::format("{}Question: {}\nAnswer: {}", fact, pair.question, pair.answer);
}

}  // namespace

GenerateRequest subtopics_request(const Task& task, const SynthConfig& config, uint64_t seed) {
  const std::string instruction =
      fmt::format("List {} different subtopics of: {}. Each in one to five words, one on a line, numbered.",
                  task.num_subtopics, task.description);
  GenerateRequest request;
  if (config.prompting == "chat") {
    request.messages = {{"user", instruction}};
  } else {
    request.prompt = fmt::format("{}\n\n", instruction);
    int64_t number = 0;
    for (const auto& example : task.seeds) {
      if (number < static_cast<int64_t>(kMaxExamples))
        request.prompt += fmt::format("{}. {}\n", ++number, example.topic);
    }
    request.prompt += fmt::format("{}.", number + 1);
    request.stop = {"\n\n"};
  }
  request.max_new_tokens = std::min<int64_t>(8 * task.num_subtopics, 1024);
  request.sampling = {.temperature = config.temperature, .min_p = config.min_p, .seed = seed};
  return request;
}

GenerateRequest question_request(const Task& task, const SynthConfig& config, const Unit& unit, int64_t round,
                                 uint64_t seed) {
  const bool with_fact = !unit.fact.empty();
  std::vector<Example> examples;
  for (const auto* example : seeds_for(task, unit, round)) {
    examples.push_back({.given = {about(example->topic, example->fact, with_fact)}, .wanted = example->question});
  }
  GenerateRequest request = few_shot(config, task.question_instruction, "Question", examples,
                                     {.given = {about(unit.subtopic, unit.fact, with_fact)}, .wanted = {}});
  request.max_new_tokens = config.max_question_tokens;
  request.sampling = {.temperature = config.temperature, .min_p = config.min_p, .seed = seed};
  return request;
}

GenerateRequest answer_request(const Task& task, const SynthConfig& config, const Unit& unit,
                               std::string_view question) {
  std::vector<Example> examples;
  const auto given = [](std::string_view fact, std::string_view asked) {
    Example example;
    if (!fact.empty()) example.given.emplace_back("Fact", fact);
    example.given.emplace_back("Question", asked);
    return example;
  };
  for (const auto* seed : seeds_for(task, unit, 0)) {
    examples.push_back(given(unit.fact.empty() ? "" : seed->fact, seed->question));
    examples.back().wanted = seed->answer;
  }
  GenerateRequest request = few_shot(config, task.answer_instruction, "Answer", examples, given(unit.fact, question));
  request.max_new_tokens = config.max_answer_tokens;
  return request;
}

ScoreRequest likelihood_request(const Pair& pair) {
  const std::string fact = pair.unit.fact.empty() ? "" : fmt::format("Fact: {}\n", pair.unit.fact);
  return {.context = fmt::format("{}Question: {}\nAnswer:", fact, pair.question), .continuation = " " + pair.answer};
}

ScoreRequest relevance_request(const Pair& pair) {
  return {.context = fmt::format("Question: {}\nAnswer:", pair.question), .continuation = " " + pair.answer};
}

ScoreRequest prior_request(const Pair& pair) { return {.context = "Answer:", .continuation = " " + pair.answer}; }

ScoreRequest round_trip_request(const Pair& pair) {
  return {.context = fmt::format("Fact: {}\nQuestion:", pair.answer), .continuation = " " + pair.question};
}

ChoiceRequest rating_request(const Task& task, const Criterion& criterion, const Pair& pair) {
  std::string text = fmt::format("You check question and answer pairs about {}.\n\n{}\n\n{}\n", task.description,
                                 shown(pair), criterion.question);
  for (size_t i = 0; i < criterion.anchors.size(); ++i) text += fmt::format("{} = {}\n", i + 1, criterion.anchors[i]);
  text += "Reply with the number alone.";
  ChoiceRequest request;
  request.messages = {{"user", text}};
  request.candidates = {"1", "2", "3", "4", "5"};
  return request;
}

GenerateRequest critique_request(const Task& task, const Pair& pair) {
  std::string text =
      fmt::format("You check question and answer pairs about {}. Be strict.\n\n{}\n\nScore the pair from 1 to 5:\n",
                  task.description, shown(pair));
  std::string keys;
  for (const auto& criterion : task.rubric) {
    if (criterion.measure != "rating") continue;
    text += fmt::format("- {}: {}", criterion.name, criterion.question);
    for (size_t i = 0; i < criterion.anchors.size(); ++i) text += fmt::format(" {} = {}.", i + 1, criterion.anchors[i]);
    text += '\n';
    keys += fmt::format("\"{}\": 1-5, ", criterion.name);
  }
  text += fmt::format("Reply with one JSON object and nothing else: {{{}\"reason\": \"one sentence\"}}", keys);
  GenerateRequest request;
  request.messages = {{"user", text}};
  request.max_new_tokens = 256;
  return request;
}

}  // namespace potstill
