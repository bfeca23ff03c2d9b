// bind_folder: a Hugging Face folder as EdgeWeights.
#include <fmt/format.h>

#include <string>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/edge/edge_weights.h"
#include "potstill/formats/quantized_checkpoint.h"
#include "potstill/kernels/kernels.h"

namespace potstill::edge {
namespace {

using kernels::MatrixView;

class FolderBinder {
 public:
  FolderBinder(const WeightSource& source, EdgeWeights& weights)
      : source_(source), packed_(dynamic_cast<const QuantizedCheckpoint*>(&source)), weights_(weights) {}

  MatrixView matrix(const std::string& name, int64_t rows, int64_t cols) {
    require_shape(name, {rows, cols});
    if (packed_ != nullptr && packed_->is_quantized(name)) return unpacked(name, rows, cols);
    const auto view = source_.view(name);
    if (!view || !kernels::has_kernels(view->dtype)) {
      throw Error(ErrorKind::kInput, source_.where(), fmt::format("'{}' is of a type that has no kernel", name),
                  "potstill export --model DIR writes a GGUF file");
    }
    return {view->dtype, rows, cols, view->bytes.data(), view->bytes.size() / static_cast<size_t>(rows)};
  }

  std::vector<float> vector(const std::string& name, int64_t size) {
    require_shape(name, {size});
    return source_.read(name);
  }

  Linear linear(const std::string& module, int64_t rows, int64_t cols, bool bias) {
    return {matrix(module + ".weight", rows, cols), bias ? vector(module + ".bias", rows) : std::vector<float>{}};
  }

 private:
  void require_shape(const std::string& name, const std::vector<int64_t>& shape) const {
    if (source_.require(name).shape == shape) return;
    throw Error(ErrorKind::kFormat, source_.where(), fmt::format("'{}' has not the shape that config.json says", name),
                "the configuration and the weights do not belong together");
  }

  MatrixView unpacked(const std::string& name, int64_t rows, int64_t cols) {
    const QuantizedLinear linear = packed_->linear(name);
    const DType dtype = block_dtype(linear);
    if (linear.group_size % kernels::kBlock != 0) {
      throw Error(ErrorKind::kInput, source_.where(),
                  fmt::format("'{}' has groups of {} columns", name, linear.group_size), "multiples of 32 are run");
    }
    const size_t row_bytes = static_cast<size_t>(cols / kernels::kBlock) * block_bytes(dtype);
    const size_t bytes = static_cast<size_t>(rows) * row_bytes;
    auto copy = std::make_unique_for_overwrite<std::byte[]>(bytes);
    write_block_rows(linear, dtype, 0, rows, {copy.get(), bytes});
    weights_.copies.push_back(std::move(copy));
    return {dtype, rows, cols, weights_.copies.back().get(), row_bytes};
  }

  const WeightSource& source_;
  const QuantizedCheckpoint* packed_;
  EdgeWeights& weights_;
};

}  // namespace

EdgeWeights bind_folder(const WeightSource& source, const ModelConfig& config) {
  EdgeWeights weights;
  weights.config = config;
  FolderBinder binder(source, weights);
  const int64_t D = config.hidden_size, F = config.intermediate_size, V = config.vocab_size;
  weights.embedding = binder.matrix("model.embed_tokens.weight", V, D);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i), attention = prefix + "self_attn.",
                      mlp = prefix + "mlp.";
    LayerWeights layer;
    layer.attention_norm = binder.vector(prefix + "input_layernorm.weight", D);
    layer.q_proj = binder.linear(attention + "q_proj", config.q_size(), D, config.attention_bias);
    layer.k_proj = binder.linear(attention + "k_proj", config.kv_size(), D, config.attention_bias);
    layer.v_proj = binder.linear(attention + "v_proj", config.kv_size(), D, config.attention_bias);
    layer.o_proj = binder.linear(attention + "o_proj", D, config.q_size(), config.attention_out_bias);
    if (config.qk_norm) {
      layer.q_norm = binder.vector(attention + "q_norm.weight", config.head_dim);
      layer.k_norm = binder.vector(attention + "k_norm.weight", config.head_dim);
    }
    layer.mlp_norm = binder.vector(prefix + "post_attention_layernorm.weight", D);
    layer.gate_proj = binder.linear(mlp + "gate_proj", F, D, config.mlp_bias);
    layer.up_proj = binder.linear(mlp + "up_proj", F, D, config.mlp_bias);
    layer.down_proj = binder.linear(mlp + "down_proj", D, F, config.mlp_bias);
    weights.layers.push_back(std::move(layer));
  }
  weights.output_norm = binder.vector("model.norm.weight", D);
  weights.head = config.tie_word_embeddings ? weights.embedding : binder.matrix("lm_head.weight", V, D);
  weights.rope_order = kernels::RopeOrder::kHalves;
  weights.inverse_frequencies = rope_inverse_frequencies(config);
  return weights;
}

}  // namespace potstill::edge
