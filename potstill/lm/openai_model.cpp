#include "potstill/lm/openai_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/base/log.h"

namespace potstill {
namespace {

using Json = nlohmann::json;

// What some endpoints do not know and an answer can do without.
constexpr const char* kOptional[] = {
    "min_p", "top_k",       "repetition_penalty", "presence_penalty", "frequency_penalty",
    "seed",  "json_schema", "response_format"};

std::string text_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

int64_t count_at(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_number_integer() ? std::max<int64_t>(0, found->get<int64_t>()) : 0;
}

std::string error_message(const std::string& body) {
  const Json parsed = Json::parse(body, nullptr, false);
  std::string message;
  if (parsed.is_object() && parsed.contains("error")) {
    const Json& error = parsed["error"];
    message = error.is_object() ? text_at(error, "message") : error.is_string() ? error.get<std::string>() : "";
  }
  if (message.empty()) message = body;
  message = message.substr(0, 400);
  std::replace_if(
      message.begin(), message.end(), [](unsigned char c) { return c < ' '; }, ' ');
  return message;
}

// The only choice of a whole answer; null for anything else.
const Json* only_choice(const Json& answer) {
  if (!answer.is_object() || !answer.contains("choices")) return nullptr;
  const Json& choices = answer["choices"];
  return choices.is_array() && choices.size() == 1 && choices[0].is_object() ? &choices[0] : nullptr;
}

// A request that the endpoint understood and does not serve: asking in another way may help.
class RefusedRequest : public Error {
 public:
  using Error::Error;
};

}  // namespace

OpenAiModel::OpenAiModel(OpenAiOptions options) : options_(std::move(options)), http_(options_.http) {
  if (options_.model.empty()) {
    throw Error(ErrorKind::kUsage, options_.http.url, "needs the name of a model there", "--teacher-model NAME");
  }
}

Json OpenAiModel::body_of(const GenerateRequest& request) const {
  Json body{{"model", options_.model}};
  if (request.messages.empty()) {
    body["prompt"] = request.prompt + request.answer_prefix;
  } else {
    if (!request.answer_prefix.empty()) {
      throw Error(ErrorKind::kInput, options_.http.url,
                  "an endpoint cannot be given the beginning of an answer in a chat",
                  "use the task's completion prompting, or a local teacher");
    }
    for (const auto& message : request.messages)
      body["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  const auto& sampling = request.sampling;
  body[dropped_.count("max_tokens") > 0 ? "max_completion_tokens" : "max_tokens"] = request.max_new_tokens;
  body["temperature"] = sampling.temperature;
  if (sampling.top_p != 1.0) body["top_p"] = sampling.top_p;
  if (!request.stop.empty()) body["stop"] = request.stop;
  if (sampling.temperature > 0) body["seed"] = sampling.seed & 0x7fffffff;
  if (sampling.top_k > 0) body["top_k"] = sampling.top_k;
  if (sampling.min_p > 0) body["min_p"] = sampling.min_p;
  if (sampling.repetition_penalty != 1.0) body["repetition_penalty"] = sampling.repetition_penalty;
  if (sampling.presence_penalty != 0.0) body["presence_penalty"] = sampling.presence_penalty;
  if (sampling.frequency_penalty != 0.0) body["frequency_penalty"] = sampling.frequency_penalty;
  // Endpoints without schemas mostly know "any object"; those without that get the prompt alone.
  if (!request.json_schema.empty()) {
    body["response_format"] =
        dropped_.contains("json_schema")
            ? Json{{"type", "json_object"}}
            : Json{{"type", "json_schema"},
                   {"json_schema",
                    {{"name", "answer"}, {"strict", true}, {"schema", Json::parse(request.json_schema)}}}};
  }
  for (const auto& field : dropped_) body.erase(field);
  return body;
}

std::vector<GenerateResult> OpenAiModel::generate(std::span<const GenerateRequest> requests,
                                                  const std::function<void(size_t, const GenerateResult&)>& on_done) {
  std::vector<GenerateResult> results(requests.size());
  std::vector<std::string> paths;
  for (const auto& request : requests) paths.push_back(request.messages.empty() ? "/completions" : "/chat/completions");
  ask(
      paths, [&](size_t i) { return body_of(requests[i]); },
      [&](size_t i, const Json& answer) {
        const Json& choice = *only_choice(answer);
        GenerateResult& result = results[i];
        result.text = requests[i].messages.empty() ? text_at(choice, "text")
                                                   : text_at(choice.value("message", Json::object()), "content");
        result.finish = text_at(choice, "finish_reason") == "length" ? FinishReason::kLength : FinishReason::kStop;
        const Json usage = answer.value("usage", Json::object());
        result.prompt_tokens = count_at(usage, "prompt_tokens");
        result.tokens.assign(static_cast<size_t>(std::min<int64_t>(count_at(usage, "completion_tokens"), 10'000'000)),
                             -1);
        if (on_done) on_done(i, result);
      });
  return results;
}

std::vector<ScoreResult> OpenAiModel::score(std::span<const ScoreRequest> requests) {
  std::vector<ScoreResult> results(requests.size());
  const auto body = [&](size_t i) {
    return Json{{"model", options_.model},
                {"prompt", requests[i].context + requests[i].continuation},
                {"max_tokens", 1},
                {"temperature", 0},
                {"echo", true},
                {"logprobs", 1}};
  };
  ask(std::vector<std::string>(requests.size(), "/completions"), body, [&](size_t i, const Json& answer) {
    const Json log_probs = only_choice(answer)->value("logprobs", Json());
    const auto has = [&](const char* key) {
      return log_probs.is_object() && log_probs.contains(key) && log_probs[key].is_array();
    };
    if (!has("token_logprobs") || !has("text_offset") || !has("top_logprobs")) {
      throw Error(ErrorKind::kNetwork, options_.http.url, "gives no log-probabilities of a prompt's tokens",
                  "score the pairs by written critiques (critique: json), or with a local teacher");
    }
    const auto characters = [](const std::string& text) {
      return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
    };
    const int64_t begin = characters(requests[i].context), end = begin + characters(requests[i].continuation);
    results[i].is_greedy = true;
    for (size_t n = 0; n < log_probs["token_logprobs"].size(); ++n) {
      const Json &value = log_probs["token_logprobs"][n], &offset = log_probs["text_offset"].at(n),
                 &top = log_probs["top_logprobs"].at(n);
      if (!value.is_number() || !offset.is_number_integer() || offset < begin || offset >= end) continue;
      results[i].log_likelihood += value.get<double>();
      ++results[i].num_tokens;
      for (const Json& other : top.is_object() ? top : Json::object()) {
        if (other.is_number() && other.get<double>() > value.get<double>()) results[i].is_greedy = false;
      }
    }
  });
  return results;
}

std::vector<std::vector<double>> OpenAiModel::choose(std::span<const ChoiceRequest> requests) {
  std::vector<std::vector<double>> results(requests.size());
  const auto request_of = [&](size_t i) {
    GenerateRequest request;
    request.messages = requests[i].messages;
    request.prompt = requests[i].prompt;
    request.answer_prefix = requests[i].answer_prefix;
    request.max_new_tokens = 1;
    return request;
  };
  const auto body = [&](size_t i) {
    Json json = body_of(request_of(i));
    if (requests[i].messages.empty()) {
      json["logprobs"] = 20;
    } else {
      json["logprobs"] = true;
      json["top_logprobs"] = 20;
    }
    return json;
  };
  std::vector<std::string> paths;
  for (const auto& request : requests) paths.push_back(request.messages.empty() ? "/completions" : "/chat/completions");
  ask(paths, body, [&](size_t i, const Json& answer) {
    std::vector<std::pair<std::string, double>> top;
    const Json log_probs = only_choice(answer)->value("logprobs", Json());
    if (log_probs.is_object() && log_probs.contains("content") && log_probs["content"].is_array() &&
        !log_probs["content"].empty()) {
      for (const Json& each : log_probs["content"][0].value("top_logprobs", Json::array())) {
        if (each.is_object()) top.emplace_back(text_at(each, "token"), each.value("logprob", -99.0));
      }
    } else if (log_probs.is_object() && log_probs.contains("top_logprobs") && log_probs["top_logprobs"].is_array() &&
               !log_probs["top_logprobs"].empty()) {
      for (const auto& [token, value] : log_probs["top_logprobs"][0].items()) {
        if (value.is_number()) top.emplace_back(token, value.get<double>());
      }
    }
    if (top.empty()) {
      throw Error(ErrorKind::kNetwork, options_.http.url, "gives no log-probabilities",
                  "score the pairs by written critiques (critique: json), or with a local teacher");
    }
    double least = 0, sum = 0;
    for (const auto& each : top) least = std::min(least, each.second);
    for (const std::string& candidate : requests[i].candidates) {
      double best = least;  // an upper bound of what is not told
      for (const auto& [token, value] : top) {
        if (!token.empty() && candidate.rfind(token, 0) == 0) best = std::max(best, value);
      }
      sum += results[i].emplace_back(std::exp(best));
    }
    for (double& weight : results[i]) weight /= sum;
  });
  return results;
}

bool OpenAiModel::ask_log_probs(LogProbDialect dialect, std::span<const std::vector<TokenId>> prompts, size_t begin,
                                size_t end, int64_t top_k,
                                const std::function<void(size_t, const PromptLogProbs&)>& on_done) {
  const auto body = [&](size_t i) {
    Json json = log_prob_fields(dialect, top_k);
    json["model"] = options_.model;
    json["prompt"] = prompts[begin + i];
    return json;
  };
  bool told = true;
  ask(std::vector<std::string>(end - begin, "/completions"), body, [&](size_t i, const Json& answer) {
    const auto said = read_prompt_log_probs(dialect, *only_choice(answer), prompts[begin + i]);
    if (said) {
      on_done(begin + i, *said);
    } else {
      told = false;
    }
  });
  return told;
}

void OpenAiModel::prompt_log_probs(std::span<const std::vector<TokenId>> prompts, int64_t top_k,
                                   const std::function<void(size_t, const PromptLogProbs&)>& on_done) {
  if (prompts.empty()) return;
  const auto works = [&](LogProbDialect dialect) {
    try {
      return ask_log_probs(dialect, prompts, 0, 1, top_k, on_done);
    } catch (const RefusedRequest& refusal) {
      if (dialect == LogProbDialect::kEcho) throw;
      log_debug("{}: {}", options_.http.url, refusal.what());
      return false;
    }
  };
  const auto dialect = works(LogProbDialect::kVllm)   ? LogProbDialect::kVllm
                       : works(LogProbDialect::kEcho) ? LogProbDialect::kEcho
                                                      : std::optional<LogProbDialect>();
  if (!dialect || !ask_log_probs(*dialect, prompts, 1, prompts.size(), top_k, on_done)) {
    throw Error(ErrorKind::kNetwork, options_.http.url, "gives no log-probabilities of a prompt's tokens",
                "a teacher's distributions need vLLM's prompt_logprobs, or /completions with echo and logprobs");
  }
}

void OpenAiModel::ask(const std::vector<std::string>& paths, const std::function<Json(size_t)>& body,
                      const std::function<void(size_t, const Json&)>& read) {
  size_t next = 0, num_read = 0;
  std::vector<size_t> again;  // without a field that the endpoint refused
  std::map<size_t, size_t> num_refused;
  const auto next_request = [&](size_t& index, std::string& path, std::string& text) {
    if (budget_is_spent()) return false;
    if (!again.empty()) {
      index = again.back();
      again.pop_back();
    } else if (next < paths.size()) {
      index = next++;
    } else {
      return false;
    }
    path = paths[index];
    text = body(index).dump(-1, ' ', false, Json::error_handler_t::replace);
    return true;
  };
  const auto on_answer = [&](size_t index, const HttpAnswer& answer) {
    if (answer.status < 200 || answer.status >= 300) {
      const std::string message = http_.without_key(error_message(answer.body));
      if (answer.status != 400 && answer.status != 422) refuse(answer.status, message);
      // Requests that were in flight when a field was dropped are refused for it once more.
      if (++num_refused[index] > std::size(kOptional) + 1 || !drop_refused_field(message))
        refuse(answer.status, message);
      again.push_back(index);
      return true;
    }
    const Json parsed = Json::parse(answer.body, nullptr, false);
    const Json* choice = only_choice(parsed);
    const bool whole = choice != nullptr &&
                       (choice->contains("text") || (choice->contains("message") && (*choice)["message"].is_object()));
    if (!whole) return false;
    try {
      read(index, parsed);
    } catch (const Json::exception&) {
      return false;  // fields of other types than the API's
    }
    count(parsed);
    ++num_read;
    return true;
  };
  http_.run(next_request, on_answer);
  if (num_read == paths.size()) return;
  throw Error(ErrorKind::kInterrupted, options_.http.url,
              fmt::format("the budget is spent: {} tokens{}", usage_.prompt_tokens + usage_.answer_tokens,
                          usage_.cost > 0 ? fmt::format(", cost {:.4f}", usage_.cost) : ""),
              "every answer is kept; the same command with a larger budget goes on");
}

// A refusal that names a field which an answer can do without.
bool OpenAiModel::drop_refused_field(const std::string& message) {
  for (const char* field : kOptional) {
    if (message.find(field) == std::string::npos) continue;
    if (dropped_.insert(field).second)
      log_warning("{} does not know '{}': going on without it", options_.http.url, field);
    return true;
  }
  if (message.find("max_completion_tokens") != std::string::npos && message.find("max_tokens") != std::string::npos) {
    dropped_.insert("max_tokens");
    return true;
  }
  return false;
}

void OpenAiModel::count(const Json& answer) {
  const Json usage = answer.value("usage", Json::object());
  const int64_t prompt = count_at(usage, "prompt_tokens"), written = count_at(usage, "completion_tokens");
  ++usage_.requests;
  usage_.prompt_tokens += prompt;
  usage_.answer_tokens += written;
  usage_.cost += 1e-6 * (static_cast<double>(prompt) * options_.prompt_price +
                         static_cast<double>(written) * options_.answer_price);
}

bool OpenAiModel::budget_is_spent() const {
  return (options_.budget_tokens > 0 && usage_.prompt_tokens + usage_.answer_tokens >= options_.budget_tokens) ||
         (options_.budget_cost > 0 && usage_.cost >= options_.budget_cost);
}

void OpenAiModel::refuse(int status, const std::string& message) const {
  const char* hint = status == 401 || status == 403 ? "put the endpoint's key into POTSTILL_TEACHER_API_KEY"
                     : status == 404                ? "check the address (it usually ends in /v1) and --teacher-model"
                     : status >= 300 && status < 400
                         ? "it points elsewhere, where the key would not go: give the address it points to"
                         : "the endpoint's own words; the request is of its making";
  const std::string what = fmt::format("answered {}: {}", status, message);
  if (status == 400 || status == 422) throw RefusedRequest(ErrorKind::kNetwork, options_.http.url, what, hint);
  throw Error(ErrorKind::kNetwork, options_.http.url, what, hint);
}

}  // namespace potstill
