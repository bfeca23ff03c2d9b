#include "potstill/stages/adapter_norms.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "potstill/formats/peft_adapter.h"
#include "potstill/nn/tensor_bridge.h"
#include "potstill/nn/transformer.h"

namespace potstill {
namespace {

// Largest singular value of w [O, I]. From a start of equal entries, like none of a weight's singular vectors.
double spectral_norm(const at::Tensor& w) {
  at::Tensor v = at::ones({w.size(1)}, w.options()) / std::sqrt(static_cast<double>(w.size(1)));
  double norm = 0;
  for (int i = 0; i < 500; ++i) {
    const at::Tensor next = at::mv(w.t(), at::mv(w, v));
    const double now = std::sqrt(next.norm().item<double>());  // |WᵀW v|, v of length 1
    if (!(now > 0)) return 0;
    v = next / next.norm();
    if (std::abs(now - norm) < 1e-6 * now) return now;
    norm = now;
  }
  return norm;
}

}  // namespace

AdapterNorms measure_adapter_norms(const ModelPackage& base, const std::filesystem::path& folder) {
  const at::NoGradGuard no_grad;
  const PeftAdapter adapter(folder);
  AdapterNorms norms;
  for (const auto& pair : adapter.pairs()) {
    const auto a = tensor_from_view(pair.lora_a).to(at::kDouble);  // [r, I]
    const auto b = tensor_from_view(pair.lora_b).to(at::kDouble);  // [O, r]
    // B = Q_b R_b and Aᵀ = Q_a R_a: B A has the singular values of R_b R_aᵀ.
    const at::Tensor core = at::matmul(std::get<1>(at::linalg_qr(b, "r")), std::get<1>(at::linalg_qr(a.t(), "r")).t());
    const at::Tensor values = at::linalg_svdvals(core) * pair.scale;
    const double largest = values.max().item<double>(), squares = values.square().sum().item<double>();
    const auto weight = load_weight(*base.weights, pair.module + ".weight", at::kFloat, at::kCPU);
    const double relative = largest / spectral_norm(weight);
    const auto count = static_cast<double>(adapter.pairs().size());
    norms.mean_relative_norm += relative / count;
    norms.max_relative_norm = std::max(norms.max_relative_norm, relative);
    if (largest > 0) norms.mean_stable_rank += squares / (largest * largest) / count;
  }
  return norms;
}

}  // namespace potstill
