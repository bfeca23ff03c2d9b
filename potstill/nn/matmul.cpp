#include "potstill/nn/matmul.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "potstill/base/machine.h"

namespace potstill {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// MKL multiplies fp32 by AVX2 on processors of other makers; oneDNN, in the same library, by AVX-512 where it is there
// (Zen 5, two cores: 234 against 415 GFLOP/s at [1024, 576] x [1536, 576]). ATen sends bf16 to oneDNN by itself.
bool prefers_onednn(const at::Tensor& x, const at::Tensor& w) {
  static const bool wide = cpu_has_avx512() && at::globalContext().hasMKLDNN();
  return wide && x.device().is_cpu() && x.scalar_type() == at::kFloat && w.scalar_type() == at::kFloat &&
         x.dim() == 2 && x.size(0) > 1 && x.numel() > 0 && w.numel() > 0;
}

// x · wᵀ for w [O, I] in any layout. ATen has no function for it, only the operator of torch.compile.
at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& w, const OptionalTensor& bias) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>();
  const at::NoGradGuard no_grad;
  return op.call(x, w, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

// Undefined where oneDNN cannot: short of memory for its kernel it says no more than that. ATen's own product then
// works, or names what is missing.
at::Tensor try_onednn(const at::Tensor& x, const at::Tensor& w, const OptionalTensor& bias) {
  try {
    return onednn_linear(x, w, bias);
  } catch (const std::exception&) {
    return {};
  }
}

}  // namespace

at::Tensor times_transposed(const at::Tensor& x, const at::Tensor& w, const OptionalTensor& bias) {
  if (prefers_onednn(x, w)) {
    if (auto y = try_onednn(x, w, bias); y.defined()) return y;
  }
  return at::linear(x, w, bias);
}

at::Tensor times(const at::Tensor& x, const at::Tensor& w) {
  if (prefers_onednn(x, w)) {
    if (auto y = try_onednn(x, w.t(), {}); y.defined()) return y;
  }
  return at::mm(x, w);
}

}  // namespace potstill
