#include "potstill/text/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "potstill/base/error.h"

namespace potstill {
namespace {

using nlohmann::json;
using Kind = ChatTemplate::Kind;

std::vector<ChatMessage> read_messages(const json& rows) {
  std::vector<ChatMessage> messages;
  for (const json& row : rows) messages.push_back({row["role"], row["content"]});
  return messages;
}

// tests/golden/text/make_chat_golden.py: transformers 5.23.0 on the published templates.
TEST(ChatTemplateGolden, RenderingsEqualTransformersOnThePublishedTemplates) {
  const auto path = std::string(POTSTILL_SOURCE_DIR) + "/tests/golden/text/chat_templates.json";
  std::ifstream file(path);
  ASSERT_TRUE(file) << path;
  for (const json& row : json::parse(file)) {
    const ChatTemplate found = ChatTemplate::detect(row["source"].get<std::string>(), row["family"].get<std::string>());
    EXPECT_EQ(found.name(), row["kind"].get<std::string>()) << row["family"];
    for (const json& test : row["cases"]) {
      const auto messages = read_messages(test["messages"]);
      const bool answer = test["add_generation_prompt"];
      if (test.contains("refused")) {
        EXPECT_THROW(found.render(messages, answer), Error) << row["family"] << test["messages"];
      } else {
        EXPECT_EQ(found.render(messages, answer), test["rendered"].get<std::string>()) << row["family"];
      }
    }
  }
}

TEST(ChatTemplate, KnowsItsFamilyWithoutASource) {
  const std::vector<ChatMessage> question{{"user", "Hi"}};
  EXPECT_EQ(ChatTemplate(Kind::kSmolLm).render(question, false),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n");
  EXPECT_EQ(ChatTemplate(Kind::kChatMl).render(question, true),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, TakesTheDefaultSystemTurnFromTheSource) {
  const auto coder = ChatTemplate::detect(
      "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou write C++.<|im_end|>\\n' }}",
      "test");
  EXPECT_EQ(coder.kind(), Kind::kChatMl);
  EXPECT_EQ(coder.render(std::vector<ChatMessage>{{"user", "Hi"}}, false),
            "<|im_start|>system\nYou write C++.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
}

TEST(ChatTemplate, IsAlpacaWithoutASource) {
  const auto alpaca = ChatTemplate::detect(" \n", "test");
  EXPECT_EQ(alpaca.kind(), Kind::kAlpaca);
  EXPECT_EQ(alpaca.end_of_turn(), "");
  EXPECT_EQ(alpaca.render(std::vector<ChatMessage>{{"user", "Add 1 and 2."}}, true),
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\nAdd 1 and 2.\n\n### Response:\n");
}

TEST(ChatTemplate, WritesTheDateItIsGiven) {
  ChatTemplate llama(Kind::kLlama31);
  llama.set_date("01 Jan 2025");
  EXPECT_NE(llama.render({}, false).find("Today Date: 01 Jan 2025\n\n<|eot_id|>"), std::string::npos);
}

TEST(ChatTemplate, RefusesUnknownSourcesAndRoles) {
  EXPECT_THROW(ChatTemplate::detect("{{ 'GPT4 Correct ' + message['role'] }}", "config.json"), Error);
  EXPECT_THROW(ChatTemplate::detect("{{- \"[INST]\" + message[\"content\"] + \"[/INST]\" }}", "tekken"), Error);
  EXPECT_THROW(ChatTemplate(Kind::kChatMl).render(std::vector<ChatMessage>{{"tool", "42"}}, true), Error);
}

}  // namespace
}  // namespace potstill
