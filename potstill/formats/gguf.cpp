#include "potstill/formats/gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>
#include <type_traits>

#include "potstill/base/byte_reader.h"
#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/formats/strict_json.h"

namespace potstill {
namespace {

constexpr std::array<char, 4> kMagic = {'G', 'G', 'U', 'F'};
constexpr uint32_t kVersion = 3;
constexpr uint64_t kMaxKeyBytes = 65535;      // docs/gguf.md
constexpr uint64_t kMaxTensorNameBytes = 63;  // llama.cpp: GGML_MAX_NAME with its NUL
constexpr uint32_t kMaxDimensions = 4;        // llama.cpp: GGML_MAX_DIMS
constexpr std::string_view kFetchAgain = "the file is damaged or was written wrongly; fetch or export it again";

// ggml_type ids of the specification. Types without DType are legal, but not read here.
struct GgmlType {
  uint32_t id;
  std::string_view name;
  std::optional<DType> dtype;
};
constexpr std::array<GgmlType, 34> kGgmlTypes{{
    {0, "F32", DType::kF32},
    {1, "F16", DType::kF16},
    {2, "Q4_0", DType::kQ4_0},
    {3, "Q4_1", DType::kQ4_1},
    {6, "Q5_0", {}},
    {7, "Q5_1", {}},
    {8, "Q8_0", DType::kQ8_0},
    {9, "Q8_1", {}},
    {10, "Q2_K", {}},
    {11, "Q3_K", {}},
    {12, "Q4_K", {}},
    {13, "Q5_K", {}},
    {14, "Q6_K", {}},
    {15, "Q8_K", {}},
    {16, "IQ2_XXS", {}},
    {17, "IQ2_XS", {}},
    {18, "IQ3_XXS", {}},
    {19, "IQ1_S", {}},
    {20, "IQ4_NL", {}},
    {21, "IQ3_S", {}},
    {22, "IQ2_S", {}},
    {23, "IQ4_XS", {}},
    {24, "I8", DType::kI8},
    {25, "I16", DType::kI16},
    {26, "I32", DType::kI32},
    {27, "I64", DType::kI64},
    {28, "F64", DType::kF64},
    {29, "IQ1_M", {}},
    {30, "BF16", DType::kBF16},
    {34, "TQ1_0", {}},
    {35, "TQ2_0", {}},
    {39, "MXFP4", {}},
    {40, "NVFP4", {}},
    {41, "Q1_0", {}},
}};

[[noreturn]] void fail(std::string_view where, const std::string& what) {
  throw Error(ErrorKind::kFormat, where, what, kFetchAgain);
}

class GgufParser {
 public:
  GgufParser(std::span<const std::byte> file, std::string_view where)
      : where_(where), file_(file), reader_(where, file) {}

  GgufContents parse() {
    const uint64_t num_tensors = read_preamble();
    const auto num_keys = reader_.read<uint64_t>("number of keys");
    std::set<std::string, std::less<>> keys;
    for (uint64_t i = 0; i < num_keys; ++i) {
      std::string key = read_string("key", kMaxKeyBytes);
      if (key.empty()) fail(where_, "a key is empty");
      if (!keys.insert(key).second) fail(where_, fmt::format("key '{}' stands twice", key));
      GgufValue value = read_value(key);
      contents_.metadata.emplace_back(std::move(key), std::move(value));
    }
    read_alignment();
    for (uint64_t i = 0; i < num_tensors; ++i) read_tensor_info();
    place_tensors();
    return std::move(contents_);
  }

 private:
  uint64_t read_preamble() {
    if (reader_.read<std::array<char, 4>>("magic") != kMagic) fail(where_, "does not begin with 'GGUF'");
    const auto version = reader_.read<uint32_t>("version");
    if (version != kVersion) {
      throw Error(ErrorKind::kFormat, where_, fmt::format("is GGUF version {} but {} is read", version, kVersion),
                  version == __builtin_bswap32(kVersion) ? "it is big-endian; convert it on a little-endian machine"
                                                         : "convert it with a recent llama.cpp");
    }
    return reader_.read<uint64_t>("number of tensors");
  }

  std::string read_string(std::string_view field, uint64_t max_bytes = UINT64_MAX) {
    const auto length = reader_.read<uint64_t>(field);
    if (length > max_bytes)
      fail(where_, fmt::format("{} of {} bytes is over the limit of {}", field, length, max_bytes));
    const auto bytes = reader_.take(length, field);
    std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!is_utf8(text)) {
      fail(fmt::format("{} @{}", where_, reader_.offset() - length), fmt::format("{} is not UTF-8", field));
    }
    return text;
  }

  GgufType read_type(std::string_view key) {
    const auto type = reader_.read<uint32_t>(key);
    if (type > static_cast<uint32_t>(GgufType::kF64)) {
      fail(where_, fmt::format("key '{}' has unknown value type {}", key, type));
    }
    return static_cast<GgufType>(type);
  }

  bool read_bool(std::string_view key) {
    const auto byte = reader_.read<uint8_t>(key);
    if (byte > 1) fail(where_, fmt::format("key '{}' holds {}, which is no bool", key, byte));
    return byte == 1;
  }

  GgufValue read_value(const std::string& key) {
    GgufValue value;
    value.type = read_type(key);
    if (value.type == GgufType::kArray) return read_array(key);
    read_elements(value.type, key, [&](auto read) { value.value = read(); });
    return value;
  }

  GgufValue read_array(const std::string& key) {
    GgufValue value;
    value.type = GgufType::kArray;
    value.element_type = read_type(key);
    const auto count = reader_.read<uint64_t>(key);
    if (value.element_type == GgufType::kArray) fail(where_, fmt::format("key '{}' is an array of arrays", key));
    if (count > reader_.remaining()) {  // an element takes a byte or more
      fail(where_, fmt::format("key '{}' has {} elements but {} bytes remain", key, count, reader_.remaining()));
    }
    read_elements(value.element_type, key, [&](auto read) {
      std::vector<decltype(read())> elements;
      elements.reserve(std::min<uint64_t>(count, 1 << 16));  // more only as the file proves to hold them
      for (uint64_t i = 0; i < count; ++i) elements.push_back(read());
      value.value = std::move(elements);
    });
    return value;
  }

  // Calls with_reader(read), where read() gives the next element in the widened type of `type`.
  template <class WithReader>
  void read_elements(GgufType type, const std::string& key, WithReader with_reader) {
    switch (type) {
      case GgufType::kU8:
        return with_reader([&] { return uint64_t{reader_.read<uint8_t>(key)}; });
      case GgufType::kU16:
        return with_reader([&] { return uint64_t{reader_.read<uint16_t>(key)}; });
      case GgufType::kU32:
        return with_reader([&] { return uint64_t{reader_.read<uint32_t>(key)}; });
      case GgufType::kU64:
        return with_reader([&] { return reader_.read<uint64_t>(key); });
      case GgufType::kI8:
        return with_reader([&] { return int64_t{reader_.read<int8_t>(key)}; });
      case GgufType::kI16:
        return with_reader([&] { return int64_t{reader_.read<int16_t>(key)}; });
      case GgufType::kI32:
        return with_reader([&] { return int64_t{reader_.read<int32_t>(key)}; });
      case GgufType::kI64:
        return with_reader([&] { return reader_.read<int64_t>(key); });
      case GgufType::kF32:
        return with_reader([&] { return double{reader_.read<float>(key)}; });
      case GgufType::kF64:
        return with_reader([&] { return reader_.read<double>(key); });
      case GgufType::kBool:
        return with_reader([&] { return read_bool(key); });
      case GgufType::kString:
        return with_reader([&] { return read_string(key); });
      case GgufType::kArray:
        break;
    }
    POTSTILL_CHECK(false);
  }

  void read_alignment() {
    for (const auto& [key, value] : contents_.metadata) {
      if (key != "general.alignment") continue;
      const auto alignment = value.as_integer();
      if (value.type != GgufType::kU32 || !std::has_single_bit(static_cast<uint64_t>(alignment.value_or(0)))) {
        fail(where_, "general.alignment is not a UINT32 that is a power of two");
      }
      contents_.alignment = static_cast<uint32_t>(*alignment);
    }
  }

  void read_tensor_info() {
    TensorView tensor;
    tensor.name = read_string("name of a tensor", kMaxTensorNameBytes);
    if (tensor.name.empty()) fail(where_, "a tensor has no name");
    if (!names_.insert(tensor.name).second) fail(where_, fmt::format("tensor '{}' stands twice", tensor.name));
    const auto num_dimensions = reader_.read<uint32_t>(tensor.name);
    if (num_dimensions > kMaxDimensions) {
      fail(where_,
           fmt::format("tensor '{}' has {} dimensions; the limit is {}", tensor.name, num_dimensions, kMaxDimensions));
    }
    for (uint32_t i = 0; i < num_dimensions; ++i) {
      const auto dimension = reader_.read<uint64_t>(tensor.name);
      if (dimension > INT64_MAX) fail(where_, fmt::format("tensor '{}' has a dimension of {}", tensor.name, dimension));
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(dimension));  // fastest first in the file
    }
    tensor.dtype = read_ggml_type(tensor.name);
    offsets_.push_back(reader_.read<uint64_t>(tensor.name));
    contents_.tensors.push_back(std::move(tensor));
  }

  DType read_ggml_type(const std::string& tensor) {
    const auto id = reader_.read<uint32_t>(tensor);
    const auto found = std::ranges::find(kGgmlTypes, id, &GgmlType::id);
    if (found == kGgmlTypes.end()) fail(where_, fmt::format("tensor '{}' has unknown type {}", tensor, id));
    if (!found->dtype) {
      throw Error(ErrorKind::kInput, where_,
                  fmt::format("tensor '{}' is {}, which is not supported", tensor, found->name),
                  "supported: F32, F16, BF16, Q8_0, Q4_1, Q4_0; take such a file of the model, or make one with "
                  "llama-quantize");
    }
    return *found->dtype;
  }

  // Tensors lie in the order of their infos, each at the next multiple of the alignment: llama.cpp takes nothing else.
  void place_tensors() {
    const uint64_t alignment = contents_.alignment;
    if (contents_.tensors.empty()) return;
    const uint64_t padding = (alignment - reader_.offset() % alignment) % alignment;
    reader_.take(padding, "padding before the tensors");
    const auto data = file_.subspan(reader_.offset());
    uint64_t next = 0;
    for (size_t i = 0; i < contents_.tensors.size(); ++i) {
      TensorView& tensor = contents_.tensors[i];
      const auto size = tensor_bytes(tensor.dtype, tensor.shape);
      if (!size) {
        fail(where_, fmt::format("tensor '{}' of shape [{}] cannot be {}", tensor.name, fmt::join(tensor.shape, ", "),
                                 dtype_name(tensor.dtype)));
      }
      if (offsets_[i] != next) {
        fail(where_, fmt::format("tensor '{}' lies at {} of the data but {} is the next free place: {}", tensor.name,
                                 offsets_[i], next, offsets_[i] < next ? "tensors overlap" : "a hole"));
      }
      if (next > data.size() || *size > data.size() - next) {
        fail(fmt::format("{} @{}", where_, reader_.offset() + next),
             fmt::format("tensor '{}' needs {} bytes but {} remain", tensor.name, *size,
                         data.size() - std::min<uint64_t>(next, data.size())));
      }
      tensor.bytes = data.subspan(next, *size);
      next = round_up(next + *size, alignment);  // both are bounded by the file: no overflow
    }
    if (data.size() > next) {
      fail(where_, fmt::format("{} bytes follow the last tensor", data.size() - next));
    }
  }

  std::string where_;
  std::span<const std::byte> file_;
  ByteReader reader_;
  GgufContents contents_;
  std::set<std::string, std::less<>> names_;
  std::vector<uint64_t> offsets_;
};

// Bytes of the file's head, appended.
class HeadWriter {
 public:
  template <class T>
  requires std::is_arithmetic_v<T>
  void put(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void put(std::string_view text) {
    put(static_cast<uint64_t>(text.size()));
    text_.append(text);
  }
  void put_raw(std::string_view text) { text_.append(text); }
  void pad(uint64_t alignment) { text_.resize(round_up<uint64_t>(text_.size(), alignment), '\0'); }
  const std::string& text() const { return text_; }

  void put_value(const GgufValue& value) {
    put(static_cast<uint32_t>(value.type));
    if (value.type != GgufType::kArray)
      return std::visit([&](const auto& scalar) { put_as(value.type, scalar); }, value.value);
    put(static_cast<uint32_t>(value.element_type));
    std::visit([&](const auto& elements) { put_elements(value.element_type, elements); }, value.value);
  }

 private:
  template <class T>
  void put_elements(GgufType type, const std::vector<T>& elements) {
    put(static_cast<uint64_t>(elements.size()));
    for (const auto& element : elements) put_as(type, static_cast<const T&>(element));
  }
  template <class T>
  void put_elements(GgufType, const T&) {
    POTSTILL_CHECK(false);  // kArray with a scalar inside
  }

  template <class T>
  void put_as(GgufType type, const T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      POTSTILL_CHECK(type == GgufType::kString);
      put(std::string_view(value));
    } else if constexpr (std::is_same_v<T, bool>) {
      POTSTILL_CHECK(type == GgufType::kBool);
      put(static_cast<uint8_t>(value));
    } else if constexpr (std::is_arithmetic_v<T>) {
      put_number(type, value);
    } else {
      POTSTILL_CHECK(false);  // a scalar type with an array inside
    }
  }

  template <class T>
  void put_number(GgufType type, T value) {
    switch (type) {
      case GgufType::kU8:
        return put_narrowed<uint8_t>(value);
      case GgufType::kI8:
        return put_narrowed<int8_t>(value);
      case GgufType::kU16:
        return put_narrowed<uint16_t>(value);
      case GgufType::kI16:
        return put_narrowed<int16_t>(value);
      case GgufType::kU32:
        return put_narrowed<uint32_t>(value);
      case GgufType::kI32:
        return put_narrowed<int32_t>(value);
      case GgufType::kU64:
        return put_narrowed<uint64_t>(value);
      case GgufType::kI64:
        return put_narrowed<int64_t>(value);
      case GgufType::kF32:
        return put(static_cast<float>(value));
      case GgufType::kF64:
        return put(static_cast<double>(value));
      default:
        POTSTILL_CHECK(false);
    }
  }

  template <class To, class From>
  void put_narrowed(From value) {
    if constexpr (std::is_integral_v<From>) {
      if (!std::in_range<To>(value)) {
        throw Error(ErrorKind::kInput, "gguf", fmt::format("{} does not fit its metadata type", value));
      }
      put(static_cast<To>(value));
    } else {
      POTSTILL_CHECK(false);  // an integer type with a float inside
    }
  }

  std::string text_;
};

uint32_t ggml_type_id(const TensorSpec& tensor, const std::filesystem::path& path) {
  const auto found = std::ranges::find(kGgmlTypes, std::optional(tensor.dtype), &GgmlType::dtype);
  if (found != kGgmlTypes.end()) return found->id;
  throw Error(ErrorKind::kInput, path.string(),
              fmt::format("tensor '{}' is {}, which GGUF has not", tensor.name, dtype_name(tensor.dtype)));
}

void check_writable(const TensorSpec& tensor, const std::filesystem::path& path) {
  if (tensor.name.empty() || tensor.name.size() > kMaxTensorNameBytes || !is_utf8(tensor.name)) {
    throw Error(ErrorKind::kInput, path.string(),
                fmt::format("tensor name '{}' is not 1 to {} bytes of UTF-8", tensor.name, kMaxTensorNameBytes));
  }
  if (tensor.shape.size() > kMaxDimensions) {
    throw Error(ErrorKind::kInput, path.string(),
                fmt::format("tensor '{}' has {} dimensions; GGUF's limit is {}", tensor.name, tensor.shape.size(),
                            kMaxDimensions));
  }
}

}  // namespace

GgufContents parse_gguf(std::span<const std::byte> file, std::string_view where) {
  return GgufParser(file, where).parse();
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
                       const std::vector<TensorSpec>& tensors, uint32_t alignment) {
  HeadWriter head;
  head.put_raw({kMagic.data(), kMagic.size()});
  head.put(kVersion);
  head.put(static_cast<uint64_t>(tensors.size()));
  const bool says_alignment = alignment != kGgufDefaultAlignment;
  head.put(static_cast<uint64_t>(metadata.size() + (says_alignment ? 1 : 0)));
  std::set<std::string_view> keys = {"general.alignment"};
  for (const auto& [key, value] : metadata) {
    if (key.empty() || key.size() > kMaxKeyBytes || !is_utf8(key) || !keys.insert(key).second) {
      throw Error(ErrorKind::kInput, path.string(), fmt::format("key '{}' cannot be written", key),
                  "keys are UTF-8, stand once and are not 'general.alignment'");
    }
    head.put(std::string_view(key));
    head.put_value(value);
  }
  if (says_alignment) {
    POTSTILL_CHECK(std::has_single_bit(alignment));
    head.put(std::string_view("general.alignment"));
    head.put_value(GgufValue::u32(alignment));
  }
  std::vector<PlacedTensor> placed;
  std::set<std::string_view> names;
  uint64_t next = 0;
  for (const TensorSpec& tensor : tensors) {
    check_writable(tensor, path);
    if (!names.insert(tensor.name).second) {
      throw Error(ErrorKind::kInput, path.string(), fmt::format("tensor '{}' is declared twice", tensor.name));
    }
    head.put(std::string_view(tensor.name));
    head.put(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) head.put(static_cast<uint64_t>(tensor.shape[i]));
    head.put(ggml_type_id(tensor, path));
    head.put(next);
    placed.push_back({.spec = tensor, .offset = next});
    next = round_up<uint64_t>(next + tensor.bytes(), alignment);
  }
  head.pad(alignment);
  for (PlacedTensor& tensor : placed) tensor.offset += head.text().size();
  writer_ = std::make_unique<TensorWriter>(path, std::as_bytes(std::span(head.text())), std::move(placed),
                                           head.text().size() + next);
}

}  // namespace potstill
