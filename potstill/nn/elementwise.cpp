// rms_norm and swiglu with gradients that keep the inputs in their own dtype, never fp32 copies.
#include <torch/csrc/autograd/custom_function.h>

#include "potstill/nn/decoder_layer.h"
#include "potstill/nn/row_kernels.h"

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

at::Tensor norm_forward(const at::Tensor& x, const at::Tensor& weight, double eps, at::Tensor& rstd) {
  if (has_row_kernels(x) && weight.scalar_type() == x.scalar_type()) return rms_norm_rows(x, weight, eps, rstd);
  rstd = reciprocal_rms(x, eps);
  return normalize(x, weight, rstd);
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double eps) {
    at::Tensor rstd;
    const auto y = norm_forward(x, weight, eps, rstd);
    context->save_for_backward({x, weight, rstd});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    if (has_row_kernels(saved[0]) && saved[1].scalar_type() == saved[0].scalar_type()) {
      return {rms_norm_rows_backward(grads[0], saved[0], saved[1], saved[2]), {}, {}};
    }
    const auto normal = at::mul(saved[0].to(at::kFloat), saved[2]);                 // x / rms
    const auto scaled = at::mul(grads[0].to(at::kFloat), saved[1].to(at::kFloat));  // dy · w
    // dx = (dy·w - x/rms · mean(dy·w · x/rms)) / rms
    const auto mean = at::mul(scaled, normal).mean(-1, /*keepdim=*/true);
    return {scaled.sub(normal.mul(mean)).mul_(saved[2]).to(saved[0].scalar_type()), {}, {}};
  }
};

at::Tensor swiglu_forward(const at::Tensor& gate, const at::Tensor& up) {
  if (has_row_kernels(gate) && has_row_kernels(up)) return swiglu_rows(gate, up);
  return at::silu(gate).mul_(up);
}

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return swiglu_forward(gate, up);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto& grad = grads[0];
    if (has_row_kernels(saved[0]) && has_row_kernels(saved[1])) {
      at::Tensor grad_gate, grad_up;
      swiglu_rows_backward(grad, saved[0], saved[1], grad_gate, grad_up);
      return {grad_gate, grad_up};
    }
    return {at::silu_backward(at::mul(grad, saved[1]), saved[0]), at::silu(saved[0]).mul_(grad)};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (at::GradMode::is_enabled() && x.requires_grad()) return RmsNorm::apply(x, weight, eps);
  at::Tensor rstd;
  return norm_forward(x, weight, eps, rstd);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  if (at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad())) return SwiGlu::apply(gate, up);
  return swiglu_forward(gate, up);
}

}  // namespace potstill
