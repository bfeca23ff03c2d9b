// Question/answer pairs as token sequences: which tokens the student reads and which it is to learn.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "potstill/base/jsonl.h"
#include "potstill/distill/distill_config.h"
#include "potstill/text/chat_template.h"
#include "potstill/text/tokenizer.h"

namespace potstill {

// A conversation in a model's own chat format. Position i predicts tokens[i + 1], so the answer positions are the i
// with is_answer[i + 1].
struct DistillRecord {
  std::vector<TokenId> tokens;
  std::vector<uint8_t> is_answer;  // 1 on an answer's tokens and the token that ends its turn
  int64_t line = 0;                // in the data file
  int64_t text_hash = 0;           // of the conversation, whatever the tokenizer

  std::vector<int64_t> answer_positions() const;
};

// The messages of a data record: `messages` [{role, content}…], or Alpaca's instruction, input, output (and an optional
// `system`). `input` follows the instruction after an empty line. Throws Error(kInput) with file and line.
std::vector<ChatMessage> record_messages(const JsonlRecord& record, const std::filesystem::path& path);

// Renders and cuts one conversation. The prompt is cut as it is at inference, on its own, and the answer after it, so
// the boundary between them is the one that a generating model meets.
DistillRecord make_distill_record(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                  const ChatTemplate& chat_template, std::string_view where);

// A pair without a template: what the user says, a blank and the answer, cut as lm-evaluation-harness cuts context and
// continuation; the text's end is the answer's last token. Throws Error(kInput) for more than one question and answer.
DistillRecord make_plain_record(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                std::string_view where);

// The pairs of a D_gen file. Those with "split": "heldout" are held out; where there are none, a share is chosen by the
// seed. Those longer than max_sequence_length are left out and counted; no pair left is an error.
struct DistillData {
  std::vector<DistillRecord> records;
  std::vector<int64_t> train, held_out;  // indices into records
  int64_t too_long = 0;

  std::vector<std::vector<TokenId>> sequences() const;
};
DistillData load_distill_data(const std::filesystem::path& path, const Tokenizer& tokenizer,
                              const ChatTemplate& chat_template, const DistillDataConfig& config, uint64_t seed);

// Which of `count` pairs are held out: round(share · count) of them, chosen by the seed alone; at least one of each
// kind when share > 0 and count > 1. Ascending indices.
std::vector<int64_t> choose_held_out(int64_t count, double share, uint64_t seed);

// The held-out pairs' lines in their file, in order: what calibration leaves out.
std::vector<int64_t> held_out_lines(const DistillData& data);

}  // namespace potstill
