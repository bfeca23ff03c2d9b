// Quantizes one decoder layer while the calibration corpus walks through it, once: the inputs of q, k and v are seen,
// these three are quantized, the inputs of o are computed with them, and so on. Each linear is fitted to what the
// quantized model before it gives: true-sequential order for the price of one forward.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/nn/layer_stream.h"
#include "potstill/quant/gptq.h"

namespace potstill {

struct QuantizeSettings {
  bool gptq = true;  // false: round to nearest, no calibration
  GridSpec grid;
  QuantOrder order = QuantOrder::kStatic;
  double damp = 0.01;
  uint64_t activation_bytes = uint64_t{4} << 30;  // inputs kept for the second use; past that they are computed again
};

// What happened to one linear: a line of layer_errors.jsonl.
struct ModuleRow {
  int64_t layer = 0;
  std::string module;           // "q_proj"
  double relative_error = 0.0;  // ‖(W−Q) X‖ / ‖W X‖ over the calibration tokens; of the weights themselves for rtn
  double rounding_error = 0.0;  // the same for rounding to nearest, unclipped
  double damp = 0.0;            // as used
  int64_t attempts = 0, dead_inputs = 0;
  std::string trouble = "none";  // hessian_trouble_name
  bool rounded = false;          // the last resort: rounded to nearest
  double seconds = 0.0;          // shared evenly by linears that were quantized together

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

// Quantizes `weights` and leaves the layer's output in corpus.hidden, both with the quantized values. With `finished`
// (the layer as an earlier run left it) nothing is quantized again: the same steps run on its codes, so that what
// follows sees the same bits. Throws Error(kNumeric) for a weight that is not finite.
QuantizedLayer quantize_layer(int64_t layer, DecoderLayer& weights, CorpusState& corpus, const RotaryTable& rotary,
                              const ModelConfig& config, const QuantizeSettings& settings,
                              const QuantizedLayer* finished = nullptr);

// Rounds a layer to nearest: no corpus, no order.
QuantizedLayer round_layer(int64_t layer, const DecoderLayer& weights, const QuantizeSettings& settings);

}  // namespace potstill
