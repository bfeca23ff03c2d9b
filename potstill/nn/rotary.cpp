#include "potstill/nn/rotary.h"

#include <torch/csrc/autograd/custom_function.h>

#include "potstill/nn/row_kernels.h"

namespace potstill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// cos, sin [T, Dh/2] fp32. The products are taken in fp32 and rounded once.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(1);
  const auto halves = x.to(at::kFloat).view({x.size(0), -1, 2, half});  // [T, N, 2, Dh/2]
  const auto a = halves.select(2, 0), b = halves.select(2, 1);
  const auto c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  at::Tensor rotated = at::empty_like(halves);
  auto first = rotated.select(2, 0), second = rotated.select(2, 1);
  at::mul_out(first, a, c).addcmul_(b, s, -1.0);
  at::mul_out(second, b, c).addcmul_(a, s);
  return rotated.view(x.sizes()).to(x.scalar_type());
}

// cos, sin: the whole tables; sign -1 turns back.
at::Tensor turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& positions,
                int sign) {
  if (has_row_kernels(x) && x.dim() == 2) return rotate_rows(x, cos, sin, positions, static_cast<float>(sign));
  const auto s = sin.index_select(0, positions);
  return rotate(x, cos.index_select(0, positions), sign > 0 ? s : s.neg());
}

struct Rotate : torch::autograd::Function<Rotate> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                            const at::Tensor& positions) {
    context->save_for_backward({cos, sin, positions});
    return turn(x, cos, sin, positions, 1);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    // A rotation's transpose turns the other way.
    return {turn(grads[0].contiguous(), saved[0], saved[1], saved[2], -1), {}, {}, {}};
  }
};

}  // namespace

RotaryTable make_rotary_table(const ModelConfig& config, int64_t max_position, at::Device device) {
  const std::vector<float> inverse = rope_inverse_frequencies(config);
  // Angles as transformers takes them: a float32 product of position and frequency.
  const auto frequencies = at::tensor(at::ArrayRef<float>(inverse), at::kFloat).to(device);
  const auto positions = at::arange(max_position, at::TensorOptions(at::kFloat).device(device));
  const auto angles = at::outer(positions, frequencies);
  return {.cos = angles.cos(), .sin = angles.sin()};
}

at::Tensor apply_rotary(const at::Tensor& x, const at::Tensor& positions, const RotaryTable& rotary) {
  if (at::GradMode::is_enabled() && x.requires_grad()) return Rotate::apply(x, rotary.cos, rotary.sin, positions);
  return turn(x.contiguous(), rotary.cos, rotary.sin, positions, 1);
}

}  // namespace potstill
