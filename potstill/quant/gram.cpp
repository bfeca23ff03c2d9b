#include "potstill/quant/gram.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "potstill/base/check.h"
#include "potstill/base/machine.h"
#include "potstill/quant/gram_kernel.h"
#include "potstill/quant/parallel.h"

namespace potstill::quant {
namespace {

// Columns a block of the upper triangle spans: 56 % of a full product's work at width 1536, 67 % at 576, in products
// that BLAS still runs at full speed.
constexpr int64_t kBlockColumns = 192;

void add_by_blas(const at::Tensor& x, const at::Tensor& sum) {
  const int64_t I = sum.size(0);
  for (int64_t begin = 0; begin < I; begin += kBlockColumns) {
    const int64_t end = std::min(begin + kBlockColumns, I);
    // fp32 inside a batch, double across batches: the sum does not lose small channels as the corpus grows
    const auto block = at::mm(x.slice(1, begin, end).t(), x.slice(1, begin, I));
    sum.slice(0, begin, end).slice(1, begin, I).add_(block);
  }
}

#ifdef __x86_64__
const GramKernel* kernel_for(const at::Tensor& x) {
  static const bool wide = cpu_has_avx512(), has_bf16 = wide && cpu_has_native_bf16();
  if (!x.device().is_cpu()) return nullptr;
  if (x.scalar_type() == at::kBFloat16) return has_bf16 ? &kGramBf16 : nullptr;
  return x.scalar_type() == at::kFloat && wide ? &kGramFp32 : nullptr;
}

void add_by_kernel(const GramKernel& kernel, const at::Tensor& x, const at::Tensor& sum) {
  const int64_t T = x.size(0), I = x.size(1), num_panels = (I + kGramPanel - 1) / kGramPanel;
  const int64_t at_once = kernel.tokens_of_step * kernel.most_steps;
  const auto width_of = [&](int64_t panel) { return std::min(kGramPanel, I - panel * kGramPanel); };
  const auto most_steps = (std::min(T, at_once) + kernel.tokens_of_step - 1) / kernel.tokens_of_step;
  const auto packed = at::empty({num_panels, most_steps, kGramPanel}, at::kInt);
  auto* panels = static_cast<uint32_t*>(packed.mutable_data_ptr());
  const auto* values = static_cast<const char*>(x.const_data_ptr());
  auto* sums = sum.mutable_data_ptr<double>();
  for (int64_t begin = 0; begin < T; begin += at_once) {
    const int64_t tokens = std::min(at_once, T - begin);
    const int64_t steps = (tokens + kernel.tokens_of_step - 1) / kernel.tokens_of_step;
    const auto panel_at = [&](int64_t panel) { return panels + panel * steps * kGramPanel; };
    for_each_chunk(num_panels, [&](int64_t p) {
      const char* from = values + (begin * I + p * kGramPanel) * static_cast<int64_t>(x.element_size());
      kernel.pack(from, I, tokens, width_of(p), panel_at(p));
    });
    for_each_chunk(num_panels * (num_panels + 1) / 2, [&](int64_t tile) {
      int64_t p = 0, q = tile;  // the tile-th of the upper triangle, row by row
      while (q >= num_panels - p) q -= num_panels - p++;
      q += p;
      kernel.add_tile(panel_at(p), panel_at(q), steps, width_of(p), width_of(q), sums + (p * I + q) * kGramPanel, I);
    });
  }
}
#endif

}  // namespace

void add_gram(const at::Tensor& x, const at::Tensor& sum) {
  POTSTILL_CHECK(x.dim() == 2 && sum.dim() == 2 && sum.size(0) == x.size(1) && sum.size(1) == x.size(1));
  POTSTILL_CHECK(sum.is_contiguous() && sum.scalar_type() == at::kDouble);
#ifdef __x86_64__
  if (const GramKernel* kernel = kernel_for(x)) return add_by_kernel(*kernel, x.contiguous(), sum);
#endif
  add_by_blas(x.to(at::kFloat), sum);
}

}  // namespace potstill::quant
