// One optimizer step of a training run, as train_log.jsonl records it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "potstill/distill/distill_config.h"
#include "potstill/distill/teacher_signal.h"

namespace potstill {

// kl, ce and loss are means over the step's answer tokens.
struct TrainStep {
  int64_t step = 0, num_steps = 0;  // 1-based
  double loss = 0;                  // alpha · T² · kl + (1 - alpha) · ce; with uld without the T²
  std::string term = "kl";          // what `kl` is: loss_term_name()
  double kl = 0, ce = 0;            // the divergence at temperature T, without T²; cross entropy at T = 1
  double lr = 0, grad_norm = 0;     // before clipping
  double update_rms = 0;            // root mean square change of a factor's entry in this step
  // Of Muon's directions O: mean over the factors of ||O Oᵀ - I||_F / sqrt(r); nothing for AdamW.
  std::optional<double> orthogonality_error = {};
  // Largest over the linears of ||scale · B A||₂ / ||W||₂, after the step; nothing where it is not measured.
  std::optional<double> delta_norm_ratio = {};
  int64_t tokens = 0, answer_tokens = 0;
  int64_t rows = 0;  // of the packed batches: fewer than tokens where pairs share their beginning
  double seconds = 0, optimizer_seconds = 0;  // the second is the optimizer's part of the first
  double flop_share = 0;                      // of the machine's measured product rate; 0 = not measured
};

// What the loss's first term is, for logs and tables: "kl", "reverse_kl", "jsd", "kl_top_k", "uld".
std::string loss_term_name(const DistillConfig& config, Quantity quantity);

nlohmann::ordered_json to_json(const TrainStep& step);  // a line of train_log.jsonl
TrainStep step_from_json(const nlohmann::json& json);

}  // namespace potstill
