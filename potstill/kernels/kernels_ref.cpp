#include "potstill/kernels/kernels_ref.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "potstill/base/check.h"

namespace potstill::kernels {
namespace {

uint16_t read_u16(const std::byte* p) {
  uint16_t x;
  std::memcpy(&x, p, 2);
  return x;
}

double element(DType dtype, const std::byte* row, int64_t k) {
  if (dtype == DType::kF32) {
    float x;
    std::memcpy(&x, row + 4 * k, 4);
    return x;
  }
  if (dtype == DType::kF16) return half_to_float(read_u16(row + 2 * k));
  if (dtype == DType::kBF16) return bfloat16_to_float(read_u16(row + 2 * k));
  const std::byte* block = row + k / kBlock * block_bytes(dtype);
  const auto j = static_cast<size_t>(k % kBlock);
  const double d = half_to_float(read_u16(block));
  if (dtype == DType::kQ8_0) return d * static_cast<int8_t>(block[2 + j]);
  const auto byte = static_cast<unsigned>(block[(dtype == DType::kQ4_1 ? 4 : 2) + j % 16]);
  const double code = j < 16 ? byte & 15 : byte >> 4;
  return dtype == DType::kQ4_1 ? d * code + half_to_float(read_u16(block + 2)) : d * (code - 8);
}

}  // namespace

std::vector<double> dequantize_row_ref(const MatrixView& weight, int64_t row) {
  POTSTILL_CHECK(has_kernels(weight.dtype));
  std::vector<double> values;
  for (int64_t k = 0; k < weight.cols; ++k) values.push_back(element(weight.dtype, weight.row(row), k));
  return values;
}

std::vector<double> activations_ref(const Activations& x, int64_t token, bool quantized) {
  std::vector<double> values;
  for (int64_t i = token * x.cols; i < (token + 1) * x.cols; ++i) {
    const int code = !quantized ? 0 : (x.low == nullptr ? x.high[i] : 255 * x.high[i] + x.low[i]);
    values.push_back(quantized ? static_cast<double>(x.scales[i / kBlock]) * code : x.values[i]);
  }
  return values;
}

double matvec_ref(const MatrixView& weight, int64_t row, const Activations& x, int64_t token) {
  const auto w = dequantize_row_ref(weight, row);
  const auto v = activations_ref(x, token, is_block_quantized(weight.dtype));
  double sum = 0;
  for (size_t k = 0; k < w.size(); ++k) sum += w[k] * v[k];
  return sum;
}

void quantize_row_ref(std::span<const float> x, CodeWidth width, std::span<int> codes, std::span<float> scales) {
  for (size_t b = 0; b < scales.size(); ++b) {
    const auto block = x.subspan(b * kBlock, kBlock);
    float largest = 0;
    for (const float v : block) largest = std::max(largest, std::abs(v));
    scales[b] = largest / (width == CodeWidth::kExact ? 32512.0f : 127.0f);
    const float inverse = scales[b] > 0 ? 1.0f / scales[b] : 0.0f;
    for (size_t j = 0; j < kBlock; ++j) {
      codes[b * kBlock + j] = static_cast<int>(std::nearbyint(block[j] * inverse));
    }
  }
}

std::vector<double> rms_norm_ref(std::span<const float> x, std::span<const float> weight, double eps) {
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * v;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  std::vector<double> y;
  for (size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * scale * weight[i]);
  return y;
}

double swiglu_ref(double gate, double up) { return gate / (1 + std::exp(-gate)) * up; }

std::vector<double> softmax_ref(std::span<const double> x) {
  const double largest = *std::max_element(x.begin(), x.end());
  std::vector<double> y;
  double sum = 0;
  for (const double v : x) sum += y.emplace_back(std::exp(v - largest));
  for (double& v : y) v /= sum;
  return y;
}

double cached_key_ref(const KvLayout& layout, const std::byte* keys, int64_t position, int64_t d) {
  const std::byte* group = keys + position / 16 * layout.group_bytes();
  const int64_t at = d * 16 + position % 16;
  if (layout.type == KvType::kHalf) return half_to_float(read_u16(group + 2 * at));
  const double scale = half_to_float(read_u16(group + 16 * layout.stride + 2 * (d / 32 * 16 + position % 16)));
  return scale * static_cast<int8_t>(group[at]);
}

double cached_value_ref(const KvLayout& layout, const std::byte* values, int64_t position, int64_t d) {
  const std::byte* group = values + position / 16 * layout.group_bytes();
  const int64_t at = position % 16 * layout.stride + d;
  if (layout.type == KvType::kHalf) return half_to_float(read_u16(group + 2 * at));
  const int64_t scale_at = position % 16 * layout.num_scales() + d / 32;
  return half_to_float(read_u16(group + 16 * layout.stride + 2 * scale_at)) * static_cast<int8_t>(group[at]);
}

std::vector<double> attention_ref(const AttentionTask& task, int64_t query) {
  const KvLayout& layout = task.layout;
  std::vector<double> scores;
  for (int64_t p = task.begin[query]; p < task.end[query]; ++p) {
    double score = 0;
    for (int64_t d = 0; d < layout.head_dim; ++d) {
      score += static_cast<double>(task.queries[query][d]) * cached_key_ref(layout, task.keys, p, d);
    }
    scores.push_back(score * task.scale);
  }
  const auto weights = softmax_ref(scores);
  std::vector<double> out(static_cast<size_t>(layout.head_dim));
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t p = task.begin[query] + static_cast<int64_t>(i);
    for (int64_t d = 0; d < layout.head_dim; ++d) {
      out[static_cast<size_t>(d)] += weights[i] * cached_value_ref(layout, task.values, p, d);
    }
  }
  return out;
}

}  // namespace potstill::kernels
