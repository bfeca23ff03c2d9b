#include "potstill/formats/compressed_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "potstill/base/atomic_file.h"
#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/formats/ggml_blocks.h"
#include "potstill/formats/strict_json.h"
#include "potstill/formats/tensor_checks.h"

namespace potstill {
namespace {

int64_t codes_per_word(int64_t bits) { return 32 / bits; }

constexpr std::string_view kPacked = ".weight_packed", kScale = ".weight_scale", kShape = ".weight_shape",
                           kZeroPoint = ".weight_zero_point", kGroupIndex = ".weight_g_idx", kWeight = ".weight";

std::string joined(std::string_view module, std::string_view suffix) { return fmt::format("{}{}", module, suffix); }

// Eight codes of 4 bits (four of 8) to a word, lowest bits first; what lies past the row's end is zero bits.
std::vector<int32_t> pack_along_rows(const QuantizedLinear& linear) {
  const int64_t in = linear.in_features, bits = linear.bits, per_word = codes_per_word(bits);
  const int64_t words = ceil_div(in, per_word);
  std::vector<uint32_t> packed(static_cast<size_t>(linear.out_features * words), 0);
  for (int64_t row = 0; row < linear.out_features; ++row) {
    for (int64_t i = 0; i < in; ++i) {
      const uint32_t code = linear.codes[static_cast<size_t>(row * in + i)];
      packed[static_cast<size_t>(row * words + i / per_word)] |= code << (bits * (i % per_word));
    }
  }
  return {packed.begin(), packed.end()};
}

// Zero points go as many rows to a word.
std::vector<int32_t> pack_zeros(const QuantizedLinear& linear) {
  const int64_t groups = linear.num_groups(), bits = linear.bits, per_word = codes_per_word(bits);
  std::vector<uint32_t> packed(static_cast<size_t>(ceil_div(linear.out_features, per_word) * groups), 0);
  for (int64_t row = 0; row < linear.out_features; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      const uint32_t zero = linear.zeros[static_cast<size_t>(row * groups + g)];
      packed[static_cast<size_t>(row / per_word * groups + g)] |= zero << (bits * (row % per_word));
    }
  }
  return {packed.begin(), packed.end()};
}

uint8_t code_in_word(const TensorView& words, int64_t word, int64_t place, int64_t bits_per_code) {
  uint32_t bits;
  std::memcpy(&bits, words.bytes.data() + static_cast<size_t>(word) * sizeof(bits), sizeof(bits));
  return static_cast<uint8_t>((bits >> (bits_per_code * place)) & ((1u << bits_per_code) - 1));
}

CompressedTensorsConfig read_config(const std::filesystem::path& folder) {
  const auto path = folder / "config.json";
  const auto json = parse_strict_json(read_file(path), path.string());
  const auto found = json.is_object() ? json.find("quantization_config") : json.end();
  if (!json.is_object() || found == json.end()) {
    throw Error(ErrorKind::kFormat, path.string(), "has no 'quantization_config'");
  }
  return compressed_tensors_config_from_json(*found, path.string());
}

}  // namespace

std::vector<TensorSpec> packed_specs(std::string_view module, int64_t out_features, int64_t in_features,
                                     int64_t group_size, bool symmetric, DType scale_dtype, int64_t bits) {
  const int64_t groups = in_features / group_size, per_word = codes_per_word(bits);
  std::vector<TensorSpec> specs = {
      {joined(module, kPacked), DType::kI32, {out_features, ceil_div(in_features, per_word)}},
      {joined(module, kScale), scale_dtype, {out_features, groups}},
      {joined(module, kShape), DType::kI64, {2}}};
  if (!symmetric) {
    specs.push_back({joined(module, kZeroPoint), DType::kI32, {ceil_div(out_features, per_word), groups}});
  }
  return specs;
}

void write_packed(SafetensorsFolderWriter& writer, const QuantizedLinear& linear, DType scale_dtype) {
  check_quantized_linear(linear, "compressed-tensors");
  std::vector<std::byte> scales(linear.scales.size() * static_cast<size_t>(block_bytes(scale_dtype)));
  encode_row(scale_dtype, linear.scales, scales);
  std::vector<float> read_back(linear.scales.size());
  decode_row(scale_dtype, scales, read_back);
  for (size_t i = 0; i < read_back.size(); ++i) {
    if (read_back[i] == linear.scales[i]) continue;
    throw Error(ErrorKind::kNumeric, linear.name,
                fmt::format("scale {} is no {} value; stored, it would change the weights", linear.scales[i],
                            dtype_name(scale_dtype)),
                "quantize with scales rounded to the stored type");
  }
  const auto packed = pack_along_rows(linear);
  const int64_t shape[2] = {linear.out_features, linear.in_features};
  writer.append(joined(linear.name, kPacked), std::as_bytes(std::span(packed)));
  writer.append(joined(linear.name, kScale), scales);
  writer.append(joined(linear.name, kShape), std::as_bytes(std::span(shape)));
  if (linear.symmetric) return;
  const auto zeros = pack_zeros(linear);
  writer.append(joined(linear.name, kZeroPoint), std::as_bytes(std::span(zeros)));
}

CompressedTensorsCheckpoint::CompressedTensorsCheckpoint(const std::filesystem::path& folder, bool tied)
    : files_(folder, tied), config_(read_config(folder)) {
  for (const WeightInfo& stored : files_.weights()) {
    const std::string_view name = stored.name;
    if (name.ends_with(kPacked)) {
      const std::string module(name.substr(0, name.size() - kPacked.size()));
      const auto [found, inserted] = packed_.emplace(module + std::string(kWeight), read_packed(module));
      const Packed& packed = found->second;
      weights_.push_back({.name = found->first,
                          .shape = {packed.out_features, packed.in_features},
                          .dtype = packed.bits == 8 ? DType::kQ8_0 : DType::kQ4_0});
    } else if (name.ends_with(kGroupIndex)) {
      throw Error(ErrorKind::kInput, where(), fmt::format("tensor '{}': act-order groups are not supported", name),
                  "quantize again with actorder 'static' or none");
    } else if (!name.ends_with(kScale) && !name.ends_with(kShape) && !name.ends_with(kZeroPoint)) {
      weights_.push_back(stored);
    } else if (const auto module = name.substr(0, name.rfind('.')); !files_.find(joined(module, kPacked))) {
      throw Error(ErrorKind::kFormat, where(), fmt::format("tensor '{}' belongs to no '{}'", name, kPacked.substr(1)));
    }
  }
  std::ranges::sort(weights_, std::ranges::less{}, &WeightInfo::name);
  const auto twin = std::ranges::adjacent_find(weights_, std::ranges::equal_to{}, &WeightInfo::name);
  if (twin != weights_.end()) {
    throw Error(ErrorKind::kFormat, where(), fmt::format("'{}' is stored both quantized and plain", twin->name));
  }
}

CompressedTensorsCheckpoint::Packed CompressedTensorsCheckpoint::read_packed(const std::string& module) const {
  const TensorView& shape = files_.stored(module + std::string(kShape));
  require_dtype(shape, DType::kI64, where());
  require_shape(shape, {2}, where());
  int64_t sizes[2];
  std::memcpy(sizes, shape.bytes.data(), sizeof(sizes));
  const auto [out, in] = sizes;
  const auto [bits, stated_group] = config_.bits_and_group(module);
  const int64_t group = stated_group > 0 ? stated_group : in;
  const int64_t per_word = codes_per_word(bits);
  if (out < 1 || in < 1 || in > INT64_MAX - 8 || in % group != 0) {
    throw Error(ErrorKind::kFormat, where(),
                fmt::format("'{}' says [{}, {}], which groups of {} do not divide", shape.name, out, in, group));
  }
  Packed packed{.codes = files_.stored(module + std::string(kPacked)),
                .scales = files_.stored(module + std::string(kScale)),
                .zeros = {},
                .out_features = out,
                .in_features = in,
                .group_size = group,
                .bits = bits};
  require_dtype(packed.codes, DType::kI32, where());
  require_shape(packed.codes, {out, ceil_div(in, per_word)}, where());  // bounds out and in by the file
  require_shape(packed.scales, {out, in / group}, where());
  if (!is_float(packed.scales.dtype)) {
    throw Error(
        ErrorKind::kFormat, where(),
        fmt::format("tensor '{}' is {}, not a float type", packed.scales.name, dtype_name(packed.scales.dtype)));
  }
  if (!config_.symmetric) {
    packed.zeros = files_.stored(module + std::string(kZeroPoint));
    require_dtype(packed.zeros, DType::kI32, where());
    require_shape(packed.zeros, {ceil_div(out, per_word), in / group}, where());
  }
  return packed;
}

QuantizedLinear CompressedTensorsCheckpoint::unpack(const Packed& packed, int64_t row_begin, int64_t num_rows) const {
  const int64_t in = packed.in_features, groups = in / packed.group_size, width = packed.bits;
  const int64_t per_word = codes_per_word(width), words = ceil_div(in, per_word);
  const uint32_t mask = (1u << width) - 1;
  QuantizedLinear linear;
  linear.bits = width;
  linear.out_features = num_rows;
  linear.in_features = in;
  linear.group_size = packed.group_size;
  linear.symmetric = config_.symmetric;
  linear.codes.resize(static_cast<size_t>(num_rows * in));
  linear.scales.resize(static_cast<size_t>(num_rows * groups));
  if (!linear.symmetric) linear.zeros.resize(linear.scales.size());
  decode_rows(packed.scales, row_begin, groups, linear.scales);
  require_finite_scales(linear.scales, packed.scales.name, where());
  uint8_t* code = linear.codes.data();
  for (int64_t row = row_begin; row < row_begin + num_rows; ++row) {
    for (int64_t word = 0; word < words; ++word) {
      uint32_t bits;
      std::memcpy(&bits, packed.codes.bytes.data() + static_cast<size_t>(row * words + word) * sizeof(bits),
                  sizeof(bits));
      const int64_t count = std::min(per_word, in - word * per_word);
      for (int64_t j = 0; j < count; ++j, bits >>= width) *code++ = static_cast<uint8_t>(bits & mask);
    }
  }
  for (size_t i = 0; i < linear.zeros.size(); ++i) {
    const int64_t row = row_begin + static_cast<int64_t>(i) / groups, g = static_cast<int64_t>(i) % groups;
    linear.zeros[i] = code_in_word(packed.zeros, row / per_word * groups + g, row % per_word, width);
  }
  return linear;
}

std::optional<TensorView> CompressedTensorsCheckpoint::view(std::string_view name) const {
  require(name);
  return is_quantized(name) ? std::nullopt : files_.view(name);
}

void CompressedTensorsCheckpoint::read_rows(std::string_view name, int64_t row_begin, int64_t num_rows,
                                            std::span<float> out) const {
  check_row_range(require(name), row_begin, num_rows, out.size(), where());
  const auto found = packed_.find(name);
  if (found == packed_.end()) return files_.read_rows(name, row_begin, num_rows, out);
  dequantize_rows(unpack(found->second, row_begin, num_rows), 0, num_rows, out);
}

uint64_t CompressedTensorsCheckpoint::stored_bytes(std::string_view name) const {
  const auto found = packed_.find(name);
  if (found == packed_.end()) return files_.stored(name).bytes.size();
  const Packed& packed = found->second;
  return packed.codes.bytes.size() + packed.scales.bytes.size() + packed.zeros.bytes.size();
}

QuantizedLinear CompressedTensorsCheckpoint::linear(std::string_view name) const {
  const auto found = packed_.find(name);
  if (found == packed_.end()) {
    throw Error(ErrorKind::kInput, where(), fmt::format("'{}' is not a quantized linear", name));
  }
  QuantizedLinear linear = unpack(found->second, 0, found->second.out_features);
  linear.name = name.substr(0, name.size() - kWeight.size());
  return linear;
}

}  // namespace potstill
