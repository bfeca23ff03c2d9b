// Quantizes one decoder layer while the calibration corpus walks through it, once: the inputs of q, k and v are seen,
// these three are quantized, the inputs of o are computed with them, and so on. Each linear is fitted to what the
// quantized model before it gives: true-sequential order for the price of one forward.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/nn/layer_stream.h"
#include "potstill/quant/asymmetric.h"
#include "potstill/quant/gptq.h"
#include "potstill/quant/refine.h"

namespace potstill {

struct QuantizeSettings {
  bool gptq = true;  // false: round to nearest, no calibration
  GridSpec grid;
  QuantOrder order = QuantOrder::kStatic;
  double damp = 0.01;
  RefineOptions refine{.rounds = 0};
  AsymmetricOptions asymmetric{.largest_strength = 0};
  uint64_t activation_bytes = uint64_t{4} << 30;  // inputs kept for the second use; past that they are computed again
};

// What happened to one linear: a line of layer_errors.jsonl.
struct ModuleRow {
  int64_t layer = 0;
  std::string module;           // "q_proj"
  double relative_error = 0.0;  // ‖(W−Q) X‖ / ‖W X‖ over the calibration tokens; of the weights themselves for rtn
  double rounding_error = 0.0;  // the same for rounding to nearest, unclipped
  double block_error = 0.0;  // ‖h − h̃‖ / ‖h̃‖ of the layer's output against the unquantized model's, on the first batch
  double input_kurtosis = 0.0;              // excess kurtosis of the inputs' entries, on the first batch
  double input_peak = 0.0;                  // largest |x| of a channel / the median channel's, there
  std::vector<int64_t> peak_channels = {};  // the three largest channels
  double strength = 0.0;                    // of asymmetric calibration, as the held-out tokens chose it
  double held_out_gain = 0.0;               // AsymmetricTarget
  double refine_gain = 0.0;                 // share of the damped loss that the refinement took away
  double damp = 0.0;                        // as used
  int64_t attempts = 0, dead_inputs = 0;
  std::string trouble = "none";  // hessian_trouble_name
  bool rounded = false;          // the last resort: rounded to nearest
  double seconds = 0.0;          // shared evenly by linears that were quantized together
  uint64_t peak_rss_bytes = 0;   // of the process so far

  std::string path() const;  // "model.layers.0.self_attn.q_proj"
  nlohmann::ordered_json to_json() const;
  static ModuleRow from_json(const nlohmann::json& json);
};

struct QuantizedModule {
  QuantizedWeight weight;
  ModuleRow row;
};

// The seven linears of a layer, in kLinearNames' order.
struct QuantizedLayer {
  int64_t layer = 0;
  std::vector<QuantizedModule> modules;
};

// Quantizes `weights` and leaves the layer's output in corpus.hidden, both with the quantized values. `reference` holds
// the first batches of the corpus, or all of them, as the unquantized model has them, and is advanced too; all are
// needed for asymmetric calibration. With `finished`
// (the layer as an earlier run left it) nothing is quantized again: the same steps run on its codes, so that what
// follows sees the same bits. Throws Error(kNumeric) for a weight that is not finite.
QuantizedLayer quantize_layer(int64_t layer, DecoderLayer& weights, CorpusState& corpus, CorpusState& reference,
                              const RotaryTable& rotary, const ModelConfig& config, const QuantizeSettings& settings,
                              const QuantizedLayer* finished = nullptr);

// Rounds a layer to nearest: no corpus, no order.
QuantizedLayer round_layer(int64_t layer, const DecoderLayer& weights, const QuantizeSettings& settings);

}  // namespace potstill
