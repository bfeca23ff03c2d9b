// prove_export: the exported file, read back by the reader that every command uses, against its source.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/formats/quantized_checkpoint.h"
#include "potstill/nn/layer_stream.h"
#include "potstill/quant/export_model.h"

namespace potstill {
namespace {

// Letters, digits, blanks, accents, an emoji and a control token's spelling: what tokenizers disagree on.
constexpr const char* kProbeText =
    "What boils at 100 degrees?  In 1742, Celsius wrote 0 for boiling!\n\n\tdef f(x): return x**2 # naïve café 東京 "
    "🙂 "
    "don't <|im_end|> 3.14159e-10";
constexpr int64_t kRowsAtOnce = 1024;

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw Error(ErrorKind::kNumeric, where, "the export is not its source: " + what,
              "this is a defect of potstill; please report it with the command and the model");
}

// Largest |exported − source| / largest |source| of a row that rounding to `dtype` may cost, once.
double rounding_bound(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0.0;
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    case DType::kQ8_0:
      return 0.5 / 127 + 0x1p-11;  // half a step of the block's largest value / 127, and the scale's own rounding
    default:
      return 1.0 / 8 + 0x1p-11;  // Q4_0: a step of the largest / 8 for what falls beyond code 7, else half of it
  }
}

// A 4-bit linear keeps its codes and scales in every 4-bit layout. Q4_1 alone stores −scale · zero rounded to fp16; a
// row's largest value may be smaller than that product (zero 7, codes near it), by 15 at most.
double rounding_bound(const ModelPackage& source, const WeightInfo& original, const WeightInfo& copy) {
  const auto* packed = dynamic_cast<const QuantizedCheckpoint*>(source.weights.get());
  if (packed == nullptr || !packed->is_quantized(original.name)) return rounding_bound(copy.dtype);
  if (copy.dtype == DType::kQ4_1) return 15 * 0x1p-11;
  return copy.dtype == DType::kQ4_0 ? 0.0 : rounding_bound(copy.dtype);
}

struct WeightDifferences {
  int64_t equal = 0, rounded = 0;
  double worst_share = 0.0;  // of the bound
};

// Compares row by row, so that the proof needs no memory to speak of.
void compare_weight(const ModelPackage& source, const ModelPackage& exported, const std::string& name,
                    WeightDifferences& differences) {
  const auto& original = source.weights->require(name);
  const auto& copy = exported.weights->require(name);
  if (original.shape != copy.shape) fail(exported.path.string(), fmt::format("'{}' has another shape", name));
  const double bound = rounding_bound(source, original, copy);
  const int64_t rows = original.shape.size() > 1 ? original.shape[0] : 1, columns = original.shape.back();
  std::vector<float> a, b;
  bool equal = true;
  for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, rows - row);
    a.resize(static_cast<size_t>(count * columns));
    b.resize(a.size());
    source.weights->read_rows(name, row, count, a);
    exported.weights->read_rows(name, row, count, b);
    for (int64_t r = 0; r < count; ++r) {
      float largest = 0.0f, difference = 0.0f;
      for (auto i = static_cast<size_t>(r * columns); i < static_cast<size_t>((r + 1) * columns); ++i) {
        if (!std::isfinite(b[i])) fail(exported.path.string(), fmt::format("'{}' holds {}", name, b[i]));
        largest = std::max(largest, std::fabs(a[i]));
        difference = std::max(difference, std::fabs(a[i] - b[i]));
      }
      equal = equal && difference == 0.0f;
      const double allowed = bound * largest + (bound > 0 ? 0x1p-24 : 0.0);  // + fp16's smallest step
      if (difference > allowed) {
        fail(exported.path.string(), fmt::format("row {} of '{}' differs by {}, of which {} may carry {}", row + r,
                                                 name, difference, dtype_name(copy.dtype), allowed));
      }
      if (allowed > 0) differences.worst_share = std::max(differences.worst_share, difference / allowed);
    }
  }
  ++(equal ? differences.equal : differences.rounded);
}

// fp32 logits [T, V], one layer in memory at a time.
at::Tensor probe_logits(const ModelPackage& model, const std::vector<TokenId>& ids) {
  const at::NoGradGuard no_grad;
  const LayerStreamOptions options;
  const std::vector<std::vector<TokenId>> corpus = {ids};
  CorpusState state = embed_corpus(model, corpus, options);
  run_layers(model, state, options, 0, model.config.num_hidden_layers);
  finish_corpus(model, state, options);
  return at::mm(state.hidden.front(), load_lm_head(model, at::kFloat, at::kCPU).t());
}

nlohmann::ordered_json compare_logits(const ModelPackage& source, const ModelPackage& exported,
                                      const std::vector<TokenId>& ids, bool same_weights) {
  const auto a = probe_logits(source, ids), b = probe_logits(exported, ids);
  const double difference = (a - b).abs().max().item<double>();
  const auto log_p = a.log_softmax(1), log_q = b.log_softmax(1);
  const double kl = (log_p.exp() * (log_p - log_q)).sum(1).mean().item<double>();
  const double agreement = (a.argmax(1) == b.argmax(1)).to(at::kDouble).mean().item<double>();
  if (!std::isfinite(difference)) fail(exported.path.string(), "its logits are not finite");
  if (same_weights && difference != 0.0) {
    fail(exported.path.string(), fmt::format("all weights are equal but logits differ by {}", difference));
  }
  return {{"probe_tokens", ids.size()}, {"max_difference", difference}, {"kl", kl}, {"top1_agreement", agreement}};
}

void compare_text(const ModelPackage& source, const ModelPackage& exported, const std::vector<TokenId>& ids) {
  const std::string where = exported.path.string();
  const auto comparison = compare_tokenizers(*source.tokenizer, *exported.tokenizer);
  if (!comparison.same) fail(where, "its tokenizer differs: " + comparison.difference);
  if (exported.tokenizer->encode(kProbeText) != ids) fail(where, "it cuts the probe text into other tokens");
  if (exported.tokenizer->decode_bytes(ids) != source.tokenizer->decode_bytes(ids))
    fail(where, "it decodes tokens to another text");
  const std::vector<ChatMessage> chat = {{"user", "Why is the sky blue?"}, {"assistant", "Air scatters blue light."}};
  for (const bool prompt : {false, true}) {
    const auto messages = std::span(chat).first(prompt ? 1 : 2);
    if (exported.chat_template.render(messages, prompt) != source.chat_template.render(messages, prompt)) {
      fail(where, "it renders a chat differently");
    }
  }
  if (stop_token_ids(source) != stop_token_ids(exported)) fail(where, "it stops at other tokens");
}

}  // namespace

nlohmann::ordered_json prove_export(const ModelPackage& source, const std::filesystem::path& path) {
  const ModelPackage exported = open_model(path);
  WeightDifferences differences;
  for (const auto& info : source.weights->weights()) {
    if (source.config.tie_word_embeddings && info.name == "lm_head.weight") continue;
    compare_weight(source, exported, info.name, differences);
  }
  const auto ids = source.tokenizer->encode(kProbeText);
  compare_text(source, exported, ids);
  return {{"weights_equal", differences.equal},
          {"weights_rounded", differences.rounded},
          {"largest_rounding_of_allowed", differences.worst_share},
          {"logits", compare_logits(source, exported, ids, differences.rounded == 0)},
          {"tokenizer_equal", true},
          {"chat_template_equal", true}};
}

}  // namespace potstill
