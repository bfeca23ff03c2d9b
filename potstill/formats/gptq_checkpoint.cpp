#include "potstill/formats/gptq_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "potstill/base/atomic_file.h"
#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/formats/ggml_blocks.h"
#include "potstill/formats/strict_json.h"
#include "potstill/formats/tensor_checks.h"

namespace potstill {
namespace {

constexpr int64_t kCodesInWord = 8;
constexpr uint8_t kMiddleZero = 8;  // the zero point of symmetric models
constexpr std::string_view kCodes = ".qweight", kZeros = ".qzeros", kScales = ".scales", kGroupIndex = ".g_idx",
                           kPlain = ".weight";

std::string part(std::string_view module, std::string_view suffix) { return fmt::format("{}{}", module, suffix); }

uint32_t word_at(const TensorView& words, int64_t index) {
  uint32_t bits;
  std::memcpy(&bits, words.bytes.data() + static_cast<size_t>(index) * sizeof(bits), sizeof(bits));
  return bits;
}

GptqFileConfig read_gptq_config(const std::filesystem::path& folder) {
  const auto path = folder / "config.json";
  const auto json = parse_strict_json(read_file(path), path.string());
  const auto found = json.is_object() ? json.find("quantization_config") : json.end();
  if (!json.is_object() || found == json.end()) {
    throw Error(ErrorKind::kFormat, path.string(), "has no 'quantization_config'");
  }
  return gptq_config_from_json(*found, path.string());
}

}  // namespace

nlohmann::ordered_json gptq_config_to_json(const GptqFileConfig& config, std::string_view quantizer) {
  const char* const format = config.version == 2 ? "gptq_v2" : "gptq";
  return {{"quant_method", "gptq"},
          {"bits", 4},
          {"group_size", config.group_size > 0 ? config.group_size : -1},
          {"desc_act", config.desc_act},
          {"sym", config.symmetric},
          {"lm_head", false},
          {"checkpoint_format", format},
          {"format", format},  // the same under the name of newer writers
          {"pack_dtype", "int32"},
          {"true_sequential", true},
          {"meta",
           {{"quantizer", nlohmann::ordered_json::array({quantizer})},
            {"damp_percent", config.damp_percent},
            {"static_groups", true},
            {"true_sequential", true}}}};
}

GptqFileConfig gptq_config_from_json(const nlohmann::json& json, std::string_view where) {
  const auto value = [&](const char* key) {
    const auto found = json.is_object() ? json.find(key) : json.end();
    return !json.is_object() || found == json.end() ? nlohmann::json(nullptr) : *found;
  };
  const auto unsupported = [&](const char* key) {
    throw Error(ErrorKind::kInput, where, fmt::format("quantization_config '{}' is {}", key, value(key).dump()),
                "supported: gptq with 4 bits, checkpoint_format gptq or gptq_v2, pack_dtype int32");
  };
  GptqFileConfig config;
  if (value("quant_method") != "gptq") unsupported("quant_method");
  if (value("bits") != 4) unsupported("bits");
  if (const auto type = value("pack_dtype"); !type.is_null() && type != "int32") unsupported("pack_dtype");
  if (value("lm_head") == true) unsupported("lm_head");
  if (const auto rules = value("dynamic"); !rules.is_null() && !rules.empty()) unsupported("dynamic");
  const auto size = value("group_size");
  const bool valid =
      size == -1 || (size.is_number_integer() && size.get<int64_t>() >= 1 && size.get<int64_t>() <= (1 << 24));
  if (!valid) unsupported("group_size");
  config.group_size = std::max<int64_t>(size.get<int64_t>(), 0);
  for (const auto& [key, flag] : {std::pair{"sym", &config.symmetric}, std::pair{"desc_act", &config.desc_act}}) {
    const auto stated = value(key);
    if (stated.is_boolean()) {
      *flag = stated.get<bool>();
    } else if (!stated.is_null()) {
      unsupported(key);
    }
  }
  const char* const key = value("checkpoint_format").is_null() ? "format" : "checkpoint_format";
  const auto format = value(key);
  if (format == "gptq_v2") {
    config.version = 2;
  } else if (!format.is_null() && format != "gptq") {
    unsupported(key);
  }
  return config;
}

std::vector<TensorSpec> gptq_specs(std::string_view module, int64_t out_features, int64_t in_features,
                                   int64_t group_size) {
  if (out_features % kCodesInWord != 0 || in_features % kCodesInWord != 0) {
    throw Error(ErrorKind::kInput, module,
                fmt::format("is [{}, {}], and GPTQ's layout takes multiples of 8", out_features, in_features),
                "write compressed-tensors instead");
  }
  const int64_t groups = in_features / group_size;
  return {{part(module, kGroupIndex), DType::kI32, {in_features}},
          {part(module, kCodes), DType::kI32, {in_features / kCodesInWord, out_features}},
          {part(module, kZeros), DType::kI32, {groups, out_features / kCodesInWord}},
          {part(module, kScales), DType::kF16, {groups, out_features}}};
}

void write_gptq(SafetensorsFolderWriter& writer, const QuantizedLinear& linear, int version) {
  check_quantized_linear(linear, "gptq");
  POTSTILL_CHECK(version == 1 || version == 2);
  if (linear.bits != 4) {
    throw Error(ErrorKind::kInput, linear.name,
                fmt::format("has codes of {} bits; GPTQ's layout is written with 4", linear.bits),
                "write compressed-tensors or GGUF, which hold mixed widths");
  }
  const int64_t O = linear.out_features, I = linear.in_features, groups = linear.num_groups();
  std::vector<int32_t> group_of(static_cast<size_t>(I));
  for (int64_t i = 0; i < I; ++i) group_of[static_cast<size_t>(i)] = static_cast<int32_t>(i / linear.group_size);
  std::vector<uint32_t> codes(static_cast<size_t>(I / kCodesInWord * O), 0);
  std::vector<uint32_t> zeros(static_cast<size_t>(groups * (O / kCodesInWord)), 0);
  std::vector<float> scales(static_cast<size_t>(groups * O));
  for (int64_t o = 0; o < O; ++o) {
    for (int64_t i = 0; i < I; ++i) {
      const uint32_t code = linear.codes[static_cast<size_t>(o * I + i)];
      codes[static_cast<size_t>(i / kCodesInWord * O + o)] |= code << (4 * (i % kCodesInWord));
    }
    for (int64_t g = 0; g < groups; ++g) {
      const auto at = static_cast<size_t>(o * groups + g);
      const uint32_t zero = linear.symmetric ? kMiddleZero : linear.zeros[at];
      if (version == 1 && zero == 0) {
        throw Error(ErrorKind::kInput, linear.name, "has a zero point of 0, which GPTQ's version 1 cannot store",
                    "write checkpoint format gptq_v2");
      }
      zeros[static_cast<size_t>(g * (O / kCodesInWord) + o / kCodesInWord)] |= (zero - (version == 1 ? 1 : 0))
                                                                               << (4 * (o % kCodesInWord));
      const float scale = linear.scales[at];
      if (half_to_float(float_to_half(scale)) != scale) {
        throw Error(ErrorKind::kNumeric, linear.name,
                    fmt::format("scale {} is no fp16 value; stored, it would change the weights", scale),
                    "quantize with scales rounded to fp16");
      }
      scales[static_cast<size_t>(g * O + o)] = scale;
    }
  }
  std::vector<std::byte> halves(scales.size() * 2);
  encode_row(DType::kF16, scales, halves);
  writer.append(part(linear.name, kGroupIndex), std::as_bytes(std::span(group_of)));
  writer.append(part(linear.name, kCodes), std::as_bytes(std::span(codes)));
  writer.append(part(linear.name, kZeros), std::as_bytes(std::span(zeros)));
  writer.append(part(linear.name, kScales), halves);
}

GptqCheckpoint::GptqCheckpoint(const std::filesystem::path& folder, bool tied)
    : files_(folder, tied), config_(read_gptq_config(folder)) {
  for (const WeightInfo& stored : files_.weights()) {
    const std::string_view name = stored.name;
    const auto module = std::string(name.substr(0, name.rfind('.')));
    if (name.ends_with(kCodes)) {
      const auto [found, inserted] = packed_.emplace(part(module, kPlain), read_packed(module));
      const Packed& packed = found->second;
      weights_.push_back(
          {.name = found->first, .shape = {packed.out_features, packed.in_features}, .dtype = DType::kQ4_0});
    } else if (!name.ends_with(kZeros) && !name.ends_with(kScales) && !name.ends_with(kGroupIndex)) {
      weights_.push_back(stored);
    } else if (files_.find(part(module, kCodes)) == nullptr) {
      throw Error(ErrorKind::kFormat, where(), fmt::format("tensor '{}' belongs to no 'qweight'", name));
    }
  }
  std::ranges::sort(weights_, std::ranges::less{}, &WeightInfo::name);
  const auto twin = std::ranges::adjacent_find(weights_, std::ranges::equal_to{}, &WeightInfo::name);
  if (twin != weights_.end()) {
    throw Error(ErrorKind::kFormat, where(), fmt::format("'{}' is stored both quantized and plain", twin->name));
  }
}

GptqCheckpoint::Packed GptqCheckpoint::read_packed(const std::string& module) const {
  Packed packed;
  packed.codes = files_.stored(part(module, kCodes));
  packed.zeros = files_.stored(part(module, kZeros));
  packed.scales = files_.stored(part(module, kScales));
  require_dtype(packed.codes, DType::kI32, where());
  require_dtype(packed.zeros, DType::kI32, where());
  const auto& shape = packed.codes.shape;
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || shape[0] > (INT64_MAX >> 4) ||
      shape[1] % kCodesInWord != 0) {
    throw Error(
        ErrorKind::kFormat, where(),
        fmt::format("tensor '{}' is [{}], no table of packed codes", packed.codes.name, fmt::join(shape, ", ")));
  }
  packed.in_features = shape[0] * kCodesInWord;
  packed.out_features = shape[1];
  packed.group_size = config_.group_size > 0 ? config_.group_size : packed.in_features;
  if (packed.in_features % packed.group_size != 0) {
    // some writers leave a short last group; no kernel reads it alike
    throw Error(ErrorKind::kFormat, where(),
                fmt::format("'{}' has {} inputs, which groups of {} do not divide", module, packed.in_features,
                            packed.group_size),
                "quantize again with a group size that divides every width");
  }
  const int64_t groups = packed.in_features / packed.group_size;
  require_shape(packed.zeros, {groups, packed.out_features / kCodesInWord}, where());
  require_shape(packed.scales, {groups, packed.out_features}, where());
  if (!is_float(packed.scales.dtype)) {
    throw Error(
        ErrorKind::kFormat, where(),
        fmt::format("tensor '{}' is {}, not a float type", packed.scales.name, dtype_name(packed.scales.dtype)));
  }
  packed.group_of.resize(static_cast<size_t>(packed.in_features));
  const TensorView* index = files_.find_stored(part(module, kGroupIndex));
  if (index != nullptr) {
    require_dtype(*index, DType::kI32, where());
    require_shape(*index, {packed.in_features}, where());
  }
  for (int64_t i = 0; i < packed.in_features; ++i) {
    const auto own = static_cast<int32_t>(i / packed.group_size);
    const auto group = index != nullptr ? static_cast<int32_t>(word_at(*index, i)) : own;
    if (group < 0 || group >= groups) {
      throw Error(ErrorKind::kFormat, where(),
                  fmt::format("tensor '{}' puts input {} into group {} of {}", index->name, i, group, groups));
    }
    packed.group_of[static_cast<size_t>(i)] = group;
    packed.contiguous = packed.contiguous && group == own;
  }
  const uint32_t middle = config_.version == 1 ? 0x77777777u : 0x88888888u;
  for (int64_t w = 0; config_.symmetric && w < groups * (packed.out_features / kCodesInWord); ++w) {
    if (word_at(packed.zeros, w) == middle) continue;
    throw Error(ErrorKind::kFormat, where(),
                fmt::format("tensor '{}' holds zero points other than 8 but the config says symmetric ('sym')",
                            packed.zeros.name),
                config_.version == 1 ? "its checkpoint_format may be gptq_v2" : "its checkpoint_format may be gptq");
  }
  return packed;
}

QuantizedLinear GptqCheckpoint::unpack(const Packed& packed, int64_t row_begin, int64_t num_rows) const {
  const int64_t I = packed.in_features, O = packed.out_features, groups = I / packed.group_size;
  QuantizedLinear linear;
  linear.out_features = num_rows;
  linear.in_features = I;
  linear.group_size = packed.group_size;
  linear.symmetric = config_.symmetric;
  linear.codes.resize(static_cast<size_t>(num_rows * I));
  linear.scales.resize(static_cast<size_t>(num_rows * groups));
  if (!linear.symmetric) linear.zeros.resize(linear.scales.size());
  for (int64_t word = 0; word < I / kCodesInWord; ++word) {
    for (int64_t row = 0; row < num_rows; ++row) {
      uint32_t bits = word_at(packed.codes, word * O + row_begin + row);
      uint8_t* code = linear.codes.data() + row * I + word * kCodesInWord;
      for (int64_t j = 0; j < kCodesInWord; ++j, bits >>= 4) *code++ = static_cast<uint8_t>(bits & 15);
    }
  }
  std::vector<float> scales(static_cast<size_t>(O));
  for (int64_t g = 0; g < groups; ++g) {
    decode_rows(packed.scales, g, O, scales);
    require_finite_scales(scales, packed.scales.name, where());
    for (int64_t row = 0; row < num_rows; ++row) {
      const auto at = static_cast<size_t>(row * groups + g);
      linear.scales[at] = scales[static_cast<size_t>(row_begin + row)];
      if (linear.symmetric) continue;
      const int64_t column = row_begin + row;
      const uint32_t bits = word_at(packed.zeros, g * (O / kCodesInWord) + column / kCodesInWord);
      const uint32_t stored = (bits >> (4 * (column % kCodesInWord))) & 15;
      // version 1 of a stored 15 would be a zero point of 16, which readers take in different ways: here mod 16
      linear.zeros[at] = static_cast<uint8_t>((stored + (config_.version == 1 ? 1 : 0)) & 15);
    }
  }
  return linear;
}

std::optional<TensorView> GptqCheckpoint::view(std::string_view name) const {
  require(name);
  return is_quantized(name) ? std::nullopt : files_.view(name);
}

void GptqCheckpoint::read_rows(std::string_view name, int64_t row_begin, int64_t num_rows, std::span<float> out) const {
  check_row_range(require(name), row_begin, num_rows, out.size(), where());
  const auto found = packed_.find(name);
  if (found == packed_.end()) return files_.read_rows(name, row_begin, num_rows, out);
  const Packed& packed = found->second;
  const QuantizedLinear linear = unpack(packed, row_begin, num_rows);
  if (packed.contiguous) return dequantize_rows(linear, 0, num_rows, out);
  const int64_t I = packed.in_features, groups = linear.num_groups();
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t i = 0; i < I; ++i) {
      const auto group = static_cast<size_t>(row * groups + packed.group_of[static_cast<size_t>(i)]);
      const int zero = linear.symmetric ? kMiddleZero : linear.zeros[group];
      const auto at = static_cast<size_t>(row * I + i);
      out[at] = linear.scales[group] * static_cast<float>(linear.codes[at] - zero);
    }
  }
}

uint64_t GptqCheckpoint::stored_bytes(std::string_view name) const {
  const auto found = packed_.find(name);
  if (found == packed_.end()) return files_.stored(name).bytes.size();
  const Packed& packed = found->second;
  return packed.codes.bytes.size() + packed.scales.bytes.size() + packed.zeros.bytes.size();
}

QuantizedLinear GptqCheckpoint::linear(std::string_view name) const {
  const auto found = packed_.find(name);
  if (found == packed_.end()) {
    throw Error(ErrorKind::kInput, where(), fmt::format("'{}' is not a quantized linear", name));
  }
  if (!found->second.contiguous) {
    throw Error(ErrorKind::kInput, where(), fmt::format("'{}' has groups in activation order (g_idx)", name),
                "such groups can only be dequantized: potstill export --format safetensors --dequantize");
  }
  QuantizedLinear linear = unpack(found->second, 0, found->second.out_features);
  linear.name = name.substr(0, name.size() - kPlain.size());
  return linear;
}

}  // namespace potstill
