#include "potstill/nn/cached_decoder.h"

#include <algorithm>
#include <cmath>

#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/nn/attention.h"
#include "potstill/nn/decode_attention.h"
#include "potstill/nn/rotary.h"

namespace potstill {
namespace {

at::Tensor normalize_heads(const at::Tensor& x, const at::Tensor& weight, const ModelConfig& config) {
  if (!weight.defined()) return x;
  return rms_norm(x.unflatten(1, {-1, config.head_dim}), weight, config.rms_norm_eps).flatten(1);
}

}  // namespace

CachedDecoder::CachedDecoder(const Transformer& model, int64_t num_slots, int64_t capacity)
    : model_(model),
      capacity_(round_up<int64_t>(capacity, 64)),
      rotary_(make_rotary_table(model.config, capacity_, model.device())),
      lengths_(static_cast<size_t>(num_slots), 0),
      prompts_(static_cast<size_t>(num_slots)) {
  const ModelConfig& config = model.config;
  // On the CPU the cache is fp32 in any case: its loops convert nothing.
  const auto options = at::TensorOptions(model.device()).dtype(model.device().is_cpu() ? at::kFloat : model.dtype());
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    for (auto* cache : {&k_cache_, &v_cache_}) {
      cache->push_back(at::zeros({num_slots, config.num_key_value_heads, capacity_, config.head_dim}, options));
    }
  }
}

at::Tensor CachedDecoder::prefill(int64_t slot, std::span<const int32_t> prompt) {
  const at::NoGradGuard no_grad;
  const auto num_tokens = static_cast<int64_t>(prompt.size());
  POTSTILL_CHECK(num_tokens > 0 && num_tokens <= capacity_);
  at::Tensor hidden;
  for (int64_t begin = copy_shared_chunks(slot, prompt); begin < num_tokens; begin += kPrefillChunk) {
    const int64_t length = std::min(kPrefillChunk, num_tokens - begin);
    hidden = read_chunk(slot, prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(length)), begin);
  }
  prompts_[static_cast<size_t>(slot)].assign(prompt.begin(), prompt.end());
  lengths_[static_cast<size_t>(slot)] = num_tokens;
  const auto last = hidden.slice(0, hidden.size(0) - 1);
  return model_.logits(rms_norm(last, model_.norm, model_.config.rms_norm_eps)).squeeze(0);
}

// Returns how many tokens of the prompt are in the slot then: whole chunks, and never its last token, whose hidden
// state is wanted.
int64_t CachedDecoder::copy_shared_chunks(int64_t slot, std::span<const int32_t> prompt) {
  int64_t most = 0, donor = slot;
  for (int64_t other = 0; other < num_slots(); ++other) {
    const auto& theirs = prompts_[static_cast<size_t>(other)];
    const int64_t common = std::ranges::mismatch(theirs, prompt.first(prompt.size() - 1)).in1 - theirs.begin();
    if (common > most || (common == most && other == slot)) {
      most = common;
      donor = other;
    }
  }
  most -= most % kPrefillChunk;
  if (most > 0 && donor != slot) {
    for (auto* cache : {&k_cache_, &v_cache_}) {
      for (at::Tensor& layer : *cache) layer[slot].slice(1, 0, most).copy_(layer[donor].slice(1, 0, most));
    }
  }
  prompts_[static_cast<size_t>(slot)].clear();  // an exception from here on leaves no promise about the slot
  copied_tokens_ += most;
  return most;
}

// Tokens at positions begin, begin + 1, … of the slot's sequence -> hidden states [tokens, D] before the final norm.
at::Tensor CachedDecoder::read_chunk(int64_t slot, std::span<const int32_t> tokens, int64_t begin) {
  const ModelConfig& config = model_.config;
  const int64_t end = begin + static_cast<int64_t>(tokens.size());
  const std::vector<std::vector<int32_t>> sequences = {{tokens.begin(), tokens.end()}};
  const PackedBatch batch = pack_sequences(sequences, model_.device());
  const auto positions = batch.positions + begin;
  at::Tensor hidden = model_.embed_tokens.index_select(0, batch.token_ids);
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const DecoderLayer& layer = model_.layers[i];
    const auto x = layer.attention_input(hidden, config);
    const auto q = apply_rotary(normalize_heads(layer.q_proj.forward(x), layer.q_norm, config), positions, rotary_);
    const auto k = apply_rotary(normalize_heads(layer.k_proj.forward(x), layer.k_norm, config), positions, rotary_);
    const auto v = layer.v_proj.forward(x);
    const auto remember = [&](at::Tensor& cache, const at::Tensor& rows) {
      cache[slot].slice(1, begin, end).copy_(rows.unflatten(1, {-1, config.head_dim}).transpose(0, 1));
    };
    remember(k_cache_[i], k);
    remember(v_cache_[i], v);
    const auto all = [&](const at::Tensor& cache) { return cache[slot].slice(1, 0, end).to(q.scalar_type()); };
    const auto attended = begin == 0 ? causal_attention(q, k, v, batch, config)
                                     : continued_attention(q, all(k_cache_[i]), all(v_cache_[i]), config);
    hidden = hidden + layer.o_proj.forward(attended);
    const auto m = layer.mlp_input(hidden, config);
    hidden = hidden + layer.down_proj.forward(swiglu(layer.gate_proj.forward(m), layer.up_proj.forward(m)));
  }
  return hidden;
}

at::Tensor CachedDecoder::step(std::span<const int32_t> token_ids) {
  const at::NoGradGuard no_grad;
  POTSTILL_CHECK(token_ids.size() == lengths_.size());
  at::Tensor ids = at::zeros({num_slots()}, at::kLong), lengths = at::full({num_slots()}, -1, at::kLong);
  for (size_t slot = 0; slot < lengths_.size(); ++slot) {
    if (token_ids[slot] < 0) continue;
    POTSTILL_CHECK(lengths_[slot] < capacity_);
    ids.mutable_data_ptr<int64_t>()[slot] = token_ids[slot];
    lengths.mutable_data_ptr<int64_t>()[slot] = lengths_[slot]++;
  }
  ids = ids.to(model_.device());
  lengths = lengths.to(model_.device());

  const ModelConfig& config = model_.config;
  at::Tensor hidden = model_.embed_tokens.index_select(0, ids);
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const DecoderLayer& layer = model_.layers[i];
    hidden = hidden + layer.o_proj.forward(attend(layer, i, layer.attention_input(hidden, config), lengths));
    const auto m = layer.mlp_input(hidden, config);
    hidden = hidden + layer.down_proj.forward(swiglu(layer.gate_proj.forward(m), layer.up_proj.forward(m)));
  }
  return model_.logits(rms_norm(hidden, model_.norm, config.rms_norm_eps));
}

// x [slots, D] -> [slots, H·Dh], the input of o_proj; k and v of the new tokens are put into the cache.
at::Tensor CachedDecoder::attend(const DecoderLayer& layer, size_t index, const at::Tensor& x,
                                 const at::Tensor& lengths) {
  const ModelConfig& config = model_.config;
  const auto q = normalize_heads(layer.q_proj.forward(x), layer.q_norm, config);
  const auto k = normalize_heads(layer.k_proj.forward(x), layer.k_norm, config);
  const auto v = layer.v_proj.forward(x);
  if (!x.device().is_cpu()) return attend_on_device(q, k, v, index, lengths);
  const auto q32 = q.to(at::kFloat).contiguous(), k32 = k.to(at::kFloat).contiguous();
  const auto v32 = v.to(at::kFloat).contiguous();
  at::Tensor out = at::empty_like(q32);
  decode_attention({.num_slots = num_slots(),
                    .num_heads = config.num_attention_heads,
                    .num_kv_heads = config.num_key_value_heads,
                    .head_dim = config.head_dim,
                    .capacity = capacity_,
                    .sliding_window = config.sliding_window,
                    .q = q32.const_data_ptr<float>(),
                    .k = k32.const_data_ptr<float>(),
                    .v = v32.const_data_ptr<float>(),
                    .cos = rotary_.cos.const_data_ptr<float>(),
                    .sin = rotary_.sin.const_data_ptr<float>(),
                    .lengths = lengths.const_data_ptr<int64_t>(),
                    .k_cache = k_cache_[index].mutable_data_ptr<float>(),
                    .v_cache = v_cache_[index].mutable_data_ptr<float>(),
                    .out = out.mutable_data_ptr<float>()});
  return out.to(x.scalar_type());
}

// The same with tensor operations over the whole capacity, for devices that our loops do not run on.
at::Tensor CachedDecoder::attend_on_device(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, size_t index,
                                           const at::Tensor& lengths) {
  const ModelConfig& config = model_.config;
  const auto position = lengths.clamp_min(0);
  const auto slots = at::arange(num_slots(), lengths.options());
  // An idle slot's row goes to the place after its last token, where it is overwritten before it is ever seen.
  const auto place =
      at::where(lengths.ge(0), position, at::tensor(lengths_, at::kLong).to(lengths.device())).clamp_max(capacity_ - 1);
  const auto heads = [&](const at::Tensor& x) { return x.unflatten(1, {-1, config.head_dim}); };
  k_cache_[index].index_put_({slots, at::indexing::Slice(), place}, heads(apply_rotary(k, position, rotary_)));
  v_cache_[index].index_put_({slots, at::indexing::Slice(), place}, heads(v));
  const auto query = apply_rotary(q, position, rotary_);
  const auto key_position = at::arange(capacity_, lengths.options()).unsqueeze(0);
  auto visible = key_position.le(position.unsqueeze(1));
  if (config.sliding_window > 0) visible.logical_and_(key_position.gt(position.unsqueeze(1) - config.sliding_window));
  const auto mask = at::zeros(visible.sizes(), q.options()).masked_fill_(visible.logical_not(), -INFINITY);
  const auto out = at::scaled_dot_product_attention(
      heads(query).unsqueeze(2), k_cache_[index], v_cache_[index], mask.unsqueeze(1).unsqueeze(1), 0.0,
      /*is_causal=*/false, 1.0 / std::sqrt(static_cast<double>(config.head_dim)),
      /*enable_gqa=*/config.num_attention_heads != config.num_key_value_heads);
  return out.flatten(1);
}

}  // namespace potstill
