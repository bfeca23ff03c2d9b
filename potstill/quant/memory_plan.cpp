#include "potstill/quant/memory_plan.h"

#include <algorithm>

namespace potstill {
namespace {

// LibTorch with its code and tables, the model's mapped file and vocabulary, and what the allocator cannot give back:
// what SmolLM2-135M's peak was over the parts below.
constexpr uint64_t kProcess = 430'000'000;

uint64_t floats(int64_t a, int64_t b) { return 4 * static_cast<uint64_t>(a) * static_cast<uint64_t>(b); }

}  // namespace

MemoryPlan plan_memory(const ModelConfig& config, const QuantizeSettings& settings, int64_t num_tokens,
                       int64_t tokens_per_batch, uint64_t limit_bytes) {
  const int64_t D = config.hidden_size, F = config.intermediate_size, Q = config.q_size(), KV = config.kv_size();
  const int64_t batch = std::min(tokens_per_batch, num_tokens);
  const bool asymmetric = settings.asymmetric.largest_strength > 0;
  MemoryPlan plan;
  plan.process = kProcess;
  plan.hidden = floats(num_tokens, D) + floats(asymmetric ? num_tokens : batch, D);
  // weights as read, and the quantized copies beside them; the widest set once more in the loop
  plan.layer = 2 * floats(D, 2 * Q + 2 * KV + 3 * F) + 2 * floats(D, 2 * F);
  const int64_t widest = std::max({D, Q, F});
  // doubles: two sums, their mean, and two at a time while it is factorised; floats: drift of both kinds
  plan.hessian = floats(widest, widest) * (2 * 6 + (asymmetric ? 4 : 0));
  plan.batch = floats(batch, std::max(3 * D + 3 * F, 4 * D + 2 * Q + 2 * KV));
  if (settings.method == QuantMethod::kRtn) plan.hidden = plan.hessian = plan.batch = 0;
  const uint64_t automatic = std::max<uint64_t>(uint64_t{960} << 20, plan.needed() + plan.needed() / 20);
  const uint64_t limit = limit_bytes > 0 ? limit_bytes : automatic;
  const uint64_t most = std::max(floats(num_tokens, F), floats(num_tokens, Q));  // no set keeps more
  if (settings.method == QuantMethod::kGptq && limit > plan.needed()) {
    plan.activations = std::min(limit - plan.needed(), most);
  }
  return plan;
}

}  // namespace potstill
