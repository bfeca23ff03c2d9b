#include "potstill/nn/scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include "potstill/base/error.h"
#include "potstill/lm/request_tokens.h"
#include "potstill/nn/matmul.h"
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
  return list;
}

// Groups whose contexts begin with the same tokens (a task's description, its fixed examples): computed once.
struct Family {
  std::vector<Group> groups;
  size_t prefix = 0;  // tokens that all contexts share; at least one of each context is left
  int64_t num_tokens = 0;
};

constexpr size_t kShortestPrefix = 16;  // below it, another sequence in the batch costs as much as it saves

size_t shared_tokens(const Group& a, const Group& b) {
  const size_t most = std::min(a.context.size(), b.context.size()) - 1;
  const auto end = a.context.begin() + static_cast<ptrdiff_t>(most);
  return static_cast<size_t>(std::mismatch(a.context.begin(), end, b.context.begin()).first - a.context.begin());
}

// Neighbours in the contexts' order make a family for as long as it saves more tokens with the next one than without.
std::vector<Family> families_of(std::vector<Group> groups) {
  std::ranges::sort(groups, {}, &Group::context);
  std::vector<Family> families;
  for (auto& group : groups) {
    Family* family = families.empty() ? nullptr : &families.back();
    if (family != nullptr) {
      const size_t size = family->groups.size();
      const size_t shared = std::min(shared_tokens(family->groups.back(), group),
                                     size == 1 ? family->groups.back().context.size() : family->prefix);
      const bool fits = family->num_tokens + group.num_tokens - static_cast<int64_t>(shared) <= kTokensPerBatch;
      if (shared >= kShortestPrefix && size * shared >= (size - 1) * family->prefix && fits) {
        family->num_tokens += group.num_tokens + static_cast<int64_t>(size == 1 ? 0 : (size - 1) * family->prefix) -
                              static_cast<int64_t>(size * shared);
        family->prefix = shared;
        family->groups.push_back(std::move(group));
        continue;
      }
    }
    families.push_back({.groups = {}, .prefix = 0, .num_tokens = group.num_tokens});
    families.back().groups.push_back(std::move(group));
  }
  // Long ones first: if memory does not do, it fails at once.
  std::ranges::stable_sort(families, std::greater<>(), &Family::num_tokens);
  return families;
}

// Sequences laid end to end: a family's prefix, each context's rest, each continuation without its last token.
struct ScoreBatch {
  std::vector<std::vector<TokenId>> sequences;
  std::vector<int64_t> parent, first_position;

  int64_t add(std::vector<TokenId> tokens, int64_t parent_index) {
    const auto up = static_cast<size_t>(parent_index);
    first_position.push_back(parent_index < 0 ? 0 : first_position[up] + static_cast<int64_t>(sequences[up].size()));
    sequences.push_back(std::move(tokens));
    parent.push_back(parent_index);
    return static_cast<int64_t>(sequences.size()) - 1;
  }
};

// Which hidden state predicts which token of which request.
struct ScoreTargets {
  std::vector<size_t> requests;
  std::vector<std::pair<int64_t, int64_t>> states;  // sequence, row in it; -1 = its last
  std::vector<int64_t> tokens;
};

void add_family(const Family& family, const std::vector<ScoreTokens>& encoded, ScoreBatch& batch,
                ScoreTargets& targets) {
  int64_t prefix = -1;
  const auto cut = static_cast<ptrdiff_t>(family.prefix);
  if (cut > 0) {
    const auto& shared = family.groups.front().context;
    prefix = batch.add({shared.begin(), shared.begin() + cut}, -1);
  }
  for (const Group& group : family.groups) {
    const int64_t context = batch.add({group.context.begin() + cut, group.context.end()}, prefix);
    for (const size_t request : group.requests) {
      const auto& continuation = encoded[request].continuation;
      const int64_t own = batch.add({continuation.begin(), continuation.end() - 1}, context);
      targets.requests.push_back(request);
      for (size_t t = 0; t < continuation.size(); ++t) {
        targets.states.emplace_back(t == 0 ? context : own, static_cast<int64_t>(t) - 1);
        targets.tokens.push_back(continuation[t]);
      }
    }
  }
}

// A batch as the model reads it, and the rows whose hidden states are asked for.
struct PreparedBatch {
  PackedBatch packed;
  at::Tensor rows;         // int64, each once
  at::Tensor row, tokens;  // int64: of each target the index in `rows` of what predicts it, and the token
  std::vector<size_t> requests;
};

PreparedBatch prepare_batch(std::span<const Family> families, const std::vector<ScoreTokens>& encoded) {
  ScoreBatch sequences;
  ScoreTargets targets;
  PreparedBatch batch;
  for (const Family& family : families) add_family(family, encoded, sequences, targets);
  batch.packed = pack_sequences(sequences.sequences);
  batch.packed.parent = sequences.parent;
  int64_t* position = batch.packed.positions.mutable_data_ptr<int64_t>();
  const auto& offsets = batch.packed.offsets;
  for (size_t s = 0; s < sequences.sequences.size(); ++s) {
    for (int64_t row = offsets[s]; row < offsets[s + 1]; ++row) position[row] += sequences.first_position[s];
  }
  // The end of a context predicts the first token of each of its continuations.
  std::vector<int64_t> rows, row_of;
  std::map<int64_t, int64_t> seen;
  for (const auto& [sequence, in_sequence] : targets.states) {
    const auto s = static_cast<size_t>(sequence);
    const int64_t row = in_sequence < 0 ? offsets[s + 1] - 1 : offsets[s] + in_sequence;
    const auto [at, is_new] = seen.try_emplace(row, static_cast<int64_t>(rows.size()));
    if (is_new) rows.push_back(row);
    row_of.push_back(at->second);
  }
  batch.rows = at::tensor(rows, at::kLong);
  batch.row = at::tensor(row_of, at::kLong);
  batch.tokens = at::tensor(targets.tokens, at::kLong);
  batch.requests = std::move(targets.requests);
  return batch;
}

void read_results(const std::vector<size_t>& requests, const TokenLogProbs& scored,
                  const std::vector<ScoreTokens>& encoded, std::vector<ScoreResult>& results) {
  const double* log_prob = scored.log_prob.const_data_ptr<double>();
  const bool* is_argmax = scored.is_argmax.const_data_ptr<bool>();
  for (const size_t request : requests) {
    const size_t count = encoded[request].continuation.size();
    results[request] = {.log_likelihood = std::accumulate(log_prob, log_prob + count, 0.0),
                        .is_greedy = std::all_of(is_argmax, is_argmax + count, [](bool b) { return b; }),
                        .num_tokens = static_cast<int64_t>(count)};
    log_prob += count;
    is_argmax += count;
  }
}

// Requests in batches of about kTokensPerBatch tokens, those with a shared beginning together.
std::vector<PreparedBatch> prepare_batches(const ModelPackage& package, std::vector<ScoreTokens>& encoded) {
  const std::vector<Family> families = families_of(group_by_context(package, encoded));
  std::vector<PreparedBatch> batches;
  for (size_t first = 0; first < families.size();) {
    size_t last = first;
    int64_t num_tokens = 0;
    do {
      num_tokens += families[last++].num_tokens;
    } while (last < families.size() && num_tokens + families[last].num_tokens <= kTokensPerBatch);
    batches.push_back(prepare_batch(std::span(families).subspan(first, last - first), encoded));
    first = last;
  }
  return batches;
}

std::vector<ScoreTokens> encode_requests(const ModelPackage& package, std::span<const ScoreRequest> requests) {
  std::vector<ScoreTokens> encoded;
  for (const ScoreRequest& request : requests) encoded.push_back(score_tokens(*package.tokenizer, request));
  return encoded;
}

}  // namespace

std::vector<ScoreResult> score_continuations(const ModelPackage& package, const Transformer& model,
                                             std::span<const ScoreRequest> requests) {
  const at::NoGradGuard no_grad;
  std::vector<ScoreTokens> encoded = encode_requests(package, requests);
  std::vector<ScoreResult> results(requests.size());
  for (PreparedBatch& batch : prepare_batches(package, encoded)) {
    batch.packed.token_ids = batch.packed.token_ids.to(model.device());
    batch.packed.positions = batch.packed.positions.to(model.device());
    const auto hidden = model.hidden_states(batch.packed, false, batch.rows.to(model.device()));
    const auto scored =
        token_log_probs(hidden, batch.row, batch.tokens, [&](const at::Tensor& x) { return model.head(x); });
    read_results(batch.requests, scored, encoded, results);
  }
  return results;
}

std::vector<ScoreResult> score_layer_major(const ModelPackage& package, std::span<const ScoreRequest> requests,
                                           const LayerStreamOptions& options) {
  const at::NoGradGuard no_grad;
  std::vector<ScoreTokens> encoded = encode_requests(package, requests);
  std::vector<PreparedBatch> batches = prepare_batches(package, encoded);
  std::vector<PackedBatch> packed;
  for (PreparedBatch& batch : batches) packed.push_back(std::move(batch.packed));
  CorpusState corpus = embed_batches(package, std::move(packed), options);
  run_layers(package, corpus, options, 0, package.config.num_hidden_layers);
  finish_corpus(package, corpus, options);
  const at::Tensor lm_head = load_lm_head(package, options.dtype, options.device);
  std::vector<ScoreResult> results(requests.size());
  for (size_t b = 0; b < batches.size(); ++b) {
    const auto hidden = corpus.hidden[b].index_select(0, batches[b].rows.to(options.device));
    const auto scored = token_log_probs(hidden, batches[b].row, batches[b].tokens,
                                        [&](const at::Tensor& x) { return times_transposed(x, lm_head); });
    read_results(batches[b].requests, scored, encoded, results);
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
