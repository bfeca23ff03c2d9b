// Weights from a WeightSource into tensors, and the choice of dtype and device.
#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <exception>
#include <mutex>
#include <thread>

#include "potstill/base/error.h"
#include "potstill/base/machine.h"
#include "potstill/nn/gpus.h"
#include "potstill/nn/tensor_bridge.h"
#include "potstill/nn/transformer.h"

namespace potstill {
namespace {

// Runs work(first_row, num_rows) over blocks of rows on LibTorch's number of threads; the first exception is rethrown.
template <class Work>
void for_row_blocks(int64_t rows, int64_t block, const Work& work) {
  std::atomic<int64_t> next = 0;
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto worker = [&] {
    try {
      for (int64_t row = next.fetch_add(block); row < rows; row = next.fetch_add(block)) {
        work(row, std::min(block, rows - row));
      }
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      next = rows;
    }
  };
  const int64_t num_threads = std::min<int64_t>(at::get_num_threads(), (rows + block - 1) / block);
  {
    std::vector<std::jthread> threads;
    for (int64_t t = 1; t < num_threads; ++t) threads.emplace_back(worker);
    worker();
  }
  if (failure) std::rethrow_exception(failure);
}

template <class T>
void read_converted(const WeightSource& weights, const std::string& name, int64_t columns, int64_t row, int64_t count,
                    at::Tensor& target) {
  std::vector<float> values(static_cast<size_t>(count * columns));
  weights.read_rows(name, row, count, values);
  T* out = target.mutable_data_ptr<T>() + row * columns;
  for (size_t i = 0; i < values.size(); ++i) out[i] = static_cast<T>(values[i]);
}

// Tensors that are not stored as plain rows (block formats, GGUF's permuted q and k): dequantized into the target.
at::Tensor read_dequantized(const WeightSource& weights, const WeightInfo& info, at::ScalarType dtype) {
  at::Tensor target = at::empty(info.shape, dtype);
  const int64_t rows = info.shape.size() == 1 ? 1 : info.shape[0];
  const int64_t columns = info.shape.back();
  constexpr int64_t kRowsPerBlock = 64;
  for_row_blocks(rows, kRowsPerBlock, [&](int64_t row, int64_t count) {
    if (dtype == at::kFloat) {
      float* out = target.mutable_data_ptr<float>() + row * columns;
      weights.read_rows(info.name, row, count, {out, static_cast<size_t>(count * columns)});
    } else if (dtype == at::kBFloat16) {
      read_converted<at::BFloat16>(weights, info.name, columns, row, count, target);
    } else {
      read_converted<at::Half>(weights, info.name, columns, row, count, target);
    }
  });
  return target;
}

at::Tensor load(const WeightSource& weights, std::shared_ptr<const WeightSource> owner, const std::string& name,
                at::ScalarType dtype, at::Device device) {
  const WeightInfo& info = weights.require(name);
  const auto view = weights.view(name);
  const at::Tensor tensor = view ? tensor_from_view(*view, std::move(owner)) : read_dequantized(weights, info, dtype);
  const at::Tensor loaded = tensor.to(device, dtype);  // the tensor itself where both already fit
  const bool borrowed = view && loaded.is_alias_of(tensor);
  if (!borrowed) weights.forget_pages();  // it is copied: the file's own pages need not stay
  return loaded;
}

}  // namespace

at::Tensor load_weight(const WeightSource& weights, const std::string& name, at::ScalarType dtype, at::Device device) {
  return load(weights, nullptr, name, dtype, device);
}

at::Tensor load_weight(const std::shared_ptr<const WeightSource>& weights, const std::string& name,
                       at::ScalarType dtype, at::Device device) {
  return load(*weights, weights, name, dtype, device);
}

DecoderLayer load_decoder_layer(const ModelPackage& model, int64_t layer, at::ScalarType dtype, at::Device device) {
  const ModelConfig& config = model.config;
  const auto weight = [&](const std::string& name) { return load_weight(model.weights, name, dtype, device); };
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  DecoderLayer loaded;
  for (const std::string_view name : kLinearNames) {
    const std::string path = linear_path(layer, name);
    const bool is_qkv = name == "q_proj" || name == "k_proj" || name == "v_proj";
    const bool has_bias = is_qkv             ? config.attention_bias
                          : name == "o_proj" ? config.attention_out_bias
                                             : config.mlp_bias;
    Linear& linear = loaded.linear(name);
    linear.weight = weight(path + ".weight");
    if (has_bias) linear.bias = weight(path + ".bias");
  }
  loaded.input_layernorm = weight(prefix + "input_layernorm.weight");
  loaded.post_attention_layernorm = weight(prefix + "post_attention_layernorm.weight");
  if (config.qk_norm) {
    loaded.q_norm = weight(prefix + "self_attn.q_norm.weight");
    loaded.k_norm = weight(prefix + "self_attn.k_norm.weight");
  }
  return loaded;
}

Transformer load_transformer(const ModelPackage& model, at::ScalarType dtype, at::Device device) {
  Transformer loaded;
  loaded.config = model.config;
  loaded.embed_tokens = load_weight(model.weights, "model.embed_tokens.weight", dtype, device);
  for (int64_t layer = 0; layer < model.config.num_hidden_layers; ++layer) {
    loaded.layers.push_back(load_decoder_layer(model, layer, dtype, device));
  }
  loaded.norm = load_weight(model.weights, "model.norm.weight", dtype, device);
  loaded.lm_head = load_lm_head(model, dtype, device, &loaded.embed_tokens);
  return loaded;
}

at::Tensor load_lm_head(const ModelPackage& model, at::ScalarType dtype, at::Device device,
                        const at::Tensor* embed_tokens) {
  if (!model.config.tie_word_embeddings) return load_weight(model.weights, "lm_head.weight", dtype, device);
  return embed_tokens ? *embed_tokens : load_weight(model.weights, "model.embed_tokens.weight", dtype, device);
}

at::ScalarType compute_dtype(const std::string& name, at::Device device) {
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  if (name == "auto") return !device.is_cpu() || cpu_has_native_bf16() ? at::kBFloat16 : at::kFloat;
  throw Error(ErrorKind::kUsage, "dtype", fmt::format("'{}' is none of auto, fp32, bf16", name));
}

at::Device compute_device(const std::string& name) {
  const int gpus = num_gpus();
  if (name == "cpu") return at::kCPU;
  if (name == "auto" && gpus == 0) return at::kCPU;
  if (name == "auto" || (name == "cuda" && gpus > 0)) return c10::impl::VirtualGuardImpl(at::kCUDA).getDevice();
  int index = 0;
  if (name.starts_with("cuda:")) {
    const char* end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + 5, end, index);
    if (error != std::errc() || stop != end) index = -1;
  }
  if (index < 0 || (name != "cuda" && !name.starts_with("cuda:"))) {
    throw Error(ErrorKind::kUsage, "device", fmt::format("'{}' is none of auto, cpu, cuda, cuda:N", name));
  }
  if (index >= gpus) {
    throw Error(ErrorKind::kUsage, "device", fmt::format("'{}' asked, but LibTorch sees {} GPUs", name, gpus),
                "use --device cpu, or a LibTorch built for the GPU at hand");
  }
  return {at::kCUDA, static_cast<at::DeviceIndex>(index)};
}

}  // namespace potstill
