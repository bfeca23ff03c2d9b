#include "potstill/nn/merge.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "potstill/base/error.h"
#include "potstill/formats/peft_adapter.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/layer_stream.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {
namespace {

constexpr int64_t kBlockValues = 16 << 20;  // 64 MB of fp32 at a time, whatever the weight's size

// Any text does: the proof compares numbers, not meaning.
constexpr const char* kProbeText =
    "Question: Which gas do plants take in from the air to make sugar?\nAnswer: Carbon dioxide. In 1796, 7 + 5 = 12; "
    "the "
    "quick brown fox jumps over the lazy dog, and nobody had asked it to.";

struct Factors {
  at::Tensor a, b;  // fp32 [r, I], [O, r]
  double scale = 1;
};

// The adapter's factors by the name of the weight that they change; every one must fit its weight.
std::map<std::string, Factors, std::less<>> factors_by_weight(const PeftAdapter& adapter, const WeightSource& weights) {
  std::map<std::string, Factors, std::less<>> factors;
  for (const PeftPair& pair : adapter.pairs()) {
    const WeightInfo* weight = weights.find(pair.module + ".weight");
    const bool fits = weight && weight->shape.size() == 2 && weight->shape[0] == pair.lora_b.shape[0] &&
                      weight->shape[1] == pair.lora_a.shape[1];
    if (!fits) {
      throw Error(ErrorKind::kInput, adapter.where(),
                  fmt::format("factors of '{}', [{}, r] and [r, {}], {}", pair.module, pair.lora_b.shape[0],
                              pair.lora_a.shape[1],
                              weight ? fmt::format("do not fit its weight of [{}]", fmt::join(weight->shape, ", "))
                                     : fmt::format("find no such weight in {}", weights.where())),
                  "the adapter was trained on another base model");
    }
    factors[weight->name] = {tensor_from_view(pair.lora_a).to(at::kFloat), tensor_from_view(pair.lora_b).to(at::kFloat),
                             pair.scale};
  }
  if (factors.empty()) throw Error(ErrorKind::kInput, adapter.where(), "holds no factors", "train the adapter first");
  return factors;
}

DType merged_dtype(const std::string& name, const ModelPackage& base) {
  if (name == "fp32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name == "fp16") return DType::kF16;
  for (const WeightInfo& weight : base.weights->weights()) {
    if (is_block_quantized(weight.dtype)) return DType::kF32;
  }
  return base.weights->require("model.embed_tokens.weight").dtype;
}

// What is kept of the sums of squares while weights stream by.
struct RoundingSums {
  double loss = 0, update = 0;
};

// Adds the update to rows [begin, begin + rows) of a weight; returns the rounded rows and whether any entry moved.
std::pair<at::Tensor, bool> merged_rows(const at::Tensor& rows, int64_t begin, const Factors& factors,
                                        at::ScalarType type, RoundingSums& sums) {
  const auto update = at::mm(factors.b.narrow(0, begin, rows.size(0)), factors.a).mul_(factors.scale);
  const auto sum = rows + update;
  const auto rounded = sum.to(type);
  const auto norm = [](const at::Tensor& x) { return x.square().sum(at::kDouble).item<double>(); };
  sums.loss += norm(rounded.to(at::kFloat) - sum);
  sums.update += norm(update);
  return {rounded, !rounded.equal(rows.to(type))};
}

void write_weights(const ModelPackage& base, const std::map<std::string, Factors, std::less<>>& factors, DType dtype,
                   const MergeOptions& options, const std::filesystem::path& out, MergeReport& report) {
  std::vector<TensorSpec> specs;
  for (const WeightInfo& weight : base.weights->weights()) {
    // A tied checkpoint may hold its table twice; the merged one holds it once.
    if (base.config.tie_word_embeddings && weight.name == "lm_head.weight") continue;
    specs.push_back({weight.name, dtype, weight.shape});
  }
  RoundingSums sums;
  SafetensorsFolderWriter writer(out, specs, options.max_shard_bytes);
  for (const TensorSpec& spec : specs) {
    const auto pair = factors.find(spec.name);
    const auto view = base.weights->view(spec.name);
    if (pair == factors.end() && view && view->dtype == dtype) {
      writer.append(spec.name, view->bytes);
      continue;
    }
    const int64_t num_rows = spec.shape.size() > 1 ? spec.shape[0] : 1, row_values = spec.shape.back();
    bool moved = false;
    for (int64_t begin = 0; begin < num_rows;) {
      const int64_t rows = std::min(std::max<int64_t>(1, kBlockValues / row_values), num_rows - begin);
      at::Tensor block = at::empty({rows, row_values}, at::kFloat);
      base.weights->read_rows(spec.name, begin, rows,
                              {block.mutable_data_ptr<float>(), static_cast<size_t>(block.numel())});
      at::Tensor result;
      if (pair != factors.end()) {
        bool block_moved = false;
        std::tie(result, block_moved) = merged_rows(block, begin, pair->second, scalar_type_of(dtype), sums);
        moved = moved || block_moved;
      } else {
        result = block.to(scalar_type_of(dtype));
      }
      writer.append(spec.name, view_of_tensor(spec.name, result).bytes);
      begin += rows;
    }
    if (moved) ++report.merged;
    base.weights->forget_pages();  // what is written needs no longer be mapped: a tensor at a time is resident
  }
  writer.finish();
  report.update_norm = std::sqrt(sums.update);
  report.rounding_loss = sums.update > 0 ? std::sqrt(sums.loss / sums.update) : 0;
}

// What the probe text's fp32 logits are made of, one layer in memory at a time: [T, D] after the final norm. `factors`
// join their linears as a side path.
at::Tensor probe_hidden(const ModelPackage& model, const std::vector<int32_t>& tokens,
                        const std::map<std::string, Factors, std::less<>>& factors) {
  const at::NoGradGuard no_grad;
  const LayerStreamOptions options;
  const std::vector<std::vector<int32_t>> corpus = {tokens};
  CorpusState state = embed_corpus(model, corpus, options);
  const auto visit = [&](int64_t index, DecoderLayer& layer, CorpusState& all, const RotaryTable& rotary) {
    for (const char* name : kLinearNames) {
      const auto found = factors.find(linear_path(index, name) + ".weight");
      if (found == factors.end()) continue;
      auto pair = std::make_shared<LoraPair>();
      pair->a = found->second.a;
      pair->b = found->second.b;
      pair->scale = found->second.scale;
      layer.linear(name).lora = pair;
    }
    for (size_t b = 0; b < all.batches.size(); ++b) {
      all.hidden[b] = layer.forward(all.hidden[b], all.batches[b], rotary, model.config);
    }
  };
  run_layers(model, state, options, 0, model.config.num_hidden_layers, visit);
  finish_corpus(model, state, options);
  return state.hidden[0];
}

// Rows [begin, begin + rows) of the LM head, fp32.
at::Tensor head_rows(const ModelPackage& model, int64_t begin, int64_t rows) {
  const char* name = model.config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  at::Tensor block = at::empty({rows, model.config.hidden_size}, at::kFloat);
  model.weights->read_rows(name, begin, rows, {block.mutable_data_ptr<float>(), static_cast<size_t>(block.numel())});
  model.weights->forget_pages();
  return block;
}

// Sums over the logits, gathered a block of the vocabulary at a time: neither a head nor its logits are ever whole.
struct LogitSums {
  double count = 0, expected = 0, difference = 0, effect = 0, largest_difference = 0;

  // [T, n] of base + adapter, the merged folder and the base.
  void add(const at::Tensor& with_adapter, const at::Tensor& merged, const at::Tensor& base) {
    const auto squares = [](const at::Tensor& x) { return x.square().sum(at::kDouble).item<double>(); };
    const auto off = merged - with_adapter;
    count += static_cast<double>(off.numel());
    expected += squares(with_adapter);
    difference += squares(off);
    effect += squares(with_adapter - base);
    const double largest = off.abs().max().item<double>();  // NaN must not lose against a number
    if (!(largest <= largest_difference)) largest_difference = largest;
  }
  double rms(double squares) const { return std::sqrt(squares / count); }
};

// Of the logits' rms. Rounding W + D to 8 (11) bits moves them by a few hundredths (thousandths) of their size at most;
// in fp32 only the order of sums differs.
double rounding_allowance(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return 5e-2;
    case DType::kF16:
      return 1e-2;
    default:
      return 1e-5;
  }
}

void prove_merge(const ModelPackage& base, const std::map<std::string, Factors, std::less<>>& factors,
                 const std::filesystem::path& out, DType dtype, MergeReport& report) {
  if (report.merged != report.expected) {
    throw Error(
        ErrorKind::kNumeric, out.string(),
        fmt::format("{} of the {} targeted weights did not move", report.expected - report.merged, report.expected),
        "the adapter is untrained, or its update is lost in rounding: try --dtype fp32");
  }
  const ModelPackage merged = open_model(out);
  const auto tokens = base.tokenizer->encode(kProbeText);
  const auto with_adapter = probe_hidden(base, tokens, factors), merged_hidden = probe_hidden(merged, tokens, {}),
             base_hidden = probe_hidden(base, tokens, {});
  LogitSums sums;
  const int64_t vocabulary = base.config.vocab_size,
                block = std::max<int64_t>(1, kBlockValues / base.config.hidden_size);
  for (int64_t begin = 0; begin < vocabulary; begin += block) {
    const int64_t rows = std::min(block, vocabulary - begin);
    const auto base_rows = head_rows(base, begin, rows).t();
    sums.add(at::mm(with_adapter, base_rows), at::mm(merged_hidden, head_rows(merged, begin, rows).t()),
             at::mm(base_hidden, base_rows));
  }
  report.probe_tokens = static_cast<int64_t>(tokens.size());
  report.max_logit_difference = sums.largest_difference;
  report.rms_logit_difference = sums.rms(sums.difference);
  report.rms_adapter_effect = sums.rms(sums.effect);
  // The second term keeps the proof sharp for a small adapter: a wrong scale or a swapped pair moves the logits by a
  // sizeable part of its effect.
  const double allowed = rounding_allowance(dtype) * sums.rms(sums.expected) + 0.01 * report.rms_adapter_effect;
  if (report.rms_logit_difference <= allowed) return;  // false for NaN too
  throw Error(
      ErrorKind::kNumeric, out.string(),
      fmt::format("logits of the merged folder differ from base + adapter by {:.3g} (rms), more than the {:.3g} "
                  "that rounding to {} explains",
                  report.rms_logit_difference, allowed, dtype_name(dtype)),
      "the merged weights must not be used; please report this with the adapter");
}

}  // namespace

MergeReport merge_adapter(const ModelPackage& base, const std::filesystem::path& adapter_folder,
                          const MergeOptions& options, const std::filesystem::path& out) {
  const at::NoGradGuard no_grad;
  const PeftAdapter adapter(adapter_folder);
  const auto factors = factors_by_weight(adapter, *base.weights);
  const DType dtype = merged_dtype(options.dtype, base);
  MergeReport report;
  report.expected = static_cast<int64_t>(factors.size());
  report.dtype = dtype_name(dtype);
  write_weights(base, factors, dtype, options, out, report);
  ModelConfig config = base.config;
  config.torch_dtype = dtype == DType::kBF16 ? "bfloat16" : dtype == DType::kF16 ? "float16" : "float32";
  write_model_files(base, config, out);
  prove_merge(base, factors, out, dtype, report);
  return report;
}

}  // namespace potstill
