#include "potstill/distill/teach.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <optional>

#include "potstill/base/atomic_file.h"
#include "potstill/base/byte_count.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/base/sha256.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/head_loss.h"
#include "potstill/distill/knowledge_cache.h"
#include "potstill/distill/tensor_files.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/hidden_file.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kErrorPositions = 256;  // enough for a mean; the head's products on them cost a second at most
constexpr uint64_t kMegabyte = 1 << 20;
constexpr double kSyncSeconds = 5;  // layers that took longer are synced to the disk, at a small part of their time

at::ScalarType cache_scalar_type(const std::string& name) {
  return name == "fp16" ? at::kHalf : name == "bf16" ? at::kBFloat16 : at::kFloat;
}

std::string boot_id() {
  std::error_code error;
  return fs::exists("/proc/sys/kernel/random/boot_id", error) ? read_file("/proc/sys/kernel/random/boot_id") : "";
}

// Sequences [first, last) of the data, which lie at rows [row, row + tokens) of the corpus.
struct BatchSpan {
  size_t first = 0, last = 0;
  int64_t row = 0, tokens = 0;
};

std::vector<BatchSpan> cut_batches(const std::vector<std::vector<TokenId>>& sequences, int64_t tokens_per_batch) {
  std::vector<BatchSpan> batches;
  int64_t row = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto length = static_cast<int64_t>(sequences[i].size());
    if (batches.empty() || batches.back().tokens + length > tokens_per_batch) {
      batches.push_back({.first = i, .last = i, .row = row});
    }
    batches.back().last = i + 1;
    batches.back().tokens += length;
    row += length;
  }
  return batches;
}

// What a pass keeps resident, in bytes.
struct MemoryPlan {
  uint64_t fixed = 0;      // the program, one layer's weights, the product library's copy of its largest one
  uint64_t per_token = 0;  // of a batch inside a layer
};

MemoryPlan memory_plan(const ModelPackage& teacher, at::ScalarType dtype) {
  const ModelConfig& c = teacher.config;
  uint64_t layer = 0, largest = 0, largest_stored = 0;
  const std::string prefix = "model.layers.0.";
  for (const WeightInfo& info : teacher.weights->weights()) {
    if (!info.name.starts_with(prefix)) continue;
    uint64_t values = 1;
    for (const int64_t size : info.shape) values *= static_cast<uint64_t>(size);
    layer += values * c10::elementSize(dtype);
    largest = std::max(largest, values * c10::elementSize(dtype));
    largest_stored = std::max(largest_stored, values * 4);  // as stored, at most fp32, while it is converted
  }
  const auto element = static_cast<uint64_t>(c10::elementSize(dtype));
  const auto width = static_cast<uint64_t>(c.hidden_size), inner = static_cast<uint64_t>(c.intermediate_size);
  const auto heads = static_cast<uint64_t>(c.q_size() + 2 * c.kv_size());
  // Alive at once in the widest place, the MLP: h, its norm (and an fp32 copy of it), gate, up, their product; in
  // attention q, k, v, each also rotated, and the output.
  return {.fixed = rss_bytes() + layer + largest + largest_stored + 64 * kMegabyte,
          .per_token = element * (4 * width + std::max(3 * inner, 2 * heads + width)) + 8 * width};
}

// Tokens of a batch under the bound.
int64_t fitting_tokens(const ModelPackage& teacher, const TeachConfig& config, at::ScalarType dtype, int64_t longest) {
  if (config.memory.empty()) return config.tokens_per_batch;
  const uint64_t bound = parse_byte_count(config.memory, "memory");
  const MemoryPlan plan = memory_plan(teacher, dtype);
  const uint64_t least = plan.fixed + plan.per_token * static_cast<uint64_t>(longest);
  if (bound < least) {
    throw Error(ErrorKind::kUsage, "memory",
                fmt::format("{} is too little for {}: one layer with the longest pair ({} tokens) takes about {}",
                            config.memory, teacher.path.string(), longest, format_bytes(least)),
                "raise --memory, leave long pairs out with --max-sequence-length, or compute in --dtype bf16");
  }
  // A power of two: a program that is a page larger today still cuts the same batches, and so makes the same bytes.
  const auto tokens = static_cast<int64_t>(std::bit_floor((bound - plan.fixed) / plan.per_token));
  return std::clamp(tokens, longest, std::max(longest, config.tokens_per_batch));
}

// Where a pass stands: layers done, and the side of the file that holds their output.
struct PassState {
  int64_t layers = 0;
  int side = 0;
  int64_t tokens_per_batch = 0;  // as the pass began with: a batch's sums depend on it
};

class TeachPass {
 public:
  TeachPass(const ModelPackage& teacher, const DistillData& data, const TeachConfig& config,
            const LayerStreamOptions& options, const fs::path& work)
      : teacher_(teacher),
        data_(data),
        options_(options),
        sequences_(data.sequences()),
        offsets_(answer_position_offsets(data)),
        work_(work),
        bounded_(!config.memory.empty()) {
    int64_t longest = 0;
    for (const auto& sequence : sequences_) longest = std::max(longest, static_cast<int64_t>(sequence.size()));
    longest_ = longest;
    fs::create_directories(work_);
    key_ = sha256_hex(fmt::format("{} {} {} {}", sequences_hash(data), head_hash(teacher),
                                  teacher.config.num_hidden_layers, at::toString(options.dtype)));
    const auto state = read_state();
    tokens_per_batch_ = state ? state->tokens_per_batch : fitting_tokens(teacher, config, options.dtype, longest);
    batches_ = cut_batches(sequences_, tokens_per_batch_);
    const int64_t rows = batches_.back().row + batches_.back().tokens;
    hidden_ = std::make_unique<HiddenFile>(work_ / "hidden", rows, teacher.config.hidden_size, options.dtype);
    if (state) {
      state_ = *state;
      resumed_at_ = state_.layers;
      if (resumed_at_ > 0) log_info("teach: going on after layer {}", resumed_at_);
    } else {
      embed();
    }
  }

  void run_all_layers() {
    const at::NoGradGuard no_grad;
    const int64_t num_layers = teacher_.config.num_hidden_layers;
    const RotaryTable rotary = make_rotary_table(teacher_.config, longest_, options_.device);
    for (int64_t layer = state_.layers; layer < num_layers; ++layer) {
      if (options_.progress && layer == state_.layers) options_.progress(layer, num_layers);
      const auto start = std::chrono::steady_clock::now();
      {
        const DecoderLayer weights = load_decoder_layer(teacher_, layer, options_.dtype, options_.device);
        for (const BatchSpan& span : batches_) {
          throw_if_interrupted();
          const PackedBatch batch = pack(span);
          const auto h = hidden_->read(state_.side, span.row, span.tokens).to(options_.device);
          hidden_->write(1 - state_.side, span.row, weights.forward(h, batch, rotary, teacher_.config));
        }
      }
      teacher_.weights->forget_pages();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      state_.layers = layer + 1;
      state_.side = 1 - state_.side;
      save_state(seconds > kSyncSeconds);
      if (options_.progress) options_.progress(layer + 1, num_layers);
    }
  }

  // The answer positions after the final norm, batch by batch in the records' order: fp32 [n, D] on the CPU.
  void for_each_answer_block(const std::function<void(const at::Tensor&)>& use) const {
    const at::NoGradGuard no_grad;
    const at::Tensor norm = load_weight(*teacher_.weights, "model.norm.weight", options_.dtype, options_.device);
    for (const BatchSpan& span : batches_) {
      std::vector<int64_t> rows;
      int64_t begin = 0;
      for (size_t i = span.first; i < span.last; ++i) {
        for (const int64_t position : data_.records[i].answer_positions()) rows.push_back(begin + position);
        begin += static_cast<int64_t>(sequences_[i].size());
      }
      const auto h = hidden_->read(state_.side, span.row, span.tokens);
      const auto answers = h.index_select(0, at::tensor(rows, at::kLong)).to(options_.device);
      use(rms_norm(answers, norm, teacher_.config.rms_norm_eps).to(at::kFloat).cpu());
    }
  }

  void remove_files() {
    hidden_->remove();
    fs::remove_all(work_);
  }

  const std::vector<int64_t>& offsets() const { return offsets_; }
  int64_t resumed_at() const { return resumed_at_; }
  int64_t tokens_per_batch() const { return tokens_per_batch_; }

 private:
  PackedBatch pack(const BatchSpan& span) const {
    return pack_sequences(std::span(sequences_).subspan(span.first, span.last - span.first), options_.device);
  }

  void embed() {
    for (const BatchSpan& span : batches_) {
      hidden_->write(0, span.row, embed_batch(teacher_, pack(span), options_));
      if (bounded_) teacher_.weights->forget_pages();
    }
    state_ = {.layers = 0, .side = 0, .tokens_per_batch = tokens_per_batch_};
    save_state(false);
  }

  fs::path state_path() const { return work_ / "state.json"; }

  void save_state(bool synced) {
    if (synced) hidden_->sync(state_.side);
    const nlohmann::json json = {{"work", key_},        {"layers", state_.layers},
                                 {"side", state_.side}, {"tokens_per_batch", state_.tokens_per_batch},
                                 {"synced", synced},    {"boot", boot_id()}};
    write_file_atomically(state_path(), json.dump());
  }

  // Nothing when there is none of this work. After a power cut, files that were not synced may hold anything.
  std::optional<PassState> read_state() const {
    if (!fs::exists(state_path()) || !fs::exists(work_ / "hidden.0") || !fs::exists(work_ / "hidden.1"))
      return std::nullopt;
    const auto json = read_json_file(state_path());
    if (json.value("work", "") != key_) return std::nullopt;
    if (!json.value("synced", false) && json.value("boot", "") != boot_id()) return std::nullopt;
    return PassState{
        .layers = json.at("layers"), .side = json.at("side"), .tokens_per_batch = json.at("tokens_per_batch")};
  }

  const ModelPackage& teacher_;
  const DistillData& data_;
  const LayerStreamOptions& options_;
  const std::vector<std::vector<TokenId>> sequences_;
  const std::vector<int64_t> offsets_;
  const fs::path work_;
  const bool bounded_;
  int64_t longest_ = 0, tokens_per_batch_ = 0, resumed_at_ = 0;
  std::vector<BatchSpan> batches_;
  std::string key_;
  std::unique_ptr<HiddenFile> hidden_;
  PassState state_;
};

// Rows of the head in blocks, so that a head larger than the memory bound is never whole: logits fp32 [n, vocabulary].
at::Tensor streamed_logits(const at::Tensor& hidden, const ModelPackage& teacher, int64_t vocabulary) {
  const std::string name = head_name(teacher);
  const int64_t width = hidden.size(1);
  const int64_t block = std::clamp<int64_t>(static_cast<int64_t>(16 * kMegabyte) / (4 * width), 1, vocabulary);
  at::Tensor logits = at::empty({hidden.size(0), vocabulary}, at::kFloat);
  at::Tensor rows = at::empty({block, width}, at::kFloat);
  for (int64_t begin = 0; begin < vocabulary; begin += block) {
    const int64_t count = std::min(block, vocabulary - begin);
    teacher.weights->read_rows(name, begin, count,
                               {rows.mutable_data_ptr<float>(), static_cast<size_t>(count * width)});
    logits.narrow(1, begin, count).copy_(head_logits(hidden, rows.narrow(0, 0, count)));
    teacher.weights->forget_pages();
  }
  return logits;
}

CacheError storage_error(const at::Tensor& exact, const at::Tensor& stored, const ModelPackage& teacher) {
  CacheError error{.positions = exact.size(0)};
  const int64_t vocabulary = real_vocabulary(teacher);
  const auto a = streamed_logits(exact, teacher, vocabulary), b = streamed_logits(stored, teacher, vocabulary);
  double squares = 0;
  constexpr int64_t kRows = 8;  // 8 × 128,256 logits in double: 8 MB
  for (int64_t begin = 0; begin < exact.size(0); begin += kRows) {
    const int64_t count = std::min(kRows, exact.size(0) - begin);
    const auto x = a.narrow(0, begin, count), y = b.narrow(0, begin, count);
    error.max_logit = std::max(error.max_logit, (x - y).abs().max().item<double>());
    squares += (x - y).square().mean(at::kDouble).item<double>() * static_cast<double>(count);
    const auto log_p = at::log_softmax(x.to(at::kDouble), 1), log_q = at::log_softmax(y.to(at::kDouble), 1);
    error.kl += (log_p.exp() * (log_p - log_q)).sum().item<double>();
  }
  const auto positions = static_cast<double>(error.positions);
  error.rms_logit = std::sqrt(squares / positions);
  error.kl /= positions;
  return error;
}

// Positions spread over the data, on which the storage error is measured: two fp32 rows of the vocabulary for each.
std::vector<int64_t> error_positions(int64_t positions, int64_t vocabulary, const TeachConfig& config) {
  int64_t count = std::min(kErrorPositions, positions);
  if (!config.memory.empty()) {
    const uint64_t bound = parse_byte_count(config.memory, "memory"), used = rss_bytes();
    const uint64_t room = bound > used ? (bound - used) / 4 : 0;
    count = std::min(count, std::max<int64_t>(4, static_cast<int64_t>(room / (8 * static_cast<uint64_t>(vocabulary)))));
  }
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < count; ++i) {
    chosen.push_back(count == 1 ? 0
                                : std::llround(static_cast<double>(i) * static_cast<double>(positions - 1) /
                                               static_cast<double>(count - 1)));
  }
  return chosen;
}

void copy_head(const ModelPackage& teacher, at::ScalarType dtype, const fs::path& path) {
  const std::string name = head_name(teacher);
  const int64_t rows = real_vocabulary(teacher), width = teacher.config.hidden_size;
  SafetensorsWriter writer(path, {{"lm_head", dtype_of(dtype), {rows, width}}});
  const int64_t block = std::max<int64_t>(1, static_cast<int64_t>(16 * kMegabyte) / (4 * width));
  for (int64_t begin = 0; begin < rows; begin += block) {
    at::Tensor part = at::empty({std::min(block, rows - begin), width}, at::kFloat);
    teacher.weights->read_rows(name, begin, part.size(0),
                               {part.mutable_data_ptr<float>(), static_cast<size_t>(part.numel())});
    writer.append("lm_head", view_of_tensor("lm_head", part.to(dtype)).bytes);
    teacher.weights->forget_pages();
  }
  writer.finish();
}

}  // namespace

CacheReport write_knowledge_cache(const ModelPackage& teacher, const DistillData& data, const TeachConfig& config,
                                  const LayerStreamOptions& options, const fs::path& folder, const fs::path& work) {
  const at::NoGradGuard no_grad;
  TeachPass pass(teacher, data, config, options, work.empty() ? folder / "work" : work);
  pass.run_all_layers();

  const int64_t positions = pass.offsets().back(), width = teacher.config.hidden_size;
  const at::ScalarType dtype = cache_scalar_type(config.cache_dtype);
  const auto probes = error_positions(positions, real_vocabulary(teacher), config);
  std::vector<at::Tensor> exact;
  int64_t written = 0;
  size_t next_probe = 0;
  SafetensorsWriter writer(folder / "hidden.safetensors", {{"hidden", dtype_of(dtype), {positions, width}}});
  pass.for_each_answer_block([&](const at::Tensor& rows) {
    const at::Tensor stored = rows.to(dtype);
    if (!stored.isfinite().all().item<bool>()) {
      throw Error(ErrorKind::kNumeric, teacher.path.string(),
                  fmt::format("hidden states of up to {:.3g} do not fit {}, or are not finite themselves",
                              rows.abs().max().item<double>(), config.cache_dtype),
                  "keep them in bf16 or fp32: --cache-dtype");
    }
    for (; next_probe < probes.size() && probes[next_probe] < written + rows.size(0); ++next_probe) {
      exact.push_back(rows[probes[next_probe] - written].clone());
    }
    writer.append("hidden", view_of_tensor("hidden", stored).bytes);
    written += rows.size(0);
  });
  writer.finish();

  CacheReport report{.records = static_cast<int64_t>(data.records.size()),
                     .positions = positions,
                     .bytes = static_cast<uint64_t>(positions * width) * c10::elementSize(dtype),
                     .resumed_at = pass.resumed_at(),
                     .tokens_per_batch = pass.tokens_per_batch(),
                     .error = {}};
  for (const auto& record : data.records) report.tokens += static_cast<int64_t>(record.tokens.size());
  const at::Tensor probe_rows = at::stack(exact);
  report.error = storage_error(probe_rows, probe_rows.to(dtype).to(at::kFloat), teacher);
  if (config.copy_head) copy_head(teacher, dtype, folder / "lm_head.safetensors");
  write_knowledge_manifest(folder,
                           {{"kind", "exact"},
                            {"teacher", fs::absolute(teacher.path).lexically_normal().string()},
                            {"teacher_head_sha256", head_hash(teacher)},
                            {"hidden_size", width},
                            {"vocabulary", real_vocabulary(teacher)},
                            {"dtype", config.cache_dtype},
                            {"head", config.copy_head ? "copied" : "teacher"},
                            {"storage_error",
                             {{"max_logit", report.error.max_logit},
                              {"rms_logit", report.error.rms_logit},
                              {"kl", report.error.kl},
                              {"positions", report.error.positions}}}},
                           data, *teacher.tokenizer, teacher.chat_template);
  pass.remove_files();
  return report;
}

}  // namespace potstill
