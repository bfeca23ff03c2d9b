#include "potstill/edge/edge_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/base/machine.h"
#include "potstill/edge/repack.h"
#include "potstill/edge/stop_strings.h"
#include "potstill/formats/gguf_checkpoint.h"
#include "potstill/lm/request_tokens.h"

namespace potstill::edge {
namespace {

EdgeWeights bind_package(const ModelPackage& package) {
  if (const auto* gguf = dynamic_cast<const GgufCheckpoint*>(package.weights.get())) return bind_weights(gguf->file());
  return bind_folder(*package.weights, package.config);
}

int thread_count(int asked) {
  if (asked < 0 || asked > 1024) {
    throw Error(ErrorKind::kUsage, "--threads", fmt::format("is {} but must be in [0, 1024]", asked), "0 = one a CPU");
  }
  return std::clamp(asked == 0 ? num_cpus() : asked, 1, ThreadPool::kMostThreads);
}

int64_t context_length(int64_t asked, const ModelConfig& config) {
  if (asked < 0 || asked > config.max_position_embeddings) {
    throw Error(ErrorKind::kUsage, "--context",
                fmt::format("is {} but must be in [1, {}]", asked, config.max_position_embeddings),
                "the model was trained up to that length");
  }
  return asked == 0 ? config.max_position_embeddings : asked;
}

// Name, size and shape stand for the weights: hashing a file that is only mapped would read all of it.
std::string model_name(const ModelPackage& package) {
  return fmt::format("{}@{}", package.path.stem().string(), model_bytes(package.path));
}

}  // namespace

uint64_t model_bytes(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return std::filesystem::file_size(path);
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  }
  return bytes;
}

EdgeModel::EdgeModel(const std::filesystem::path& path, const EdgeOptions& options)
    : package_(open_model(path)),
      weights_(bind_package(package_)),
      name_(model_name(package_)),
      pool_(thread_count(options.threads)),
      forward_(weights_, pool_, options.activations),
      cache_(weights_.config, context_length(options.context, weights_.config), options.kv_cache),
      stop_ids_(stop_token_ids(package_)),
      schemas_(*package_.tokenizer, weights_.config.vocab_size, stop_ids_) {
  if (options.repack == Repack::kYes ||
      (options.repack == Repack::kWhereItPays && repacking_pays(weights_.bytes_per_token()))) {
    repack(weights_, pool_);
  }
  if (package_.tokenizer->size() > weights_.config.vocab_size) {
    throw Error(ErrorKind::kFormat, path.string(),
                fmt::format("has {} tokens but {} embeddings", package_.tokenizer->size(), weights_.config.vocab_size),
                "the tokenizer and the weights do not belong together");
  }
}

// The cache holds the tokens afterwards. The last token is always computed: its logits are the result.
std::span<const float> EdgeModel::run_prompt(const std::vector<TokenId>& tokens, Reuse reuse) {
  if (tokens.empty()) throw Error(ErrorKind::kInput, "prompt", "has no tokens", "give at least one character");
  size_t shared = 0;
  const size_t usable = reuse == Reuse::kAll ? cached_.size() : cached_as_prompt_;
  while (shared + 1 < tokens.size() && shared < usable && tokens[shared] == cached_[shared]) ++shared;
  cached_.resize(shared);
  cached_as_prompt_ = std::min(cached_as_prompt_, shared);
  cache_.set_length(static_cast<int64_t>(shared));
  const auto logits = forward_.prompt(std::span(tokens).subspan(shared), cache_);
  if (cached_as_prompt_ == shared) cached_as_prompt_ = tokens.size();
  cached_ = tokens;
  return logits;
}

GenerateResult EdgeModel::generate_one(const GenerateRequest& request, Reuse reuse, const OnText& on_text) {
  if (request.max_new_tokens < 0) {
    throw Error(ErrorKind::kUsage, "max_new_tokens",
                fmt::format("is {} but must not be negative", request.max_new_tokens));
  }
  Sampler sampler(request.sampling);
  auto constraint = schemas_.constraint(request.json_schema);
  const Tokenizer& tokenizer = *package_.tokenizer;
  auto context =
      prompt_tokens(tokenizer, package_.chat_template, request.messages, request.prompt, request.answer_prefix);
  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(context.size());
  result.finish = FinishReason::kLength;
  if (request.max_new_tokens == 0) return result;

  StreamDecoder decoder(tokenizer);
  StopStrings stops(request.stop);
  bool wanted = true;
  const auto emit = [&](const std::string& piece) {
    result.text += piece;
    if (!piece.empty() && on_text) wanted = on_text(piece);
  };
  const size_t num_prompt = context.size();
  auto logits = run_prompt(context, reuse);
  for (;;) {
    const TokenId id = constraint ? sample_constrained(sampler, logits, context, num_prompt, *constraint)
                                  : sampler.sample(logits, context, num_prompt);
    if (std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end()) {
      result.finish = FinishReason::kStop;
      break;
    }
    context.push_back(id);
    result.tokens.push_back(id);
    emit(stops.push(decoder.push(id)));
    if (stops.found() || !wanted) {
      result.finish = FinishReason::kStop;
      return result;
    }
    if (constraint) constraint->accept(id);
    if (constraint && constraint->finished()) {
      result.finish = FinishReason::kStop;
      break;
    }
    if (static_cast<int64_t>(result.tokens.size()) == request.max_new_tokens || cache_.length() == cache_.capacity())
      break;
    logits = forward_.decode(id, cache_);
    cached_.push_back(id);
  }
  emit(stops.push(decoder.finish()));
  if (!stops.found()) emit(stops.finish());
  return result;
}

GenerateResult EdgeModel::generate_streaming(const GenerateRequest& request, const OnText& on_text) {
  return generate_one(request, Reuse::kAll, on_text);
}

std::vector<GenerateResult> EdgeModel::generate(std::span<const GenerateRequest> requests,
                                                const std::function<void(size_t, const GenerateResult&)>& on_done) {
  std::vector<GenerateResult> results;
  for (const GenerateRequest& request : requests) {
    results.push_back(generate_one(request, Reuse::kSameArithmetic, {}));
    if (on_done) on_done(results.size() - 1, results.back());
  }
  return results;
}

std::vector<ScoreResult> EdgeModel::score(std::span<const ScoreRequest> requests) {
  std::vector<ScoreResult> results;
  for (const ScoreRequest& request : requests) results.push_back(score_one(request));
  return results;
}

// Position i predicts token i + 1. The context's own positions are shared with the last request where they are equal,
// so the choices of a question cost their continuations alone; only its last position's logits are needed.
ScoreResult EdgeModel::score_one(const ScoreRequest& request) {
  const ScoreTokens tokens = score_tokens(*package_.tokenizer, request);
  ScoreResult result{
      .log_likelihood = 0, .is_greedy = true, .num_tokens = static_cast<int64_t>(tokens.continuation.size())};
  const auto count = [&](std::span<const float> logits, TokenId id) {
    result.log_likelihood += logits[static_cast<size_t>(id)] - log_sum_exp(logits);
    result.is_greedy = result.is_greedy && argmax(logits) == id;
  };
  count(run_prompt(tokens.context, Reuse::kSameArithmetic), tokens.continuation[0]);
  const auto inputs = std::span(tokens.continuation).first(tokens.continuation.size() - 1);
  if (inputs.empty()) return result;
  forward_.prompt(inputs, cache_,
                  [&](size_t i, std::span<const float> logits) { count(logits, tokens.continuation[i + 1]); });
  cache_.set_length(static_cast<int64_t>(tokens.context.size()));  // the context stays for the next choice
  return result;
}

std::vector<std::vector<double>> EdgeModel::choose(std::span<const ChoiceRequest> requests) {
  std::vector<std::vector<double>> results;
  for (const ChoiceRequest& request : requests) {
    const auto context = prompt_tokens(*package_.tokenizer, package_.chat_template, request.messages, request.prompt,
                                       request.answer_prefix);
    const auto logits = run_prompt(context, Reuse::kSameArithmetic);
    std::vector<double> weights;
    const float top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const std::string& candidate : request.candidates) {
      const auto ids = package_.tokenizer->encode_ordinary(candidate);
      if (ids.empty())
        throw Error(ErrorKind::kInput, "choose", "a candidate is empty", "give it at least one character");
      sum += weights.emplace_back(std::exp(static_cast<double>(logits[static_cast<size_t>(ids[0])]) - top));
    }
    if (sum == 0) {  // all of them underflow beside the best token: they are equally unlikely
      std::fill(weights.begin(), weights.end(), 1.0);
      sum = static_cast<double>(weights.size());
    }
    for (double& weight : weights) weight /= sum;
    results.push_back(std::move(weights));
  }
  return results;
}

}  // namespace potstill::edge
