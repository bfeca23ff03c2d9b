// Linear::forward: the frozen weight alone, or with a LoRA pair whose gradient is written by hand.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>

#include "potstill/base/machine.h"
#include "potstill/nn/decoder_layer.h"
#include "potstill/nn/matmul.h"

namespace potstill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// SplitMix64's output function: 64 well mixed bits of a counter.
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// 0 or 1 / (1 - p), a function of the seed and the element's index alone: the gradient draws it again instead of
// keeping it, and a resumed run draws what the undisturbed one drew.
at::Tensor dropout_mask(const at::Tensor& x, double p, uint64_t seed) {
  const int64_t count = x.numel();
  at::Tensor mask = at::empty({count}, at::kFloat);
  float* value = mask.mutable_data_ptr<float>();
  const auto threshold = static_cast<uint64_t>(p * 65536.0);  // four 16-bit draws out of each hash
  const auto keep = static_cast<float>(1.0 / (1.0 - p));
  for (int64_t i = 0; i < count; i += 4) {
    uint64_t bits = mix(seed + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ULL);
    for (int64_t j = i; j < std::min(i + 4, count); ++j, bits >>= 16)
      value[j] = (bits & 0xffff) < threshold ? 0.f : keep;
  }
  return mask.view(x.sizes()).to(x.device(), x.scalar_type());
}

// y = x Wᵀ + bias + scale · (drop(x) Aᵀ) Bᵀ. Kept for the gradient: x (shared by the linears that read it) and the
// [T, r] product; W and its bias are frozen.
struct LoraLinear : torch::autograd::Function<LoraLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const at::Tensor& a, const at::Tensor& b,
                            double scale, double dropout, int64_t seed) {
    const auto type = x.scalar_type();
    const auto dropped = dropout > 0 ? x * dropout_mask(x, dropout, static_cast<uint64_t>(seed)) : x;
    const auto low = times_transposed(dropped, a.to(type));  // [T, r]
    at::Tensor y = times_transposed(x, weight, bias);
    y.addmm_(low, b.to(type).t(), 1.0, scale);
    context->save_for_backward({x, weight, a, b, low});
    context->saved_data["scale"] = scale;
    context->saved_data["dropout"] = dropout;
    context->saved_data["seed"] = seed;
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &a = saved[2], &b = saved[3], &low = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const double dropout = context->saved_data["dropout"].toDouble();
    const auto type = x.scalar_type();
    const auto& grad = grads[0];
    const auto mask = dropout > 0 ? dropout_mask(x, dropout, static_cast<uint64_t>(context->saved_data["seed"].toInt()))
                                  : at::Tensor();

    const auto grad_low = times(grad, b.to(type)).mul_(scale);  // [T, r]
    const auto grad_a = times(grad_low.t(), mask.defined() ? x * mask : x).to(a.scalar_type());
    const auto grad_b = at::mm(grad.t(), low).mul_(scale).to(b.scalar_type());
    at::Tensor grad_x;
    if (context->needs_input_grad(0)) {
      grad_x = times(grad, weight);
      if (mask.defined()) {
        grad_x.addcmul_(at::mm(grad_low, a.to(type)), mask);
      } else {
        grad_x.addmm_(grad_low, a.to(type));
      }
    }
    return {grad_x, {}, {}, grad_a, grad_b, {}, {}, {}};
  }
};

// Linears that read the same x: their A factors, one under the other, make one product, and so do their gradients.
struct Together : torch::CustomClassHolder {
  std::vector<Linear> linears;
  at::Tensor a;               // [Σr, I] in x's dtype
  std::vector<at::Tensor> b;  // [O, r] each, in x's dtype

  Together(const std::vector<const Linear*>& from, at::ScalarType type) {
    std::vector<at::Tensor> rows;
    for (const Linear* linear : from) {
      linears.push_back(*linear);
      rows.push_back(linear->lora->a.detach());
      b.push_back(linear->lora->b.detach().to(type));
    }
    a = at::cat(rows).to(type);
  }
  // Of linear i, in a tensor whose dimension `dim` is Σr.
  at::Tensor part(const at::Tensor& x, int64_t dim, size_t i) const {
    int64_t begin = 0;
    for (size_t j = 0; j < i; ++j) begin += b[j].size(1);
    return x.narrow(dim, begin, b[i].size(1));
  }
};

struct LoraTogether : torch::autograd::Function<LoraTogether> {
  // factors: a and b of each linear in turn, for autograd alone.
  static variable_list forward(AutogradContext* context, const at::Tensor& x, at::TensorList factors,
                               const c10::intrusive_ptr<Together>& call) {
    (void)factors;
    const auto low = times_transposed(x, call->a);  // [T, Σr]
    variable_list outputs;
    for (size_t i = 0; i < call->linears.size(); ++i) {
      const Linear& linear = call->linears[i];
      at::Tensor y = times_transposed(x, linear.weight,
                                      linear.bias.defined() ? std::optional<at::Tensor>(linear.bias) : std::nullopt);
      y.addmm_(call->part(low, 1, i), call->b[i].t(), 1.0, linear.lora->scale);
      outputs.push_back(y);
    }
    context->save_for_backward({x, low});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &low = saved[1];
    const auto call = c10::static_intrusive_pointer_cast<Together>(context->saved_data["call"].toCapsule());
    const bool wants_x = context->needs_input_grad(0), in_fp32 = x.scalar_type() == at::kFloat;
    at::Tensor grad_low = at::empty_like(low), grad_x;
    variable_list gradients(1);
    for (size_t i = 0; i < call->linears.size(); ++i) {
      const Linear& linear = call->linears[i];
      call->part(grad_low, 1, i).copy_(times(grads[i], call->b[i]).mul_(linear.lora->scale));
      gradients.push_back({});
      gradients.push_back(
          at::mm(grads[i].t(), call->part(low, 1, i)).mul_(linear.lora->scale).to(linear.lora->b.scalar_type()));
      if (!wants_x) continue;
      if (!grad_x.defined()) {
        grad_x = times(grads[i], linear.weight);
      } else if (in_fp32) {
        grad_x.add_(times(grads[i], linear.weight));
      } else {
        grad_x.addmm_(grads[i], linear.weight);
      }
    }
    const auto grad_a = times(grad_low.t(), x);
    for (size_t i = 0; i < call->linears.size(); ++i) {
      gradients[1 + 2 * i] = call->part(grad_a, 0, i).to(call->linears[i].lora->a.scalar_type());
    }
    if (wants_x) gradients[0] = grad_x.addmm_(grad_low, call->a);
    gradients.push_back({});  // the call's
    return gradients;
  }
};

// y = x Wᵀ + bias, W and bias frozen: nothing of x is kept.
struct FrozenLinear : torch::autograd::Function<FrozenLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    context->save_for_backward({weight});
    return times_transposed(x, weight, bias);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {times(grads[0], context->get_saved_variables()[0]), {}, {}};
  }
};

using OptionalTensor = std::optional<at::Tensor>;

// oneDNN's linear with a weight packed beforehand; ATen has no function for it, only the operators of torch.compile.
at::Tensor pack_weight(const at::Tensor& weight) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                             .typed<at::Tensor(const at::Tensor&, std::optional<int64_t>)>();
  constexpr int64_t kRowsHint = 16;  // of x: chooses the layout; any number of rows can be multiplied
  return op.call(weight.contiguous(), kRowsHint);
}

at::Tensor packed_linear(const at::Tensor& x, const at::Tensor& packed, const OptionalTensor& bias) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>();
  return op.call(x, packed, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace

void Linear::pack() {
  const bool multiplies =
      weight.scalar_type() == at::kFloat || (weight.scalar_type() == at::kBFloat16 && cpu_has_native_bf16());
  if (lora || !weight.device().is_cpu() || !multiplies || !at::globalContext().hasMKLDNN()) return;
  packed = pack_weight(weight);
  weight.reset();
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  const OptionalTensor optional_bias = bias.defined() ? OptionalTensor(bias) : std::nullopt;
  if (packed.defined()) return packed_linear(x, packed, optional_bias);
  if (!lora) {
    const bool wants_gradient = at::GradMode::is_enabled() && x.requires_grad();
    return wants_gradient ? FrozenLinear::apply(x, weight, optional_bias) : times_transposed(x, weight, optional_bias);
  }
  const double dropout = at::GradMode::is_enabled() ? lora->dropout : 0.0;
  return LoraLinear::apply(x, weight, optional_bias, lora->a, lora->b, lora->scale, dropout,
                           static_cast<int64_t>(lora->dropout_seed));
}

std::vector<at::Tensor> forward_together(const std::vector<const Linear*>& linears, const at::Tensor& x) {
  const bool trains = at::GradMode::is_enabled();
  const bool as_one = std::ranges::all_of(linears, [&](const Linear* linear) {
    return linear->lora && !(trains && linear->lora->dropout > 0);  // each linear drops other inputs
  });
  std::vector<at::Tensor> outputs;
  if (!as_one) {
    for (const Linear* linear : linears) outputs.push_back(linear->forward(x));
    return outputs;
  }
  std::vector<at::Tensor> factors;
  for (const Linear* linear : linears) {
    factors.push_back(linear->lora->a);
    factors.push_back(linear->lora->b);
  }
  return LoraTogether::apply(x, at::TensorList(factors), c10::make_intrusive<Together>(linears, x.scalar_type()));
}

}  // namespace potstill
