#include "potstill/quant/input_statistics.h"

#include <algorithm>

#include "potstill/base/check.h"

namespace potstill {

InputStatistics measure_inputs(const at::Tensor& inputs) {
  POTSTILL_CHECK(inputs.dim() == 2 && inputs.numel() > 0);
  const auto x = inputs.to(at::kFloat);
  // two passes: the mean first, so that a large one costs no digits
  const double mean = x.sum(at::kDouble).item<double>() / static_cast<double>(x.numel());
  const auto centred = x - mean;
  const auto squares = centred.square();
  const double variance = squares.sum(at::kDouble).item<double>() / static_cast<double>(x.numel());
  const double fourth = (squares * (1.0 / std::max(variance, 1e-300))).square().sum(at::kDouble).item<double>() /
                        static_cast<double>(x.numel());
  InputStatistics statistics;
  statistics.excess_kurtosis = variance > 0 ? fourth - 3.0 : 0.0;
  const auto magnitudes = x.abs();
  const auto channel_max = magnitudes.amax(0);
  const auto positive = [](const at::Tensor& value) { return value.clamp_min(1e-30); };
  statistics.peak_to_median = (channel_max.max() / positive(channel_max.median())).item<double>();
  statistics.channels_above_6_sigma = (squares.amax(0) > 36.0 * variance).sum().item<int64_t>();
  statistics.token_max_to_median =
      (magnitudes.amax(1) / positive(std::get<0>(magnitudes.median(1)))).mean().item<double>();
  const auto order = std::get<1>(channel_max.topk(std::min<int64_t>(3, x.size(1)))).cpu();
  for (int64_t i = 0; i < order.numel(); ++i) statistics.largest_channels.push_back(order[i].item<int64_t>());
  return statistics;
}

}  // namespace potstill
