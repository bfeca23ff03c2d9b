#include "potstill/formats/peft_adapter.h"

#include <gmock/gmock.h>

#include "format_files.h"

namespace potstill {
namespace {

using testing::HasSubstr;

constexpr const char* kQ = "model.layers.0.self_attn.q_proj";
constexpr const char* kDown = "model.layers.0.mlp.down_proj";

TEST(PeftAdapterGolden, ReadsPeftsFolder) {
  const PeftAdapter adapter(kGolden / "peft_adapter");
  EXPECT_EQ(adapter.config().r, 4);
  EXPECT_EQ(adapter.config().lora_dropout, 0.05);
  EXPECT_EQ(adapter.config().target_modules, (std::vector<std::string>{"down_proj", "q_proj"}));
  ASSERT_EQ(adapter.pairs().size(), 2u);
  EXPECT_EQ(adapter.find(kQ)->scale, 2.0);  // 8 / 4
  EXPECT_EQ(adapter.find(kQ)->lora_a.shape, (std::vector<int64_t>{4, 16}));
  EXPECT_EQ(adapter.find(kDown)->scale, 3.0);  // 6 / 2, by the patterns
  EXPECT_EQ(adapter.find(kDown)->lora_b.shape, (std::vector<int64_t>{16, 2}));
  EXPECT_EQ(adapter.find("model.layers.0.self_attn.k_proj"), nullptr);
}

TEST(PeftAdapterGolden, WritesTheSameTensorsAndConfig) {
  const PeftAdapter golden(kGolden / "peft_adapter");
  const TempFolder folder;
  write_peft_adapter(folder.path(), golden.config(), golden.pairs());
  EXPECT_EQ(read_file(folder / "adapter_model.safetensors"),
            read_file(kGolden / "peft_adapter/adapter_model.safetensors"));
  const PeftAdapter again(folder.path());
  EXPECT_EQ(peft_config_to_json(again.config()), peft_config_to_json(golden.config()));
}

nlohmann::json plain_config() {
  return {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}, {"target_modules", {"q_proj"}}};
}

std::string refusal(const char* key, const nlohmann::json& value) {
  auto json = plain_config();
  json[key] = value;
  return error_of(ErrorKind::kInput, [&] { peft_config_from_json(json, "adapter_config.json"); });
}

TEST(PeftConfig, NamesWhatIsNotSupportedOrWrong) {
  EXPECT_THAT(refusal("peft_type", "IA3"), HasSubstr("'peft_type' is \"IA3\"; only LORA"));
  EXPECT_THAT(refusal("use_dora", true), HasSubstr("'use_dora' is true"));
  EXPECT_THAT(refusal("bias", "all"), HasSubstr("'bias' is \"all\""));
  EXPECT_THAT(refusal("modules_to_save", {"lm_head"}), HasSubstr("'modules_to_save'"));
  EXPECT_THAT(refusal("r", 0), HasSubstr("'r' is 0"));
  EXPECT_THAT(refusal("lora_alpha", "x"), HasSubstr("'lora_alpha'"));
  EXPECT_THAT(refusal("rank_pattern", {{"q_proj", -1}}), HasSubstr("'q_proj' is -1"));
  auto json = plain_config();
  json.erase("r");
  EXPECT_THAT(error_of(ErrorKind::kInput, [&] { peft_config_from_json(json, "c"); }), HasSubstr("'r' is missing"));
}

// A folder of plain_config() (with changes) and F32 tensors of these shapes.
std::string folder_refusal(const std::vector<TensorSpec>& tensors, ErrorKind kind = ErrorKind::kFormat,
                           const nlohmann::json& config = plain_config()) {
  const TempFolder folder;
  SafetensorsWriter writer(folder / "adapter_model.safetensors", tensors);
  for (const TensorSpec& tensor : tensors) writer.append(tensor.name, bytes_of(std::string(tensor.bytes(), '\0')));
  writer.finish();
  write_file_atomically(folder / "adapter_config.json", config.dump());
  return error_of(kind, [&] { PeftAdapter adapter(folder.path()); });
}

TEST(PeftAdapter, RefusesTensorsThatAreNoPairs) {
  const TensorSpec a{"base_model.model.m.q_proj.lora_A.weight", DType::kF32, {2, 4}};
  const TensorSpec b{"base_model.model.m.q_proj.lora_B.weight", DType::kF32, {4, 2}};
  EXPECT_THAT(folder_refusal({}), HasSubstr("holds no tensors"));
  EXPECT_THAT(folder_refusal({a}), HasSubstr("'m.q_proj' has no lora_B"));
  EXPECT_THAT(folder_refusal({b}), HasSubstr("'m.q_proj' has no lora_A"));
  EXPECT_THAT(folder_refusal({a, {b.name, DType::kF32, {4, 3}}}),
              HasSubstr("lora_B [4, 3] but the config says rank 2"));
  EXPECT_THAT(folder_refusal({a, {b.name, DType::kI32, {4, 2}}}), HasSubstr("is no LoRA factor"));
  EXPECT_THAT(folder_refusal({a, b, {"m.weight", DType::kF32, {1}}}),
              HasSubstr("'m.weight' F32 [1] is no LoRA factor"));
  auto config = plain_config();
  config["alpha_pattern"] = {{"^.*k_proj$", 3}};
  EXPECT_THAT(folder_refusal({a, b}, ErrorKind::kInput, config), HasSubstr("ends no adapted module's name"));
}

TEST(PeftAdapter, TellsWhichFileIsMissing) {
  const TempFolder folder;
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { PeftAdapter adapter(folder.path()); }),
              HasSubstr("has no adapter_config.json"));
}

}  // namespace
}  // namespace potstill
