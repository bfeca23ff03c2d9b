// AWQ: before a linear is rounded, its input channels are scaled so that those with large activations get finer steps;
// the norm or linear before takes the inverse, so that the model computes the same.             Lin et al.,
// arXiv:2306.00978, section 3.2; the duo scaling and its grid are llm-compressor's AWQModifier (0.14)
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace potstill {

// Scales that were searched, [I] fp32: weights' columns are multiplied by them, their inputs divided.
struct AwqScales {
  at::Tensor scales;
  double ratio = 0.0;         // exponent of the mean activation
  bool duo = false;           // divided by the weights' own means, to the power 1 − ratio
  double error_before = 0.0;  // loss of plain rounding
  double error_after = 0.0;   // of the chosen scales; at most error_before
};

// The weights as rounding leaves them, dequantized [O, I].
using AwqRounding = std::function<at::Tensor(const at::Tensor& weight)>;
// Error of a part of the block whose linears hold these weights, in their order.
using AwqLoss = std::function<double(const std::vector<at::Tensor>& weights)>;

// Of linears [O_k, I] that share an input whose mean magnitude by channel is mean_magnitude [I]. Tries plain rounding
// and 19 powers of mean |x| / mean |w| (each group's weights normalised by its largest); the least loss wins, the
// earlier one where two are equal.
AwqScales search_awq_scales(std::span<const at::Tensor> weights, const at::Tensor& mean_magnitude, int64_t group_size,
                            const AwqRounding& rounding, const AwqLoss& loss);

// Mean over all rows of |w| / (largest |w| of its group), [I] double.
at::Tensor normalised_weight_means(std::span<const at::Tensor> weights, int64_t group_size);

}  // namespace potstill
