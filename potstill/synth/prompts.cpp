#include "potstill/synth/prompts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "potstill/synth/render.h"

namespace potstill {
namespace {

constexpr size_t kMaxExamples = 4;  // every request pays for each of them
constexpr Part kParts[] = {Part::kContext, Part::kQuestion, Part::kAnswer, Part::kWrong};

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

Pair pair_of(const TaskSeed& seed, bool with_label) {
  Pair pair{.unit = {.subtopic = seed.topic, .fact = seed.fact},
            .question = seed.question,
            .answer = seed.answer,
            .context = seed.context,
            .wrong = seed.wrong};
  if (with_label) pair.unit.label = seed.answer;
  return pair;
}

const std::string& label_of(const Task& task, Part part) {
  switch (part) {
    case Part::kContext:
      return task.context_label;
    case Part::kQuestion:
      return task.question_label;
    case Part::kAnswer:
      return task.answer_label;
    default:
      return task.wrong_label;
  }
}

const std::string& instruction_of(const Task& task, Part part) {
  switch (part) {
    case Part::kContext:
      return task.context_instruction;
    case Part::kQuestion:
      return task.question_instruction;
    case Part::kAnswer:
      return task.answer_instruction;
    default:
      return task.wrong_instruction;
  }
}

// Wrong options stand in one line: a completion ends with its line.
std::string text_of(const Pair& pair, Part part) {
  switch (part) {
    case Part::kContext:
      return pair.context;
    case Part::kQuestion:
      return pair.question;
    case Part::kAnswer:
      return pair.answer;
    default:
      return fmt::format("{}", fmt::join(pair.wrong, "; "));
  }
}

bool is_first(const Task& task, Part part) {
  return part == *std::ranges::find_if(kParts, [&](Part each) { return writes(task, each); });
}

// What stands before a part. The first part is written about the fact or topic; an answer is read off the fact.
Example given_for(const Task& task, Part part, const Pair& pair, bool with_fact) {
  Example example;
  const bool first = is_first(task, part);
  if (with_fact && (first || part == Part::kAnswer)) {
    example.given.emplace_back(task.fact_label, pair.unit.fact);
  } else if (first && !task.given_contexts) {
    example.given.emplace_back(task.topic_label, pair.unit.subtopic);
  }
  if (first && !pair.unit.label.empty()) example.given.emplace_back(task.answer_label, pair.unit.label);
  if (part > Part::kContext && !pair.context.empty()) example.given.emplace_back(task.context_label, pair.context);
  if (part > Part::kQuestion && task.writes_question()) example.given.emplace_back(task.question_label, pair.question);
  if (part > Part::kAnswer) example.given.emplace_back(task.answer_label, pair.answer);
  return example;
}

std::string shown(const Task& task, const Pair& pair) {
  std::string text =
      pair.unit.fact.empty() || task.given_contexts ? "" : fmt::format("{}: {}\n", task.fact_label, pair.unit.fact);
  if (!pair.context.empty()) text += fmt::format("{}: {}\n", task.context_label, pair.context);
  const std::string& question = task.writes_question() ? pair.question : task.fixed_question;
  text += fmt::format("{}: {}\n", task.question_label, question);
  for (size_t i = 0; i < pair.options.size(); ++i) {
    text += fmt::format("{}. {}\n", option_letter(static_cast<int64_t>(i)), pair.options[i]);
  }
  return text + fmt::format("{}: {}", task.answer_label, pair.answer);
}

// The same without its answer, for a critic who answers blind. It sees the passage that the answer shall rest on.
std::string shown_blind(const Task& task, const Pair& pair) {
  std::string text =
      pair.unit.fact.empty() || task.given_contexts ? "" : fmt::format("{}: {}\n\n", task.fact_label, pair.unit.fact);
  // A template that holds the answer (the filled gap) would give it away.
  text += task.instruction.find("{answer}") == std::string::npos ? render_pair(task, pair).prompt() : pair.question;
  const bool has_letters = task.instruction.find("{options}") != std::string::npos;
  for (size_t i = 0; !has_letters && i < pair.options.size(); ++i) {
    text += fmt::format("\n{}. {}", option_letter(static_cast<int64_t>(i)), pair.options[i]);
  }
  return text;
}

std::string context_lines(const Task& task, const Pair& pair, bool with_fact) {
  const bool shows_fact = with_fact && !pair.unit.fact.empty() && !task.given_contexts;
  std::string lines = shows_fact ? fmt::format("{}: {}\n", task.fact_label, pair.unit.fact) : "";
  if (!pair.context.empty()) lines += fmt::format("{}: {}\n", task.context_label, pair.context);
  return lines;
}

nlohmann::ordered_json item_of(const Task& task, const TaskSeed& seed) {
  nlohmann::ordered_json item;
  for (const Part part : kParts) {
    if (!writes(task, part)) continue;
    const Pair pair = pair_of(seed, false);
    if (part == Part::kWrong) {
      item["wrong"] = pair.wrong;
    } else {
      item[std::string(part_key(part))] = text_of(pair, part);
    }
  }
  return item;
}

}  // namespace

bool writes(const Task& task, Part part) {
  switch (part) {
    case Part::kContext:
      return task.writes_context();
    case Part::kQuestion:
      return task.writes_question();
    case Part::kAnswer:
      return task.writes_answer();
    default:
      return task.writes_wrong();
  }
}

std::string_view part_key(Part part) {
  constexpr std::string_view kKeys[] = {"context", "question", "answer", "wrong"};
  return kKeys[static_cast<size_t>(part)];
}

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

// Seeds with a fact for units with a fact, and those of any kind, shown by their topic, for the others.
std::vector<size_t> shown_seeds(const Task& task, const Unit& unit, int64_t round) {
  std::vector<size_t> seeds;
  for (size_t i = 0; i < task.seeds.size(); ++i) {
    if (unit.fact.empty() || task.given_contexts || !task.seeds[i].fact.empty()) seeds.push_back(i);
  }
  if (seeds.size() > kMaxExamples) {
    std::rotate(seeds.begin(), seeds.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(round) % seeds.size()),
                seeds.end());
    seeds.resize(kMaxExamples);
  }
  return seeds;
}

GenerateRequest part_request(const Task& task, const SynthConfig& config, Part part, const Pair& pair, int64_t round,
                             uint64_t seed) {
  const bool with_fact = !pair.unit.fact.empty() && !task.given_contexts;
  std::vector<Example> examples;
  for (const size_t i : shown_seeds(task, pair.unit, round)) {
    const Pair example = pair_of(task.seeds[i], !pair.unit.label.empty());
    examples.push_back(given_for(task, part, example, with_fact));
    examples.back().wanted = text_of(example, part);
  }
  GenerateRequest request = few_shot(config, instruction_of(task, part), label_of(task, part), examples,
                                     given_for(task, part, pair, with_fact));
  if (part == Part::kAnswer) {
    request.max_new_tokens = config.max_answer_tokens;
    return request;
  }
  request.max_new_tokens = part == Part::kContext    ? config.max_context_tokens
                           : part == Part::kQuestion ? config.max_question_tokens
                                                     : config.max_answer_tokens * (task.options_of_a_pair() - 1);
  request.sampling = {.temperature = config.temperature, .min_p = config.min_p, .seed = seed};
  return request;
}

nlohmann::ordered_json item_schema(const Task& task) {
  nlohmann::ordered_json properties, required = nlohmann::ordered_json::array();
  for (const Part part : kParts) {
    if (!writes(task, part)) continue;
    const std::string key(part_key(part));
    const nlohmann::ordered_json text{{"type", "string"}, {"minLength", 1}};
    const int64_t wrong = task.options_of_a_pair() - 1;
    properties[key] =
        part != Part::kWrong
            ? text
            : nlohmann::ordered_json{{"type", "array"}, {"items", text}, {"minItems", wrong}, {"maxItems", wrong}};
    required.push_back(key);
  }
  return {{"type", "object"}, {"properties", properties}, {"required", required}, {"additionalProperties", false}};
}

GenerateRequest item_request(const Task& task, const SynthConfig& config, const Unit& unit, int64_t round,
                             uint64_t seed) {
  std::string instruction = fmt::format("Write one item about {} as a JSON object on one line.", task.description);
  int64_t tokens = 16;
  for (const Part part : kParts) {
    if (!writes(task, part)) continue;
    instruction += fmt::format("\n\"{}\": {}", part_key(part), instruction_of(task, part));
    tokens += 8 + (part == Part::kContext    ? config.max_context_tokens
                   : part == Part::kQuestion ? config.max_question_tokens
                   : part == Part::kAnswer   ? config.max_answer_tokens
                                             : config.max_answer_tokens * (task.options_of_a_pair() - 1));
  }
  if (task.given_contexts) instruction += fmt::format("\nIt is about the {} that is given.", task.context_label);
  const auto about = [&](const Unit& each) {
    Example example;
    const bool with_fact = !unit.fact.empty();
    example.given.emplace_back(with_fact ? task.fact_label : task.topic_label, with_fact ? each.fact : each.subtopic);
    if (!each.label.empty()) example.given.emplace_back(task.answer_label, each.label);
    return example;
  };
  std::vector<Example> examples;
  for (const size_t i : shown_seeds(task, unit, round)) {
    examples.push_back(about(pair_of(task.seeds[i], !unit.label.empty()).unit));
    examples.back().wanted = item_of(task, task.seeds[i]).dump();
  }
  GenerateRequest request = few_shot(config, instruction, "JSON", examples, about(unit));
  request.stop.clear();
  request.json_schema = item_schema(task).dump();
  request.max_new_tokens = tokens;
  request.sampling = {.temperature = config.temperature, .min_p = config.min_p, .seed = seed};
  return request;
}

ScoreRequest likelihood_request(const Task& task, const Pair& pair) {
  return {.context = fmt::format("{}{}: {}\n{}:", context_lines(task, pair, true), task.question_label, pair.question,
                                 task.answer_label),
          .continuation = " " + pair.answer};
}

ScoreRequest relevance_request(const Task& task, const Pair& pair) {
  return {.context = fmt::format("{}{}: {}\n{}:", context_lines(task, pair, false), task.question_label, pair.question,
                                 task.answer_label),
          .continuation = " " + pair.answer};
}

ScoreRequest prior_request(const Task& task, const Pair& pair) {
  return {.context = task.answer_label + ":", .continuation = " " + pair.answer};
}

ScoreRequest round_trip_request(const Task& task, const Pair& pair) {
  return {.context = fmt::format("{}: {}\n{}:", task.fact_label, pair.answer, task.question_label),
          .continuation = " " + pair.question};
}

ChoiceRequest rating_request(const Task& task, const Criterion& criterion, const Pair& pair) {
  std::string text = fmt::format("You check question and answer pairs about {}.\n\n{}\n\n{}\n", task.description,
                                 shown(task, pair), criterion.question);
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
                  task.description, shown(task, pair));
  std::string keys;
  nlohmann::ordered_json properties, required = nlohmann::ordered_json::array();
  for (const auto& criterion : task.rubric) {
    if (criterion.measure != "rating") continue;
    text += fmt::format("- {}: {}", criterion.name, criterion.question);
    for (size_t i = 0; i < criterion.anchors.size(); ++i) text += fmt::format(" {} = {}.", i + 1, criterion.anchors[i]);
    text += '\n';
    keys += fmt::format("\"{}\": 1-5, ", criterion.name);
    properties[criterion.name] = {{"type", "integer"}, {"minimum", 1}, {"maximum", 5}};
    required.push_back(criterion.name);
  }
  text += fmt::format("Reply with one JSON object and nothing else: {{{}\"reason\": \"one sentence\"}}", keys);
  properties["reason"] = {{"type", "string"}, {"maxLength", 300}};
  required.push_back("reason");
  GenerateRequest request;
  request.messages = {{"user", text}};
  request.max_new_tokens = 256;
  request.json_schema = nlohmann::ordered_json{
      {"type", "object"},
      {"properties", properties},
      {"required", required},
      {"additionalProperties",
       false}}.dump();
  return request;
}

ScoreRequest option_request(const Task& task, const Pair& pair, int64_t option) {
  const Rendered rendered = render_pair(task, pair, option);
  return {.context = rendered.prompt(), .continuation = " " + rendered.output};
}

ChoiceRequest letter_request(const Task& task, const Pair& pair) {
  ChoiceRequest request;
  request.messages = {{"user", shown_blind(task, pair) + "\n\nReply with the letter of the right answer alone."}};
  for (size_t i = 0; i < pair.options.size(); ++i) {
    request.candidates.emplace_back(1, option_letter(static_cast<int64_t>(i)));
  }
  return request;
}

GenerateRequest vote_request(const Task& task, const SynthConfig& config, const Pair& pair, uint64_t seed) {
  GenerateRequest request;
  const std::string how = pair.options.empty()
                              ? "Answer in one sentence. If it cannot be answered, reply: unanswerable"
                              : "Reply with the letter of the right answer alone. If none is right, or more than one, "
                                "reply: unanswerable";
  request.messages = {{"user", fmt::format("{}\n\n{}", shown_blind(task, pair), how)}};
  request.max_new_tokens = pair.options.empty() ? config.max_answer_tokens : 16;
  request.sampling = {.temperature = config.temperature, .seed = seed};
  return request;
}

}  // namespace potstill
