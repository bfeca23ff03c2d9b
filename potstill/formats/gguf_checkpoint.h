// GgufCheckpoint: a GGUF file as a WeightSource under Hugging Face's names and row order.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/formats/gguf.h"
#include "potstill/formats/model_config.h"
#include "potstill/formats/weight_source.h"

namespace potstill {

// The config behind a GGUF's keys and tensors. Throws Error(kFormat | kInput): missing key, unsupported architecture or
// RoPE scaling.
ModelConfig model_config_from_gguf(const GgufFile& file);

// "model.layers.3.mlp.up_proj.weight" <-> "blk.3.ffn_up.weight"; nothing for names that have no counterpart.
std::optional<std::string> gguf_tensor_name(std::string_view hf_name);
std::optional<std::string> hf_tensor_name(std::string_view gguf_name);

// Heads whose rows GGUF interleaves for RoPE: num_attention_heads for q, num_key_value_heads for k, 0 for what keeps
// its order. Architecture "llama" alone permutes: of a head's d rows, row 2i + p is Hugging Face's row p · d/2 + i.
int64_t permuted_heads(std::string_view hf_name, std::string_view architecture, const ModelConfig& config);
// Where Hugging Face's row lies in the file, for a tensor of `heads` permuted heads of head_dim rows.
constexpr int64_t permuted_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim, half = head_dim / 2;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

// Factors by which llama3's rule divides each frequency: head_dim / 2 values, "rope_freqs.weight" of a GGUF.
std::vector<float> llama3_rope_factors(const ModelConfig& config);

class GgufCheckpoint : public WeightSource {
 public:
  explicit GgufCheckpoint(const std::filesystem::path& path);

  const GgufFile& file() const { return file_; }
  const ModelConfig& config() const { return config_; }

  const std::vector<WeightInfo>& weights() const override { return weights_; }
  std::string where() const override { return file_.where(); }
  std::optional<TensorView> view(std::string_view name) const override;
  void read_rows(std::string_view name, int64_t row_begin, int64_t num_rows, std::span<float> out) const override;
  void forget_pages() const override { file_.forget_pages(); }

 private:
  struct Entry {
    const TensorView* tensor = nullptr;
    bool permuted = false;
  };
  const Entry& entry(std::string_view name) const;

  GgufFile file_;
  ModelConfig config_;
  std::vector<WeightInfo> weights_;                    // sorted by name
  std::map<std::string, Entry, std::less<>> entries_;  // by Hugging Face name
};

}  // namespace potstill
