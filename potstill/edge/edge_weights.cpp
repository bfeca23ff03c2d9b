#include "potstill/edge/edge_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>
#include <string>

#include "potstill/base/error.h"
#include "potstill/formats/gguf_checkpoint.h"
#include "potstill/kernels/kernels.h"

namespace potstill::edge {
namespace {

using kernels::MatrixView;

// Hands out tensors by name and remembers which were asked for.
class Binder {
 public:
  explicit Binder(const GgufFile& file) : file_(file) {}

  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  MatrixView matrix(const std::string& name, int64_t rows, int64_t cols) {
    const TensorView& tensor = require(name, {rows, cols});
    return {tensor.dtype, rows, cols, tensor.bytes.data(), tensor.bytes.size() / static_cast<size_t>(rows)};
  }

  std::vector<float> vector(const std::string& name, int64_t size) {
    const TensorView& tensor = require(name, {size});
    if (is_block_quantized(tensor.dtype))
      fail(name, fmt::format("has type {}", dtype_name(tensor.dtype)), "F32, F16 or BF16");
    std::vector<float> values(static_cast<size_t>(size));
    kernels::kernels().dequantize_row({tensor.dtype, 1, size, tensor.bytes.data(), tensor.bytes.size()}, 0,
                                      values.data());
    return values;
  }

  Linear linear(const std::string& name, int64_t rows, int64_t cols, bool bias) {
    return {matrix(name + ".weight", rows, cols), bias ? vector(name + ".bias", rows) : std::vector<float>{}};
  }

  void require_all_used() const {
    for (const TensorView& tensor : file_.tensors()) {
      if (used_.count(tensor.name) == 0) {
        fail(tensor.name, fmt::format("of shape [{}] belongs to no part of the model", fmt::join(tensor.shape, ", ")),
             "no such tensor in this architecture");
      }
    }
  }

 private:
  const TensorView& require(const std::string& name, const std::vector<int64_t>& shape) {
    const TensorView* tensor = file_.find_tensor(name);
    if (tensor == nullptr) {
      throw Error(ErrorKind::kFormat, file_.where(), fmt::format("missing tensor '{}'", name),
                  "the file is not a whole model; export or fetch it again");
    }
    used_.insert(name);
    if (tensor->shape != shape) {
      fail(name, fmt::format("has shape [{}]", fmt::join(tensor->shape, ", ")),
           fmt::format("[{}]", fmt::join(shape, ", ")));
    }
    if (!kernels::has_kernels(tensor->dtype)) {
      fail(name, fmt::format("has type {}", dtype_name(tensor->dtype)), "F32, F16, BF16, Q4_0, Q4_1 or Q8_0");
    }
    return *tensor;
  }

  [[noreturn]] void fail(std::string_view name, std::string_view found, std::string_view wanted) const {
    throw Error(ErrorKind::kFormat, file_.where(), fmt::format("tensor '{}' {}; wanted: {}", name, found, wanted),
                "the file's metadata and tensors do not belong together, or its exporter is newer than this program");
  }

  const GgufFile& file_;
  std::set<std::string, std::less<>> used_;
};

LayerWeights bind_layer(Binder& binder, const ModelConfig& config, int64_t layer) {
  const std::string prefix = fmt::format("blk.{}.", layer);
  const int64_t D = config.hidden_size, F = config.intermediate_size;
  LayerWeights weights;
  weights.attention_norm = binder.vector(prefix + "attn_norm.weight", D);
  weights.q_proj = binder.linear(prefix + "attn_q", config.q_size(), D, config.attention_bias);
  weights.k_proj = binder.linear(prefix + "attn_k", config.kv_size(), D, config.attention_bias);
  weights.v_proj = binder.linear(prefix + "attn_v", config.kv_size(), D, config.attention_bias);
  weights.o_proj = binder.linear(prefix + "attn_output", D, config.q_size(), config.attention_out_bias);
  if (config.qk_norm) {
    weights.q_norm = binder.vector(prefix + "attn_q_norm.weight", config.head_dim);
    weights.k_norm = binder.vector(prefix + "attn_k_norm.weight", config.head_dim);
  }
  weights.mlp_norm = binder.vector(prefix + "ffn_norm.weight", D);
  weights.gate_proj = binder.linear(prefix + "ffn_gate", F, D, config.mlp_bias);
  weights.up_proj = binder.linear(prefix + "ffn_up", F, D, config.mlp_bias);
  weights.down_proj = binder.linear(prefix + "ffn_down", D, F, config.mlp_bias);
  return weights;
}

}  // namespace

uint64_t EdgeWeights::bytes_per_token() const {
  uint64_t bytes = head.bytes() + (head.data == embedding.data ? 0 : embedding.row_bytes);
  for (const LayerWeights& layer : layers) {
    for (const Linear* linear : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj, &layer.gate_proj,
                                 &layer.up_proj, &layer.down_proj}) {
      bytes += linear->weight.bytes();
    }
  }
  return bytes;
}

EdgeWeights bind_weights(const GgufFile& file) {
  EdgeWeights weights;
  weights.config = model_config_from_gguf(file);
  const ModelConfig& config = weights.config;
  Binder binder(file);
  weights.embedding = binder.matrix("token_embd.weight", config.vocab_size, config.hidden_size);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    weights.layers.push_back(bind_layer(binder, config, layer));
  }
  weights.output_norm = binder.vector("output_norm.weight", config.hidden_size);
  weights.head = binder.has("output.weight") ? binder.matrix("output.weight", config.vocab_size, config.hidden_size)
                                             : weights.embedding;
  // llama.cpp's converter permutes q and k of this architecture alone: formats.md, section 3.1
  weights.rope_order = file.require_string("general.architecture") == "llama" ? kernels::RopeOrder::kInterleaved
                                                                              : kernels::RopeOrder::kHalves;
  if (binder.has("rope_freqs.weight")) {  // llama3 scaling, as factors that divide the plain frequencies
    ModelConfig plain = config;
    plain.rope_scaling = {};
    weights.inverse_frequencies = rope_inverse_frequencies(plain);
    const auto factors = binder.vector("rope_freqs.weight", config.head_dim / 2);
    for (size_t i = 0; i < factors.size(); ++i) weights.inverse_frequencies[i] /= factors[i];
  } else {
    weights.inverse_frequencies = rope_inverse_frequencies(config);
  }
  binder.require_all_used();
  return weights;
}

}  // namespace potstill::edge
