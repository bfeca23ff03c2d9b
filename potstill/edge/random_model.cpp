#include "potstill/edge/random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/formats/gguf.h"
#include "potstill/lm/gguf_vocabulary.h"
#include "potstill/text/byte_alphabet.h"

namespace potstill::edge {
namespace {

struct Shape {
  std::string_view name;
  int64_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary;
  bool tied;
  double rope_theta;
};
constexpr std::array<Shape, 4> kShapes{{{"135m", 576, 30, 9, 3, 64, 1536, 49152, true, 1e5},
                                        {"1b", 2048, 16, 32, 8, 64, 8192, 128256, true, 5e5},
                                        {"3b", 3072, 28, 24, 8, 128, 8192, 128256, true, 5e5},
                                        {"8b", 4096, 32, 32, 8, 128, 14336, 128256, false, 5e5}}};
constexpr int64_t kContext = 8192;

// 64 random bits a step; speed matters more than quality for gigabytes of codes.      xorshift64*, Vigna 2016
class FastBits {
 public:
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1DULL;
  }

 private:
  uint64_t state_ = 0x9E3779B97F4A7C15ULL;
};

std::vector<TensorSpec> tensors_of(const Shape& shape) {
  const int64_t D = shape.hidden, F = shape.intermediate, q = shape.heads * shape.head_dim,
                kv = shape.kv_heads * shape.head_dim;
  std::vector<TensorSpec> tensors{{"token_embd.weight", DType::kQ8_0, {shape.vocabulary, D}}};
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const auto add = [&](const char* name, DType dtype, std::vector<int64_t> sizes) {
      tensors.push_back({fmt::format("blk.{}.{}.weight", layer, name), dtype, std::move(sizes)});
    };
    add("attn_norm", DType::kF32, {D});
    add("attn_q", DType::kQ4_0, {q, D});
    add("attn_k", DType::kQ4_0, {kv, D});
    add("attn_v", DType::kQ4_0, {kv, D});
    add("attn_output", DType::kQ4_0, {D, q});
    add("ffn_norm", DType::kF32, {D});
    add("ffn_gate", DType::kQ4_0, {F, D});
    add("ffn_up", DType::kQ4_0, {F, D});
    add("ffn_down", DType::kQ4_0, {D, F});
  }
  tensors.push_back({"output_norm.weight", DType::kF32, {D}});
  if (!shape.tied) tensors.push_back({"output.weight", DType::kQ8_0, {shape.vocabulary, D}});
  return tensors;
}

GgufMetadata metadata_of(const Shape& shape) {
  GgufMetadata metadata{{"general.architecture", GgufValue::string("llama")},
                        {"general.name", GgufValue::string(fmt::format("random {}", shape.name))},
                        {"general.file_type", GgufValue::u32(2)},
                        {"general.quantization_version", GgufValue::u32(2)}};
  const auto size = [&](const char* key, int64_t value) {
    metadata.emplace_back(fmt::format("llama.{}", key), GgufValue::u32(static_cast<uint64_t>(value)));
  };
  size("vocab_size", shape.vocabulary);
  size("context_length", kContext);
  size("embedding_length", shape.hidden);
  size("block_count", shape.layers);
  size("feed_forward_length", shape.intermediate);
  size("attention.head_count", shape.heads);
  size("attention.head_count_kv", shape.kv_heads);
  size("attention.key_length", shape.head_dim);
  size("attention.value_length", shape.head_dim);
  size("rope.dimension_count", shape.head_dim);
  metadata.emplace_back("llama.attention.layer_norm_rms_epsilon", GgufValue::f32(1e-5));
  metadata.emplace_back("llama.rope.freq_base", GgufValue::f32(shape.rope_theta));
  Vocabulary vocabulary;  // bytes, one merge (a file with none is refused), and names that no text has
  vocabulary.pre = PreTokenizer::kGpt2;
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.tokens.push_back(spell_bytes(std::string(1, static_cast<char>(byte))));
  vocabulary.tokens.push_back("th");
  vocabulary.merges = {"t h"};
  vocabulary.tokens.push_back("<|end|>");
  vocabulary.types.assign(257, TokenType::kNormal);
  vocabulary.types.push_back(TokenType::kControl);
  vocabulary.bos = vocabulary.eos = 257;
  const auto keys = vocabulary_to_gguf(vocabulary, shape.vocabulary, std::nullopt);
  metadata.insert(metadata.end(), keys.begin(), keys.end());
  return metadata;
}

// Uniform codes under one scale that makes the weights' deviation about 1 / sqrt(columns), so that activations stay
// finite through any number of layers.
std::vector<std::byte> random_blocks(DType dtype, int64_t cols, size_t bytes, FastBits& bits) {
  std::vector<std::byte> out(bytes);
  if (dtype == DType::kF32) {
    const float one = 1.0f;
    for (size_t i = 0; i < bytes; i += sizeof(one)) std::memcpy(out.data() + i, &one, sizeof(one));
    return out;
  }
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    const uint64_t word = bits.next();
    std::memcpy(out.data() + i, &word, 8);
  }
  const double code_deviation = dtype == DType::kQ4_0 ? 4.6 : 74;  // of uniform integers in [0, 16) or [-128, 128)
  const uint16_t scale = float_to_half(static_cast<float>(1 / (code_deviation * std::sqrt(static_cast<double>(cols)))));
  for (size_t i = 0; i < bytes; i += block_bytes(dtype)) std::memcpy(out.data() + i, &scale, sizeof(scale));
  return out;
}

}  // namespace

std::string random_model_shapes() {
  std::string names;
  for (const Shape& shape : kShapes) names += fmt::format("{}{}", names.empty() ? "" : ", ", shape.name);
  return names;
}

void write_random_model(std::string_view name, const std::filesystem::path& path) {
  const auto shape = std::find_if(kShapes.begin(), kShapes.end(), [&](const Shape& s) { return s.name == name; });
  if (shape == kShapes.end()) {
    throw Error(ErrorKind::kUsage, "--random-model", fmt::format("'{}' is no shape that is known", name),
                fmt::format("one of {}", random_model_shapes()));
  }
  const auto tensors = tensors_of(*shape);
  GgufWriter writer(path, metadata_of(*shape), tensors);
  FastBits bits;
  for (const TensorSpec& tensor : tensors) {
    const auto row_bytes = static_cast<size_t>(tensor.bytes() / static_cast<uint64_t>(tensor.shape[0]));
    // Whole rows, about 8 MB a time.
    const auto rows_a_time = std::max<int64_t>(1, static_cast<int64_t>((size_t{8} << 20) / row_bytes));
    for (int64_t row = 0; row < tensor.shape[0]; row += rows_a_time) {
      const auto rows = static_cast<size_t>(std::min(rows_a_time, tensor.shape[0] - row));
      writer.append(tensor.name, random_blocks(tensor.dtype, tensor.shape.back(), rows * row_bytes, bits));
    }
  }
  writer.finish();
}

}  // namespace potstill::edge
