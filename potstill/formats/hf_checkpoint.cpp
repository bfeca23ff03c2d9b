#include "potstill/formats/hf_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "potstill/base/atomic_file.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/formats/ggml_blocks.h"
#include "potstill/formats/strict_json.h"

namespace potstill {
namespace {

// Buffers that old checkpoints store beside the weights; they follow from the config.
bool is_buffer(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.masked_bias");
}

}  // namespace

HfCheckpoint::HfCheckpoint(const std::filesystem::path& folder, bool tied) : folder_(folder) {
  const auto single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (std::filesystem::exists(index)) {
    open_shards(index);
  } else if (std::filesystem::exists(single)) {
    files_.push_back(std::make_unique<SafetensorsFile>(single));
  } else {
    const bool pickled = std::filesystem::exists(folder / "pytorch_model.bin") ||
                         std::filesystem::exists(folder / "pytorch_model.bin.index.json");
    throw Error(ErrorKind::kIo, folder.string(), "has no model.safetensors and no model.safetensors.index.json",
                pickled ? "pytorch_model.bin is a pickle, which can run code; convert it with "
                          "model.save_pretrained(…, safe_serialization=True)"
                        : "give the folder of a Hugging Face model, or a .gguf file");
  }
  std::vector<const TensorView*> all;
  for (const auto& file : files_) {
    for (const TensorView& tensor : file->tensors()) all.push_back(&tensor);
  }
  std::ranges::sort(all, std::ranges::less{}, &TensorView::name);
  for (size_t i = 0; i < all.size(); ++i) {
    if (i > 0 && all[i]->name == all[i - 1]->name) {
      throw Error(ErrorKind::kFormat, folder.string(), fmt::format("tensor '{}' stands in two shards", all[i]->name));
    }
    if (is_buffer(all[i]->name) || (tied && all[i]->name == "lm_head.weight")) continue;
    weights_.push_back({.name = all[i]->name, .shape = all[i]->shape, .dtype = all[i]->dtype});
    tensors_.push_back(all[i]);
  }
}

void HfCheckpoint::open_shards(const std::filesystem::path& index_path) {
  const auto index = parse_strict_json(read_file(index_path), index_path.string());
  const auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || weight_map == index.end() || !weight_map->is_object()) {
    throw Error(ErrorKind::kFormat, index_path.string(), "has no object 'weight_map'");
  }
  std::map<std::string, std::set<std::string>> names_of;  // by file
  for (const auto& [name, file] : weight_map->items()) {
    const std::string file_name = file.is_string() ? file.get<std::string>() : "";
    const bool plain = !file_name.empty() && file_name.find_first_of("/\\") == std::string::npos &&
                       file_name.find('\0') == std::string::npos && file_name.ends_with(".safetensors");
    if (!plain) {  // a path could lead out of the folder
      throw Error(ErrorKind::kFormat, index_path.string(),
                  fmt::format("tensor '{}' is said to be in {}, which is no name of a shard", name, file.dump()));
    }
    names_of[file_name].insert(name);
  }
  for (const auto& [file_name, names] : names_of) {
    files_.push_back(std::make_unique<SafetensorsFile>(folder_ / file_name));
    const SafetensorsFile& shard = *files_.back();
    for (const std::string& name : names) {
      if (shard.find(name) != nullptr) continue;
      throw Error(ErrorKind::kFormat, shard.where(),
                  fmt::format("the index says that tensor '{}' is here, but it is not", name),
                  "index and shards are of different downloads; fetch them again");
    }
    if (shard.tensors().size() != names.size()) {
      throw Error(ErrorKind::kFormat, shard.where(),
                  fmt::format("holds {} tensors but the index names {}", shard.tensors().size(), names.size()),
                  "index and shards are of different downloads; fetch them again");
    }
  }
}

const TensorView* HfCheckpoint::find_stored(std::string_view name) const {
  const auto found = std::ranges::lower_bound(weights_, name, std::ranges::less{}, &WeightInfo::name);
  if (found == weights_.end() || found->name != name) return nullptr;
  return tensors_[static_cast<size_t>(found - weights_.begin())];
}

const TensorView& HfCheckpoint::stored(std::string_view name) const {
  require(name);
  return *find_stored(name);
}

std::optional<TensorView> HfCheckpoint::view(std::string_view name) const {
  const TensorView& tensor = stored(name);
  if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16) return std::nullopt;
  return tensor;
}

void HfCheckpoint::read_rows(std::string_view name, int64_t row_begin, int64_t num_rows, std::span<float> out) const {
  const int64_t row_values = check_row_range(require(name), row_begin, num_rows, out.size(), where());
  decode_rows(stored(name), row_begin, row_values, out);
}

int64_t check_row_range(const WeightInfo& info, int64_t row_begin, int64_t num_rows, size_t out_size,
                        std::string_view where) {
  const int64_t rows = info.shape.size() > 1 ? info.shape[0] : 1;
  const int64_t row_values = rows == 0 ? 0 : num_elements(info.shape).value() / rows;
  const bool inside = row_begin >= 0 && num_rows >= 0 && row_begin <= rows && num_rows <= rows - row_begin;
  if (!inside || out_size != static_cast<size_t>(num_rows * row_values)) {
    throw Error(ErrorKind::kInput, where,
                fmt::format("{} rows from {} of tensor '{}' ({} rows of {} values) do not fit {} values", num_rows,
                            row_begin, info.name, rows, row_values, out_size));
  }
  return row_values;
}

void decode_rows(const TensorView& tensor, int64_t row_begin, int64_t row_values, std::span<float> out) {
  const uint64_t row_bytes = tensor_bytes(tensor.dtype, std::span(&row_values, 1)).value();
  const uint64_t num_rows = row_values == 0 ? 0 : out.size() / static_cast<uint64_t>(row_values);
  decode_row(tensor.dtype, tensor.bytes.subspan(static_cast<uint64_t>(row_begin) * row_bytes, num_rows * row_bytes),
             out);
}

}  // namespace potstill
