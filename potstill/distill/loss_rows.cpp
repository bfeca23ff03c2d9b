#include "potstill/distill/loss_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "potstill/base/check.h"
#include "potstill/nn/clones.h"

namespace potstill {
namespace {

constexpr int64_t kBlock = 512;  // columns whose sums stay in fp32 lanes
constexpr int64_t kLanes = 32;   // a fixed number, so that every clone adds in one order

POTSTILL_INLINE float lane_sum(float* lanes) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

POTSTILL_CLONES float largest(const float* x, int64_t count) {
  float lanes[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = x[0];
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
  }
  float top = lanes[0];
  for (int64_t lane = 1; lane < kLanes; ++lane) top = lanes[lane] > top ? lanes[lane] : top;
  for (; i < count; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

struct BlockSums {
  float q, p, cross, plain;
};

// Over columns of one block: a = (z - top)/T, b = (v - top)/T. Leaves exp(a) and exp(b) in the logits' place; sums
// them, exp(b) (b - a), and exp(z - top), the last by squaring at T = 2.
enum class Plain { kSame, kSquare, kExp };  // how exp(z - top) comes from exp((z - top)/T)
// A token that is ruled out (-inf) has probability 0 in both, not the NaN of 0 · inf; NaN itself stays.
POTSTILL_INLINE float at_least(float x) { return x < -1e4f ? -1e4f : x; }
template <Plain kPlain>
POTSTILL_INLINE BlockSums exponentials(float* z, float* v, int64_t count, float z_top, float v_top, float inverse) {
  float q[kLanes] = {}, p[kLanes] = {}, cross[kLanes] = {}, plain[kLanes] = {};
  const auto add = [&](int64_t i, int64_t lane) {
    const float shifted = z[i] - z_top;
    const float a = at_least(shifted * inverse), b = at_least((v[i] - v_top) * inverse);
    const float exp_a = loop_exp(a), exp_b = loop_exp(b);
    q[lane] += exp_a;
    p[lane] += exp_b;
    cross[lane] += exp_b * (b - a);
    if constexpr (kPlain == Plain::kSquare) plain[lane] += exp_a * exp_a;
    if constexpr (kPlain == Plain::kExp) plain[lane] += loop_exp(shifted);
    z[i] = exp_a;
    v[i] = exp_b;
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (int64_t lane = 0; i < count; ++i, ++lane) add(i, lane);
  const float sum_q = lane_sum(q);
  return {sum_q, lane_sum(p), lane_sum(cross), kPlain == Plain::kSame ? sum_q : lane_sum(plain)};
}
POTSTILL_CLONES void exponentials_same(float* z, float* v, int64_t count, float z_top, float v_top, float inverse,
                                       BlockSums* sums) {
  *sums = exponentials<Plain::kSame>(z, v, count, z_top, v_top, inverse);
}
POTSTILL_CLONES void exponentials_square(float* z, float* v, int64_t count, float z_top, float v_top, float inverse,
                                         BlockSums* sums) {
  *sums = exponentials<Plain::kSquare>(z, v, count, z_top, v_top, inverse);
}
POTSTILL_CLONES void exponentials_exp(float* z, float* v, int64_t count, float z_top, float v_top, float inverse,
                                      BlockSums* sums) {
  *sums = exponentials<Plain::kExp>(z, v, count, z_top, v_top, inverse);
}

// gradient = from_q · exp(a) - from_p · exp(b)
template <class T>
POTSTILL_INLINE void kl_gradient(const float* z, const float* v, int64_t count, float from_q, float from_p, T* out) {
  for (int64_t i = 0; i < count; ++i) store_value(out + i, from_q * z[i] - from_p * v[i]);
}
POTSTILL_CLONES void kl_gradient_into(const float* z, const float* v, int64_t count, float from_q, float from_p,
                                      float* out) {
  kl_gradient(z, v, count, from_q, from_p, out);
}
POTSTILL_CLONES void kl_gradient_into(const float* z, const float* v, int64_t count, float from_q, float from_p,
                                      Bf16Bits* out) {
  kl_gradient(z, v, count, from_q, from_p, out);
}

// Adds the row's KL and CE; leaves the exponentials in the logits' place.
void loss_row(float* z, float* v, int64_t size, int64_t label, double temperature, LossRowSums& sums, double& sum_q,
              double& sum_p, double& sum_plain) {
  const float z_top = largest(z, size), v_top = largest(v, size);
  const auto inverse = static_cast<float>(1 / temperature);
  const double label_logit = static_cast<double>(z[label]) - static_cast<double>(z_top);
  double cross = 0;
  sum_q = sum_p = sum_plain = 0;
  const auto pass = temperature == 1 ? exponentials_same : temperature == 2 ? exponentials_square : exponentials_exp;
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    BlockSums block{};
    pass(z + begin, v + begin, std::min(kBlock, size - begin), z_top, v_top, inverse, &block);
    sum_q += static_cast<double>(block.q);
    sum_p += static_cast<double>(block.p);
    cross += static_cast<double>(block.cross);
    sum_plain += static_cast<double>(block.plain);
  }
  // Σ p (log p - log q), p = exp(b) / Σ exp(b)
  sums.kl += cross / sum_p - std::log(sum_p) + std::log(sum_q);
  sums.ce += std::log(sum_plain) - label_logit;
}

// (1 - alpha) · CE's part, for runs that learn from the labels as well: `shifted` is z - top.
template <class T>
void add_ce_gradient(const std::vector<float>& shifted, int64_t label, double sum_plain, double weight, T* out) {
  const double scale = weight / sum_plain;
  for (size_t i = 0; i < shifted.size(); ++i) {
    const auto part = static_cast<float>(scale * static_cast<double>(loop_exp(shifted[i])));
    const auto hit = static_cast<float>(static_cast<int64_t>(i) == label ? weight : 0.0);
    store_value(out + i, load_value(out + i) + (part - hit));
  }
}

template <class T>
void loss_rows(float* z, float* v, int64_t begin, int64_t end, int64_t size, int64_t teacher_stride,
               const int64_t* labels, double alpha, double temperature, double grad_scale, T* out, LossRowSums* sums) {
  std::vector<float> shifted;  // only for the gradient of the cross entropy
  for (int64_t r = begin; r < end; ++r) {
    float *row_z = z + r * size, *row_v = v + r * teacher_stride;
    if (out && alpha < 1) {
      const float top = largest(row_z, size);
      shifted.assign(row_z, row_z + size);
      for (float& x : shifted) x -= top;
    }
    double sum_q = 0, sum_p = 0, sum_plain = 0;
    loss_row(row_z, row_v, size, labels[r], temperature, sums[r], sum_q, sum_p, sum_plain);
    if (!out) continue;
    const double scale = alpha * temperature * grad_scale;
    kl_gradient_into(row_z, row_v, size, static_cast<float>(scale / sum_q), static_cast<float>(scale / sum_p),
                     out + r * size);
    if (alpha < 1) add_ce_gradient(shifted, labels[r], sum_plain, (1 - alpha) * grad_scale, out + r * size);
  }
}

}  // namespace

LossRowSums kl_loss_rows(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels, double alpha,
                         double temperature, double grad_scale, at::Tensor gradient) {
  POTSTILL_CHECK(student.is_contiguous() && teacher.stride(1) == 1 && student.scalar_type() == at::kFloat &&
                 teacher.scalar_type() == at::kFloat);
  const int64_t rows = student.size(0), size = student.size(1);
  const int64_t* label = labels.const_data_ptr<int64_t>();
  auto* z = student.mutable_data_ptr<float>();
  auto* v = teacher.mutable_data_ptr<float>();
  const int64_t teacher_stride = teacher.stride(0);
  const bool want_gradient = gradient.defined(), in_bf16 = want_gradient && gradient.scalar_type() == at::kBFloat16;
  auto* out_f32 = want_gradient && !in_bf16 ? gradient.mutable_data_ptr<float>() : nullptr;
  auto* out_bf16 = in_bf16 ? reinterpret_cast<Bf16Bits*>(gradient.mutable_data_ptr()) : nullptr;
  std::vector<LossRowSums> sums(static_cast<size_t>(rows));
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    if (in_bf16) {
      loss_rows(z, v, begin, end, size, teacher_stride, label, alpha, temperature, grad_scale, out_bf16, sums.data());
    } else {
      loss_rows(z, v, begin, end, size, teacher_stride, label, alpha, temperature, grad_scale, out_f32, sums.data());
    }
  });
  LossRowSums total;
  for (const auto& row : sums) {
    total.kl += row.kl;
    total.ce += row.ce;
  }
  return total;
}

}  // namespace potstill
