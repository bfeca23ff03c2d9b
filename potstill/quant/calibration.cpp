#include "potstill/quant/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"

namespace potstill {
namespace {

std::vector<size_t> draw(size_t available, int64_t count, uint64_t seed) {
  std::vector<size_t> order(available);
  for (size_t i = 0; i < available; ++i) order[i] = i;
  Rng rng(seed, "quant/calibration");
  rng.shuffle(order);
  order.resize(std::min(available, static_cast<size_t>(count)));
  return order;
}

// The conversation of a record, empty when it holds plain text.
std::vector<ChatMessage> conversation_of(const JsonlRecord& record, const std::filesystem::path& path) {
  const auto& value = record.value;
  if (!value.is_object()) {
    throw Error(ErrorKind::kInput, fmt::format("{}:{}", path.string(), record.line), "the record is no object",
                "one JSON object a line, with `instruction` and `output`, `messages`, or `text`");
  }
  if (value.contains("instruction")) {
    std::string question = required_string(record, path, "instruction");
    const auto input = value.find("input");
    if (input != value.end() && input->is_string() && !input->get_ref<const std::string&>().empty()) {
      question += "\n\n" + input->get<std::string>();
    }
    return {{"user", question}, {"assistant", required_string(record, path, "output")}};
  }
  std::vector<ChatMessage> messages;
  if (const auto list = value.find("messages"); list != value.end() && list->is_array()) {
    for (const auto& message : *list) {
      const JsonlRecord part{message, record.line};
      messages.push_back({required_string(part, path, "role"), required_string(part, path, "content")});
    }
  }
  return messages;
}

std::vector<TokenId> encode_record(const JsonlRecord& record, const std::filesystem::path& path,
                                   const ModelPackage& model) {
  const auto messages = conversation_of(record, path);
  const Tokenizer& tokenizer = *model.tokenizer;
  if (messages.empty()) return tokenizer.encode(required_string(record, path, "text"), /*add_special_tokens=*/true);
  auto ids = tokenizer.encode(model.chat_template.render(messages, /*add_generation_prompt=*/false));
  const auto& vocabulary = tokenizer.vocabulary();
  // some templates write BOS themselves, the others leave it to the tokenizer
  if (vocabulary.add_bos && vocabulary.bos && (ids.empty() || ids.front() != *vocabulary.bos)) {
    ids.insert(ids.begin(), *vocabulary.bos);
  }
  return ids;
}

struct Drawn {
  std::vector<std::vector<TokenId>> sequences;
  size_t available = 0;
  int64_t truncated = 0;
};

Drawn draw_records(const std::filesystem::path& path, const ModelPackage& model, int64_t count, int64_t length,
                   uint64_t seed) {
  auto records = read_jsonl(path);
  // what D_gen keeps back to measure on stays unseen
  std::erase_if(records, [](const JsonlRecord& record) {
    return record.value.is_object() && record.value.value("split", nlohmann::json()) == "heldout";
  });
  Drawn drawn{.sequences = {}, .available = records.size(), .truncated = 0};
  for (const size_t index : draw(records.size(), count, seed)) {
    auto ids = encode_record(records[index], path, model);
    if (ids.empty()) {
      throw Error(ErrorKind::kInput, fmt::format("{}:{}", path.string(), records[index].line),
                  "the record's text is empty", "remove the record");
    }
    if (static_cast<int64_t>(ids.size()) > length) {
      ids.resize(static_cast<size_t>(length));
      ++drawn.truncated;
    }
    drawn.sequences.push_back(std::move(ids));
  }
  return drawn;
}

Drawn draw_windows(const std::filesystem::path& path, const ModelPackage& model, int64_t count, int64_t length,
                   uint64_t seed) {
  const auto ids = model.tokenizer->encode(read_file(path));
  const auto window = std::min(ids.size(), static_cast<size_t>(length));  // a short text is one short window
  Drawn drawn{.sequences = {}, .available = window == 0 ? 0 : ids.size() / window, .truncated = 0};
  for (const size_t index : draw(drawn.available, count, seed)) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(index * window);
    drawn.sequences.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(window));
  }
  return drawn;
}

nlohmann::ordered_json summarize(const Drawn& drawn, std::string_view form, int64_t asked) {
  std::vector<size_t> lengths;
  std::vector<TokenId> seen;
  for (const auto& sequence : drawn.sequences) {
    lengths.push_back(sequence.size());
    seen.insert(seen.end(), sequence.begin(), sequence.end());
  }
  const size_t tokens = seen.size();
  std::ranges::sort(lengths);
  std::ranges::sort(seen);
  const auto distinct = std::unique(seen.begin(), seen.end()) - seen.begin();
  return {{"form", form},
          {"sequences", drawn.sequences.size()},
          {"sequences_asked", asked},
          {"sequences_available", drawn.available},
          {"truncated", drawn.truncated},
          {"tokens", tokens},
          {"distinct_tokens", distinct},
          {"shortest", lengths.front()},
          {"median", lengths[lengths.size() / 2]},
          {"longest", lengths.back()}};
}

}  // namespace

int64_t CalibrationSet::num_tokens() const {
  size_t tokens = 0;
  for (const auto& sequence : sequences) tokens += sequence.size();
  return static_cast<int64_t>(tokens);
}

CalibrationSet load_calibration(const std::filesystem::path& path, const ModelPackage& model, int64_t count,
                                int64_t sequence_length, uint64_t seed) {
  const bool records = path.extension() == ".jsonl";
  Drawn drawn = records ? draw_records(path, model, count, sequence_length, seed)
                        : draw_windows(path, model, count, sequence_length, seed);
  if (drawn.sequences.empty()) {
    throw Error(ErrorKind::kInput, path.string(), "there is no text to calibrate on", "give a file with text in it");
  }
  if (static_cast<int64_t>(drawn.sequences.size()) < count) {
    log_warning("{}: {} calibration sequences of the {} asked for", path.string(), drawn.sequences.size(), count);
  }
  auto summary = summarize(drawn, records ? "records" : "windows", count);
  return {std::move(drawn.sequences), std::move(summary)};
}

}  // namespace potstill
