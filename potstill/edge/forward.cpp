#include "potstill/edge/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <new>

#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"

namespace potstill::edge {
namespace {

constexpr int64_t kLogitsChunk = 16;  // positions whose logits are held at once, when all are asked for

// What is read after a product: a waiting thread fetches its beginning.
Ahead ahead_of(const kernels::MatrixView& weight) { return {weight.data, weight.bytes()}; }

}  // namespace

Forward::Forward(const EdgeWeights& weights, ThreadPool& pool, ActivationMode mode)
    : weights_(weights),
      pool_(pool),
      mode_(mode),
      width_(mode == ActivationMode::kFast ? kernels::CodeWidth::kFast : kernels::CodeWidth::kExact),
      kernels_(kernels::kernels()),
      scratch_(static_cast<size_t>(pool.size())) {}

std::span<const float> Forward::step(std::span<const SequenceStep> sequences) {
  for (const SequenceStep& sequence : sequences) check_tokens(sequence);
  run_layers(sequences);
  // The rows wanted are packed at the front of normed_; a head for one position is unpacked for nothing, so all of
  // them are computed as decode() would.
  const int64_t D = weights_.config.hidden_size;
  std::vector<int64_t> rows(sequences.size(), -1);
  for (const Stretch& stretch : stretches_) {
    if (sequences[stretch.sequence].wants_logits) rows[stretch.sequence] = stretch.first_row + stretch.num_tokens - 1;
  }
  rows.erase(std::remove(rows.begin(), rows.end(), -1), rows.end());
  const auto eps = static_cast<float>(weights_.config.rms_norm_eps);
  for (size_t i = 0; i < rows.size(); ++i) {
    kernels_.rms_norm(hidden_.data() + rows[i] * D, weights_.output_norm.data(), D, eps,
                      normed_.data() + static_cast<int64_t>(i) * D);
  }
  return head_logits(static_cast<int64_t>(rows.size()), /*decoding=*/true);
}

std::span<const float> Forward::prompt(std::span<const TokenId> tokens, KvCache& cache) {
  check_tokens({tokens, &cache});
  std::span<const float> logits;
  for (size_t begin = 0; begin < tokens.size(); begin += kStepTokens) {
    const size_t count = std::min<size_t>(kStepTokens, tokens.size() - begin);
    const SequenceStep chunk{tokens.subspan(begin, count), &cache, false, begin + count == tokens.size()};
    logits = step({&chunk, 1});
  }
  return logits;
}

void Forward::prompt(std::span<const TokenId> tokens, KvCache& cache,
                     const std::function<void(size_t, std::span<const float>)>& visit) {
  check_tokens({tokens, &cache});
  const auto D = weights_.config.hidden_size;
  const auto V = static_cast<size_t>(weights_.config.vocab_size);
  for (size_t begin = 0; begin < tokens.size(); begin += kStepTokens) {
    const size_t end = std::min<size_t>(begin + kStepTokens, tokens.size());
    const SequenceStep chunk{tokens.subspan(begin, end - begin), &cache};
    run_layers({&chunk, 1});
    for (size_t i = begin; i < end; i += kLogitsChunk) {
      const size_t count = std::min<size_t>(kLogitsChunk, end - i);
      const auto num_rows = static_cast<int64_t>(count);
      for (int64_t t = 0; t < num_rows; ++t) {
        kernels_.rms_norm(hidden_.data() + (static_cast<int64_t>(i - begin) + t) * D, weights_.output_norm.data(), D,
                          static_cast<float>(weights_.config.rms_norm_eps), normed_.data() + t * D);
      }
      const auto logits = head_logits(num_rows, /*decoding=*/false);
      for (size_t j = 0; j < count; ++j) visit(i + j, logits.subspan(j * V, V));
    }
  }
}

std::span<const float> Forward::decode(TokenId token, KvCache& cache) {
  const SequenceStep sequence{{&token, 1}, &cache, /*decoding=*/true};
  return step({&sequence, 1});
}

// Gives every token its row: those of decoding sequences first, so that both kinds are one range.
void Forward::begin_step(std::span<const SequenceStep> sequences) {
  stretches_.clear();
  num_rows_ = num_decoding_ = 0;
  for (const bool decoding : {true, false}) {
    for (size_t i = 0; i < sequences.size(); ++i) {
      const SequenceStep& sequence = sequences[i];
      if (sequence.decoding != decoding) continue;
      const auto T = static_cast<int64_t>(sequence.tokens.size());
      stretches_.push_back({sequence.cache, num_rows_, T, sequence.cache->length(), i});
      num_rows_ += T;
    }
    if (decoding) num_decoding_ = num_rows_;
  }
  row_stretch_.resize(static_cast<size_t>(num_rows_));
  for (const Stretch& stretch : stretches_) {
    std::fill_n(row_stretch_.begin() + stretch.first_row, stretch.num_tokens, &stretch);
  }
  resize(num_rows_);
}

// hidden_ [T, D] after the last layer; each sequence's positions more in its cache.
void Forward::run_layers(std::span<const SequenceStep> sequences) {
  begin_step(sequences);
  const ModelConfig& config = weights_.config;
  const auto half = static_cast<size_t>(config.head_dim / 2);
  pool_.parallel_for(num_rows_, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const auto row = static_cast<size_t>(t);
      const Stretch& stretch = *row_stretch_[row];
      const int64_t i = t - stretch.first_row;
      kernels_.dequantize_row(weights_.embedding, sequences[stretch.sequence].tokens[static_cast<size_t>(i)],
                              hidden_.data() + t * config.hidden_size);
      kernels::rope_angles(stretch.position + i, weights_.inverse_frequencies,
                           std::span(cosines_).subspan(row * half, half), std::span(sines_).subspan(row * half, half));
    }
  });
  for (size_t layer = 0; layer < weights_.layers.size(); ++layer) {
    run_layer(weights_.layers[layer], static_cast<int64_t>(layer));
  }
  for (const Stretch& stretch : stretches_) stretch.cache->set_length(stretch.position + stretch.num_tokens);
}

// h += o_proj(attention(norm(h)));  h += down_proj(silu(gate_proj(norm(h))) * up_proj(norm(h)))           all [T, …]
void Forward::run_layer(const LayerWeights& layer, int64_t index) {
  const ModelConfig& config = weights_.config;
  const int64_t T = num_rows_, D = config.hidden_size;

  inputs_.reset(normed_.data(), D, T, width_);
  norm_rows(hidden_.data(), layer.attention_norm, inputs_);
  const std::array<Product, 3> qkv{
      {{&layer.q_proj, q_.data()}, {&layer.k_proj, k_.data()}, {&layer.v_proj, v_.data()}}};
  multiply(inputs_, qkv, /*add=*/false, ahead_of(layer.o_proj.weight));
  turn_and_store(layer, index);
  attend(index, ahead_of(layer.o_proj.weight));
  inputs_.reset(attended_.data(), config.q_size(), T, width_);
  quantize_rows(inputs_);
  const std::array<Product, 1> out{{{&layer.o_proj, hidden_.data()}}};
  multiply(inputs_, out, /*add=*/true, ahead_of(layer.gate_proj.weight));

  inputs_.reset(normed_.data(), D, T, width_);
  norm_rows(hidden_.data(), layer.mlp_norm, inputs_);
  const bool last = static_cast<size_t>(index) + 1 == weights_.layers.size();
  mlp(layer, last ? ahead_of(weights_.head) : ahead_of(weights_.layers[static_cast<size_t>(index) + 1].q_proj.weight));
}

// hidden_ += down_proj(silu(gate_proj(x)) * up_proj(x)). A piece makes some columns of the inner product from end to
// end, while they are in its cache: two products, their gating, its 8 or 16 bits.
void Forward::mlp(const LayerWeights& layer, Ahead ahead) {
  const int64_t T = num_rows_, F = weights_.config.intermediate_size;
  constexpr int64_t kUnit = 2 * kernels::kTileRows;
  static_assert(kUnit % kernels::kBlock == 0);
  gated_.reset(gate_.data(), F, T, width_);
  const Product gate{&layer.gate_proj, gate_.data()}, up{&layer.up_proj, up_.data()};
  const int64_t num_units = ceil_div(F, kUnit);
  pool_.parallel_for(
      num_units, pieces_grain(num_units, layer.gate_proj.weight.bytes() + layer.up_proj.weight.bytes()),
      [&](int64_t begin, int64_t end, int thread) {
        const int64_t first = begin * kUnit, last = std::min(end * kUnit, F);
        multiply_rows(inputs_, gate, first, last, /*add=*/false, thread);
        multiply_rows(inputs_, up, first, last, /*add=*/false, thread);
        for (int64_t t = 0; t < T; ++t) {
          kernels_.swiglu(gate_.data() + t * F + first, up_.data() + t * F + first, last - first);
          gated_.quantize(kernels_, t, first, last);
        }
      },
      ahead_of(layer.down_proj.weight));
  const std::array<Product, 1> down{{{&layer.down_proj, hidden_.data()}}};
  multiply(gated_, down, /*add=*/true, ahead);
}

// q and k get their norms (qwen3) and their turn; k and v go into the cache.
void Forward::turn_and_store(const LayerWeights& layer, int64_t index) {
  const ModelConfig& config = weights_.config;
  const int64_t Dh = config.head_dim, H = config.num_attention_heads, Hk = config.num_key_value_heads;
  const auto half = static_cast<size_t>(Dh / 2);
  const auto eps = static_cast<float>(config.rms_norm_eps);
  pool_.parallel_for(num_rows_, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const Stretch& stretch = *row_stretch_[static_cast<size_t>(t)];
      KvCache& cache = *stretch.cache;
      const auto cosines = std::span(cosines_).subspan(static_cast<size_t>(t) * half, half);
      const auto sines = std::span(sines_).subspan(static_cast<size_t>(t) * half, half);
      const int64_t position = stretch.position + t - stretch.first_row;
      for (int64_t h = 0; h < H; ++h) {
        float* q = q_.data() + (t * H + h) * Dh;
        if (!layer.q_norm.empty()) kernels_.rms_norm(q, layer.q_norm.data(), Dh, eps, q);
        kernels::rope(weights_.rope_order, cosines, sines, q);
      }
      for (int64_t h = 0; h < Hk; ++h) {
        float* k = k_.data() + (t * Hk + h) * Dh;
        if (!layer.k_norm.empty()) kernels_.rms_norm(k, layer.k_norm.data(), Dh, eps, k);
        kernels::rope(weights_.rope_order, cosines, sines, k);
        kernels_.store_key(cache.layout(), k, position, cache.keys(index, h));
        kernels_.store_value(cache.layout(), v_.data() + (t * Hk + h) * Dh, position, cache.values(index, h));
      }
    }
  });
}

// attended_ [T, H · Dh]. A piece of work is one KV head with some of its queries: those of a few neighbouring tokens
// share the conversion of keys and values. A single token's heads are spread singly, so that three heads keep two
// threads busy.
void Forward::attend(int64_t layer, Ahead ahead) {
  const ModelConfig& config = weights_.config;
  const int64_t Dh = config.head_dim, H = config.num_attention_heads, Hk = config.num_key_value_heads, group = H / Hk;
  // A piece of a long prompt has many tokens, which share the unpacking of keys and values; of a short one few, for the
  // threads to share.
  const int64_t tokens_a_piece = num_rows_ < 128 ? 8 : std::max<int64_t>(8, 32 / group);
  const int64_t heads_a_piece = num_rows_ == 1 && Hk % pool_.size() != 0 ? 1 : group;
  const int64_t head_pieces = H / heads_a_piece;
  attention_pieces_.clear();
  for (const Stretch& stretch : stretches_) {
    for (int64_t t = 0; t < stretch.num_tokens; t += tokens_a_piece) attention_pieces_.push_back({&stretch, t});
  }
  const auto num_pieces = head_pieces * static_cast<int64_t>(attention_pieces_.size());
  pool_.parallel_for(
      num_pieces, 1,
      [&](int64_t piece, int64_t last, int thread) {
        std::vector<const float*> queries;
        std::vector<float*> outputs;
        std::vector<int64_t> begins, ends;
        for (; piece < last; ++piece) {
          const int64_t first_head = piece % head_pieces * heads_a_piece;
          const auto [stretch, first_token] = attention_pieces_[static_cast<size_t>(piece / head_pieces)];
          queries.clear(), outputs.clear(), begins.clear(), ends.clear();
          for (int64_t t = first_token; t < std::min(stretch->num_tokens, first_token + tokens_a_piece); ++t) {
            const int64_t end = stretch->position + t + 1, row = stretch->first_row + t;
            for (int64_t h = first_head; h < first_head + heads_a_piece; ++h) {
              queries.push_back(q_.data() + (row * H + h) * Dh);
              outputs.push_back(attended_.data() + (row * H + h) * Dh);
              begins.push_back(config.sliding_window > 0 ? std::max<int64_t>(0, end - config.sliding_window) : 0);
              ends.push_back(end);
            }
          }
          KvCache& cache = *stretch->cache;
          const int64_t kv_head = first_head / group;
          const kernels::AttentionTask task{.layout = cache.layout(),
                                            .scale = 1.0f / std::sqrt(static_cast<float>(Dh)),
                                            .keys = cache.keys(layer, kv_head),
                                            .values = cache.values(layer, kv_head),
                                            .num_queries = static_cast<int64_t>(queries.size()),
                                            .queries = queries.data(),
                                            .outputs = outputs.data(),
                                            .begin = begins.data(),
                                            .end = ends.data()};
          auto& scratch = scratch_[static_cast<size_t>(thread)];
          kernels_.attention(task, scratch.reserve_for<float>(static_cast<size_t>(
                                       kernels::attention_scratch_floats(task.layout, task.num_queries))));
        }
      },
      ahead);
}

// out's rows = norm(x) [T, D], in out's own floats and codes.
void Forward::norm_rows(const float* x, const std::vector<float>& weight, ActivationBuffer& out) {
  const int64_t D = weights_.config.hidden_size;
  const auto eps = static_cast<float>(weights_.config.rms_norm_eps);
  pool_.parallel_for(num_rows_, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      kernels_.rms_norm(x + t * D, weight.data(), D, eps, normed_.data() + t * D);
      out.quantize_row(kernels_, t);
    }
  });
}

void Forward::quantize_rows(ActivationBuffer& activations) {
  pool_.parallel_for(num_rows_, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) activations.quantize_row(kernels_, t);
  });
}

// Units a piece: several pieces a thread, so that one which is late (another program on its CPU, or less of the
// memory's bandwidth) leaves its share to the others; no more, for each costs a line that goes from cache to cache. A
// small product is one piece a thread where pieces would cut groups of rows that lie side by side: a cut is two slower
// passes.
int64_t Forward::pieces_grain(int64_t num_units, uint64_t weight_bytes) const {
  constexpr uint64_t kPieceBytes = 256 << 10;  // 15 µs of decoding
  const auto num_threads = static_cast<uint64_t>(pool_.size());
  const uint64_t least = kernels_.lane_group > kernels::kTileRows ? 1 : 2;
  const uint64_t pieces_a_thread =
      num_decoding_ == num_rows_ ? std::clamp<uint64_t>(weight_bytes / num_threads / kPieceBytes, least, 8) : 8;
  return ceil_div(num_units, static_cast<int64_t>(num_threads * pieces_a_thread));
}

// Products of the same activations are one stretch of rows for the threads to share.
void Forward::multiply(const ActivationBuffer& activations, std::span<const Product> products, bool add, Ahead ahead) {
  int64_t num_units = 0;
  uint64_t weight_bytes = 0;
  for (const Product& product : products) {
    num_units += ceil_div(product.linear->weight.rows, kernels::kTileRows);
    weight_bytes += product.linear->weight.bytes();
  }
  pool_.parallel_for(
      num_units, pieces_grain(num_units, weight_bytes),
      [&](int64_t begin, int64_t end, int thread) {
        for (const Product& product : products) {
          const int64_t rows = product.linear->weight.rows, units = ceil_div(rows, kernels::kTileRows);
          const int64_t row = std::max<int64_t>(begin, 0) * kernels::kTileRows,
                        row_end = std::min(std::min(end, units) * kernels::kTileRows, rows);
          begin -= units, end -= units;
          if (row < row_end) multiply_rows(activations, product, row, row_end, add, thread);
        }
      },
      ahead);
}

void Forward::multiply_rows(const ActivationBuffer& activations, const Product& product, int64_t row, int64_t row_end,
                            bool add, int thread) {
  const kernels::MatrixView& weight = product.linear->weight;
  float* y = product.y + row;
  if (num_decoding_ > 0) {
    kernels_.matvec(weight, row, row_end, activations.planes(), 0, num_decoding_, add, y, weight.rows);
  }
  if (num_decoding_ < num_rows_) {
    std::byte* scratch = scratch_[static_cast<size_t>(thread)].reserve(kernels::matmul_scratch_bytes());
    kernels_.matmul(weight, row, row_end, activations.planes(), num_decoding_, num_rows_, add,
                    y + num_decoding_ * weight.rows, weight.rows, scratch);
  }
  if (product.linear->bias.empty()) return;
  for (int64_t t = 0; t < num_rows_; ++t) {
    kernels_.add(y + t * weight.rows, product.linear->bias.data() + row, row_end - row);
  }
}

// logits_ [T, V] = head(normed_ [T, D]).
std::span<const float> Forward::head_logits(int64_t T, bool decoding) {
  if (T == 0) return {};
  num_rows_ = T;
  num_decoding_ = decoding ? T : 0;
  const auto count = static_cast<size_t>(T * weights_.config.vocab_size);
  logits_.resize(std::max(logits_.size(), count));
  inputs_.reset(normed_.data(), weights_.config.hidden_size, T, width_);
  quantize_rows(inputs_);
  const Linear head{weights_.head, {}};
  const std::array<Product, 1> products{{{&head, logits_.data()}}};
  multiply(inputs_, products, /*add=*/false, {});
  return std::span(logits_).first(count);
}

void Forward::check_tokens(const SequenceStep& sequence) const {
  const auto& [tokens, cache, decoding, wants_logits] = sequence;
  POTSTILL_CHECK(cache != nullptr && (!decoding || tokens.size() == 1));
  const int64_t end = cache->length() + static_cast<int64_t>(tokens.size());
  if (tokens.empty()) throw Error(ErrorKind::kInput, "prompt", "no tokens", "give at least one");
  if (end > cache->capacity()) {
    throw Error(ErrorKind::kInput, "context", fmt::format("{} positions are needed but {} fit", end, cache->capacity()),
                "shorten the prompt, or ask for a larger --context");
  }
  for (const TokenId id : tokens) {
    if (id < 0 || id >= weights_.config.vocab_size) {
      throw Error(ErrorKind::kInput, "token ids",
                  fmt::format("{} is outside the vocabulary of {}", id, weights_.config.vocab_size));
    }
  }
}

void Forward::resize(int64_t num_tokens) {
  const ModelConfig& config = weights_.config;
  const auto grow = [num_tokens](std::vector<float>& buffer, int64_t width) {
    buffer.resize(std::max(buffer.size(), static_cast<size_t>(num_tokens * width)));
  };
  for (auto* buffer : {&hidden_, &normed_}) grow(*buffer, config.hidden_size);
  for (auto* buffer : {&q_, &attended_}) grow(*buffer, config.q_size());
  for (auto* buffer : {&k_, &v_}) grow(*buffer, config.kv_size());
  for (auto* buffer : {&gate_, &up_}) grow(*buffer, config.intermediate_size);
  for (auto* buffer : {&cosines_, &sines_}) grow(*buffer, config.head_dim / 2);
}

}  // namespace potstill::edge
