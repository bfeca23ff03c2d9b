#include "potstill/formats/gguf_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/error.h"
#include "potstill/formats/hf_checkpoint.h"
#include "potstill/formats/model_weights.h"

namespace potstill {

GgufCheckpoint::GgufCheckpoint(const std::filesystem::path& path)
    : file_(path), config_(model_config_from_gguf(file_)) {
  const std::string architecture = file_.require_string("general.architecture");
  for (const TensorView& tensor : file_.tensors()) {
    if (tensor.name == "rope_freqs.weight") continue;  // part of the config
    const auto name = hf_tensor_name(tensor.name);
    if (!name) {
      throw Error(ErrorKind::kInput, where(),
                  fmt::format("tensor '{}' is not part of a {} model", tensor.name, architecture),
                  "the file is of a variant that is not supported");
    }
    weights_.push_back({.name = *name, .shape = tensor.shape, .dtype = tensor.dtype});
    entries_.emplace(*name, Entry{.tensor = &tensor, .permuted = permuted_heads(*name, architecture, config_) > 0});
  }
  std::ranges::sort(weights_, std::ranges::less{}, &WeightInfo::name);
  check_weights(config_, *this);  // from here on q and k have heads · head_dim rows, and each name stands once
}

const GgufCheckpoint::Entry& GgufCheckpoint::entry(std::string_view name) const {
  require(name);
  return entries_.find(name)->second;
}

std::optional<TensorView> GgufCheckpoint::view(std::string_view name) const {
  const Entry& found = entry(name);
  const DType dtype = found.tensor->dtype;
  if (found.permuted || (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16)) return std::nullopt;
  TensorView tensor = *found.tensor;
  tensor.name = name;
  return tensor;
}

void GgufCheckpoint::read_rows(std::string_view name, int64_t row_begin, int64_t num_rows, std::span<float> out) const {
  const Entry& found = entry(name);
  const int64_t row_values = check_row_range(require(name), row_begin, num_rows, out.size(), where());
  if (!found.permuted) return decode_rows(*found.tensor, row_begin, row_values, out);
  const int64_t head_dim = config_.head_dim;
  if (found.tensor->shape.size() == 1) {  // a bias: its values are the rows
    if (num_rows == 0) return;
    std::vector<float> stored(out.size());
    decode_rows(*found.tensor, 0, row_values, stored);
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = stored[static_cast<size_t>(permuted_row(static_cast<int64_t>(i), head_dim))];
    return;
  }
  for (int64_t row = 0; row < num_rows; ++row) {
    decode_rows(*found.tensor, permuted_row(row_begin + row, head_dim), row_values,
                out.subspan(static_cast<size_t>(row * row_values), static_cast<size_t>(row_values)));
  }
}

}  // namespace potstill
