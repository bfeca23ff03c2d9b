#include "potstill/synth/candidate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "potstill/synth/prompts.h"
#include "potstill/synth/render.h"
#include "potstill/synth/words.h"

namespace potstill {
namespace {

using Json = nlohmann::ordered_json;

template <class Key>
Json sorted_counts(const std::map<Key, int64_t>& counts) {
  Json object = Json::object();
  for (const auto& [name, count] : counts) object[name] = count;
  return object;
}

bool right_is_longest(const Pair& pair) {
  const auto longest = std::ranges::max_element(pair.options, {}, &std::string::size);
  return longest - pair.options.begin() == pair.key;
}

void add_lineage(Json& record, const Candidate& candidate, const Lineage& lineage) {
  record["teacher"] = lineage.teacher;
  if (!lineage.teacher_revision.empty()) record["teacher_revision"] = lineage.teacher_revision;
  if (!lineage.critic.empty()) {
    record["critic"] = lineage.critic;
    record["critic_revision"] = lineage.critic_revision;
  }
  record["prompts"] = kPromptVersion;
  record["seeds"] = candidate.seeds;
  record["round"] = candidate.round;
  Json raw = Json::object();
  for (const auto& source : candidate.sources) {
    const auto place = lineage.places.find(source.key);
    Json entry{{"place", place == lineage.places.end() ? "" : place->second},
               {"key", source.key},
               {"prompt_sha256", source.prompt_hash}};
    // Several votes are one list.
    if (raw.contains(source.what)) {
      if (!raw[source.what].is_array()) raw[source.what] = Json::array({raw[source.what]});
      raw[source.what].push_back(entry);
    } else {
      raw[source.what] = entry;
    }
  }
  record["raw"] = raw;
}

std::string field_name(std::string label) {
  for (auto& c : label) c = c == ' ' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return label;
}

}  // namespace

Json SynthOutcome::yield() const {
  std::map<std::string, int64_t> reasons, rules;
  int64_t repaired = 0;
  for (const auto& candidate : rejected) {
    ++rules[candidate.refusal->rule];
    ++reasons[std::string(reason_of(candidate.refusal->rule))];
  }
  for (const auto& candidate : accepted) repaired += candidate.repaired;
  return {{"candidates", accepted.size() + rejected.size()},
          {"accepted", accepted.size()},
          {"repaired", repaired},
          {"refused", sorted_counts(reasons)},
          {"rules", sorted_counts(rules)}};
}

std::string SynthOutcome::yield_table() const {
  const auto counts = yield();
  const auto total = counts["candidates"].get<int64_t>();
  std::string table;
  const auto line = [&](const std::string& name, int64_t count, const std::string& note) {
    table += fmt::format("  {:<28}{:>6}{:>7.1f} %{}{}\n", name, count,
                         total == 0 ? 0.0 : 100.0 * static_cast<double>(count) / static_cast<double>(total),
                         note.empty() ? "" : "   ", note);
  };
  line("candidates", total, "");
  line("accepted", counts["accepted"].get<int64_t>(), "");
  std::map<std::string, std::string> rules;
  for (const auto& [rule, count] : counts["rules"].items()) {
    const std::string reason(reason_of(rule));
    if (rule == reason) continue;
    rules[reason] += fmt::format("{}{} {}", rules[reason].empty() ? "" : ", ", rule, count.get<int64_t>());
  }
  std::vector<std::pair<int64_t, std::string>> refused;
  for (const auto& [reason, count] : counts["refused"].items()) refused.emplace_back(-count.get<int64_t>(), reason);
  std::ranges::sort(refused);
  for (const auto& entry : refused) line("refused: " + entry.second, -entry.first, rules[entry.second]);
  table.pop_back();
  return table;
}

Json SynthOutcome::balance() const {
  std::map<std::string, int64_t> letters, subtopics;
  int64_t longest = 0, with_options = 0;
  double question_words = 0, answer_words = 0;
  size_t num_options = 0;
  for (const auto& candidate : accepted) {
    const Pair& pair = candidate.pair;
    ++subtopics[pair.unit.subtopic];
    question_words += static_cast<double>(words_of(pair.question).size());
    answer_words += static_cast<double>(words_of(pair.answer).size());
    if (pair.options.empty()) continue;
    ++with_options;
    ++letters[std::string(1, option_letter(pair.key))];
    longest += right_is_longest(pair);
    num_options = std::max(num_options, pair.options.size());
  }
  const auto count = static_cast<double>(std::max<size_t>(1, accepted.size()));
  const auto by_count = [](const auto& a, const auto& b) { return a.second < b.second; };
  Json result{{"subtopics", subtopics.size()}};
  if (!subtopics.empty()) {
    const auto [least, most] = std::ranges::minmax_element(subtopics, by_count);
    result["least_of_a_subtopic"] = least->second;
    result["most_of_a_subtopic"] = most->second;
  }
  result["mean_question_words"] = question_words / count;
  result["mean_answer_words"] = answer_words / count;
  if (with_options == 0) return result;
  const double expected = static_cast<double>(with_options) / static_cast<double>(num_options);
  double chi_square = 0;
  for (size_t i = 0; i < num_options; ++i) {
    const std::string letter(1, option_letter(static_cast<int64_t>(i)));
    const auto seen = static_cast<double>(letters[letter]);
    chi_square += (seen - expected) * (seen - expected) / expected;
  }
  result["letters"] = sorted_counts(letters);
  result["letters_chi_square"] = chi_square;
  result["letters_degrees_of_freedom"] = num_options - 1;
  result["right_option_is_longest"] = static_cast<double>(longest) / static_cast<double>(with_options);
  return result;
}

Json to_record(const Candidate& candidate, const Task& task, const Lineage& lineage) {
  const Pair& pair = candidate.pair;
  const Rendered rendered = render_pair(task, pair);
  Json record{{"instruction", rendered.instruction},
              {"input", rendered.input},
              {"output", rendered.output},
              {"id", candidate.id},
              {"task", task.name},
              {"subtopic", pair.unit.subtopic}};
  if (!pair.unit.fact.empty()) record[field_name(task.fact_label)] = pair.unit.fact;
  if (!candidate.refusal) record["split"] = candidate.heldout ? "heldout" : "train";
  // The parts, where the three fields above are made of more than question and answer.
  if (!pair.context.empty()) record["context"] = pair.context;
  if (rendered.instruction != pair.question || !pair.options.empty()) {
    record["question"] = pair.question;
    record["answer"] = pair.answer;
  }
  if (!pair.options.empty()) {
    record["choices"] = pair.options;
    record["answer_key"] = std::string(1, option_letter(pair.key));
  } else if (!pair.wrong.empty()) {
    record["wrong"] = pair.wrong;
  }
  record["scores"] = candidate.scores;
  record["measured"] = candidate.measured;
  if (candidate.agreement) record["blind"] = {{"agreement", *candidate.agreement}, {"answer", candidate.blind_answer}};
  if (!candidate.critique.empty()) record["critique"] = candidate.critique;
  if (candidate.repaired) record["repaired"] = true;
  record["passed"] = candidate.passed;
  add_lineage(record, candidate, lineage);
  if (candidate.refusal) {
    record["reason"] = reason_of(candidate.refusal->rule);
    record["rule"] = candidate.refusal->rule;
    record["detail"] = candidate.refusal->detail;
  }
  return record;
}

Json to_messages(const Candidate& candidate, const Task& task) {
  const Rendered rendered = render_pair(task, candidate.pair);
  return {{"messages",
           {{{"role", "user"}, {"content", rendered.prompt()}}, {{"role", "assistant"}, {"content", rendered.output}}}},
          {"id", candidate.id},
          {"split", candidate.heldout ? "heldout" : "train"}};
}

}  // namespace potstill
