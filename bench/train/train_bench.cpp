// One training run of potstill, timed step by step; bench/train/compare.py runs it beside PyTorch + PEFT and TRL.
//   train_bench --student DIR --teacher MODEL --mode same --dtype fp32 --steps 8 --out DIR
//   train_bench … --mode used --pairs D_gen.jsonl
// same: 8 × 128 random tokens a step, KL on every position, the teacher computed in every step: the peers' arithmetic.
// used: the pairs as they are, on the teacher's cached knowledge.
// Writes records.json (the token ids, step by step) and adapter/ (the initial factors, PEFT) for the peers into --out,
// and prints one JSON line.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>

#include "potstill/base/atomic_file.h"
#include "potstill/base/machine.h"
#include "potstill/base/rng.h"
#include "potstill/distill/batches.h"
#include "potstill/distill/knowledge_cache.h"
#include "potstill/distill/teach.h"
#include "potstill/distill/train.h"
#include "potstill/lm/model_package.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string student, teacher, pairs, mode = "same", dtype = "fp32", optimizer = "adamw", out;
  int64_t steps = 8, batch_size = 8, length = 128, tokens_per_batch = 2048, loss_rows = 128;
  double lr = 1e-3;
};

// Runs the teacher over each step's pairs when the loss first asks for one of them: nothing is kept between steps.
class LiveTeacher final : public ExactSignal {
 public:
  LiveTeacher(const Transformer& model, const DistillData& data, std::vector<std::vector<int64_t>> plan)
      : model_(model), data_(data), offsets_(answer_position_offsets(data)), plan_(std::move(plan)) {
    row_of_.assign(static_cast<size_t>(num_positions()), -1);
  }
  int64_t num_positions() const override { return offsets_.back(); }
  int64_t vocab_limit() const override { return model_.lm_head.size(0); }
  std::string where() const override { return "live teacher"; }
  at::Tensor logits(const at::Tensor& positions, at::Device) const override {
    const at::NoGradGuard no_grad;
    const int64_t* position = positions.const_data_ptr<int64_t>();
    if (row_of_[static_cast<size_t>(*position)] < 0) run_next_step();
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < positions.size(0); ++i) rows.push_back(row_of_[static_cast<size_t>(position[i])]);
    return model_.logits(hidden_.index_select(0, at::tensor(rows, at::kLong)));
  }

 private:
  void run_next_step() const {
    std::ranges::fill(row_of_, int64_t{-1});
    std::vector<at::Tensor> hidden;
    int64_t row = 0;
    for (const auto& batch : make_answer_batches(data_, offsets_, plan_[step_++], 2048, at::kCPU)) {
      hidden.push_back(model_.hidden_states(batch.packed).index_select(0, batch.rows));
      for (int64_t i = 0; i < batch.positions.size(0); ++i) {
        row_of_[static_cast<size_t>(batch.positions[i].item<int64_t>())] = row++;
      }
    }
    hidden_ = at::cat(hidden);
  }
  const Transformer& model_;
  const DistillData& data_;
  std::vector<int64_t> offsets_;
  std::vector<std::vector<int64_t>> plan_;
  mutable size_t step_ = 0;
  mutable at::Tensor hidden_;
  mutable std::vector<int64_t> row_of_;
};

DistillData random_pairs(int64_t count, int64_t length, int64_t vocabulary) {
  Rng rng(1, "bench/train");
  DistillData data;
  for (int64_t i = 0; i < count; ++i) {
    DistillRecord record;
    for (int64_t t = 0; t < length; ++t) {
      record.tokens.push_back(static_cast<TokenId>(rng.below(static_cast<uint64_t>(vocabulary))));
    }
    record.is_answer.assign(static_cast<size_t>(length), 1);
    record.is_answer.front() = 0;
    data.train.push_back(i);
    data.records.push_back(std::move(record));
  }
  return data;
}

nlohmann::json steps_of(const DistillData& data, const std::vector<std::vector<int64_t>>& plan) {
  nlohmann::json steps = nlohmann::json::array();
  for (const auto& step : plan) {
    auto& records = steps.emplace_back(nlohmann::json::array());
    for (const int64_t index : step) {
      const auto& record = data.records[static_cast<size_t>(index)];
      records.push_back({{"tokens", record.tokens}, {"is_answer", record.is_answer}});
    }
  }
  return steps;
}

double megabytes_peak() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

void run(const Options& o) {
  const ModelPackage package = open_model(o.student), teacher_package = open_model(o.teacher);
  const auto type = compute_dtype(o.dtype, at::kCPU);
  DistillConfig config;
  config.alpha = 1;
  config.temperature = 2;
  config.rank = 16;
  config.lora_alpha = 32;
  config.optimizer = o.optimizer;
  config.lr = o.lr;
  config.weight_decay = 0;
  config.warmup_ratio = 0;
  config.min_lr_ratio = 1;
  config.max_grad_norm = 0;
  config.batch_size = o.batch_size;
  config.tokens_per_batch = o.tokens_per_batch;
  config.loss_rows = o.loss_rows;
  config.checkpoint_every = 0;
  constexpr uint64_t kSeed = 1;
  DistillData data;
  if (o.mode == "same") {
    data = random_pairs(o.steps * o.batch_size, o.length, package.config.vocab_size);
  } else {
    data = load_distill_data(o.pairs, *package.tokenizer, package.chat_template, {.held_out = 0}, kSeed);
    config.epochs = static_cast<double>(o.steps * o.batch_size) / static_cast<double>(data.train.size());
  }
  const auto plan = plan_steps(data.train, config.epochs, config.batch_size, kSeed);
  fs::create_directories(o.out);
  write_file_atomically(fs::path(o.out) / "records.json", steps_of(data, plan).dump());

  std::unique_ptr<TeacherSignal> teacher;
  Transformer live;
  double teach_seconds = 0;
  if (o.mode == "same") {
    live = load_transformer(teacher_package, type, at::kCPU);
    teacher = std::make_unique<LiveTeacher>(live, data, plan);
  } else {
    const auto start = std::chrono::steady_clock::now();
    const fs::path cache = fs::path(o.out) / "knowledge";
    fs::create_directories(cache);
    LayerStreamOptions stream;
    stream.dtype = type;
    write_knowledge_cache(teacher_package, data, {}, stream, cache);
    teacher = std::make_unique<KnowledgeCache>(cache, type, at::kCPU);
    teach_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  std::vector<TrainStep> steps;
  TrainHooks hooks;
  hooks.on_start = [&](LoraAdapter& adapter) { save_adapter(adapter, o.student, fs::path(o.out) / "adapter"); };
  hooks.on_step = [&](const TrainStep& step) { steps.push_back(step); };
  train_lora(load_transformer(package, type, at::kCPU), *teacher, data, config, kSeed, hooks);

  nlohmann::ordered_json line = {{"who", "potstill"}, {"mode", o.mode}, {"dtype", o.dtype}};
  std::vector<double> speeds;
  for (const auto& step : steps) {
    line["loss"].push_back(step.loss);
    if (step.step > 2) speeds.push_back(static_cast<double>(step.tokens) / step.seconds);
    line["optimizer_share"].push_back(step.optimizer_seconds / step.seconds);
  }
  std::ranges::sort(speeds);
  line["tokens_per_s"] = speeds.empty() ? 0 : speeds[speeds.size() / 2];
  line["teach_seconds"] = teach_seconds;
  line["peak_mb"] = megabytes_peak();
  fmt::print("{}\n", line.dump());
}

}  // namespace
}  // namespace potstill

int main(int argc, char** argv) {
  CLI::App app("One timed training run");
  potstill::Options o;
  app.add_option("--student", o.student)->required();
  app.add_option("--teacher", o.teacher)->required();
  app.add_option("--pairs", o.pairs);
  app.add_option("--mode", o.mode)->check(CLI::IsMember({"same", "used"}));
  app.add_option("--dtype", o.dtype);
  app.add_option("--optimizer", o.optimizer);
  app.add_option("--lr", o.lr);
  app.add_option("--steps", o.steps);
  app.add_option("--batch-size", o.batch_size);
  app.add_option("--tokens-per-batch", o.tokens_per_batch);
  app.add_option("--loss-rows", o.loss_rows);
  app.add_option("--out", o.out)->required();
  CLI11_PARSE(app, argc, argv);
  potstill::keep_freed_memory();
  potstill::run(o);
  return 0;
}
