// The one-pass attention against softmax(Q Kᵀ) V spelled out in double, gradients by autograd.
#include "potstill/nn/packed_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

namespace potstill {
namespace {

// [ΣT, ΣT]: 0 where a row sees another, -inf elsewhere.
at::Tensor visible(const PackedAttention& a) {
  const int64_t total = a.offsets.back(), num_sequences = std::ssize(a.offsets) - 1;
  const auto length = [&](int64_t s) { return a.offsets[s + 1] - a.offsets[s]; };
  auto mask = at::full({total, total}, -INFINITY, at::kDouble);
  for (int64_t s = 0; s < num_sequences; ++s) {
    std::vector<int64_t> chain{s};
    while (!a.parent.empty() && a.parent[chain.back()] >= 0) chain.push_back(a.parent[chain.back()]);
    std::vector<int64_t> rows;
    for (auto c = chain.rbegin(); c != chain.rend(); ++c) {
      for (int64_t i = 0; i < length(*c); ++i) rows.push_back(a.offsets[*c] + i);
    }
    const auto own = std::ssize(rows) - length(s);
    for (int64_t p = own; p < std::ssize(rows); ++p) {
      for (int64_t key = 0; key <= p; ++key) {
        if (a.sliding_window == 0 || p - key < a.sliding_window) mask[rows[p]][rows[key]] = 0.0;
      }
    }
  }
  return mask;
}

at::Tensor plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedAttention& a) {
  const auto heads = [&](const at::Tensor& x) { return x.unflatten(1, {-1, a.head_dim}).transpose(0, 1); };
  const int64_t group = a.num_heads / a.num_kv_heads;
  const auto keys = heads(k).repeat_interleave(group, 0), values = heads(v).repeat_interleave(group, 0);
  const auto scores = at::matmul(heads(q), keys.transpose(1, 2)) / std::sqrt(static_cast<double>(a.head_dim));
  return at::matmul((scores + visible(a)).softmax(-1), values).transpose(0, 1).flatten(1);
}

double relative_error(const at::Tensor& found, const at::Tensor& exact) {
  return (found.to(at::kDouble) - exact).norm().item<double>() / exact.norm().item<double>();
}

void expect_equal(const PackedAttention& a, at::ScalarType type) {
  at::manual_seed(5);
  const int64_t total = a.offsets.back();
  const auto q = at::randn({total, a.num_heads * a.head_dim}).to(type),
             k = at::randn({total, a.num_kv_heads * a.head_dim}).to(type),
             v = at::randn({total, a.num_kv_heads * a.head_dim}).to(type), grad = at::randn_like(q);
  std::vector<at::Tensor> exact_inputs;
  for (const auto& x : {q, k, v}) exact_inputs.push_back(x.to(at::kDouble).requires_grad_());
  const auto exact = plain(exact_inputs[0], exact_inputs[1], exact_inputs[2], a);
  const auto slopes = torch::autograd::grad({exact}, exact_inputs, {grad.to(at::kDouble)});
  at::Tensor log_sum_exp;
  const auto out = packed_attention(q, k, v, a, log_sum_exp);
  const auto found = packed_attention_backward(grad, q, k, v, out, log_sum_exp, a);
  // fp32 sums of up to 150 products; bf16 rounds the output to 8 bits, from which the gradient's mean is taken.
  const double tolerance = type == at::kFloat ? 2e-6 : 6e-3;
  EXPECT_LT(relative_error(out, exact), tolerance);
  EXPECT_LT(relative_error(found.q, slopes[0]), tolerance);
  EXPECT_LT(relative_error(found.k, slopes[1]), tolerance);
  EXPECT_LT(relative_error(found.v, slopes[2]), tolerance);
}

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

TEST(PackedAttention, EqualsTheFormulaAtOddSizes) {
  for (const auto type : kTypes) {
    for (const int64_t head_dim : {4, 16, 20, 64}) {
      for (const int64_t window : {0, 19}) {
        SCOPED_TRACE(testing::Message() << head_dim << " window " << window << " " << at::toString(type));
        expect_equal({6, 2, head_dim, window, {0, 1, 71, 88, 88, 120}, {}}, type);
        expect_equal({3, 3, head_dim, window, {0, 33}, {}}, type);
      }
    }
  }
}

TEST(PackedAttention, ParentsGetTheGradientsOfAllTheirChildren) {
  for (const auto type : kTypes) {
    for (const int64_t window : {0, 19}) {
      SCOPED_TRACE(testing::Message() << "window " << window << " " << at::toString(type));
      // More children than chunks of them; one is empty, one has a child of its own.
      expect_equal(
          {4, 2, 20, window, {0, 24, 30, 31, 66, 66, 70, 75, 80, 82, 84, 100}, {-1, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0}},
          type);
    }
  }
}

TEST(PackedAttention, GivesTheSameBytesOnAnyNumberOfThreads) {
  const PackedAttention a{4, 2, 16, 0, {0, 24, 30, 31, 66, 80}, {-1, 0, 0, 0, 0}};
  at::manual_seed(5);
  const auto q = at::randn({80, 64}), k = at::randn({80, 32}), v = at::randn({80, 32}), grad = at::randn_like(q);
  const int threads = at::get_num_threads();
  std::vector<AttentionGradients> found;
  for (const int count : {1, 2}) {
    at::set_num_threads(count);
    at::Tensor log_sum_exp;
    const auto out = packed_attention(q, k, v, a, log_sum_exp);
    found.push_back(packed_attention_backward(grad, q, k, v, out, log_sum_exp, a));
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(found[0].q.equal(found[1].q));
  EXPECT_TRUE(found[0].k.equal(found[1].k));
  EXPECT_TRUE(found[0].v.equal(found[1].v));
}

}  // namespace
}  // namespace potstill
