#include "potstill/synth/blind.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "potstill/base/rng.h"
#include "potstill/synth/parse.h"
#include "potstill/synth/prompts.h"
#include "potstill/synth/render.h"
#include "potstill/synth/words.h"

namespace potstill {
namespace {

// F1 of the content words of two answers: 1 when they say the same in any order (SQuAD, arXiv:1606.05250, section 6.1).
double word_f1(std::string_view a, std::string_view b) {
  auto left = content_stems(a), right = content_stems(b);
  if (left.empty() || right.empty()) return words_of(a) == words_of(b) ? 1.0 : 0.0;
  std::ranges::sort(left);
  std::ranges::sort(right);
  std::vector<std::string> common;
  std::ranges::set_intersection(left, right, std::back_inserter(common));
  return 2.0 * static_cast<double>(common.size()) / static_cast<double>(left.size() + right.size());
}

size_t code_points(std::string_view utf8) {
  return static_cast<size_t>(
      std::ranges::count_if(utf8, [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

void decide(BlindAnswer& answer, const Pair& pair, size_t best) {
  answer.answered = pair.options[best];
  if (static_cast<int64_t>(best) == pair.key) return;
  answer.refusal = {"wrong_by_majority", fmt::format("blind: '{:.60}'", pair.options[best])};
}

// acc_norm's rule: log-likelihood by the characters of the option. Times their mean length it is on the scale of a
// log-likelihood again, and the right option's share under exp of that is its probability, whatever the lengths.
std::vector<BlindAnswer> by_likelihood(const Task& task, std::span<const Pair> pairs, AnswerStore& critic) {
  std::vector<ScoreRequest> requests;
  for (const auto& pair : pairs) {
    for (size_t i = 0; i < pair.options.size(); ++i) {
      requests.push_back(option_request(task, pair, static_cast<int64_t>(i)));
    }
  }
  const auto results = critic.score("blind answers", requests);
  std::vector<BlindAnswer> answers;
  size_t next = 0;
  for (const auto& pair : pairs) {
    std::vector<double> scores;
    double characters = 0;
    for (size_t i = 0; i < pair.options.size(); ++i, ++next) {
      const auto length = static_cast<double>(std::max<size_t>(1, code_points(requests[next].continuation) - 1));
      scores.push_back(results[next].log_likelihood / length);
      characters += length;
    }
    const auto best = static_cast<size_t>(std::ranges::max_element(scores) - scores.begin());
    const double mean_length = characters / static_cast<double>(pair.options.size());
    const auto weight = [&](double score) { return std::exp((score - scores[best]) * mean_length); };
    double sum = 0;
    for (const double score : scores) sum += weight(score);
    BlindAnswer answer;
    answer.agreement = weight(scores[static_cast<size_t>(pair.key)]) / sum;
    decide(answer, pair, best);
    answers.push_back(std::move(answer));
  }
  return answers;
}

std::vector<BlindAnswer> by_letter(const Task& task, std::span<const Pair> pairs, AnswerStore& critic) {
  std::vector<ChoiceRequest> requests;
  for (const auto& pair : pairs) requests.push_back(letter_request(task, pair));
  const auto probabilities = critic.choose("blind answers", requests);
  std::vector<BlindAnswer> answers;
  for (size_t i = 0; i < pairs.size(); ++i) {
    BlindAnswer answer;
    answer.agreement = probabilities[i][static_cast<size_t>(pairs[i].key)];
    decide(answer, pairs[i],
           static_cast<size_t>(std::ranges::max_element(probabilities[i]) - probabilities[i].begin()));
    answers.push_back(std::move(answer));
  }
  return answers;
}

struct Votes {
  int64_t given = 0, agreeing = 0;
  std::map<std::string, int64_t> by_answer;
};

void count_vote(const Task& task, const Pair& pair, const std::string& text, Votes& votes) {
  const std::string cleaned = clean_answer(text);
  if (cleaned.empty() || words_of(cleaned).front() == "unanswerable") return;
  if (pair.options.empty()) {
    ++votes.given;
    ++votes.by_answer[cleaned];
    votes.agreeing += word_f1(cleaned, pair.answer) >= task.filter.min_agreement;
    return;
  }
  const auto choice = parse_choice(text, pair.options);
  if (!choice) return;
  ++votes.given;
  ++votes.by_answer[pair.options[static_cast<size_t>(*choice)]];
  votes.agreeing += *choice == pair.key;
}

std::vector<BlindAnswer> by_votes(const Task& task, const SynthConfig& config, uint64_t seed,
                                  std::span<const Pair> pairs, AnswerStore& critic) {
  std::vector<GenerateRequest> requests;
  for (const auto& pair : pairs) {
    for (int64_t vote = 0; vote < config.votes; ++vote) {
      const auto name = fmt::format("synth/vote/{}/{}/{}", pair.context, pair.question, vote);
      requests.push_back(vote_request(task, config, pair, derive_seed(seed, name)));
    }
  }
  const auto texts = critic.generate("blind answers", requests);
  std::vector<BlindAnswer> answers;
  size_t next = 0;
  for (const auto& pair : pairs) {
    Votes votes;
    BlindAnswer answer;
    for (int64_t vote = 0; vote < config.votes; ++vote, ++next) {
      count_vote(task, pair, texts[next].text, votes);
      answer.sources.push_back({"blind", texts[next].key, texts[next].prompt_hash});
    }
    const auto most = std::ranges::max_element(votes.by_answer, {}, [](const auto& each) { return each.second; });
    if (most != votes.by_answer.end()) answer.answered = most->first;
    answer.agreement = static_cast<double>(votes.agreeing) / static_cast<double>(config.votes);
    if (2 * votes.given <= config.votes) {
      answer.refusal = {"unanswerable", fmt::format("{} of {} votes gave an answer", votes.given, config.votes)};
    } else if (answer.agreement < task.filter.min_agreement) {
      answer.refusal = {"wrong_by_majority", fmt::format("{} of {} votes agree; most say '{:.60}'", votes.agreeing,
                                                         config.votes, answer.answered)};
    }
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace

std::string blind_method(const Task& task, const SynthConfig& config) {
  if (config.blind == "auto") {
    if (!task.has_options()) return "none";
    return config.prompting == "chat" ? "votes" : "likelihood";
  }
  // An open answer has neither options to compare nor a letter.
  if (!task.has_options() && config.blind != "votes") return "none";
  return config.blind;
}

std::vector<BlindAnswer> answer_blind(const Task& task, const SynthConfig& config, uint64_t seed,
                                      std::span<const Pair> pairs, AnswerStore& critic) {
  const std::string method = blind_method(task, config);
  if (method == "none" || pairs.empty()) return {};
  if (method == "likelihood") return by_likelihood(task, pairs, critic);
  if (method == "letter") return by_letter(task, pairs, critic);
  return by_votes(task, config, seed, pairs, critic);
}

}  // namespace potstill
