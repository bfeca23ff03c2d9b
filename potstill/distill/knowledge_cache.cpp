#include "potstill/distill/knowledge_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/sha256.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/kl_loss.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

constexpr int kCacheVersion = 1;
constexpr int64_t kErrorPositions = 256;  // enough for a mean; the head's products on them cost a second at most

at::ScalarType cache_scalar_type(const std::string& name) {
  return name == "fp16" ? at::kHalf : name == "bf16" ? at::kBFloat16 : at::kFloat;
}

// A hash of 64 rows of the teacher's LM head, spread over it: says whether the teacher is still the one that was
// cached.
std::string head_hash(const ModelPackage& teacher) {
  const bool tied = teacher.config.tie_word_embeddings || !teacher.weights->find("lm_head.weight");
  const std::string name = tied ? "model.embed_tokens.weight" : "lm_head.weight";
  const WeightInfo& info = teacher.weights->require(name);
  std::vector<float> row(static_cast<size_t>(info.shape.at(1)));
  std::string bytes;
  for (int64_t i = 0; i < 64; ++i) {
    teacher.weights->read_rows(name, (info.shape[0] - 1) * i / 63, 1, row);
    bytes.append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
  }
  return sha256_hex(bytes);
}

int64_t real_vocabulary(const ModelPackage& teacher) {
  return std::min(teacher.config.vocab_size, teacher.tokenizer->size());
}

// The answer positions' rows out of the packed batches, in the records' order.
at::Tensor gather_answers(const CorpusState& corpus, const DistillData& data, const std::vector<int64_t>& offsets) {
  const auto& first = corpus.hidden.front();
  at::Tensor rows = at::empty({offsets.back(), first.size(1)}, at::kFloat);
  for (size_t b = 0; b < corpus.batches.size(); ++b) {
    for (size_t s = 0; s < corpus.sequence_of[b].size(); ++s) {
      const auto record = static_cast<size_t>(corpus.sequence_of[b][s]);
      const auto wanted = at::tensor(data.records[record].answer_positions(), at::kLong) + corpus.batches[b].offsets[s];
      rows.narrow(0, offsets[record], wanted.size(0))
          .copy_(corpus.hidden[b].index_select(0, wanted.to(first.device())));
    }
  }
  return rows;
}

CacheError storage_error(const at::Tensor& exact, const at::Tensor& stored, const at::Tensor& head) {
  CacheError error;
  const int64_t count = std::min(kErrorPositions, exact.size(0));
  const auto rows = at::linspace(0, static_cast<double>(exact.size(0) - 1), count, at::kDouble).round().to(at::kLong);
  double squares = 0;
  for (int64_t begin = 0; begin < count; begin += 32) {  // 32 × 128,256 logits: 16 MB
    const auto part = rows.narrow(0, begin, std::min<int64_t>(32, count - begin)).to(exact.device());
    const auto a = head_logits(exact.index_select(0, part), head);
    const auto b = head_logits(stored.index_select(0, part).to(at::kFloat), head);
    error.max_logit = std::max(error.max_logit, (a - b).abs().max().item<double>());
    squares += (a - b).square().mean(at::kDouble).item<double>() * static_cast<double>(part.size(0));
    const auto log_p = at::log_softmax(a.to(at::kDouble), 1), log_q = at::log_softmax(b.to(at::kDouble), 1);
    error.kl += (log_p.exp() * (log_p - log_q)).sum().item<double>();
  }
  error.positions = count;
  error.rms_logit = std::sqrt(squares / static_cast<double>(count));
  error.kl /= static_cast<double>(count);
  return error;
}

void write_tensors(const fs::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors)
    specs.push_back({name, dtype_of(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(path, specs);
  for (const auto& [name, tensor] : tensors) writer.append(name, view_of_tensor(name, tensor).bytes);
  writer.finish();
}

[[noreturn]] void bad_cache(const fs::path& folder, std::string_view what) {
  throw Error(ErrorKind::kFormat, folder.string(), what, "make the cache again with `potstill teach`");
}

}  // namespace

std::string sequences_hash(const DistillData& data) {
  std::string bytes;
  for (const auto& record : data.records) {
    const auto count = static_cast<uint64_t>(record.tokens.size());
    bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
    bytes.append(reinterpret_cast<const char*>(record.tokens.data()), count * sizeof(TokenId));
    bytes.append(reinterpret_cast<const char*>(record.is_answer.data()), count);
  }
  return sha256_hex(bytes);
}

void require_same_tokenizer(const Tokenizer& student, std::string_view student_name, const Tokenizer& teacher,
                            std::string_view teacher_name) {
  const TokenizerComparison comparison = compare_tokenizers(student, teacher);
  if (comparison.same) return;
  throw Error(ErrorKind::kInput, student_name,
              fmt::format("its tokenizer differs from that of the teacher {}: {}", teacher_name, comparison.difference),
              "a teacher's distributions only mean something over the same tokens: take models of one family");
}

CacheReport write_knowledge_cache(const ModelPackage& teacher, const DistillData& data, const TeachConfig& config,
                                  const LayerStreamOptions& options, const fs::path& folder) {
  const at::NoGradGuard no_grad;
  const auto sequences = data.sequences();
  const auto offsets = answer_position_offsets(data);
  LayerStreamOptions stream = options;
  stream.tokens_per_batch = config.tokens_per_batch;
  CorpusState corpus = embed_corpus(teacher, sequences, stream);
  run_layers(teacher, corpus, stream, 0, teacher.config.num_hidden_layers);
  finish_corpus(teacher, corpus, stream);
  const at::Tensor exact = gather_answers(corpus, data, offsets);
  corpus = {};
  const at::Tensor stored = exact.to(cache_scalar_type(config.cache_dtype));
  if (!stored.isfinite().all().item<bool>()) {
    throw Error(ErrorKind::kNumeric, teacher.path.string(),
                fmt::format("hidden states of up to {:.3g} do not fit {}, or are not finite themselves",
                            exact.abs().max().item<double>(), config.cache_dtype),
                "keep them in bf16 or fp32: --cache-dtype");
  }
  const auto head = load_lm_head(teacher, at::kFloat, at::kCPU).narrow(0, 0, real_vocabulary(teacher));

  CacheReport report{.records = static_cast<int64_t>(data.records.size()),
                     .positions = offsets.back(),
                     .bytes = static_cast<uint64_t>(stored.nbytes()),
                     .error = storage_error(exact, stored, head)};
  for (const auto& sequence : sequences) report.tokens += static_cast<int64_t>(sequence.size());

  write_tensors(folder / "hidden.safetensors",
                {{"hidden", stored}, {"position_offsets", at::tensor(offsets, at::kLong)}});
  if (config.copy_head) {
    write_tensors(folder / "lm_head.safetensors", {{"lm_head", head.to(stored.scalar_type()).contiguous()}});
  }
  write_file_atomically(folder / "tokenizer.json", teacher.tokenizer->to_tokenizer_json().dump());
  write_file_atomically(folder / "tokenizer_config.json", teacher.tokenizer->to_tokenizer_config().dump());
  const nlohmann::ordered_json manifest = {{"kind", "exact"},
                                           {"version", kCacheVersion},
                                           {"teacher", fs::absolute(teacher.path).lexically_normal().string()},
                                           {"teacher_head_sha256", head_hash(teacher)},
                                           {"chat_template", teacher.chat_template.name()},
                                           {"sequences_sha256", sequences_hash(data)},
                                           {"records", report.records},
                                           {"tokens", report.tokens},
                                           {"positions", report.positions},
                                           {"hidden_size", stored.size(1)},
                                           {"vocabulary", real_vocabulary(teacher)},
                                           {"dtype", config.cache_dtype},
                                           {"head", config.copy_head ? "copied" : "teacher"},
                                           {"storage_error",
                                            {{"max_logit", report.error.max_logit},
                                             {"rms_logit", report.error.rms_logit},
                                             {"kl", report.error.kl},
                                             {"positions", report.error.positions}}}};
  write_file_atomically(folder / "knowledge.json", manifest.dump(2) + "\n");
  return report;
}

bool is_knowledge_cache(const fs::path& folder) { return fs::exists(folder / "knowledge.json"); }

KnowledgeCache::KnowledgeCache(const fs::path& folder, at::ScalarType head_dtype, at::Device device)
    : folder_(folder), manifest_(read_json_file(folder / "knowledge.json")) {
  if (!manifest_.is_object() || manifest_.value("version", 0) != kCacheVersion ||
      manifest_.value("kind", "") != "exact") {
    bad_cache(folder, fmt::format("is not a knowledge cache of version {}", kCacheVersion));
  }
  const auto file = std::make_shared<SafetensorsFile>(folder / "hidden.safetensors");
  const TensorView& hidden = file->require("hidden");
  const bool has_shape = is_float(hidden.dtype) && hidden.shape.size() == 2 &&
                         hidden.shape[0] == manifest_.value("positions", int64_t{-1}) &&
                         hidden.shape[1] == manifest_.value("hidden_size", int64_t{-1});
  if (!has_shape) {
    bad_cache(folder, fmt::format("hidden.safetensors holds {} [{}], not what knowledge.json says",
                                  dtype_name(hidden.dtype), fmt::join(hidden.shape, ", ")));
  }
  hidden_ = tensor_from_view(hidden, file);
  tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::from_tokenizer_json(
      read_json_file(folder / "tokenizer.json"), read_json_file(folder / "tokenizer_config.json"), folder.string()));
  load_head(head_dtype, device);
}

void KnowledgeCache::load_head(at::ScalarType dtype, at::Device device) {
  const int64_t vocabulary = manifest_.value("vocabulary", int64_t{0});
  at::Tensor head;
  if (manifest_.value("head", "") == "copied") {
    const auto file = std::make_shared<SafetensorsFile>(folder_ / "lm_head.safetensors");
    const TensorView& view = file->require("lm_head");
    if (!is_float(view.dtype) || view.shape.size() != 2)
      bad_cache(folder_, "lm_head.safetensors is no matrix of floats");
    head = tensor_from_view(view, file).to(device, dtype);
  } else {
    const std::string teacher_path = manifest_.value("teacher", "");
    if (!fs::exists(teacher_path)) {
      throw Error(
          ErrorKind::kIo, folder_.string(),
          fmt::format("its teacher {} is gone, and with it the LM head that turns the cache into logits", teacher_path),
          "put the teacher back, or make the cache again with --copy-head");
    }
    const ModelPackage teacher = open_model(teacher_path);
    if (head_hash(teacher) != manifest_.value("teacher_head_sha256", "")) {
      throw Error(ErrorKind::kInput, folder_.string(),
                  fmt::format("{} is no longer the teacher that the cache was made with", teacher_path),
                  "make the cache again with `potstill teach`");
    }
    head = load_lm_head(teacher, dtype, device);
  }
  if (vocabulary <= 0 || head.size(0) < vocabulary || head.size(1) != hidden_.size(1)) {
    bad_cache(folder_, fmt::format("an LM head [{}, {}] does not fit {} tokens and hidden states of {}", head.size(0),
                                   head.size(1), vocabulary, hidden_.size(1)));
  }
  head_ = head.narrow(0, 0, vocabulary);
}

at::Tensor KnowledgeCache::logits(const at::Tensor& positions, at::Device device) const {
  const at::NoGradGuard no_grad;
  return head_logits(hidden_.index_select(0, positions).to(device, head_.scalar_type()), head_);
}

void KnowledgeCache::require_data(const DistillData& data) const {
  if (sequences_hash(data) == manifest_.value("sequences_sha256", "")) return;
  throw Error(
      ErrorKind::kInput, folder_.string(),
      fmt::format("was made from other token sequences ({} pairs, {} answer tokens, template {}) than this data "
                  "gives ({} pairs, {} answer tokens)",
                  manifest_.value("records", int64_t{0}), manifest_.value("positions", int64_t{0}),
                  manifest_.value("chat_template", "?"), data.records.size(), answer_position_offsets(data).back()),
      "run `potstill teach` on the same pairs with the same --max-sequence-length; teacher and student must "
      "share the chat template");
}

}  // namespace potstill
