// rms_norm and swiglu with gradients that keep the inputs in their own dtype, never fp32 copies.
#include <torch/csrc/autograd/custom_function.h>

#include "potstill/nn/decoder_layer.h"

namespace potstill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// 1 / sqrt(mean(x²) + eps) over the last dimension, fp32, keeping it.
at::Tensor reciprocal_rms(const at::Tensor& x, double eps) {
  const auto norm = at::linalg_vector_norm(x, 2, at::IntArrayRef{-1}, /*keepdim=*/true, at::kFloat);
  return norm.square_().div_(static_cast<double>(x.size(-1))).add_(eps).rsqrt_();
}

at::Tensor normalize(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd) {
  if (x.scalar_type() == at::kFloat) return at::mul(x, rstd).mul_(weight);
  return at::mul(x.to(at::kFloat), rstd)
      .to(x.scalar_type())
      .mul_(weight);  // rounded before the weight, as transformers
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double eps) {
    const auto rstd = reciprocal_rms(x, eps);
    context->save_for_backward({x, weight, rstd});
    return normalize(x, weight, rstd);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto normal = at::mul(saved[0].to(at::kFloat), saved[2]);                 // x / rms
    const auto scaled = at::mul(grads[0].to(at::kFloat), saved[1].to(at::kFloat));  // dy · w
    // dx = (dy·w - x/rms · mean(dy·w · x/rms)) / rms
    const auto mean = at::mul(scaled, normal).mean(-1, /*keepdim=*/true);
    return {scaled.sub(normal.mul(mean)).mul_(saved[2]).to(saved[0].scalar_type()), {}, {}};
  }
};

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto& grad = grads[0];
    return {at::silu_backward(at::mul(grad, saved[1]), saved[0]), at::silu(saved[0]).mul_(grad)};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (at::GradMode::is_enabled() && x.requires_grad()) return RmsNorm::apply(x, weight, eps);
  return normalize(x, weight, reciprocal_rms(x, eps));
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  if (at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad())) return SwiGlu::apply(gate, up);
  return at::silu(gate).mul_(up);
}

}  // namespace potstill
