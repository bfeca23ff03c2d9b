// What happened to one linear when it was quantized: a line of layer_errors.jsonl.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace potstill {

struct ModuleRow {
  int64_t layer = 0;
  std::string module;  // "q_proj"
  int64_t bits = 4;
  int64_t group_size = 0;
  double relative_error = 0.0;  // ‖(W−Q) X‖ / ‖W X‖ over the calibration tokens; of the weights themselves for rtn
  double rounding_error = 0.0;  // the same for rounding to nearest, unclipped
  double block_error = 0.0;  // ‖h − h̃‖ / ‖h̃‖ of the layer's output against the unquantized model's, on the first batch
  int64_t tokens = 0;                       // calibration tokens that the fit saw
  double input_kurtosis = 0.0;              // excess kurtosis of the inputs' entries, on 1,024 tokens
  double input_peak = 0.0;                  // largest |x| of a channel / the median channel's, there
  std::vector<int64_t> peak_channels = {};  // the three largest channels
  double strength = 0.0;                    // of asymmetric calibration, as the held-out tokens chose it
  double held_out_gain = 0.0;               // AsymmetricTarget
  double refine_gain = 0.0;                 // share of the damped loss that the refinement took away
  double awq_ratio = 0.0;                   // exponent of the activations in AWQ's scales
  double awq_gain = 0.0;                    // share of plain rounding's loss that they took away
  double sensitivity = 0.0;      // effect on the block's output alone in 4 bits, where --target-bpw measured it
  double damp = 0.0;             // as used
  int64_t attempts = 0;          // factorisations
  int64_t dead_inputs = 0;       // channels that were zero on every token
  int64_t dependent_inputs = 0;  // channels that the others determine
  std::string trouble = "none";  // hessian_trouble_name
  bool rounded = false;          // the last resort: rounded to nearest
  // What would help the linears with the largest errors: their relative error if one thing were different; 0 = not
  // measured. With 1/8 of the tokens kept out of the fit: the error there, and on those of the fit.
  double error_with_8_bits = 0.0, error_with_half_groups = 0.0;
  double error_held_out = 0.0, error_fitted = 0.0;
  // Shared evenly by linears that were quantized together: all of it, and its parts by what was done.
  double seconds = 0.0;
  double seconds_forward = 0.0;   // the layer's own arithmetic, for inputs and output
  double seconds_hessian = 0.0;   // statistics of the inputs
  double seconds_factor = 0.0;    // H out of its sums, and its factorisation
  double seconds_codes = 0.0;     // scales and codes
  double seconds_remedies = 0.0;  // what would help, measured; part of `seconds` and of no phase above
  uint64_t peak_rss_bytes = 0;    // of the stage so far

  std::string path() const;  // "model.layers.0.self_attn.q_proj"
  nlohmann::ordered_json to_json() const;
  static ModuleRow from_json(const nlohmann::json& json);

  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit("layer", self.layer);
    visit("module", self.module);
    visit("bits", self.bits);
    visit("group_size", self.group_size);
    visit("relative_error", self.relative_error);
    visit("rounding_error", self.rounding_error);
    visit("block_error", self.block_error);
    visit("tokens", self.tokens);
    visit("input_kurtosis", self.input_kurtosis);
    visit("input_peak", self.input_peak);
    visit("peak_channels", self.peak_channels);
    visit("strength", self.strength);
    visit("held_out_gain", self.held_out_gain);
    visit("refine_gain", self.refine_gain);
    visit("awq_ratio", self.awq_ratio);
    visit("awq_gain", self.awq_gain);
    visit("sensitivity", self.sensitivity);
    visit("damp", self.damp);
    visit("attempts", self.attempts);
    visit("dead_inputs", self.dead_inputs);
    visit("dependent_inputs", self.dependent_inputs);
    visit("trouble", self.trouble);
    visit("rounded", self.rounded);
    visit("error_with_8_bits", self.error_with_8_bits);
    visit("error_with_half_groups", self.error_with_half_groups);
    visit("error_held_out", self.error_held_out);
    visit("error_fitted", self.error_fitted);
    visit("seconds", self.seconds);
    visit("seconds_forward", self.seconds_forward);
    visit("seconds_hessian", self.seconds_hessian);
    visit("seconds_factor", self.seconds_factor);
    visit("seconds_codes", self.seconds_codes);
    visit("seconds_remedies", self.seconds_remedies);
    visit("peak_rss_bytes", self.peak_rss_bytes);
  }
};

}  // namespace potstill
