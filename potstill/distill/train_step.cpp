#include "potstill/distill/train_step.h"

#include "potstill/base/check.h"

namespace potstill {

std::string loss_term_name(const DistillConfig& config, Quantity quantity) {
  if (quantity != Quantity::kKl) return std::string(quantity_name(quantity));
  switch (parse_divergence(config.divergence)) {
    case Divergence::kForwardKl:
      return "kl";
    case Divergence::kReverseKl:
      return "reverse_kl";
    case Divergence::kJsd:
      return "jsd";
    case Divergence::kUld:
      return "uld";
  }
  POTSTILL_CHECK(false);
}

nlohmann::ordered_json to_json(const TrainStep& step) {
  nlohmann::ordered_json json = {{"step", step.step},
                                 {"num_steps", step.num_steps},
                                 {"loss", step.loss},
                                 {step.term, step.kl},
                                 {"ce", step.ce},
                                 {"lr", step.lr},
                                 {"grad_norm", step.grad_norm},
                                 {"update_rms", step.update_rms}};
  if (step.orthogonality_error) json["orthogonality_error"] = *step.orthogonality_error;
  if (step.delta_norm_ratio) json["delta_norm_ratio"] = *step.delta_norm_ratio;
  json["tokens"] = step.tokens;
  json["rows"] = step.rows;
  json["answer_tokens"] = step.answer_tokens;
  json["seconds"] = step.seconds;
  json["optimizer_seconds"] = step.optimizer_seconds;
  json["tokens_per_s"] = step.seconds > 0 ? static_cast<double>(step.tokens) / step.seconds : 0.0;
  if (step.flop_share > 0) json["flop_share"] = step.flop_share;
  return json;
}

TrainStep step_from_json(const nlohmann::json& j) {
  TrainStep step{.step = j.at("step"), .num_steps = j.at("num_steps"), .loss = j.at("loss")};
  for (const char* term : {"kl", "reverse_kl", "jsd", "kl_top_k", "uld"}) {
    if (!j.contains(term)) continue;
    step.term = term;
    step.kl = j[term];
  }
  step.ce = j.at("ce");
  step.lr = j.at("lr");
  step.grad_norm = j.at("grad_norm");
  step.update_rms = j.at("update_rms");
  if (j.contains("orthogonality_error")) step.orthogonality_error = j["orthogonality_error"].get<double>();
  if (j.contains("delta_norm_ratio")) step.delta_norm_ratio = j["delta_norm_ratio"].get<double>();
  step.tokens = j.at("tokens");
  step.rows = j.value("rows", step.tokens);
  step.answer_tokens = j.at("answer_tokens");
  step.seconds = j.at("seconds");
  step.optimizer_seconds = j.at("optimizer_seconds");
  step.flop_share = j.value("flop_share", 0.0);
  return step;
}

}  // namespace potstill
