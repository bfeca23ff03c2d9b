// Who shall load a quantized model, and what their kernels refuse: said before the work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/formats/model_config.h"

namespace potstill {

enum class Consumer { kVllm, kLlamaCpp, kEdge };

// "vllm,llama.cpp,edge"; empty = none. Throws Error(kUsage) with the names there are.
std::vector<Consumer> parse_consumers(std::string_view text);

// What a consumer sees of a model that is to be quantized or exported.
struct ConsumerPlan {
  int64_t bits = 4;         // of the linears that are not 8-bit by target_bpw
  int64_t group_size = 64;  // 0 = one scale a row; of no account for weights that are not quantized
  bool symmetric = true;
  bool quantized = true;
  std::string format = {};  // of an export: "gguf", "gptq", …; empty for `quantize`, whose folder is exported yet
};

struct Refusal {
  std::string consumer, what, instead;
  bool slow_only = false;  // it loads, by a slower kernel than its best
};
std::vector<Refusal> refusals(const ModelConfig& model, const ConsumerPlan& plan,
                              const std::vector<Consumer>& consumers);

// Throws Error(kUsage) with every refusal; what is slow only is logged as a warning.
void require_consumers(const ModelConfig& model, const ConsumerPlan& plan, std::string_view consumers,
                       std::string_view where);

}  // namespace potstill
