#include "potstill/eval/own_task.h"

#include <gtest/gtest.h>

#include "potstill/base/error.h"

namespace potstill {
namespace {

Row row_of(const char* json) { return {.doc = nlohmann::ordered_json::parse(json), .where = "rows.jsonl:1"}; }

OwnTaskConfig config_of() {
  OwnTaskConfig config;
  config.name = "tickets";
  config.rows = "rows.jsonl";
  config.prompt = "Ticket {id}: {body.text}\nQueue:";
  config.choices = {"billing", "support for {product}"};
  config.answer = "queue";
  config.answer_is = "index";
  return config;
}

constexpr const char* kRow =
    R"({"id": 7, "body": {"text": "It {broke}"}, "product": "lamps", "queue": 1, "name": "support for lamps", "nth": "2", "letter": "B", "all": ["x", "y"]})";

TEST(OwnTask, FieldsGoIntoPromptAndChoices) {
  const auto question = own_task(config_of(), "task.yaml").ask(row_of(kRow));
  EXPECT_EQ(question.requests()[1].context, "Ticket 7: It {broke}\nQueue:");
  EXPECT_EQ(question.requests()[1].continuation, " support for lamps");
  EXPECT_EQ(question.gold, 1);
}

TEST(OwnTask, TheAnswerIsToldInFourWays) {
  for (const auto& [field, is] : std::vector<std::pair<std::string, std::string>>{
           {"queue", "index"}, {"nth", "number"}, {"letter", "letter"}, {"name", "text"}}) {
    auto config = config_of();
    config.answer = field;
    config.answer_is = is;
    EXPECT_EQ(own_task(config, "task.yaml").ask(row_of(kRow)).gold, 1) << is;
  }
  auto config = config_of();
  config.choices.clear();
  config.choices_field = "all";
  EXPECT_EQ(own_task(config, "task.yaml").ask(row_of(kRow)).requests()[1].continuation, " y");
}

TEST(OwnTask, BracesAreTextWhenDoubled) {
  EXPECT_EQ(fill_fields("{{{id}}}", row_of(kRow)), "{7}");
  EXPECT_EQ(fill_fields("no field", row_of(kRow)), "no field");
  for (const char* pattern : {"{id", "id}", "{a{b}", "{"}) EXPECT_THROW(fill_fields(pattern, row_of(kRow)), Error);
  EXPECT_THROW(fill_fields("{absent}", row_of(kRow)), Error);
  EXPECT_THROW(fill_fields("{all}", row_of(kRow)), Error);
}

TEST(OwnTask, WhatCannotWorkIsRefused) {
  const auto refused = [](auto change) {
    auto config = config_of();
    change(config);
    EXPECT_THROW(own_task(config, "task.yaml"), Error);
  };
  refused([](auto& c) { c.name = ""; });
  refused([](auto& c) { c.name = "../x"; });
  refused([](auto& c) { c.prompt = ""; });
  refused([](auto& c) { c.answer = ""; });
  refused([](auto& c) { c.choices = {"one"}; });
  refused([](auto& c) { c.choices_field = "all"; });
  refused([](auto& c) { c.choices.clear(); });
  auto config = config_of();
  config.answer_is = "letter";
  EXPECT_THROW(own_task(config, "task.yaml").ask(row_of(kRow)), Error);  // 1 is no letter
  config.answer_is = "number";
  config.answer = "id";
  EXPECT_THROW(own_task(config, "task.yaml").ask(row_of(kRow)), Error);  // choice 7 of 2
}

}  // namespace
}  // namespace potstill
