// When a training run diverges: its loss is smoothed, for single steps scatter with the few answer tokens that they
// hold.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "potstill/distill/train.h"

namespace potstill {

class DivergenceWatch {
 public:
  // alpha as in the loss, alpha · T² · KL + (1 - alpha) · CE.
  DivergenceWatch(double alpha, int64_t vocabulary);

  // What is wrong when `step` follows those that were added: the loss is three times its lowest, or, without T², above
  // ln(vocabulary), a guess's, and above where it began.
  std::optional<std::string> problem(const TrainStep& step) const;
  bool is_lowest(const TrainStep& step) const;
  void add(const TrainStep& step);

  nlohmann::json state() const;
  void load_state(const nlohmann::json& state);

 private:
  struct Smoothed {
    double loss = 0, nats = 0;  // nats a token: the loss without T²
  };
  double nats_of(const TrainStep& step) const { return alpha_ * step.kl + (1 - alpha_) * step.ce; }
  Smoothed after(const TrainStep& step) const;

  double alpha_, guess_;
  int64_t vocabulary_;
  bool begun_ = false;
  Smoothed now_;
  double lowest_ = 0, first_nats_ = 0;
};

}  // namespace potstill
