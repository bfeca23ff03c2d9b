// The quantizer's options on a two-layer model of seeded weights: each method, grid and order reads back as itself.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/quant/small_model.h"

#include "potstill/formats/compressed_tensors.h"
#include "potstill/quant/calibration.h"
#include "potstill/quant/consumers.h"
#include "potstill/quant/expected_size.h"
#include "potstill/quant/export_folder.h"
#include "potstill/quant/export_model.h"
#include "potstill/quant/memory_plan.h"
#include "potstill/quant/sensitivity.h"

namespace potstill {
namespace {

class QuantizeOptions : public testing::Test {
 protected:
  // Quantizes under a name and gives the folder opened again.
  ModelPackage quantized(const QuantizeConfig& config, const std::string& name) {
    bytes_[name] = quantize_into(model_, config, folder_ / name.c_str());
    return open_model(folder_ / name.c_str());
  }
  std::vector<ModuleRow> rows(const QuantizeConfig& config, const std::string& name) {
    std::vector<ModuleRow> result;
    const auto layers = keep_layers_in(folder_ / name.c_str() / "work", settings_of(model_, config));
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const auto kept = layers.load(layer);
      for (const auto& module : kept->modules) result.push_back(module.row);
    }
    return result;
  }
  // Relative error of the final logits against the unquantized model, on text that was not calibrated on.
  double logit_error(const ModelPackage& quantized) {
    const auto truth = logits(model_), got = logits(quantized);
    return ((got - truth).norm() / truth.norm()).item<double>();
  }
  static at::Tensor logits(const ModelPackage& model) {
    const at::NoGradGuard no_grad;
    std::vector<std::vector<TokenId>> corpus(1);
    Rng rng(9, "other text");
    for (int i = 0; i < 200; ++i) corpus[0].push_back(static_cast<TokenId>(rng.below(120)));
    CorpusState state = embed_corpus(model, corpus, {});
    run_layers(model, state, {}, 0, kLayers);
    finish_corpus(model, state, {});
    return at::mm(state.hidden.front(), load_lm_head(model, at::kFloat, at::kCPU).t());
  }

  TempFolder folder_;
  ModelPackage model_ = write_model(folder_ / "model");
  std::map<std::string, std::string> bytes_;
};

TEST_F(QuantizeOptions, EveryMethodOrderAndGridBeatsOrEqualsPlainRounding) {
  QuantizeConfig rtn;
  rtn.method = "rtn";
  const double plain = logit_error(quantized(rtn, "rtn"));
  EXPECT_GT(plain, 0.0);
  const auto check = [&](const std::string& name, const auto& change, double most) {
    QuantizeConfig config;
    change(config);
    const auto model = quantized(config, name);
    EXPECT_LT(logit_error(model), most * plain) << name;
  };
  check(
      "gptq", [](auto&) {}, 0.95);
  check(
      "awq", [](auto& c) { c.method = "awq"; }, 1.0);
  check(
      "gptaq", [](auto& c) { c.method = "gptaq"; }, 0.95);
  check(
      "group-aware", [](auto& c) { c.order = "group-aware"; }, 0.95);
  check(
      "at-once", [](auto& c) { c.true_sequential = false; }, 1.0);
  check(
      "eight", [](auto& c) { c.bits = 8; }, 0.15);
  check(
      "asymmetric", [](auto& c) { c.symmetric = false; }, 0.95);
  EXPECT_NE(bytes_["gptq"], bytes_["at-once"]);
  EXPECT_NE(bytes_["gptq"], bytes_["group-aware"]);
}

TEST_F(QuantizeOptions, AwqFoldsItsScalesIntoNormsAndGoesOnAfterAKill) {
  QuantizeConfig awq;
  awq.method = "awq";
  const auto model = quantized(awq, "awq");
  const std::string norm = "model.layers.0.post_attention_layernorm.weight";
  EXPECT_NE(model.weights->read(norm), model_.weights->read(norm));
  double gain = 0.0;
  for (const auto& row : rows(awq, "awq")) gain += row.awq_gain;
  EXPECT_GT(gain, 0.0);
  EXPECT_THROW(quantize_into(model_, awq, folder_ / "killed", /*stop_at_layer=*/1), std::runtime_error);
  EXPECT_TRUE(quantize_into(model_, awq, folder_ / "killed") == bytes_["awq"]);
}

TEST_F(QuantizeOptions, ARowCanShareOneScale) {
  for (const bool symmetric : {true, false}) {
    QuantizeConfig channel;
    channel.group_size = "channel";
    channel.symmetric = symmetric;
    const std::string name = symmetric ? "channel" : "channel-asymmetric";
    const auto model = quantized(channel, name);
    const auto& checkpoint = dynamic_cast<const CompressedTensorsCheckpoint&>(*model.weights);
    EXPECT_EQ(checkpoint.group_size(), 0);
    EXPECT_EQ(checkpoint.linear("model.layers.1.mlp.down_proj.weight").num_groups(), 1);
    const auto file = folder_ / (name + ".gguf").c_str();
    export_gguf_model(model, {.embeddings = "f16"}, file);
    EXPECT_EQ(prove_export(model, file)["weights_rounded"].get<int>() > 0, !symmetric);
  }
}

TEST_F(QuantizeOptions, BitsAreSpentWhereRoundingHurtsMost) {
  QuantizeConfig mixed;
  mixed.group_size = "32";
  mixed.target_bpw = 5.5;
  const auto settings = settings_of(model_, mixed);
  const double bits = bits_per_weight(model_.config, settings.grid, settings.eight_bits);
  EXPECT_LE(bits, 5.5);
  EXPECT_GT(bits, 4.6);
  // what got more bits hurts no less for its size than what did not
  double least_chosen = 1e9, most_left = 0.0;
  for (size_t i = 0; i < settings.eight_bits.size(); ++i) {
    const auto index = i % kNumLinears;
    EXPECT_EQ(settings.eight_bits[i], settings.eight_bits[i - index + (index < 3 ? 0 : index == 5 ? 4 : index)]);
    if (index != 3) continue;  // the same shape in both layers
    (settings.eight_bits[i] ? least_chosen : most_left) = settings.eight_bits[i]
                                                              ? std::min(least_chosen, settings.sensitivity[i])
                                                              : std::max(most_left, settings.sensitivity[i]);
  }
  EXPECT_GE(least_chosen, most_left);

  QuantizeConfig plain = mixed;
  plain.target_bpw = 0;
  const auto model = quantized(mixed, "mixed");
  EXPECT_LT(logit_error(model), logit_error(quantized(plain, "plain")));
  int64_t wide = 0;
  for (const auto& row : rows(mixed, "mixed")) {
    wide += row.bits == 8;
    EXPECT_GT(row.sensitivity, 0.0);
  }
  EXPECT_EQ(wide, std::ranges::count(settings.eight_bits, true));
  const auto file = folder_ / "mixed.gguf";
  export_gguf_model(model, {.embeddings = "f16"}, file);
  EXPECT_EQ(prove_export(model, file)["weights_rounded"], 0);
  error_of(ErrorKind::kInput, [&] { export_gptq_model(model, 2, folder_ / "gptq"); });
  mixed.target_bpw = 4.1;
  EXPECT_NE(error_of(ErrorKind::kUsage, [&] { resolve_settings(mixed, model_.config); }).find("4.500"),
            std::string::npos);
}

TEST_F(QuantizeOptions, TheWorstLinearsSayWhatWouldHelp) {
  QuantizeConfig config;
  config.group_size = "32";
  quantized(config, "out");
  auto all = rows(config, "out");
  std::ranges::sort(all, std::greater<>(), &ModuleRow::relative_error);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_GT(all[i].error_with_8_bits, 0.0) << all[i].path();
    EXPECT_LT(all[i].error_with_8_bits, 0.2 * all[i].relative_error) << all[i].path();
    EXPECT_EQ(all[i].error_with_half_groups, 0.0);  // 16 is no group that files hold
  }
}

TEST_F(QuantizeOptions, SizesAreKnownBeforehand) {
  for (const double target : {0.0, 5.5}) {
    QuantizeConfig config;
    config.group_size = "32";
    config.target_bpw = target;
    const std::string name = fmt::format("size-{}", target);
    const auto model = quantized(config, name);
    const auto expected = expected_size(model_, settings_of(model_, config), 8, false);
    const auto folder = static_cast<double>(std::filesystem::file_size(folder_ / name.c_str() / "model.safetensors"));
    EXPECT_NEAR(folder, static_cast<double>(expected.folder_bytes), 12000);  // the header
    const auto file = folder_ / (name + ".gguf").c_str();
    export_gguf_model(model, {.embeddings = "q8_0"}, file);
    EXPECT_NEAR(static_cast<double>(std::filesystem::file_size(file)), static_cast<double>(expected.gguf_bytes), 3000);
  }
}

TEST_F(QuantizeOptions, MixesCalibrationTexts) {
  const auto records = folder_ / "pairs.jsonl", text = folder_ / "text.txt";
  std::string lines, words;
  for (int i = 0; i < 40; ++i) lines += fmt::format("{{\"text\": \"record number {}\"}}\n", i);
  for (int i = 0; i < 2000; ++i) words += static_cast<char>('a' + i % 26);
  write_file_atomically(records, lines);
  write_file_atomically(text, words);
  const auto sources = parse_calibration(records.string() + ":0.75," + text.string() + ":0.25");
  ASSERT_EQ(sources.size(), 2u);
  const auto set = load_calibration(sources, model_, 10, 50, 3);
  EXPECT_EQ(set.summary["sources"][0]["sequences"], 8);  // 7.5 and 2.5: the rest goes to the first
  EXPECT_EQ(set.summary["sources"][1]["sequences"], 2);
  EXPECT_EQ(set.sequences, load_calibration(sources, model_, 10, 50, 3).sequences);
  size_t counted = 0;
  for (const auto& bar : set.summary["lengths"]) counted += bar["sequences"].get<size_t>();
  EXPECT_EQ(counted, 10u);
  const auto refused = [&](const std::string& what, ErrorKind kind) {
    return error_of(kind, [&] { parse_calibration(what); });
  };
  EXPECT_NE(refused(records.string() + ":0," + text.string(), ErrorKind::kUsage).find("is no share"),
            std::string::npos);
  EXPECT_NE(refused(records.string() + "," + records.string(), ErrorKind::kUsage).find("twice"), std::string::npos);
  refused("nowhere.txt", ErrorKind::kIo);
  refused(records.string() + ",", ErrorKind::kUsage);
  EXPECT_EQ(parse_calibration("synth",
                              [&](const std::string& name) {
                                EXPECT_EQ(name, "synth");
                                return records.string();
                              })
                .front()
                .path,
            records);
}

TEST_F(QuantizeOptions, TellsWhatAConsumerRefuses) {
  const ConsumerPlan plan{.group_size = 256, .symmetric = true};
  const auto message =
      error_of(ErrorKind::kUsage, [&] { require_consumers(model_.config, plan, "vllm,edge", "here"); });
  EXPECT_NE(message.find("vllm has no kernel for groups of 256"), std::string::npos) << message;
  EXPECT_NE(message.find("--group-size 128, 64, 32"), std::string::npos) << message;
  EXPECT_NO_THROW(require_consumers(model_.config, {.group_size = 32}, "vllm,llama.cpp,edge", "here"));
  error_of(ErrorKind::kUsage,
           [&] { require_consumers(model_.config, {.group_size = 32, .format = "gptq"}, "llama.cpp", "x"); });
  error_of(ErrorKind::kUsage, [&] { require_consumers(model_.config, {.bits = 8, .symmetric = false}, "edge", "x"); });
  error_of(ErrorKind::kUsage, [&] { parse_consumers("vllm,ollama"); });
}

TEST_F(QuantizeOptions, PlansItsMemory) {
  const auto settings = settings_of(model_, {});
  const auto free = plan_memory(model_.config, settings, 65536, 4096, 0);
  EXPECT_EQ(free.hidden, (65536u + 4096u) * kHidden * 4);
  EXPECT_EQ(free.activations, 65536u * kIntermediate * 4);  // all of them: a small model
  EXPECT_EQ(plan_memory(model_.config, settings, 65536, 4096, 1000).activations, 0u);
  QuantizeConfig limited;
  limited.memory = "2GiB";
  EXPECT_EQ(resolve_settings(limited, model_.config).memory_bytes, uint64_t{2} << 30);
  limited.memory = "4 pages";
  error_of(ErrorKind::kUsage, [&] { resolve_settings(limited, model_.config); });
}

}  // namespace
}  // namespace potstill
