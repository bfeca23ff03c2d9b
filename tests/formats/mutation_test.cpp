// Small valid files with random damage: a reader may accept or throw Error; anything else (a crash, another exception,
// under a sanitizer any touch outside the file) fails. Seeds are fixed, so a failure repeats.
#include <fstream>
#include <functional>

#include "format_files.h"

#include "potstill/base/rng.h"
#include "potstill/formats/compressed_tensors.h"
#include "potstill/formats/ggml_blocks.h"
#include "potstill/formats/gguf.h"
#include "potstill/formats/gguf_checkpoint.h"
#include "potstill/formats/hf_checkpoint.h"
#include "potstill/formats/model_config.h"
#include "potstill/formats/peft_adapter.h"
#include "potstill/formats/strict_json.h"

namespace potstill {
namespace {

// Values that break arithmetic more often than random ones.
constexpr uint64_t kNasty[] = {
    0, 1, 31, 32, 0x7f, 0x80, 0xff, 0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, uint64_t{1} << 63, UINT64_MAX};

// One to four damages: a byte, a word of 1 to 8 bytes, a cut end, more at the end, a piece moved or doubled.
std::string damaged(std::string file, Rng& rng) {
  for (uint64_t count = 1 + rng.below(4); count > 0 && !file.empty(); --count) {
    const size_t at = rng.below(file.size());
    switch (rng.below(6)) {
      case 0:
        file[at] = static_cast<char>(rng.below(256));
        break;
      case 1: {
        const std::string word = raw(kNasty[rng.below(std::size(kNasty))]).substr(0, 1 + rng.below(8));
        file.replace(at, std::min(word.size(), file.size() - at), word);
        break;
      }
      case 2:
        file.resize(at);
        break;
      case 3:
        file.append(1 + rng.below(64), static_cast<char>(rng.below(256)));
        break;
      case 4:
        file.insert(at, file.substr(rng.below(file.size()), rng.below(32)));
        break;
      default:
        file.erase(at, 1 + rng.below(16));
    }
  }
  return file;
}

void expect_only_errors(const std::string& file, int rounds, const char* stream,
                        const std::function<void(const std::string&)>& read) {
  Rng rng(/*seed=*/17, stream);
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string mutant = damaged(file, rng);
    try {
      read(mutant);
      ++accepted;
    } catch (const Error&) {
    } catch (const std::exception& error) {
      FAIL() << "round " << round << " of " << stream << ": " << error.what();
    }
  }
  EXPECT_LT(accepted, rounds);  // the damage is real
}

// Without the sync of write_file_atomically, which thousands of files would wait for.
void write_quickly(const std::filesystem::path& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << contents;
}

// Reads every byte that the reader gave out, so that a sanitizer sees it.
void touch(const TensorView& tensor) {
  if (is_decodable(tensor.dtype) && !tensor.bytes.empty()) {
    std::vector<float> values(tensor.bytes.size() / static_cast<size_t>(block_bytes(tensor.dtype)) *
                              static_cast<size_t>(block_elements(tensor.dtype)));
    decode_row(tensor.dtype, tensor.bytes, values);
  }
}

TEST(Mutation, SafetensorsGiveErrorsAlone) {
  expect_only_errors(read_file(kGolden / "small.safetensors"), 8000, "safetensors", [](const std::string& file) {
    for (const TensorView& tensor : parse_safetensors(bytes_of(file), "f").tensors) touch(tensor);
  });
}

TEST(Mutation, GgufGivesErrorsAlone) {
  expect_only_errors(read_file(kGolden / "small.gguf"), 8000, "gguf", [](const std::string& file) {
    for (const TensorView& tensor : parse_gguf(bytes_of(file), "f").tensors) touch(tensor);
  });
}

// A whole tiny model: keys, names and shapes against each other.
TEST(Mutation, GgufCheckpointsGiveErrorsAlone) {
  const TempFolder folder;
  expect_only_errors(read_file(POTSTILL_SOURCE_DIR "/tests/golden/edge/tiny_llama.gguf"), 400, "gguf checkpoint",
                     [&](const std::string& file) {
                       write_quickly(folder / "m.gguf", file);
                       const GgufCheckpoint checkpoint(folder / "m.gguf");
                       for (const WeightInfo& weight : checkpoint.weights()) checkpoint.read(weight.name);
                     });
}

TEST(Mutation, CompressedTensorsGiveErrorsAlone) {
  const TempFolder folder;
  const auto config = read_file(kGolden / "packed_asymmetric/config.json");
  const auto weights = read_file(kGolden / "packed_asymmetric/model.safetensors");
  const auto read = [&] {
    const CompressedTensorsCheckpoint checkpoint(folder.path());
    for (const WeightInfo& weight : checkpoint.weights()) checkpoint.read(weight.name);
  };
  write_quickly(folder / "config.json", config);
  expect_only_errors(weights, 300, "packed weights", [&](const std::string& file) {
    write_quickly(folder / "model.safetensors", file);
    read();
  });
  write_quickly(folder / "model.safetensors", weights);
  expect_only_errors(config, 300, "packed config", [&](const std::string& file) {
    write_quickly(folder / "config.json", file);
    read();
  });
}

TEST(Mutation, ConfigsGiveErrorsAlone) {
  const auto config = nlohmann::json::parse(read_file(kGolden / "configs.json"))["llama3"]["config"].dump();
  expect_only_errors(config, 8000, "config", [](const std::string& file) {
    const ModelConfig read = model_config_from_json(parse_strict_json(file, "f"), "f");
    if (read.num_hidden_layers < 100) num_parameters(read);
    model_config_to_json(read);
  });
  const auto adapter = read_file(kGolden / "peft_adapter/adapter_config.json");
  expect_only_errors(adapter, 4000, "adapter", [](const std::string& file) {
    peft_config_to_json(peft_config_from_json(parse_strict_json(file, "f"), "f"));
  });
}

}  // namespace
}  // namespace potstill
