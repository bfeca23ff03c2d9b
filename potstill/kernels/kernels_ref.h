// The definitions that the kernels are held to: scalar, in double, in index order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "potstill/kernels/kernels.h"

namespace potstill::kernels {

// Row of a weight as the file's format defines it: d * code + m, or the float itself.
std::vector<double> dequantize_row_ref(const MatrixView& weight, int64_t row);
// Activations of a token as they enter the product with a block-quantized weight (scale * code), or as floats.
std::vector<double> activations_ref(const Activations& x, int64_t token, bool quantized);
// Σ_k weight[row, k] x[token, k].
double matvec_ref(const MatrixView& weight, int64_t row, const Activations& x, int64_t token);
// codes [cols]: whole numbers of 16 bits (exact) or 8; scales [cols / 32].
void quantize_row_ref(std::span<const float> x, CodeWidth width, std::span<int> codes, std::span<float> scales);
std::vector<double> rms_norm_ref(std::span<const float> x, std::span<const float> weight, double eps);
double swiglu_ref(double gate, double up);  // gate / (1 + e^-gate) * up
std::vector<double> softmax_ref(std::span<const double> x);
// Element d of the key or value at a position of a cache, as its layout says.
double cached_key_ref(const KvLayout& layout, const std::byte* keys, int64_t position, int64_t d);
double cached_value_ref(const KvLayout& layout, const std::byte* values, int64_t position, int64_t d);
// Output of one query of the task.
std::vector<double> attention_ref(const AttentionTask& task, int64_t query);

}  // namespace potstill::kernels
