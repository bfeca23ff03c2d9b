#include "potstill/nn/cached_decoder.h"

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
      lengths_(static_cast<size_t>(num_slots), 0) {
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
  const ModelConfig& config = model_.config;
  const std::vector<std::vector<int32_t>> sequences = {{prompt.begin(), prompt.end()}};
  const PackedBatch batch = pack_sequences(sequences, model_.device());
  at::Tensor hidden = model_.embed_tokens.index_select(0, batch.token_ids);
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    const DecoderLayer& layer = model_.layers[i];
    const auto x = layer.attention_input(hidden, config);
    const auto q =
        apply_rotary(normalize_heads(layer.q_proj.forward(x), layer.q_norm, config), batch.positions, rotary_);
    const auto k =
        apply_rotary(normalize_heads(layer.k_proj.forward(x), layer.k_norm, config), batch.positions, rotary_);
    const auto v = layer.v_proj.forward(x);
    const auto remember = [&](at::Tensor& cache, const at::Tensor& rows) {
      cache[slot].slice(1, 0, num_tokens).copy_(rows.unflatten(1, {-1, config.head_dim}).transpose(0, 1));
    };
    remember(k_cache_[i], k);
    remember(v_cache_[i], v);
    hidden = hidden + layer.o_proj.forward(causal_attention(q, k, v, batch, config));
    const auto m = layer.mlp_input(hidden, config);
    hidden = hidden + layer.down_proj.forward(swiglu(layer.gate_proj.forward(m), layer.up_proj.forward(m)));
  }
  lengths_[static_cast<size_t>(slot)] = num_tokens;
  return model_.logits(rms_norm(hidden.slice(0, num_tokens - 1), model_.norm, config.rms_norm_eps)).squeeze(0);
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
