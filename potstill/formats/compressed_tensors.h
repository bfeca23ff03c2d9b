// compressed-tensors, format "pack-quantized": the W4A16 folder that transformers and vLLM load.
//   P.weight_packed     i32 [O, ceil(I / 8)]     element 8w + j of a row in bits 4j … 4j + 3 of word w; with 8 bits
//   four
//                                                elements a word
//   P.weight_scale      f16, bf16 or f32 [O, I / g]
//   P.weight_shape      i64 [2] = O, I
//   P.weight_zero_point i32 [ceil(O / 8), I / g] packed down the rows; asymmetric only
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/formats/hf_checkpoint.h"
#include "potstill/formats/quantized_checkpoint.h"
#include "potstill/formats/safetensors.h"

namespace potstill {

// Linears that differ from the rest in their bits.
struct CompressedTensorsOverride {
  std::vector<std::string> targets;  // module names, or "re:" and a regular expression
  int64_t bits = 8;
  int64_t group_size = 0;

  bool matches(const std::string& module) const;
};

// The config group of a W4A16 model that targets "Linear", and those that target linears by name.
struct CompressedTensorsConfig {
  int64_t bits = 4;
  int64_t group_size = 0;  // 0 = strategy "channel": one scale a row
  bool symmetric = true;
  std::string actorder;                           // "", "static", "group"; says how it was made, changes no value
  std::vector<std::string> ignore = {"lm_head"};  // linears that are not quantized: module names
  std::vector<CompressedTensorsOverride> overrides = {};

  std::pair<int64_t, int64_t> bits_and_group(const std::string& module) const;
};

// The object under "quantization_config" of config.json.
nlohmann::ordered_json compressed_tensors_config_to_json(const CompressedTensorsConfig& config);
// Throws Error(kInput) with the key for what is not W4A16 pack-quantized: other bits, formats, activations, groups.
CompressedTensorsConfig compressed_tensors_config_from_json(const nlohmann::json& quantization_config,
                                                            std::string_view where);

// What a quantized linear `module` takes in the file: weight_packed, weight_scale, weight_shape[, weight_zero_point].
std::vector<TensorSpec> packed_specs(std::string_view module, int64_t out_features, int64_t in_features,
                                     int64_t group_size, bool symmetric, DType scale_dtype = DType::kF16,
                                     int64_t bits = 4);
// Writes those tensors of linear.name. Error(kNumeric) when scale_dtype cannot hold a scale exactly.
void write_packed(SafetensorsFolderWriter& writer, const QuantizedLinear& linear, DType scale_dtype = DType::kF16);

// A pack-quantized folder.
class CompressedTensorsCheckpoint : public QuantizedCheckpoint {
 public:
  // tied: as in HfCheckpoint.
  explicit CompressedTensorsCheckpoint(const std::filesystem::path& folder, bool tied = false);

  const std::vector<WeightInfo>& weights() const override { return weights_; }
  std::string where() const override { return files_.where(); }
  std::optional<TensorView> view(std::string_view name) const override;
  void read_rows(std::string_view name, int64_t row_begin, int64_t num_rows, std::span<float> out) const override;
  void forget_pages() const override { files_.forget_pages(); }

  const CompressedTensorsConfig& config() const { return config_; }
  bool is_quantized(std::string_view name) const override { return packed_.contains(name); }
  bool symmetric() const override { return config_.symmetric; }
  int64_t group_size() const override { return config_.group_size; }
  int64_t bits(std::string_view name) const override { return packed_.find(name)->second.bits; }
  uint64_t stored_bytes(std::string_view name) const override;
  QuantizedLinear linear(std::string_view name) const override;

 private:
  struct Packed {
    TensorView codes, scales, zeros;
    int64_t out_features = 0, in_features = 0, group_size = 0, bits = 4;
  };
  Packed read_packed(const std::string& module) const;
  // Codes and zeros of rows unpacked, scales as fp32: what linear() and read_rows() share.
  QuantizedLinear unpack(const Packed& packed, int64_t row_begin, int64_t num_rows) const;

  HfCheckpoint files_;
  CompressedTensorsConfig config_;
  std::vector<WeightInfo> weights_;
  std::map<std::string, Packed, std::less<>> packed_;
};

}  // namespace potstill
