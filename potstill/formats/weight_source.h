// WeightSource: the weights of a model by their Hugging Face names, wherever they lie (safetensors folder, GGUF file,
// compressed-tensors folder). Nothing is read from the disk until it is asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/base/tensor_view.h"

namespace potstill {

struct WeightInfo {
  std::string name;            // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // torch order: a linear's weight is [out, in]
  DType dtype = DType::kF32;   // as stored; a 4-bit compressed-tensors weight says kQ4_0
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // All weights under logical names, sorted by name. A quantized linear appears once, as "<module>.weight".
  virtual const std::vector<WeightInfo>& weights() const = 0;
  virtual std::string where() const = 0;  // path, for messages

  // The stored bytes where they are plain row-major F32/F16/BF16 in Hugging Face's row order; nothing else is viewable
  // (block formats, GGUF's permuted q/k). Zero-copy: valid while the source lives.
  virtual std::optional<TensorView> view(std::string_view name) const = 0;

  // Rows [row_begin, row_begin + num_rows) as fp32 into out (num_rows * shape[1] values; a vector counts as one row),
  // dequantized, in Hugging Face's row order. Thread-safe.
  virtual void read_rows(std::string_view name, int64_t row_begin, int64_t num_rows, std::span<float> out) const = 0;

  // Gives back the memory in which mapped weights lie: they are read from the file again when they are touched. Views
  // stay valid.
  virtual void forget_pages() const = 0;

  const WeightInfo* find(std::string_view name) const;     // nullptr when absent
  const WeightInfo& require(std::string_view name) const;  // Error(kFormat): "missing tensor '…'"
  std::vector<float> read(std::string_view name) const;    // the whole tensor as fp32
};

}  // namespace potstill
