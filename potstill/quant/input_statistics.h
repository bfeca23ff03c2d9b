// What a linear's inputs look like to a quantizer: how far a few entries or channels stick out.      gptq.md section 13
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace potstill {

struct InputStatistics {
  double excess_kurtosis = 0.0;  // E[(x−μ)⁴] / σ⁴ − 3 over all entries; 0 of a normal distribution, in double
  double peak_to_median = 0.0;   // largest of the channels' max |x| over the median channel's
  int64_t channels_above_6_sigma = 0;     // channels with an |x − μ| above 6 σ of all entries
  double token_max_to_median = 0.0;       // max |x| / median |x| of a token, averaged over tokens
  std::vector<int64_t> largest_channels;  // the three of the largest max |x|, largest first
};

InputStatistics measure_inputs(const at::Tensor& inputs);  // [T, I], T > 0

}  // namespace potstill
