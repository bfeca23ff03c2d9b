#include "potstill/synth/rubric.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/synth/parse.h"

namespace potstill {
namespace {

// Mean log-likelihood a token of each pair under a request made from it.
template <class MakeRequest>
std::vector<double> nats_per_token(std::string_view what, const Task& task, std::span<const Pair> pairs,
                                   AnswerStore& teacher, const MakeRequest& make_request) {
  std::vector<ScoreRequest> requests;
  for (const auto& pair : pairs) requests.push_back(make_request(task, pair));
  std::vector<double> means;
  for (const auto& result : teacher.score(what, requests)) {
    means.push_back(result.log_likelihood / static_cast<double>(std::max<int64_t>(result.num_tokens, 1)));
  }
  return means;
}

std::vector<double> measure(const Task& task, const Criterion& criterion, std::span<const Pair> pairs,
                            AnswerStore& teacher) {
  if (criterion.measure == "likelihood") return nats_per_token("likelihood", task, pairs, teacher, likelihood_request);
  if (criterion.measure == "round_trip") return nats_per_token("round trip", task, pairs, teacher, round_trip_request);
  auto given = nats_per_token("relevance", task, pairs, teacher, relevance_request);
  const auto prior = nats_per_token("relevance, prior", task, pairs, teacher, prior_request);
  for (size_t i = 0; i < given.size(); ++i) given[i] -= prior[i];
  return given;
}

// Expected value of the score token.
std::vector<double> rate(const Task& task, const Criterion& criterion, std::span<const Pair> pairs,
                         AnswerStore& teacher) {
  std::vector<ChoiceRequest> requests;
  for (const auto& pair : pairs) requests.push_back(rating_request(task, criterion, pair));
  std::vector<double> ratings;
  for (const auto& probabilities : teacher.choose("ratings", requests)) {
    double expected = 0.0;
    for (size_t i = 0; i < probabilities.size(); ++i) expected += static_cast<double>(i + 1) * probabilities[i];
    ratings.push_back(expected);
  }
  return ratings;
}

void critique_in_words(const Task& task, std::span<const Pair> pairs, AnswerStore& teacher,
                       std::vector<Judgement>& judgements) {
  std::vector<std::string> criteria;
  for (const auto& criterion : task.rubric) {
    if (criterion.measure == "rating") criteria.push_back(criterion.name);
  }
  if (criteria.empty()) return;
  std::vector<GenerateRequest> requests;
  for (const auto& pair : pairs) requests.push_back(critique_request(task, pair));
  const auto answers = teacher.generate("critiques", requests);
  for (size_t i = 0; i < pairs.size(); ++i) {
    judgements[i].source = Source{"critique", answers[i].key, answers[i].prompt_hash};
    auto critique = parse_critique(answers[i].text, criteria);
    if (!critique) {
      judgements[i].refusal = {"no_critique", fmt::format("cannot be read: {:.80}", answers[i].text)};
      continue;
    }
    judgements[i].scores.merge(critique->scores);
    judgements[i].critique = std::move(critique->reason);
  }
}

void conclude(const Task& task, Judgement& judgement) {
  double sum = 0.0, weights = 0.0;
  for (const auto& criterion : task.rubric) {
    const auto score = judgement.scores.find(criterion.name);
    if (score == judgement.scores.end()) continue;  // no readable critique: refused already
    sum += criterion.weight * score->second;
    weights += criterion.weight;
    if (!judgement.refusal && score->second < criterion.least) {
      judgement.refusal = {"low_" + criterion.name,
                           fmt::format("{:.2f} of at least {:g}", score->second, criterion.least)};
    }
  }
  const double score = weights > 0.0 ? sum / weights : 5.0;
  judgement.scores["score"] = score;
  if (!judgement.refusal && score < task.filter.min_score) {
    judgement.refusal = {"low_score", fmt::format("{:.2f} of at least {:g}", score, task.filter.min_score)};
  }
}

}  // namespace

double on_scale(const Criterion& criterion, double nats) {
  const double place = (nats - criterion.worst) / (criterion.best - criterion.worst);
  return 1.0 + 4.0 * std::clamp(place, 0.0, 1.0);
}

std::vector<Judgement> judge_pairs(const Task& task, const SynthConfig& config, std::span<const Pair> pairs,
                                   std::span<const double> agreements, AnswerStore& teacher) {
  std::vector<Judgement> judgements(pairs.size());
  if (pairs.empty()) return judgements;
  for (const auto& criterion : task.rubric) {
    if (criterion.measure == "rating") {
      if (config.critique != "expected") continue;
      const auto ratings = rate(task, criterion, pairs, teacher);
      for (size_t i = 0; i < pairs.size(); ++i) judgements[i].scores[criterion.name] = ratings[i];
      continue;
    }
    if (criterion.measure == "blind") {
      for (size_t i = 0; i < agreements.size(); ++i) judgements[i].scores[criterion.name] = 1.0 + 4.0 * agreements[i];
      continue;
    }
    const auto nats = measure(task, criterion, pairs, teacher);
    for (size_t i = 0; i < pairs.size(); ++i) {
      judgements[i].measured[criterion.name] = nats[i];
      judgements[i].scores[criterion.name] = on_scale(criterion, nats[i]);
    }
  }
  if (config.critique == "json") critique_in_words(task, pairs, teacher, judgements);
  for (auto& judgement : judgements) conclude(task, judgement);
  return judgements;
}

}  // namespace potstill
