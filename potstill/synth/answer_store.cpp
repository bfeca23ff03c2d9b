#include "potstill/synth/answer_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/sha256.h"

namespace potstill {
namespace {

// Batches handed to the model in one call. Generated texts come back one by one, and a model that refills its batch as
// texts end wants to know what comes next; scores come back all at once, and a kill costs what has not.
constexpr size_t kGenerateBatches = 64, kScoreBatches = 2;

using Json = nlohmann::json;  // keys sorted: the canonical form that is hashed

Json to_json(const std::vector<ChatMessage>& messages) {
  Json list = Json::array();
  for (const auto& message : messages) list.push_back({{"role", message.role}, {"content", message.content}});
  return list;
}

Json to_json(const GenerateRequest& request) {
  const auto& sampling = request.sampling;
  Json json{{"messages", to_json(request.messages)},
            {"prompt", request.prompt},
            {"answer_prefix", request.answer_prefix},
            {"max_new_tokens", request.max_new_tokens},
            {"stop", request.stop},
            {"sampling",
             {{"temperature", sampling.temperature},
              {"top_p", sampling.top_p},
              {"top_k", sampling.top_k},
              {"min_p", sampling.min_p},
              {"repetition_penalty", sampling.repetition_penalty},
              {"seed", sampling.seed}}}};
  if (!request.json_schema.empty()) json["json_schema"] = request.json_schema;
  return json;
}

std::string prompt_hash(const GenerateRequest& request) {
  return sha256_hex(to_json_line(Json{{"messages", to_json(request.messages)}, {"prompt", request.prompt}}));
}

Json to_json(const ScoreRequest& request) {
  return {{"context", request.context}, {"continuation", request.continuation}};
}

Json to_json(const ChoiceRequest& request) {
  return {{"messages", to_json(request.messages)},
          {"prompt", request.prompt},
          {"answer_prefix", request.answer_prefix},
          {"candidates", request.candidates}};
}

double finite(double value, std::string_view model) {
  if (std::isfinite(value)) return value;
  throw Error(ErrorKind::kNumeric, model, fmt::format("gave a log-likelihood or probability of {}", value),
              "check the model's weights; with --dtype bf16 try fp32");
}

// What the records of each kind hold; a journal from outside may say anything.
bool is_response(const Json& kind, const Json& response) {
  const auto has = [&](const char* field, auto is_type) {
    return response.contains(field) && is_type(response[field]);
  };
  const auto is_count = [](const Json& value) { return value.is_number_integer() && value.get<int64_t>() >= 0; };
  const auto is_text = [](const Json& value) { return value.is_string(); };
  const auto is_number = [](const Json& value) { return value.is_number(); };
  if (!response.is_object()) return false;
  if (kind == "generate") {
    return has("text", is_text) && has("finish", is_text) && has("num_tokens", is_count) &&
           has("prompt_tokens", is_count);
  }
  if (kind == "score") {
    return has("log_likelihood", is_number) && has("num_tokens", is_count) &&
           has("is_greedy", [](const Json& value) { return value.is_boolean(); });
  }
  return kind == "choose" && has("probabilities", [&](const Json& value) {
           return value.is_array() && std::all_of(value.begin(), value.end(), is_number);
         });
}

[[noreturn]] void throw_bad_record(const std::filesystem::path& path, int64_t line, std::string_view what) {
  throw Error(ErrorKind::kFormat, fmt::format("{}:{}", path.string(), line), what,
              "delete the file to ask the teacher again, or restore it");
}

}  // namespace

AnswerStore::AnswerStore(LanguageModel& model, const std::filesystem::path& journal, int64_t batch,
                         std::string identity)
    : model_(model),
      identity_(identity.empty() ? model.name() : std::move(identity)),
      journal_(journal),
      batch_(static_cast<size_t>(std::max<int64_t>(batch, 1))) {
  load(journal);
}

void AnswerStore::load(const std::filesystem::path& journal) {
  const std::string text = read_file(journal);
  int64_t line = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const JournalWriter::Place place{begin, end - begin};
    const std::string_view content = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++line;
    if (content.empty()) continue;
    const Json record = Json::parse(content, nullptr, /*allow_exceptions=*/false);
    const bool whole = record.is_object() && record.contains("key") && record["key"].is_string() &&
                       record.contains("response") && is_response(record.value("kind", Json()), record["response"]);
    if (!whole) throw_bad_record(journal, line, "is not the record of a teacher's answer");
    places_.emplace(record["key"].get<std::string>(), place);
  }
}

std::string AnswerStore::key_of(std::string_view kind, const Json& request) const {
  return sha256_hex(to_json_line(Json{{"model", identity_}, {"kind", kind}, {"request", request}}));
}

void AnswerStore::remember(const std::string& key, std::string_view kind, const Json& request, const Json& response) {
  const auto place = journal_.append(to_json_line(
      Json{{"key", key}, {"model", model_.name()}, {"kind", kind}, {"request", request}, {"response", response}}));
  places_.emplace(key, place);
  ++num_asked_;
}

AnswerStore::Work& AnswerStore::work_of(std::string_view what) {
  const auto found = std::ranges::find(work_, what, &std::pair<std::string, Work>::first);
  return found != work_.end() ? found->second : work_.emplace_back(std::string(what), Work{}).second;
}

void AnswerStore::add_places(const std::string& file, std::map<std::string, std::string>& places) const {
  for (size_t i = 0; i < used_.size(); ++i) places[used_[i]] = fmt::format("{}:{}", file, i + 1);
}

template <class Request, class Ask>
std::vector<Json> AnswerStore::answer(std::string_view what, std::string_view kind, std::span<const Request> requests,
                                      const Ask& ask) {
  std::vector<std::string> keys;
  std::vector<Json> bodies;
  std::vector<size_t> missing;
  std::unordered_set<std::string> planned;
  for (size_t i = 0; i < requests.size(); ++i) {
    bodies.push_back(to_json(requests[i]));
    keys.push_back(key_of(kind, bodies.back()));
    if (places_.contains(keys.back())) {
      num_reused_ += !planned.contains(keys.back());
    } else if (planned.insert(keys.back()).second) {
      missing.push_back(i);
    }
  }
  Progress progress(what, static_cast<int64_t>(missing.size()), "answers");
  const size_t chunk_size = batch_ * (kind == "generate" ? kGenerateBatches : kScoreBatches);
  for (size_t begin = 0; begin < missing.size(); begin += chunk_size) {
    throw_if_interrupted();
    const auto chunk = std::span(missing).subspan(begin, std::min(chunk_size, missing.size() - begin));
    std::vector<Request> asked;
    for (const size_t i : chunk) asked.push_back(requests[i]);
    std::vector<bool> stored(chunk.size());
    const auto store = [&](std::span<const size_t> slots, std::span<const Json> responses) {
      int64_t fresh = 0;
      for (size_t n = 0; n < slots.size(); ++n) {
        if (stored[slots[n]]) continue;
        stored[slots[n]] = true;
        const size_t i = chunk[slots[n]];
        remember(keys[i], kind, bodies[i], responses[n]);
        ++fresh;
      }
      if (fresh > 0) progress.advance(fresh);
    };
    try {
      ask(asked, store);
    } catch (...) {
      journal_.flush();  // what came before is paid for
      throw;
    }
    journal_.flush();  // on the disk before it is used
  }
  if (!missing.empty()) progress.finish();
  std::vector<Json> responses;
  Work& work = work_of(what);
  work.asked_now += static_cast<int64_t>(missing.size());
  for (const auto& key : keys) {
    // Read back from the disk, so that a text with torn UTF-8 is the same now and after a restart.
    responses.push_back(Json::parse(journal_.read(places_.at(key))).at("response"));
    if (!used_set_.insert(key).second) continue;
    used_.push_back(key);
    ++work.answers;
    work.written_tokens += kind == "generate" ? responses.back().value("num_tokens", int64_t{0}) : 0;
    work.prompt_tokens += responses.back().value("prompt_tokens", int64_t{0});
  }
  return responses;
}

std::vector<AnswerStore::Generated> AnswerStore::generate(std::string_view what,
                                                          std::span<const GenerateRequest> requests) {
  const auto ask = [this](std::span<const GenerateRequest> asked, const auto& store) {
    const auto to_response = [](const GenerateResult& result) {
      return Json{{"text", result.text},
                  {"finish", result.finish == FinishReason::kStop ? "stop" : "length"},
                  {"num_tokens", result.tokens.size()},
                  {"prompt_tokens", result.prompt_tokens}};
    };
    const auto results = model_.generate(asked, [&](size_t slot, const GenerateResult& result) {
      const Json response = to_response(result);
      store(std::span(&slot, 1), std::span(&response, 1));
    });
    for (size_t slot = 0; slot < results.size(); ++slot) {  // a model that did not call back
      const Json response = to_response(results[slot]);
      store(std::span<const size_t>(&slot, 1), std::span(&response, 1));
    }
  };
  std::vector<Generated> generated;
  const auto responses = answer(what, "generate", requests, ask);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Json& response = responses[i];
    generated.push_back({.text = response.at("text").get<std::string>(),
                         .key = key_of("generate", to_json(requests[i])),
                         .prompt_hash = prompt_hash(requests[i]),
                         .finish = response.at("finish") == "stop" ? FinishReason::kStop : FinishReason::kLength});
  }
  return generated;
}

std::vector<ScoreResult> AnswerStore::score(std::string_view what, std::span<const ScoreRequest> requests) {
  const auto ask = [this](std::span<const ScoreRequest> asked, const auto& store) {
    std::vector<size_t> slots;
    std::vector<Json> responses;
    for (const auto& result : model_.score(asked)) {
      slots.push_back(slots.size());
      responses.push_back({{"log_likelihood", finite(result.log_likelihood, model_.name())},
                           {"is_greedy", result.is_greedy},
                           {"num_tokens", result.num_tokens}});
    }
    store(std::span<const size_t>(slots), std::span<const Json>(responses));
  };
  std::vector<ScoreResult> results;
  for (const auto& response : answer(what, "score", requests, ask)) {
    results.push_back({.log_likelihood = response.at("log_likelihood").get<double>(),
                       .is_greedy = response.at("is_greedy").get<bool>(),
                       .num_tokens = response.at("num_tokens").get<int64_t>()});
  }
  return results;
}

std::vector<std::vector<double>> AnswerStore::choose(std::string_view what, std::span<const ChoiceRequest> requests) {
  const auto ask = [this](std::span<const ChoiceRequest> asked, const auto& store) {
    std::vector<size_t> slots;
    std::vector<Json> responses;
    for (const auto& probabilities : model_.choose(asked)) {
      for (const double p : probabilities) finite(p, model_.name());
      slots.push_back(slots.size());
      responses.push_back({{"probabilities", probabilities}});
    }
    store(std::span<const size_t>(slots), std::span<const Json>(responses));
  };
  std::vector<std::vector<double>> results;
  for (const auto& response : answer(what, "choose", requests, ask)) {
    results.push_back(response.at("probabilities").get<std::vector<double>>());
  }
  return results;
}

int64_t AnswerStore::generated_tokens() const {
  int64_t sum = 0;
  for (const auto& [what, work] : work_) sum += work.written_tokens;
  return sum;
}

int64_t AnswerStore::prompt_tokens() const {
  int64_t sum = 0;
  for (const auto& [what, work] : work_) sum += work.prompt_tokens;
  return sum;
}

void AnswerStore::write_used(const std::filesystem::path& path) const {
  AtomicFile file(path);
  for (const auto& key : used_) {
    file.write(to_json_line(Json::parse(journal_.read(places_.at(key)))));
    file.write("\n");
  }
  file.commit();
}

}  // namespace potstill
