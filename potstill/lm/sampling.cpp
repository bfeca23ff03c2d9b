#include "potstill/lm/sampling.h"

#include <algorithm>
#include <cmath>

#include "potstill/base/error.h"
#include "potstill/base/fields.h"

namespace potstill {
namespace {

// Best first; of equal logits the lower id, so that the order is the same on every machine.
bool worse(const std::pair<float, TokenId>& a, const std::pair<float, TokenId>& b) {
  return a.first < b.first || (a.first == b.first && a.second > b.second);
}

}  // namespace

TokenId argmax(std::span<const float> logits) {
  TokenId best = -1;
  float best_logit = -INFINITY;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > best_logit) {
      best_logit = logits[i];
      best = static_cast<TokenId>(i);
    }
  }
  return best;
}

double log_sum_exp(std::span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

Sampler::Sampler(const SamplingParams& params) : params_(params), rng_(params.seed, "sample") {
  const auto check = [](const char* name, double value, double min, double max) {
    check_field("sampling", name, value, in_range(min, max));
  };
  check("temperature", params.temperature, 0, 100);
  check("top_p", params.top_p, 0, 1);
  check("top_k", static_cast<double>(params.top_k), 0, 1e9);
  check("min_p", params.min_p, 0, 1);
  check("repetition_penalty", params.repetition_penalty, 0.01, 100);
  check("presence_penalty", params.presence_penalty, -2, 2);
  check("frequency_penalty", params.frequency_penalty, -2, 2);
  for (const auto& bias : params.logit_bias) check("logit_bias", bias.second, -100, 100);
}

bool Sampler::changes_logits() const {
  return params_.repetition_penalty != 1.0 || params_.presence_penalty != 0.0 || params_.frequency_penalty != 0.0 ||
         !params_.logit_bias.empty();
}

TokenId Sampler::sample(std::span<const float> logits, std::span<const TokenId> context, size_t num_prompt) {
  if (changes_logits()) {
    logits_.assign(logits.begin(), logits.end());
    penalize(context, num_prompt);
    logits = logits_;
  }
  const TokenId best = argmax(logits);
  if (best < 0) {
    throw Error(ErrorKind::kNumeric, "sampling", "no logit of this position is finite",
                "the weights or the arithmetic are broken; try the model in another runtime");
  }
  if (params_.temperature == 0.0) return best;

  // Ids that are e^-30 times less likely than the best are out in any case: their whole mass is below a float's ulp.
  const auto scale = static_cast<float>(1.0 / params_.temperature);
  const float top = logits[static_cast<size_t>(best)] * scale;
  const float floor = top + std::max(-30.0f, params_.min_p > 0 ? static_cast<float>(std::log(params_.min_p)) : -30.0f);
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = logits[i] * scale;
    if (logit >= floor) candidates_.emplace_back(logit, static_cast<TokenId>(i));
  }
  return draw();
}

// repetition: CTRL, arXiv:1909.05858, section 4.1, with transformers' sign rule: each id seen is penalized once.
// presence, frequency: logit -= presence + count * frequency, over the answer alone, as OpenAI's API and vLLM count.
void Sampler::penalize(std::span<const TokenId> context, size_t num_prompt) {
  for (const auto& [id, bias] : params_.logit_bias) {
    if (id >= 0 && static_cast<size_t>(id) < logits_.size()) logits_[static_cast<size_t>(id)] += bias;
  }
  const auto in_vocabulary = [this](TokenId id) { return id >= 0 && static_cast<size_t>(id) < logits_.size(); };
  if (params_.repetition_penalty != 1.0) {
    seen_.assign(context.begin(), context.end());
    std::sort(seen_.begin(), seen_.end());
    seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
    const auto penalty = static_cast<float>(params_.repetition_penalty);
    for (const TokenId id : seen_) {
      if (!in_vocabulary(id)) continue;
      float& logit = logits_[static_cast<size_t>(id)];
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
  }
  if (params_.presence_penalty == 0.0 && params_.frequency_penalty == 0.0) return;
  const auto answer = context.subspan(std::min(num_prompt, context.size()));
  seen_.assign(answer.begin(), answer.end());
  std::sort(seen_.begin(), seen_.end());
  for (size_t i = 0; i < seen_.size(); ++i) {
    if (!in_vocabulary(seen_[i])) continue;
    double penalty = params_.frequency_penalty;
    if (i == 0 || seen_[i] != seen_[i - 1]) penalty += params_.presence_penalty;
    logits_[static_cast<size_t>(seen_[i])] -= static_cast<float>(penalty);
  }
}

// Cuts candidates_ by top-k and top-p and draws one. A heap gives the best ones without sorting the vocabulary.
TokenId Sampler::draw() {
  const float top = std::max_element(candidates_.begin(), candidates_.end(), worse)->first;
  const auto weight = [top](float logit) { return std::exp(static_cast<double>(logit) - top); };
  const size_t limit =
      params_.top_k > 0 ? std::min(static_cast<size_t>(params_.top_k), candidates_.size()) : candidates_.size();
  if (limit < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(limit - 1), candidates_.end(),
                     [](const auto& a, const auto& b) { return worse(b, a); });
    candidates_.resize(limit);
  }
  double mass = 0;
  for (const auto& candidate : candidates_) mass += weight(candidate.first);
  if (params_.top_p < 1.0) {  // the fewest best ones whose mass reaches top_p of what top-k left
    std::make_heap(candidates_.begin(), candidates_.end(), worse);
    double kept = 0;
    auto end = candidates_.end();
    do {
      kept += weight(candidates_.front().first);
      std::pop_heap(candidates_.begin(), end--, worse);  // the best one goes to `end`
    } while (end != candidates_.begin() && kept < params_.top_p * mass);
    candidates_.erase(candidates_.begin(), end);
    mass = kept;
  }
  const double target = rng_.uniform() * mass;
  double sum = 0;
  for (const auto& candidate : candidates_) {
    sum += weight(candidate.first);
    if (target < sum) return candidate.second;
  }
  return candidates_.back().second;  // rounding left the target at the very end
}

}  // namespace potstill
