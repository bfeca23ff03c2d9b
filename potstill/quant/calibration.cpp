#include "potstill/quant/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

#include "potstill/base/atomic_file.h"
#include "potstill/base/check.h"
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
                                   const ModelPackage& model, bool plain) {
  const auto messages = conversation_of(record, path);
  const Tokenizer& tokenizer = *model.tokenizer;
  if (plain && !messages.empty()) {
    std::string text;
    for (const auto& message : messages) text += (text.empty() ? "" : " ") + message.content;
    return tokenizer.encode(text, /*add_special_tokens=*/true);
  }
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

Drawn draw_records(const CalibrationSource& source, const ModelPackage& model, int64_t count, int64_t length,
                   uint64_t seed) {
  const auto& path = source.path;
  auto records = read_jsonl(path);
  // what is kept back to measure on stays unseen
  std::erase_if(records, [&](const JsonlRecord& record) {
    return (record.value.is_object() && record.value.value("split", nlohmann::json()) == "heldout") ||
           std::ranges::binary_search(source.left_out, static_cast<int64_t>(record.line));
  });
  Drawn drawn{.sequences = {}, .available = records.size(), .truncated = 0};
  for (const size_t index : draw(records.size(), count, seed)) {
    auto ids = encode_record(records[index], path, model, source.plain);
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

// Sequences by length, in powers of two: {"up_to": 128, "sequences": 17}.
nlohmann::ordered_json length_histogram(const std::vector<size_t>& sorted_lengths) {
  nlohmann::ordered_json bars = nlohmann::ordered_json::array();
  size_t done = 0;
  for (size_t up_to = 16; done < sorted_lengths.size(); up_to *= 2) {
    const auto end = std::ranges::upper_bound(sorted_lengths, up_to) - sorted_lengths.begin();
    const auto here = static_cast<size_t>(end) - done;
    if (here > 0 || !bars.empty()) bars.push_back({{"up_to", up_to}, {"sequences", here}});
    done += here;
  }
  return bars;
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
          {"longest", lengths.back()},
          {"lengths", length_histogram(lengths)}};
}

constexpr std::string_view kRecords = "records, a sequence each", kWindows = "windows of running text";

std::string_view form_of(const std::filesystem::path& path) {
  return path.extension() == ".jsonl" ? kRecords : kWindows;
}

Drawn draw_sequences(const CalibrationSource& source, const ModelPackage& model, int64_t count, int64_t length,
                     uint64_t seed) {
  const auto& path = source.path;
  Drawn drawn = path.extension() == ".jsonl" ? draw_records(source, model, count, length, seed)
                                             : draw_windows(path, model, count, length, seed);
  if (drawn.sequences.empty()) {
    throw Error(ErrorKind::kInput, path.string(), "there is no text to calibrate on", "give a file with text in it");
  }
  if (static_cast<int64_t>(drawn.sequences.size()) < count) {
    log_warning("{}: {} calibration sequences of the {} asked for", path.string(), drawn.sequences.size(), count);
  }
  return drawn;
}

// Whole numbers in proportion to the weights that add up to `count`: what rounding down leaves goes to the largest
// rests.
std::vector<int64_t> shares(std::span<const CalibrationSource> sources, int64_t count) {
  double sum = 0.0;
  for (const auto& source : sources) sum += source.weight;
  std::vector<int64_t> result;
  std::vector<std::pair<double, size_t>> rests;
  int64_t given = 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    const double exact = static_cast<double>(count) * sources[i].weight / sum;
    result.push_back(static_cast<int64_t>(exact));
    given += result.back();
    rests.emplace_back(static_cast<double>(result.back()) - exact, i);  // the most negative first
  }
  std::ranges::sort(rests);
  for (size_t i = 0; given < count; ++i, ++given) ++result[rests[i % rests.size()].second];
  return result;
}

CalibrationSource parse_source(std::string_view text) {
  CalibrationSource source{.path = text};
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || std::filesystem::exists(source.path)) return source;
  const std::string_view number = text.substr(colon + 1);
  const auto [end, problem] = std::from_chars(number.data(), number.data() + number.size(), source.weight);
  if (problem != std::errc() || end != number.data() + number.size() || !(source.weight > 0) ||
      !std::isfinite(source.weight)) {
    throw Error(ErrorKind::kUsage, "calibration",
                fmt::format("'{}' is no share of '{}'", number, text.substr(0, colon)),
                "a mixture is a.jsonl:0.5,b.txt:0.5");
  }
  source.path = text.substr(0, colon);
  return source;
}

}  // namespace

int64_t CalibrationSet::num_tokens() const {
  size_t tokens = 0;
  for (const auto& sequence : sequences) tokens += sequence.size();
  return static_cast<int64_t>(tokens);
}

std::vector<CalibrationSource> parse_calibration(
    std::string_view text, const std::function<std::filesystem::path(const std::string& name)>& resolve) {
  std::vector<CalibrationSource> sources;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    sources.push_back(parse_source(text.substr(begin, comma - begin)));
    auto& path = sources.back().path;
    if (path.empty()) {
      throw Error(ErrorKind::kUsage, "calibration", "names no file", "FILE.jsonl, FILE.txt or a.jsonl:0.5,b.txt:0.5");
    }
    if (resolve) path = resolve(path.string());
    if (std::filesystem::is_directory(path)) path /= "D_gen.jsonl";
    if (!std::filesystem::exists(path)) {
      throw Error(ErrorKind::kIo, "calibration", fmt::format("'{}' does not exist", path.string()));
    }
    for (size_t i = 0; i + 1 < sources.size(); ++i) {
      if (sources[i].path != path) continue;
      throw Error(ErrorKind::kUsage, "calibration", fmt::format("'{}' is named twice", path.string()));
    }
    begin = comma + 1;
  }
  return sources;
}

CalibrationSet load_calibration(const std::filesystem::path& path, const ModelPackage& model, int64_t count,
                                int64_t sequence_length, uint64_t seed) {
  const CalibrationSource source{.path = path};
  return load_calibration(std::span(&source, 1), model, count, sequence_length, seed);
}

CalibrationSet load_calibration(std::span<const CalibrationSource> sources, const ModelPackage& model, int64_t count,
                                int64_t sequence_length, uint64_t seed) {
  POTSTILL_CHECK(!sources.empty());
  if (sources.size() == 1) {
    Drawn drawn = draw_sequences(sources.front(), model, count, sequence_length, seed);
    auto summary = summarize(drawn, form_of(sources.front().path), count);
    return {std::move(drawn.sequences), std::move(summary)};
  }
  const auto counts = shares(sources, count);
  Drawn all;
  nlohmann::ordered_json parts = nlohmann::ordered_json::array();
  for (size_t i = 0; i < sources.size(); ++i) {
    if (counts[i] == 0) continue;
    Drawn drawn = draw_sequences(sources[i], model, counts[i], sequence_length, seed);
    auto part = summarize(drawn, form_of(sources[i].path), counts[i]);
    part["source"] = sources[i].path.filename().string();
    part["weight"] = sources[i].weight;
    parts.push_back(std::move(part));
    all.available += drawn.available;
    all.truncated += drawn.truncated;
    for (auto& sequence : drawn.sequences) all.sequences.push_back(std::move(sequence));
  }
  Rng rng(seed, "quant/calibration/mixture");
  rng.shuffle(all.sequences);
  auto summary = summarize(all, "mixture", count);
  summary["sources"] = std::move(parts);
  return {std::move(all.sequences), std::move(summary)};
}

}  // namespace potstill
