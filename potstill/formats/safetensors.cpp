#include "potstill/formats/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "potstill/base/byte_reader.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/formats/strict_json.h"

namespace potstill {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference reader
constexpr std::string_view kWriteAgain = "the file is damaged or was written wrongly; fetch or write it again";

// Element types in the reference writer's order of rank, highest first: it lays tensors out by falling rank, so that
// each lies at a multiple of its width. Types without DType are legal in a file, but not read here.
struct ElementType {
  std::string_view name;
  std::optional<DType> dtype;
};
constexpr std::array<ElementType, 22> kElementTypes{{
    {"U64", {}},          {"I64", DType::kI64},   {"F64", DType::kF64},   {"C64", {}},          {"F32", DType::kF32},
    {"U32", {}},          {"I32", DType::kI32},   {"BF16", DType::kBF16}, {"F16", DType::kF16}, {"U16", {}},
    {"I16", DType::kI16}, {"F8_E5M2FNUZ", {}},    {"F8_E4M3FNUZ", {}},    {"F8_E8M0", {}},      {"F8_E4M3", {}},
    {"F8_E5M2", {}},      {"I8", DType::kI8},     {"U8", DType::kU8},     {"F6_E3M2", {}},      {"F6_E2M3", {}},
    {"F4", {}},           {"BOOL", DType::kBool},
}};

const ElementType* find_element_type(std::string_view name) {
  const auto found = std::ranges::find(kElementTypes, name, &ElementType::name);
  return found == kElementTypes.end() ? nullptr : &*found;
}

size_t rank_of(DType dtype) {  // 0 is laid out first
  const auto found = std::ranges::find(kElementTypes, std::optional(dtype), &ElementType::dtype);
  if (found == kElementTypes.end()) {
    throw Error(ErrorKind::kInput, "safetensors", fmt::format("has no element type for {}", dtype_name(dtype)),
                "blocks of quantized weights go into GGUF");
  }
  return static_cast<size_t>(found - kElementTypes.begin());
}

[[noreturn]] void fail(std::string_view where, const std::string& what) {
  throw Error(ErrorKind::kFormat, where, what, kWriteAgain);
}

const nlohmann::json& member(const nlohmann::json& entry, const char* key, std::string_view where,
                             const std::string& name) {
  const auto found = entry.find(key);
  if (found == entry.end()) fail(where, fmt::format("tensor '{}' has no '{}'", name, key));
  return *found;
}

std::vector<int64_t> read_shape(const nlohmann::json& shape, std::string_view where, const std::string& name) {
  if (!shape.is_array()) fail(where, fmt::format("shape of tensor '{}' is not an array", name));
  std::vector<int64_t> dimensions;
  for (const auto& dimension : shape) {
    if (!dimension.is_number_unsigned() || dimension.get<uint64_t>() > INT64_MAX) {
      fail(where, fmt::format("shape of tensor '{}' holds {}, which is no size", name, dimension.dump()));
    }
    dimensions.push_back(dimension.get<int64_t>());
  }
  return dimensions;
}

struct Range {
  uint64_t begin = 0, end = 0;
};

Range read_range(const nlohmann::json& offsets, std::string_view where, const std::string& name) {
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    fail(where, fmt::format("data_offsets of tensor '{}' are not two sizes", name));
  }
  const Range range{.begin = offsets[0].get<uint64_t>(), .end = offsets[1].get<uint64_t>()};
  if (range.begin > range.end) {
    fail(where, fmt::format("tensor '{}' begins at {} but ends at {}", name, range.begin, range.end));
  }
  return range;
}

TensorView read_tensor(const std::string& name, const nlohmann::json& entry, std::span<const std::byte> data,
                       std::string_view where) {
  if (!entry.is_object()) fail(where, fmt::format("entry of tensor '{}' is not an object", name));
  const auto& type_name = member(entry, "dtype", where, name);
  if (!type_name.is_string()) fail(where, fmt::format("dtype of tensor '{}' is not a string", name));
  const auto* type = find_element_type(type_name.get_ref<const std::string&>());
  if (type == nullptr) fail(where, fmt::format("tensor '{}' has unknown dtype {}", name, type_name.dump()));
  if (!type->dtype) {
    throw Error(ErrorKind::kInput, where, fmt::format("tensor '{}' is {}, which is not supported", name, type->name),
                "supported: F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL");
  }
  TensorView tensor{.name = name,
                    .dtype = *type->dtype,
                    .shape = read_shape(member(entry, "shape", where, name), where, name),
                    .bytes = {}};
  const Range range = read_range(member(entry, "data_offsets", where, name), where, name);
  if (range.end > data.size()) {
    fail(where, fmt::format("tensor '{}' ends at byte {} of {} bytes of data", name, range.end, data.size()));
  }
  const auto needed = tensor_bytes(tensor.dtype, tensor.shape);
  if (!needed || *needed != range.end - range.begin) {
    fail(where, fmt::format("tensor '{}' of shape [{}] and dtype {} cannot take {} bytes", name,
                            fmt::join(tensor.shape, ", "), type->name, range.end - range.begin));
  }
  tensor.bytes = data.subspan(range.begin, range.end - range.begin);
  return tensor;
}

// The tensors must cover the data exactly: sorted by place, each begins where the one before it ends.
void check_cover(std::vector<TensorView> tensors, std::span<const std::byte> data, std::string_view where) {
  std::ranges::sort(tensors, [](const TensorView& a, const TensorView& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  uint64_t covered = 0;
  for (const TensorView& tensor : tensors) {
    const auto begin = static_cast<uint64_t>(tensor.bytes.data() - data.data());
    if (begin != covered) {
      fail(where, fmt::format("tensor '{}' begins at byte {} of the data but the one before it ends at {}: {}",
                              tensor.name, begin, covered, begin < covered ? "they overlap" : "a hole"));
    }
    covered = begin + tensor.bytes.size();
  }
  if (covered != data.size()) {
    fail(where, fmt::format("tensors end at byte {} of {} bytes of data", covered, data.size()));
  }
}

std::map<std::string, std::string> read_metadata(const nlohmann::json& object, std::string_view where) {
  if (!object.is_object()) fail(where, "__metadata__ is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) fail(where, fmt::format("__metadata__ '{}' is not a string", key));
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

}  // namespace

SafetensorsContents parse_safetensors(std::span<const std::byte> file, std::string_view where) {
  ByteReader reader(where, file);
  const auto header_bytes = reader.read<uint64_t>("length of the header");
  if (header_bytes > kMaxHeaderBytes) {
    fail(where, fmt::format("header of {} bytes is over the limit of {}", header_bytes, kMaxHeaderBytes));
  }
  const auto header = reader.take(header_bytes, "header");
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  if (!text.starts_with('{')) fail(where, "header does not begin with '{'");
  const nlohmann::json entries = parse_strict_json(text, where);
  const auto data = reader.take(reader.remaining(), "data");

  SafetensorsContents contents;
  for (const auto& [name, entry] : entries.items()) {  // sorted by name: nlohmann::json's objects are std::map
    if (name == "__metadata__") {
      contents.metadata = read_metadata(entry, where);
    } else {
      contents.tensors.push_back(read_tensor(name, entry, data, where));
    }
  }
  check_cover(contents.tensors, data, where);
  return contents;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path), contents_(parse_safetensors(file_.bytes(), path.string())) {}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(contents_.tensors, name, std::ranges::less{}, &TensorView::name);
  return found != contents_.tensors.end() && found->name == name ? &*found : nullptr;
}

const TensorView& SafetensorsFile::require(std::string_view name) const {
  if (const TensorView* tensor = find(name)) return *tensor;
  throw Error(ErrorKind::kFormat, where(), fmt::format("missing tensor '{}'", name));
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata) {
  std::ranges::sort(tensors, [](const TensorSpec& a, const TensorSpec& b) {
    return std::pair(rank_of(a.dtype), std::string_view(a.name)) <
           std::pair(rank_of(b.dtype), std::string_view(b.name));
  });
  // Built as text: nlohmann::ordered_json looks through all keys at each insertion.
  std::string text = "{";
  if (!metadata.empty()) text += fmt::format("\"__metadata__\":{}", nlohmann::json(metadata).dump());
  std::set<std::string_view> names = {"__metadata__"};
  std::vector<PlacedTensor> placed;
  uint64_t end = 0;
  for (const TensorSpec& tensor : tensors) {
    (void)rank_of(tensor.dtype);  // one tensor alone is not sorted, and is still checked
    if (!is_utf8(tensor.name) || !names.insert(tensor.name).second) {
      throw Error(ErrorKind::kInput, path.string(), fmt::format("tensor name '{}' cannot be written", tensor.name),
                  "names are UTF-8, stand once and are not '__metadata__'");
    }
    const uint64_t begin = end;
    end += tensor.bytes();
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", text.size() > 1 ? "," : "",
                        nlohmann::json(tensor.name).dump(), dtype_name(tensor.dtype), fmt::join(tensor.shape, ","),
                        begin, end);
    placed.push_back({.spec = tensor, .offset = begin});
  }
  text += "}";
  text.resize(round_up<size_t>(text.size(), 8), ' ');  // 8 + N is a multiple of 8: the data is aligned
  const uint64_t length = text.size();
  std::string header(sizeof(length), '\0');
  std::memcpy(header.data(), &length, sizeof(length));
  header += text;
  for (PlacedTensor& tensor : placed) tensor.offset += header.size();
  writer_ =
      std::make_unique<TensorWriter>(path, std::as_bytes(std::span(header)), std::move(placed), header.size() + end);
}

SafetensorsFolderWriter::SafetensorsFolderWriter(const std::filesystem::path& folder,
                                                 const std::vector<TensorSpec>& tensors, uint64_t max_shard_bytes)
    : folder_(folder) {
  std::vector<std::vector<TensorSpec>> shards(1);
  uint64_t shard_bytes = 0;
  for (const TensorSpec& tensor : tensors) {
    const uint64_t bytes = tensor.bytes();
    if (!shards.back().empty() && (bytes > max_shard_bytes || shard_bytes > max_shard_bytes - bytes)) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shards.back().push_back(tensor);
    shard_bytes += bytes;
    total_bytes_ += bytes;
    if (!shard_of_.emplace(tensor.name, shards.size() - 1).second) {
      throw Error(ErrorKind::kInput, folder.string(), fmt::format("tensor '{}' is declared twice", tensor.name));
    }
  }
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) throw Error(ErrorKind::kIo, folder.string(), fmt::format("cannot make: {}", failure.message()));
  for (size_t i = 0; i < shards.size(); ++i) {
    file_names_.push_back(shards.size() == 1 ? "model.safetensors"
                                             : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    shards_.push_back(std::make_unique<SafetensorsWriter>(folder / file_names_.back(), std::move(shards[i])));
  }
}

void SafetensorsFolderWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = shard_of_.find(name);
  if (found == shard_of_.end()) {
    throw Error(ErrorKind::kInput, folder_.string(), fmt::format("tensor '{}' was not declared", name));
  }
  shards_[found->second]->append(name, bytes);
}

void SafetensorsFolderWriter::finish() {
  for (const auto& shard : shards_) shard->finish();
  if (shards_.size() == 1) return;
  nlohmann::ordered_json weight_map = nlohmann::ordered_json::object();
  for (const auto& [name, shard] : shard_of_) weight_map[name] = file_names_[shard];
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", weight_map}};
  write_file_atomically(folder_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace potstill
