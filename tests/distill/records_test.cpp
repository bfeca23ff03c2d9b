#include "potstill/distill/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "potstill/base/error.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// One token a printable ASCII character (GPT-2's alphabet spells the space Ġ and the newline Ċ), and ChatML's two
// marks.
Tokenizer character_tokenizer() {
  Vocabulary vocabulary;
  for (char c = '!'; c <= '~'; ++c) vocabulary.tokens.emplace_back(1, c);
  vocabulary.tokens.insert(vocabulary.tokens.end(), {"Ġ", "Ċ"});
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  for (const std::string mark : {"<|im_start|>", "<|im_end|>"}) {
    vocabulary.added.push_back(
        {.content = mark, .id = static_cast<TokenId>(vocabulary.tokens.size()), .special = true});
    vocabulary.tokens.push_back(mark);
    vocabulary.types.push_back(TokenType::kControl);
  }
  vocabulary.eos = vocabulary.added.back().id;
  return Tokenizer(vocabulary);
}

class Records : public testing::Test {
 protected:
  Tokenizer tokenizer = character_tokenizer();
  ChatTemplate chat_template{ChatTemplate::Kind::kChatMl};

  std::string text(const DistillRecord& record, bool answer) const {
    std::vector<TokenId> kept;
    for (size_t i = 0; i < record.tokens.size(); ++i) {
      if ((record.is_answer[i] != 0) == answer) kept.push_back(record.tokens[i]);
    }
    return tokenizer.decode(kept);
  }
  fs::path file(const std::string& contents) const {
    // a folder of the process: ctest runs the tests of this file side by side
    const fs::path folder = fs::path(testing::TempDir()) / ("potstill_records_" + std::to_string(::getpid()));
    fs::create_directories(folder);
    const fs::path path = folder / "records.jsonl";
    std::ofstream(path) << contents;
    return path;
  }
  DistillData load(const std::string& contents, DistillDataConfig config = {}) const {
    return load_distill_data(file(contents), tokenizer, chat_template, config, 1);
  }
  std::string error_of(const std::string& contents, DistillDataConfig config = {}) const {
    try {
      load(contents, config);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(Records, PutLossOnTheAnswerAndTheTokenThatEndsIt) {
  const auto record =
      make_distill_record(std::vector<ChatMessage>{{"system", "S"}, {"user", "Why?"}, {"assistant", "So."}}, tokenizer,
                          chat_template, "test");
  EXPECT_EQ(text(record, false),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(text(record, true), "So.<|im_end|>");
  // Position i predicts token i + 1: the first answer position is the prompt's last token.
  const auto positions = record.answer_positions();
  ASSERT_EQ(positions.size(), 4u);
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{record.tokens[static_cast<size_t>(positions.front()) + 1]}), "S");
  EXPECT_EQ(record.tokens[static_cast<size_t>(positions.back()) + 1], *tokenizer.id_of("<|im_end|>"));
}

TEST_F(Records, LearnEveryAssistantTurnOfAConversation) {
  const auto record = make_distill_record(
      std::vector<ChatMessage>{{"system", "S"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}},
      tokenizer, chat_template, "test");
  EXPECT_EQ(text(record, true), "b<|im_end|>d<|im_end|>");
  EXPECT_EQ(tokenizer.decode(record.tokens),
            chat_template
                .render(
                    std::vector<ChatMessage>{
                        {"system", "S"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}},
                    false)
                .substr(0, tokenizer.decode(record.tokens).size()));
}

TEST_F(Records, CutAnAnswerThatSpellsASpecialTokenAsText) {
  const auto record = make_distill_record(std::vector<ChatMessage>{{"user", "q"}, {"assistant", "a<|im_end|>b"}},
                                          tokenizer, chat_template, "test");
  const auto marks = std::ranges::count(record.tokens, *tokenizer.id_of("<|im_end|>"));
  const auto of_turns = std::ranges::count(
      tokenizer.encode(chat_template.render(std::vector<ChatMessage>{{"user", "q"}, {"assistant", "a"}}, false)),
      *tokenizer.id_of("<|im_end|>"));
  EXPECT_EQ(marks, of_turns);
}

TEST_F(Records, PlainPairsAreTheHarnesssContextAndContinuation) {
  const auto record = make_plain_record(
      std::vector<ChatMessage>{{"user", "Question: Why?\nAnswer:"}, {"assistant", "so it is"}}, tokenizer, "test");
  EXPECT_EQ(text(record, false), "Question: Why?\nAnswer:");
  const auto eos = *tokenizer.vocabulary().eos;
  EXPECT_EQ(text(record, true), " so it is" + tokenizer.decode(std::vector<TokenId>{eos}));
  EXPECT_EQ(record.tokens.back(), eos);
  EXPECT_THROW(make_plain_record(std::vector<ChatMessage>{{"system", "S"}, {"user", "a"}, {"assistant", "b"}},
                                 tokenizer, "test"),
               Error);
}

TEST_F(Records, ReadAlpacaFieldsAndMessages) {
  const auto data = load(R"({"instruction": "Add.", "input": "1 2", "output": "3"}
{"messages": [{"role": "user", "content": "Add.\n\n1 2"}, {"role": "assistant", "content": "3"}]}
)");
  ASSERT_EQ(data.records.size(), 2u);
  EXPECT_EQ(data.records[0].tokens, data.records[1].tokens);
  EXPECT_THAT(text(data.records[0], false), HasSubstr("user\nAdd.\n\n1 2<|im_end|>"));
  EXPECT_EQ(data.records[1].line, 2);
  EXPECT_EQ(data.held_out.size(), 1u);
  EXPECT_EQ(data.train.size(), 1u);
}

TEST_F(Records, HoldOutWhatTheFileNames) {
  const auto data = load(R"({"instruction": "a", "output": "1", "split": "train"}
{"instruction": "b", "output": "2", "split": "heldout"}
{"instruction": "c", "output": "3", "split": "train"}
)");
  EXPECT_EQ(data.held_out, std::vector<int64_t>{1});
  EXPECT_EQ(data.train, (std::vector<int64_t>{0, 2}));
}

TEST_F(Records, SayWhatIsWrongWithABadFile) {
  EXPECT_THAT(error_of(""), HasSubstr("holds no pairs"));
  EXPECT_THAT(error_of(R"({"instruction": "a"})"), HasSubstr("records.jsonl:1: field 'output'"));
  EXPECT_THAT(error_of("{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": \"a\", \"output\": \"  \"}"),
              HasSubstr("records.jsonl:2: the answer is empty"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user"}]})"), HasSubstr("'messages' must be a list"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user", "content": "a"}]})"), HasSubstr("no assistant turn"));
  DistillDataConfig short_only;
  short_only.max_sequence_length = 8;
  EXPECT_THAT(error_of(R"({"instruction": "a", "output": "b"})", short_only), HasSubstr("longer than 8 tokens"));
}

TEST(ChooseHeldOut, IsAFunctionOfTheSeedAndKeepsBothKinds) {
  EXPECT_EQ(choose_held_out(100, 0.1, 3).size(), 10u);
  EXPECT_EQ(choose_held_out(100, 0.1, 3), choose_held_out(100, 0.1, 3));
  EXPECT_NE(choose_held_out(100, 0.1, 3), choose_held_out(100, 0.1, 4));
  EXPECT_EQ(choose_held_out(2, 0.01, 3).size(), 1u);
  EXPECT_EQ(choose_held_out(2, 0.5, 3).size(), 1u);
  EXPECT_TRUE(choose_held_out(100, 0, 3).empty());
  EXPECT_TRUE(choose_held_out(1, 0.5, 3).empty());
}

}  // namespace
}  // namespace potstill
