// How far a few entries or channels of a model stick out: the quantities by which quantization's errors are explained,
// and by which models tuned by different optimizers differ.                                              gptq.md
// section 13
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "potstill/lm/model_package.h"
#include "potstill/nn/layer_stream.h"

namespace potstill {

// Of the inputs of a set of linears, or of a block's output, over all tokens.
struct ActivationOutliers {
  int64_t layer = 0;
  std::string tensor;  // "attention_input", "attention_output", "mlp_input", "mlp_activations", "block_output"
  int64_t tokens = 0, channels = 0;
  double excess_kurtosis = 0.0;        // E[(x−μ)⁴] / σ⁴ − 3 over all entries; 0 of a normal distribution
  double token_kurtosis = 0.0;         // the same of each token's entries, averaged
  double token_max_to_median = 0.0;    // max |x| / median |x| of a token, averaged
  double channel_max_to_median = 0.0;  // the largest channel's max |x| over the median channel's
  int64_t channels_above_6_sigma = 0;  // channels with an |x − μ| above 6 σ of all entries
  double token_above_6_sigma = 0.0;    // channels of a token above 6 σ of its own entries, averaged
  double max_abs = 0.0;
  double quantile_999 = 0.0;  // of |x|, in the first batch
  std::vector<int64_t> largest_channels = {};

  nlohmann::ordered_json to_json() const;
};

struct WeightOutliers {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  double excess_kurtosis = 0.0;
  double max_abs = 0.0;
  double crest_factor = 0.0;  // max |w| / rms of a group of 64 of a row, averaged; of the last group what is left
  double largest_crest = 0.0;
  double spectral_norm = 0.0;  // ‖W‖₂, by power iteration
  double stable_rank = 0.0;    // ‖W‖²_F / ‖W‖²₂

  nlohmann::ordered_json to_json() const;
};

struct OutlierReport {
  std::vector<ActivationOutliers> activations;  // layer by layer, in the order of the forward pass
  std::vector<WeightOutliers> weights;          // decoder linears, in the model's order

  nlohmann::ordered_json to_json() const;
};

// Weights alone when there are no sequences. One layer in memory at a time.
OutlierReport measure_outliers(const ModelPackage& model, std::span<const std::vector<TokenId>> sequences,
                               const LayerStreamOptions& stream);

WeightOutliers measure_weight(const std::string& name, const at::Tensor& weight);  // [O, I]

// Adds up ActivationOutliers over batches [T, C] of one tensor. Numbers past 10⁹ overflow the fourth power.
class OutlierAccumulator {
 public:
  // What sorts each token's entries (medians, the quantile, a token's own kurtosis) takes most of the time, and stays 0
  // without `of_tokens`.
  explicit OutlierAccumulator(bool of_tokens = true) : of_tokens_(of_tokens) {}
  void add(const at::Tensor& x);
  ActivationOutliers finish(int64_t layer, std::string tensor) const;

 private:
  void add_tokens(const at::Tensor& x);

  bool of_tokens_;
  double shift_ = 0.0;                 // mean of the first batch
  double count_ = 0.0, sums_[4] = {};  // of (x − shift) to the powers 1 to 4
  at::Tensor channel_max_, channel_min_;
  double token_kurtosis_ = 0.0, token_ratio_ = 0.0, token_above_ = 0.0, quantile_ = 0.0;
  int64_t tokens_ = 0;
};

}  // namespace potstill
