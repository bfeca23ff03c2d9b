// Quantizes one decoder layer while the calibration corpus walks through it, once: the inputs of q, k and v are seen,
// these three are quantized, the inputs of o are computed with them, and so on. Each linear is fitted to what the
// quantized model before it gives: true-sequential order for the price of one forward.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "potstill/nn/layer_stream.h"
#include "potstill/quant/asymmetric.h"
#include "potstill/quant/gptq.h"
#include "potstill/quant/module_row.h"
#include "potstill/quant/refine.h"

namespace potstill {

enum class QuantMethod { kRtn, kGptq, kAwq };

struct QuantizeSettings {
  QuantMethod method = QuantMethod::kGptq;
  GridSpec grid;  // group_size 0: one scale a row
  QuantOrder order = QuantOrder::kStatic;
  bool true_sequential = true;
  double damp = 0.01;
  RefineOptions refine{.rounds = 0};
  AsymmetricOptions asymmetric{.largest_strength = 0};
  double target_bpw = 0.0;          // 0 = every linear in grid.bits
  uint64_t memory_bytes = 0;        // of the process; 0 = 1 GiB, or what a layer needs
  std::vector<bool> eight_bits;     // [layers * 7] in kLinearNames' order, or empty: linears that get 8 bits
  std::vector<double> sensitivity;  // [layers * 7] or empty: as measured for target_bpw

  bool needs_calibration() const { return method != QuantMethod::kRtn || target_bpw > 0; }
  // Of a linear with `width` inputs; index in kLinearNames. grid.group_size 0 stands for a whole row.
  GridSpec grid_of(int64_t layer, size_t linear, int64_t width) const;
};

struct QuantizedModule {
  QuantizedWeight weight;
  ModuleRow row;
};

// The seven linears of a layer, in kLinearNames' order.
struct QuantizedLayer {
  int64_t layer = 0;
  std::vector<QuantizedModule> modules;
  // Vectors that AWQ changed, fp32, by the name after "model.layers.N.": "input_layernorm.weight".
  std::map<std::string, at::Tensor> changed = {};
};

// The linears with the largest errors so far, whose remedies are measured as they come.
class WorstLinears {
 public:
  static constexpr size_t kKept = 3;
  bool would_enter(double relative_error) const;
  void add(double relative_error);

 private:
  std::vector<double> errors_;  // largest first
};

// What the layers before and after share.
struct LayerContext {
  const RotaryTable& rotary;
  const ModelConfig& config;
  const QuantizeSettings& settings;
  uint64_t activation_bytes = 0;  // inputs kept for the second use; past that they are computed again
  WorstLinears& worst;
};

// Quantizes `weights` and leaves the layer's output in corpus.hidden, both with the quantized values. `reference` holds
// the first batches of the corpus, or all of them, as the unquantized model has them, and is advanced too; all are
// needed for asymmetric calibration. With `finished`
// (the layer as an earlier run left it) nothing is quantized again: the same steps run on its codes, so that what
// follows sees the same bits. Throws Error(kNumeric) for a weight that is not finite.
QuantizedLayer quantize_layer(int64_t layer, DecoderLayer& weights, CorpusState& corpus, CorpusState& reference,
                              const LayerContext& context, const QuantizedLayer* finished = nullptr);

// Rounds a layer to nearest: no corpus, no order.
QuantizedLayer round_layer(int64_t layer, const DecoderLayer& weights, const QuantizeSettings& settings);

inline constexpr size_t kNumLinears = std::size(kLinearNames);
size_t linear_index(std::string_view name);  // in kLinearNames
// Layer and index of "model.layers.3.self_attn.q_proj.weight"; nothing for a name that is no decoder linear's.
std::optional<std::pair<int64_t, size_t>> linear_of_weight(std::string_view name);

}  // namespace potstill
