// A two-layer model of seeded weights in a real folder: quantized, cut off and taken up again, exported, proven.
#include "potstill/quant/quantize_model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "tests/quant/small_model.h"

#include "potstill/base/atomic_file.h"
#include "potstill/base/rng.h"
#include "potstill/formats/compressed_tensors.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/transformer.h"
#include "potstill/quant/calibration.h"
#include "potstill/quant/export_folder.h"
#include "potstill/quant/export_model.h"
#include "potstill/quant/packed_model.h"
#include "potstill/text/byte_alphabet.h"

namespace potstill {
namespace {

class QuantizeModel : public testing::Test {
 protected:
  TempFolder folder_;
  ModelPackage model_ = write_model(folder_ / "model");
};

TEST_F(QuantizeModel, WritesAFolderThatReadsBackAsItsOwnCodes) {
  const auto out = folder_ / "out";
  quantize_into(model_, {}, out);
  const ModelPackage quantized = open_model(out);
  EXPECT_EQ(quantized.format, "compressed-tensors");
  const auto layers = keep_layers_in(out / "work", resolve_settings({}, model_.config));
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const auto kept = layers.load(layer);
    ASSERT_TRUE(kept.has_value());
    for (const auto& module : kept->modules) {
      const auto expected = dequantize(module.weight);
      const auto read = quantized.weights->read(module.row.path() + ".weight");
      ASSERT_EQ(static_cast<int64_t>(read.size()), expected.numel());
      EXPECT_EQ(std::memcmp(read.data(), expected.const_data_ptr<float>(), read.size() * 4), 0) << module.row.path();
      EXPECT_LT(module.row.relative_error, module.row.rounding_error) << module.row.path();
      EXPECT_EQ(module.row.trouble, "none");
    }
  }
}

TEST_F(QuantizeModel, GoesOnAfterAKillWithTheSameBytes) {
  const std::string undisturbed = quantize_into(model_, {}, folder_ / "undisturbed");
  EXPECT_THROW(quantize_into(model_, {}, folder_ / "killed", /*stop_at_layer=*/1), std::runtime_error);
  EXPECT_TRUE(quantize_into(model_, {}, folder_ / "killed") == undisturbed);
}

TEST_F(QuantizeModel, BestGoesOnAfterAKillToo) {
  QuantizeConfig best;
  best.quality = "best";
  const std::string undisturbed = quantize_into(model_, best, folder_ / "undisturbed");
  EXPECT_THROW(quantize_into(model_, best, folder_ / "killed", /*stop_at_layer=*/1), std::runtime_error);
  EXPECT_TRUE(quantize_into(model_, best, folder_ / "killed") == undisturbed);
  EXPECT_FALSE(quantize_into(model_, {}, folder_ / "standard") == undisturbed);
}

TEST_F(QuantizeModel, RowsTellOfInputsAndOfTheBlocksError) {
  quantize_into(model_, {}, folder_ / "out");
  const auto layers = keep_layers_in(folder_ / "out/work", resolve_settings({}, model_.config));
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const auto kept = layers.load(layer);
    for (const auto& module : kept->modules) {
      EXPECT_GT(module.row.block_error, 0.0);
      EXPECT_LT(module.row.block_error, 0.5);
      EXPECT_GE(module.row.input_peak, 1.0);
      EXPECT_EQ(module.row.peak_channels.size(), 3u);
      EXPECT_GT(module.row.peak_rss_bytes, 0u);
      EXPECT_EQ(module.row.strength, 0.0);
    }
  }
}

TEST_F(QuantizeModel, ExportsOtherFoldersOfTheSameWeights) {
  for (const bool symmetric : {true, false}) {
    QuantizeConfig config;
    config.symmetric = symmetric;
    const auto out = folder_ / (symmetric ? "symmetric" : "asymmetric");
    quantize_into(model_, config, out);
    const ModelPackage quantized = open_model(out);
    const std::string name = symmetric ? "s" : "a";
    export_gptq_model(quantized, 2, folder_ / (name + "-v2").c_str());
    export_dequantized_model(quantized, folder_ / (name + "-plain").c_str());
    if (symmetric) export_gptq_model(quantized, 1, folder_ / "s-v1");
    for (const char* form : {"-v2", "-plain", "-v1"}) {
      if (!symmetric && form == std::string("-v1")) continue;
      const auto path = folder_ / (name + form).c_str();
      SCOPED_TRACE(path.string());
      const auto proof = prove_export(quantized, path);
      EXPECT_EQ(proof["weights_rounded"], 0);
      EXPECT_EQ(proof["logits"]["max_difference"], 0.0);
    }
    // and from GPTQ's layout into GGUF: still the weights of the first folder
    const auto file = folder_ / (name + "2.gguf").c_str();
    export_gguf_model(open_model(folder_ / (name + "-v2").c_str()), {.embeddings = "f16"}, file);
    EXPECT_EQ(prove_export(quantized, file)["weights_rounded"].get<int>() > 0, !symmetric);
  }
  error_of(ErrorKind::kUsage, [&] { export_gptq_model(model_, 1, folder_ / "x"); });
}

TEST_F(QuantizeModel, MemoryLimitChangesNoByte) {
  QuantizeConfig frugal;
  frugal.memory = "1MB";  // every activation is computed twice
  EXPECT_TRUE(quantize_into(model_, {}, folder_ / "a") == quantize_into(model_, frugal, folder_ / "b"));
}

TEST_F(QuantizeModel, ExportsLosslesslyAndProvesIt) {
  for (const bool symmetric : {true, false}) {
    QuantizeConfig config;
    config.symmetric = symmetric;
    const auto out = folder_ / (symmetric ? "symmetric" : "asymmetric");
    quantize_into(model_, config, out);
    const ModelPackage quantized = open_model(out);
    const auto file = folder_ / (symmetric ? "q4_0.gguf" : "q4_1.gguf");
    export_gguf_model(quantized, {.embeddings = "f16"}, file);
    const auto proof = prove_export(quantized, file);
    if (symmetric) {  // the table is fp16 in the folder too: nothing is rounded
      EXPECT_EQ(proof["weights_rounded"], 0);
      EXPECT_EQ(proof["logits"]["max_difference"], 0.0);
    } else {
      EXPECT_LT(proof["logits"]["kl"].get<double>(), 1e-4);
    }
    export_gguf_model(quantized, {.embeddings = "q8_0"}, folder_ / "q8.gguf");
    EXPECT_EQ(prove_export(quantized, folder_ / "q8.gguf")["weights_rounded"], symmetric ? 1 : 15);
  }
}

TEST_F(QuantizeModel, ExportsUnquantizedModelsToo) {
  for (const char* type : {"f16", "bf16", "q8_0", "q4_0"}) {
    SCOPED_TRACE(type);
    const auto file = folder_ / (std::string(type) + ".gguf").c_str();
    const auto sizes = export_gguf_model(model_, {.weights = type, .embeddings = "f16"}, file);
    EXPECT_EQ(sizes["file_bytes"], std::filesystem::file_size(file));
    EXPECT_GT(prove_export(model_, file)["weights_rounded"].get<int>(), 0);
  }
}

TEST_F(QuantizeModel, ProofRefusesAFileOfOtherWeights) {
  quantize_into(model_, {}, folder_ / "out");
  const ModelPackage quantized = open_model(folder_ / "out");
  const auto file = folder_ / "damaged.gguf";
  export_gguf_model(quantized, {.embeddings = "f16"}, file);
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(-40, std::ios::end);  // inside the last tensor
  stream.put('\x5a');
  stream.close();
  EXPECT_NE(error_of(ErrorKind::kNumeric, [&] { prove_export(quantized, file); }).find("the export is not its source"),
            std::string::npos);
}

TEST_F(QuantizeModel, RefusesWhatCannotWorkBeforeAnyWork) {
  QuantizeConfig config;
  config.group_size = "128";
  EXPECT_NE(error_of(ErrorKind::kUsage, [&] { resolve_settings(config, model_.config); }).find("64, 32"),
            std::string::npos);
  config = {};
  EXPECT_EQ(resolve_settings(config, model_.config).grid.group_size, 32);  // 96 is no multiple of 64
  config.method = "rtn";
  config.clip = "hessian";
  error_of(ErrorKind::kUsage, [&] { resolve_settings(config, model_.config); });
  quantize_into(model_, {}, folder_ / "out");
  error_of(ErrorKind::kUsage,
           [&] { export_gguf_model(open_model(folder_ / "out"), {.weights = "f16"}, folder_ / "x.gguf"); });
  error_of(ErrorKind::kUsage, [&] { export_compressed_tensors_model(model_, folder_ / "x"); });
}

TEST_F(QuantizeModel, NamesTheWeightThatIsNotFinite) {
  at::NoGradGuard no_grad;
  DecoderLayer layer = load_decoder_layer(model_, 1, at::kFloat, at::kCPU);
  layer.up_proj.weight = layer.up_proj.weight.clone();
  layer.up_proj.weight[3][5] = std::nanf("");
  const std::string message =
      error_of(ErrorKind::kNumeric, [&] { round_layer(1, layer, resolve_settings({}, model_.config)); });
  EXPECT_NE(message.find("model.layers.1.mlp.up_proj.weight: holds 1 values"), std::string::npos) << message;
}

TEST_F(QuantizeModel, CalibratesOnRecordsInTheModelsOwnFormat) {
  const auto file = folder_ / "pairs.jsonl";
  write_file_atomically(file,
                        "{\"instruction\": \"Add.\", \"input\": \"1 2\", \"output\": \"3\"}\n"
                        "{\"instruction\": \"hidden\", \"output\": \"x\", \"split\": \"heldout\"}\n"
                        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
                        "\"content\": \"Hello\"}]}\n"
                        "{\"text\": \"plain words that are longer than the limit\"}\n");
  const auto set = load_calibration(file, model_, 10, 80, 7);
  ASSERT_EQ(set.sequences.size(), 3u);
  std::vector<std::string> texts;
  for (const auto& ids : set.sequences) texts.push_back(model_.tokenizer->decode(ids));
  std::ranges::sort(texts);
  EXPECT_EQ(texts[0], "<|im_start|>user\nAdd.\n\n1 2<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n");
  EXPECT_EQ(texts[1], "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n");
  EXPECT_EQ(texts[2], "plain words that are longer than the limit");
  EXPECT_EQ(set.summary["sequences_asked"], 10);
  EXPECT_EQ(load_calibration(file, model_, 10, 8, 7).summary["truncated"], 3);

  write_file_atomically(file, "{\"output\": \"no question\"}\n");
  EXPECT_NE(error_of(ErrorKind::kInput, [&] { load_calibration(file, model_, 1, 8, 7); }).find(":1"),
            std::string::npos);
  write_file_atomically(file, "\n");
  error_of(ErrorKind::kInput, [&] { load_calibration(file, model_, 1, 8, 7); });
}

TEST_F(QuantizeModel, CalibratesOnPlainPairsAsTheyAreLearnt) {
  const auto file = folder_ / "pairs.jsonl";
  write_file_atomically(file, "{\"instruction\": \"Question: 1 + 2?\\nAnswer:\", \"output\": \"3\"}\n");
  const CalibrationSource source{.path = file, .weight = 1.0, .plain = true};
  const auto set = load_calibration(std::span(&source, 1), model_, 1, 80, 7);
  ASSERT_EQ(set.sequences.size(), 1u);
  EXPECT_EQ(model_.tokenizer->decode(set.sequences[0]), "Question: 1 + 2?\nAnswer: 3");
}

TEST_F(QuantizeModel, CalibratesOnNoLineThatIsKeptToMeasureOn) {
  const auto file = folder_ / "pairs.jsonl";
  std::string lines;
  for (const char* answer : {"one", "two", "three", "four"}) {
    lines += fmt::format("{{\"instruction\": \"q\", \"output\": \"{}\"}}\n\n", answer);  // on lines 1, 3, 5, 7
  }
  write_file_atomically(file, lines);
  const CalibrationSource source{.path = file, .weight = 1.0, .plain = true, .left_out = {3, 7}};
  const auto set = load_calibration(std::span(&source, 1), model_, 4, 80, 7);
  std::vector<std::string> texts;
  for (const auto& ids : set.sequences) texts.push_back(model_.tokenizer->decode(ids));
  std::ranges::sort(texts);
  EXPECT_EQ(texts, (std::vector<std::string>{"q one", "q three"}));
}

TEST_F(QuantizeModel, CutsTextIntoWindowsThatTheSeedDraws) {
  const auto file = folder_ / "text.txt";
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>('a' + i % 26);
  write_file_atomically(file, text);
  const auto set = load_calibration(file, model_, 5, 100, 7);
  ASSERT_EQ(set.sequences.size(), 5u);
  EXPECT_EQ(set.num_tokens(), 500);
  EXPECT_EQ(set.summary["sequences_available"], 10);
  EXPECT_EQ(set.summary["distinct_tokens"], 26);
  EXPECT_EQ(load_calibration(file, model_, 5, 100, 7).sequences, set.sequences);
  EXPECT_NE(load_calibration(file, model_, 5, 100, 8).sequences, set.sequences);
  EXPECT_EQ(load_calibration(file, model_, 50, 100, 7).sequences.size(), 10u);  // all there are
}

}  // namespace
}  // namespace potstill
