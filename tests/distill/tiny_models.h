// Transformers of a few thousand parameters, and a teacher signal straight from one: for tests without files.
#pragma once

#include <cmath>
#include <functional>
#include <string>

#include "potstill/base/rng.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/kl_loss.h"
#include "potstill/distill/records.h"
#include "potstill/distill/teacher_signal.h"
#include "potstill/nn/lora.h"
#include "potstill/nn/transformer.h"

namespace potstill::tiny {

inline ModelConfig config(int64_t layers, int64_t vocab = 40) {
  ModelConfig c;
  c.model_type = "llama";
  c.vocab_size = vocab;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.num_hidden_layers = layers;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 4;
  c.max_position_embeddings = 64;
  c.rms_norm_eps = 1e-5;
  c.tie_word_embeddings = true;
  return c;
}

// weight(name, shape) gives every tensor by its Hugging Face name.
using WeightOf = std::function<at::Tensor(const std::string&, std::vector<int64_t>)>;

inline Transformer build(const ModelConfig& c, const WeightOf& weight) {
  Transformer model;
  model.config = c;
  model.embed_tokens = weight("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  model.lm_head = model.embed_tokens;
  model.norm = weight("model.norm.weight", {c.hidden_size});
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    DecoderLayer layer;
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    layer.input_layernorm = weight(prefix + "input_layernorm.weight", {c.hidden_size});
    layer.post_attention_layernorm = weight(prefix + "post_attention_layernorm.weight", {c.hidden_size});
    for (const std::string name : kLinearNames) {
      const bool is_down = name == "down_proj", is_mlp = is_down || name == "gate_proj" || name == "up_proj";
      const int64_t in = is_down ? c.intermediate_size : name == "o_proj" ? c.q_size() : c.hidden_size;
      const int64_t out = is_down || name == "o_proj" ? c.hidden_size
                          : is_mlp                    ? c.intermediate_size
                          : name == "q_proj"          ? c.q_size()
                                                      : c.kv_size();
      layer.linear(name).weight = weight(linear_path(i, name) + ".weight", {out, in});
    }
    model.layers.push_back(layer);
  }
  return model;
}

inline Transformer random(const ModelConfig& c, uint64_t seed) {
  return build(c, [seed](const std::string& name, std::vector<int64_t> shape) {
    if (shape.size() == 1) return at::ones(shape, at::kFloat);
    Rng rng(seed, name);
    at::Tensor tensor = at::empty(shape, at::kFloat);
    for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_ptr<float>()[i] = static_cast<float>(0.3 * rng.normal());
    return tensor;
  });
}

// Random pairs: a prompt of 2–7 tokens, an answer of 2–9.
inline DistillData random_data(int64_t count, int64_t vocab, uint64_t seed, double held_out = 0.25) {
  DistillData data;
  Rng rng(seed, "pairs");
  for (int64_t i = 0; i < count; ++i) {
    DistillRecord record;
    record.line = i + 1;
    const uint64_t prompt = 2 + rng.below(6), answer = 2 + rng.below(8);
    for (uint64_t t = 0; t < prompt + answer; ++t) {
      record.tokens.push_back(static_cast<TokenId>(rng.below(static_cast<uint64_t>(vocab))));
      record.is_answer.push_back(t >= prompt);
    }
    data.records.push_back(record);
  }
  data.held_out = choose_held_out(count, held_out, seed);
  for (int64_t i = 0; i < count; ++i) {
    if (std::find(data.held_out.begin(), data.held_out.end(), i) == data.held_out.end()) data.train.push_back(i);
  }
  return data;
}

class ModelSignal : public ExactSignal {
 public:
  ModelSignal(const Transformer& teacher, const DistillData& data) : head_(teacher.lm_head) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> rows;
    for (const auto& record : data.records) {
      const std::vector<std::vector<TokenId>> one = {record.tokens};
      rows.push_back(
          teacher.hidden_states(pack_sequences(one)).index_select(0, at::tensor(record.answer_positions(), at::kLong)));
    }
    hidden_ = at::cat(rows);
  }
  int64_t num_positions() const override { return hidden_.size(0); }
  int64_t vocab_limit() const override { return head_.size(0); }
  at::Tensor logits(const at::Tensor& positions, at::Device) const override {
    return head_logits(hidden_.index_select(0, positions), head_);
  }
  std::string where() const override { return "tiny teacher"; }

 protected:
  at::Tensor hidden_, head_;
};

}  // namespace potstill::tiny
