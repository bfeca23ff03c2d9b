#include "potstill/nn/scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "potstill/base/error.h"
#include "potstill/lm/request_tokens.h"
#include "potstill/nn/token_log_probs.h"

namespace potstill {
namespace {

constexpr int64_t kTokensPerBatch = 2048;

// Requests that share a context. Input rows: the context once, then each continuation without its last token.
struct Group {
  std::vector<TokenId> context;
  std::vector<size_t> requests;
  int64_t num_tokens = 0;
};

std::vector<Group> group_by_context(const ModelPackage& package, std::vector<ScoreTokens>& encoded) {
  const auto max_length = static_cast<size_t>(package.config.max_position_embeddings);
  std::map<std::vector<TokenId>, Group> groups;
  for (size_t i = 0; i < encoded.size(); ++i) {
    auto& [context, continuation] = encoded[i];
    if (continuation.size() > max_length) {
      throw Error(ErrorKind::kInput, package.path.string(),
                  fmt::format("the continuation of request {} has {} tokens but the context is {}", i,
                              continuation.size(), max_length));
    }
    // The model reads context + continuation but its last token: at most max_length of them, cut on the left.
    const size_t length = context.size() + continuation.size() - 1;
    if (length > max_length)
      context.erase(context.begin(), context.begin() + static_cast<ptrdiff_t>(length - max_length));
    Group& group = groups[context];
    group.requests.push_back(i);
    group.num_tokens += static_cast<int64_t>(continuation.size()) - 1;
  }
  std::vector<Group> list;
  for (auto& [context, group] : groups) {
    group.num_tokens += static_cast<int64_t>(context.size());
    group.context = context;
    list.push_back(std::move(group));
  }
  // Long ones first: if memory does not do, it fails at once. Groups come sorted by context, so equals keep an order.
  std::stable_sort(list.begin(), list.end(),
                   [](const Group& a, const Group& b) { return a.num_tokens > b.num_tokens; });
  return list;
}

// Packs groups; the rows and targets say which hidden state predicts which token, in the order of `owner`.
struct ScoreBatch {
  std::vector<std::vector<TokenId>> sequences;
  std::vector<int64_t> parent, first_position;
  std::vector<std::pair<size_t, int64_t>> owner;  // request, number of its tokens
};

void add_group(ScoreBatch& batch, const Group& group, const std::vector<ScoreTokens>& encoded) {
  const auto context_index = static_cast<int64_t>(batch.sequences.size());
  batch.sequences.push_back(group.context);
  batch.parent.push_back(-1);
  batch.first_position.push_back(0);
  for (const size_t request : group.requests) {
    const auto& continuation = encoded[request].continuation;
    batch.sequences.emplace_back(continuation.begin(), continuation.end() - 1);
    batch.parent.push_back(context_index);
    batch.first_position.push_back(static_cast<int64_t>(group.context.size()));
  }
}

void score_batch(const Transformer& model, std::span<const Group> groups, const std::vector<ScoreTokens>& encoded,
                 std::vector<ScoreResult>& results) {
  ScoreBatch sequences;
  for (const Group& group : groups) add_group(sequences, group, encoded);
  PackedBatch batch = pack_sequences(sequences.sequences);
  batch.parent = sequences.parent;
  int64_t* position = batch.positions.mutable_data_ptr<int64_t>();
  std::vector<int64_t> rows, targets;
  size_t sequence = 0;
  for (const Group& group : groups) {
    const int64_t last_of_context = batch.offsets[++sequence] - 1;
    for (const size_t request : group.requests) {
      const int64_t begin = batch.offsets[sequence], end = batch.offsets[++sequence];
      for (int64_t row = begin; row < end; ++row) position[row] += sequences.first_position[sequence - 1];
      const auto& continuation = encoded[request].continuation;
      for (size_t t = 0; t < continuation.size(); ++t) {
        rows.push_back(t == 0 ? last_of_context : begin + static_cast<int64_t>(t) - 1);
        targets.push_back(continuation[t]);
      }
    }
  }
  batch.token_ids = batch.token_ids.to(model.device());
  batch.positions = batch.positions.to(model.device());
  const auto hidden = model.hidden_states(batch).index_select(0, at::tensor(rows, at::kLong).to(model.device()));
  const auto scored =
      token_log_probs(hidden, at::tensor(targets, at::kLong), [&](const at::Tensor& x) { return model.logits(x); });

  const double* log_prob = scored.log_prob.const_data_ptr<double>();
  const bool* is_argmax = scored.is_argmax.const_data_ptr<bool>();
  for (const Group& group : groups) {
    for (const size_t request : group.requests) {
      const size_t count = encoded[request].continuation.size();
      results[request] = {.log_likelihood = std::accumulate(log_prob, log_prob + count, 0.0),
                          .is_greedy = std::all_of(is_argmax, is_argmax + count, [](bool b) { return b; }),
                          .num_tokens = static_cast<int64_t>(count)};
      log_prob += count;
      is_argmax += count;
    }
  }
}

}  // namespace

std::vector<ScoreResult> score_continuations(const ModelPackage& package, const Transformer& model,
                                             std::span<const ScoreRequest> requests) {
  const at::NoGradGuard no_grad;
  std::vector<ScoreTokens> encoded;
  for (const ScoreRequest& request : requests) encoded.push_back(score_tokens(*package.tokenizer, request));
  const std::vector<Group> groups = group_by_context(package, encoded);
  std::vector<ScoreResult> results(requests.size());
  for (size_t first = 0; first < groups.size();) {
    size_t last = first;
    int64_t num_tokens = 0;
    do {
      num_tokens += groups[last++].num_tokens;
    } while (last < groups.size() && num_tokens + groups[last].num_tokens <= kTokensPerBatch);
    score_batch(model, std::span(groups).subspan(first, last - first), encoded, results);
    first = last;
  }
  return results;
}

std::vector<std::vector<double>> choose_candidates(const ModelPackage& package, const Transformer& model,
                                                   std::span<const ChoiceRequest> requests) {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<double>> results;
  for (const ChoiceRequest& request : requests) {
    const auto tokens_with = [&](const std::string& answer) {
      return prompt_tokens(*package.tokenizer, package.chat_template, request.messages, request.prompt, answer);
    };
    const auto prompt = tokens_with(request.answer_prefix);
    if (prompt.empty() || static_cast<int64_t>(prompt.size()) > package.config.max_position_embeddings) {
      throw Error(ErrorKind::kInput, package.path.string(),
                  fmt::format("a prompt has {} tokens but must have 1 to {}", prompt.size(),
                              package.config.max_position_embeddings));
    }
    std::vector<int64_t> first_tokens;
    for (const std::string& candidate : request.candidates) {
      const auto whole = tokens_with(request.answer_prefix + candidate);
      const bool extends = whole.size() > prompt.size() && std::equal(prompt.begin(), prompt.end(), whole.begin());
      const auto alone = extends ? whole : package.tokenizer->encode(candidate);
      if (alone.empty()) throw Error(ErrorKind::kInput, package.path.string(), "a candidate is empty");
      first_tokens.push_back(extends ? whole[prompt.size()] : alone.front());
    }
    // One prompt a pass: its arithmetic, and so its probabilities, depend on no other request.
    const PackedBatch batch = pack_sequences(std::vector<std::vector<TokenId>>{prompt}, model.device());
    const auto logits = model.logits(model.hidden_states(batch).slice(0, batch.num_tokens() - 1)).squeeze(0).cpu();
    const auto chosen = logits.index_select(0, at::tensor(first_tokens, at::kLong)).to(at::kDouble).softmax(0);
    results.emplace_back(chosen.const_data_ptr<double>(), chosen.const_data_ptr<double>() + chosen.numel());
  }
  return results;
}

}  // namespace potstill
