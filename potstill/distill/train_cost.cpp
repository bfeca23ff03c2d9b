#include "potstill/distill/train_cost.h"

#include <algorithm>

namespace potstill {
namespace {

int64_t layer_values(const Transformer& student) {
  int64_t values = 0;
  for (const DecoderLayer& layer : student.layers) {
    for (const char* name : kLinearNames) values += layer.linear(name).weight.numel();
  }
  return values;
}

uint64_t factor_values(const LoraAdapter& adapter) {
  uint64_t values = 0;
  for (const auto& parameter : lora_parameters(adapter)) values += static_cast<uint64_t>(parameter.numel());
  return values;
}

// Tensors of optimizer state beside each factor.
uint64_t optimizer_buffers(const DistillConfig& config) {
  return config.optimizer.find("adamw") != std::string::npos ? 2 : 1;
}

// Bytes that one layer keeps of a token for its gradient: the inputs of its four groups of linears and of attention,
// the MLP's two halves, both norms' inputs, and the factors' [r] products.
uint64_t kept_by_layer(const Transformer& student, int64_t rank, uint64_t element) {
  const ModelConfig& c = student.config;
  const auto width = static_cast<uint64_t>(c.hidden_size), inner = static_cast<uint64_t>(c.intermediate_size);
  const auto q = static_cast<uint64_t>(c.q_size()), kv = static_cast<uint64_t>(c.kv_size());
  const uint64_t values = 4 * width     // h before each half, both norms' outputs
                          + q + 2 * kv  // rotated q and k, v
                          + q           // attention's output, the input of o_proj
                          + 3 * inner   // gate, up, their product
                          + 7 * static_cast<uint64_t>(rank);
  return element * values + 4 * static_cast<uint64_t>(c.num_attention_heads + 2);  // log-sums and norms' scales
}

}  // namespace

double step_flops(const Transformer& student, const LoraAdapter& adapter, int64_t tokens, int64_t answer_tokens,
                  int64_t teacher_width, bool checkpoint_activations) {
  const auto layers = static_cast<double>(layer_values(student)), factors = static_cast<double>(factor_values(adapter));
  const double passes = checkpoint_activations ? 3 : 2;  // forward and back; forward once more
  const auto head = static_cast<double>(student.lm_head.numel());
  const double teacher = static_cast<double>(student.lm_head.size(0)) * static_cast<double>(teacher_width);
  return 2 * static_cast<double>(tokens) * (passes * layers + (passes + 1) * factors) +
         2 * static_cast<double>(answer_tokens) * (2 * head + teacher);
}

uint64_t total_bytes(const std::vector<MemoryRow>& rows) {
  uint64_t total = 0;
  for (const auto& row : rows) total += row.bytes;
  return total;
}

std::vector<MemoryRow> training_memory(const Transformer& student, const LoraAdapter& adapter,
                                       const DistillConfig& config, uint64_t resident, LargestBatch largest,
                                       bool checkpoint_activations) {
  const auto element = static_cast<uint64_t>(c10::elementSize(student.dtype()));
  const auto tokens = static_cast<uint64_t>(largest.tokens), layers = static_cast<uint64_t>(student.layers.size());
  const auto width = static_cast<uint64_t>(student.config.hidden_size);
  const uint64_t inside = kept_by_layer(student, config.rank, element);
  const uint64_t kept = checkpoint_activations ? layers * element * width + inside : layers * inside;
  // Of one layer on the way back: gradients of its widest tensors; a norm is differentiated in fp32.
  const uint64_t moving = element * (4 * width + 4 * static_cast<uint64_t>(student.config.intermediate_size)) +
                          (element == 2 ? 4 * 4 * width : 0);
  const auto vocabulary = static_cast<uint64_t>(student.lm_head.size(0));
  const auto rows = static_cast<uint64_t>(std::min(config.loss_rows, std::max<int64_t>(1, largest.answer_tokens)));
  const uint64_t factors = 4 * factor_values(adapter);
  return {{"program, student, teacher's head", resident},
          {"factors' gradients, optimizer, last good step",
           factors * (1 + optimizer_buffers(config)) + factors * (1 + optimizer_buffers(config)) + factors},
          {"activations", tokens * kept},
          {"one layer's gradients", tokens * moving},
          {"logits", rows * vocabulary * (2 * 4 + element)},
          // Pairs of rows lie together in what multiplies bf16: a copy for the time of the product.
          {"LM head as the product wants it", element == 2 ? vocabulary * width * element : 0}};
}

bool choose_checkpointing(const DistillConfig& config, const std::vector<MemoryRow>& whole, uint64_t resident,
                          uint64_t available) {
  if (config.checkpoint_activations != "auto") return config.checkpoint_activations == "on";
  return total_bytes(whole) - resident > available / 2;
}

}  // namespace potstill
