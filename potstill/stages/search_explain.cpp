#include "potstill/stages/search_explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "potstill/search/importance.h"

namespace potstill {
namespace {

double best_alpha(std::span<const PastTrial> trials) {
  double value = std::numeric_limits<double>::infinity(), alpha = 1;
  for (const auto& trial : trials) {
    const auto found = trial.params.find("alpha");
    if (trial.state != TrialState::kComplete || found == trial.params.end() || !(trial.value < value)) continue;
    value = trial.value;
    alpha = found->second;
  }
  return alpha;
}

}  // namespace

nlohmann::ordered_json explain_alpha(const Space& space, std::span<const PastTrial> trials,
                                     const std::string& objective) {
  const auto profile = parameter_profile(space, trials, "alpha");
  if (profile.empty()) return nullptr;
  const double best = best_alpha(trials);
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  for (const auto& point : profile) {
    points.push_back({{"alpha", point.value}, {"expected", point.expected}, {"low", point.low}, {"high", point.high}});
  }
  const auto& labels = profile.front();
  const auto& teacher = profile.back();
  const auto text = [](const ProfilePoint& p) {
    return fmt::format("{:.4f} ({:.4f} to {:.4f}) at alpha = {:.2f}", p.expected, p.low, p.high, p.value.get<double>());
  };
  std::string why = fmt::format(
      "The best trial has alpha = {:.3f}. With its other settings the model of the trials expects {} of {} and {}: ",
      best, objective, text(teacher), text(labels));
  const auto shares = parameter_importance(space, trials);
  const double share = shares.contains("alpha") ? shares.at("alpha") : 0;
  if (teacher.high < labels.low) {
    why += "the teacher's distributions teach more than the labels of the pairs";
  } else if (labels.high < teacher.low) {
    why +=
        "the labels of the pairs help more than the teacher's distributions; look at the teacher (tokenizer, template, "
        "what it knows of the task)";
  } else {
    why += "the two are not further apart than the model knows them, so other alphas may be as good";
  }
  why += fmt::format(". Alpha accounts for {:.0f} % of what the settings change.", 100 * share);
  if (objective == "eval_loss") {
    why += " With eval_loss each alpha is judged by a loss of its own, which favours alpha near 1.";
  }
  return {{"best", best}, {"importance", share}, {"why", why}, {"profile", points}};
}

}  // namespace potstill
