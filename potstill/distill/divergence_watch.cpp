#include "potstill/distill/divergence_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace potstill {

DivergenceWatch::DivergenceWatch(double alpha, int64_t vocabulary)
    : alpha_(alpha), guess_(std::log(static_cast<double>(vocabulary))), vocabulary_(vocabulary) {}

DivergenceWatch::Smoothed DivergenceWatch::after(const TrainStep& step) const {
  if (!begun_) return {step.loss, nats_of(step)};
  return {0.8 * now_.loss + 0.2 * step.loss, 0.8 * now_.nats + 0.2 * nats_of(step)};
}

std::optional<std::string> DivergenceWatch::problem(const TrainStep& step) const {
  if (!begun_) return std::nullopt;
  constexpr double kNoise = 0.01;  // nats: where teacher and student agree, a loss of nothing is no divergence's start
  const Smoothed next = after(step);
  if (next.loss > 3 * lowest_ && next.nats > kNoise) {
    return fmt::format("training diverges: the loss rose to {:.3g} (smoothed) from {:.3g}", next.loss, lowest_);
  }
  if (next.nats > guess_ && next.nats > first_nats_) {
    return fmt::format(
        "training diverges: {:.3g} nats a token (smoothed) are more than the {:.3g} of a guess over {} tokens",
        next.nats, guess_, vocabulary_);
  }
  return std::nullopt;
}

bool DivergenceWatch::is_lowest(const TrainStep& step) const { return !begun_ || after(step).loss <= lowest_; }

void DivergenceWatch::add(const TrainStep& step) {
  now_ = after(step);
  lowest_ = begun_ ? std::min(lowest_, now_.loss) : now_.loss;
  if (!begun_) first_nats_ = now_.nats;
  begun_ = true;
}

nlohmann::json DivergenceWatch::state() const {
  return {{"begun", begun_},
          {"smoothed", now_.loss},
          {"nats", now_.nats},
          {"lowest", lowest_},
          {"first_nats", first_nats_}};
}

void DivergenceWatch::load_state(const nlohmann::json& state) {
  begun_ = state.at("begun");
  now_ = {state.at("smoothed"), state.at("nats")};
  lowest_ = state.at("lowest");
  first_nats_ = state.at("first_nats");
}

}  // namespace potstill
