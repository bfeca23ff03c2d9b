// GPTQ's own layout (AutoGPTQ, GPTQModel): codes run down the inputs, eight to a word, with zero points of every group.
//   P.qweight i32 [I/8, O]   word row r holds inputs 8r … 8r+7 of a column, input 8r + j in bits 4j … 4j+3
//   P.qzeros  i32 [G, O/8]   column 8c + j in bits 4j … 4j+3; checkpoint_format "gptq" stores zero − 1, "gptq_v2" zero
//   P.scales  f16 [G, O]     P.g_idx i32 [I]: group of each input; absent: input i is of group i / g
// value = scale · (code − zero), codes and zeros 0 … 15.                                            formats.md section
// 5
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "potstill/formats/hf_checkpoint.h"
#include "potstill/formats/quantized_checkpoint.h"

namespace potstill {

struct GptqFileConfig {
  int64_t group_size = 128;  // 0 = one scale a row (−1 in the file)
  bool symmetric = true;
  bool desc_act = false;  // made in activation order; says nothing where groups are static
  int version = 1;        // of checkpoint_format: 1 = "gptq", 2 = "gptq_v2"
  double damp_percent = 0.01;
};

// What goes under "quantization_config" of config.json and into quantize_config.json.
nlohmann::ordered_json gptq_config_to_json(const GptqFileConfig& config, std::string_view quantizer);
// Throws Error(kInput) with the key for what is not 4-bit GPTQ.
GptqFileConfig gptq_config_from_json(const nlohmann::json& quantization_config, std::string_view where);

// The tensors of `module` in this layout. Throws Error(kInput) unless both widths are multiples of 8.
std::vector<TensorSpec> gptq_specs(std::string_view module, int64_t out_features, int64_t in_features,
                                   int64_t group_size);
// Writes them. Throws Error(kNumeric) for a scale that is no fp16 value, Error(kInput) for a zero point of 0, which
// version 1 cannot hold.
void write_gptq(SafetensorsFolderWriter& writer, const QuantizedLinear& linear, int version);

class GptqCheckpoint : public QuantizedCheckpoint {
 public:
  // tied: as in HfCheckpoint. Throws Error(kFormat) for tensors whose types or shapes do not fit each other, a group
  // index out of range, or zero points in a model that says it is symmetric.
  explicit GptqCheckpoint(const std::filesystem::path& folder, bool tied = false);

  const std::vector<WeightInfo>& weights() const override { return weights_; }
  std::string where() const override { return files_.where(); }
  std::optional<TensorView> view(std::string_view name) const override;
  void read_rows(std::string_view name, int64_t row_begin, int64_t num_rows, std::span<float> out) const override;
  void forget_pages() const override { files_.forget_pages(); }

  bool is_quantized(std::string_view name) const override { return packed_.contains(name); }
  bool symmetric() const override { return config_.symmetric; }
  int64_t group_size() const override { return config_.group_size; }
  int64_t bits(std::string_view) const override { return 4; }
  uint64_t stored_bytes(std::string_view name) const override;
  QuantizedLinear linear(std::string_view name) const override;

  const GptqFileConfig& config() const { return config_; }

 private:
  struct Packed {
    TensorView codes, zeros, scales;
    std::vector<int32_t> group_of;  // [I]
    bool contiguous = true;         // group_of[i] = i / group_size
    int64_t out_features = 0, in_features = 0, group_size = 0;
  };
  Packed read_packed(const std::string& module) const;
  // Of rows [begin, begin + num_rows): codes [num_rows, I] and zeros [num_rows, G] unpacked, scales as fp32.
  QuantizedLinear unpack(const Packed& packed, int64_t row_begin, int64_t num_rows) const;

  HfCheckpoint files_;
  GptqFileConfig config_;
  std::vector<WeightInfo> weights_;
  std::map<std::string, Packed, std::less<>> packed_;
};

}  // namespace potstill
