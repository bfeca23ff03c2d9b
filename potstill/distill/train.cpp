#include "potstill/distill/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/rng.h"
#include "potstill/base/sha256.h"
#include "potstill/distill/batches.h"
#include "potstill/distill/checkpoint.h"
#include "potstill/distill/kl_loss.h"
#include "potstill/distill/knowledge_cache.h"
#include "potstill/optim/adamw.h"
#include "potstill/optim/muon.h"
#include "potstill/optim/schedule.h"

namespace potstill {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::unique_ptr<Optimizer> make_optimizer(const DistillConfig& config, std::vector<at::Tensor> parameters) {
  if (config.optimizer == "adamw") {
    return std::make_unique<AdamW>(
        std::move(parameters),
        AdamWOptions{.beta1 = config.beta1, .beta2 = config.beta2, .weight_decay = config.weight_decay});
  }
  return std::make_unique<Muon>(std::move(parameters), MuonOptions{.momentum = config.momentum,
                                                                   .weight_decay = config.weight_decay,
                                                                   .scale = parse_muon_scale(config.muon_scale)});
}

CosineSchedule make_schedule(const DistillConfig& config, int64_t num_steps) {
  const auto warmup = static_cast<int64_t>(std::ceil(config.warmup_ratio * static_cast<double>(num_steps)));
  return {.peak = config.peak_lr(),
          .min_ratio = config.min_lr_ratio,
          .warmup_steps = std::min(warmup, num_steps),
          .num_steps = num_steps};
}

nlohmann::json to_json(const Agreement& a) {
  return {{"kl", a.kl}, {"top1", a.top1}, {"ce", a.ce}, {"teacher_ce", a.teacher_ce}, {"tokens", a.tokens}};
}
Agreement agreement_from_json(const nlohmann::json& j) {
  return {.kl = j.at("kl"),
          .top1 = j.at("top1"),
          .ce = j.at("ce"),
          .teacher_ce = j.at("teacher_ce"),
          .tokens = j.at("tokens")};
}

TrainStep step_from_json(const nlohmann::json& j) {
  return {.step = j.at("step"),
          .num_steps = j.at("num_steps"),
          .loss = j.at("loss"),
          .kl = j.at("kl"),
          .ce = j.at("ce"),
          .lr = j.at("lr"),
          .grad_norm = j.at("grad_norm"),
          .update_rms = j.at("update_rms"),
          .tokens = j.at("tokens"),
          .answer_tokens = j.at("answer_tokens"),
          .seconds = j.at("seconds")};
}

// The state of one run and its parts: forward and backward of a step, the optimizer's step, measuring, saving.
class Run {
 public:
  Run(Transformer student, const TeacherSignal& teacher, const DistillData& data, const DistillConfig& config,
      uint64_t seed, const TrainHooks& hooks, const std::filesystem::path& checkpoint_folder)
      : student_(std::move(student)),
        teacher_(teacher),
        data_(data),
        config_(config),
        seed_(seed),
        hooks_(hooks),
        checkpoint_folder_(checkpoint_folder),
        offsets_(answer_position_offsets(data)),
        plan_(plan_steps(data.train, config.epochs, config.batch_size, seed)),
        schedule_(make_schedule(config, static_cast<int64_t>(plan_.size()))),
        vocab_limit_(std::min(teacher.vocab_limit(), student_.lm_head.size(0))) {
    if (teacher.num_positions() != offsets_.back()) {
      throw Error(
          ErrorKind::kInput, teacher.where(),
          fmt::format("holds {} answer positions but the data has {}", teacher.num_positions(), offsets_.back()),
          "make the cache from this very data");
    }
    if (plan_.empty()) throw Error(ErrorKind::kInput, "train", "no pair is left to train on", "lower --held-out");
    adapter_ = attach_lora(student_,
                           {.r = config.rank,
                            .lora_alpha = config.lora_alpha,
                            .lora_dropout = config.lora_dropout,
                            .use_rslora = config.use_rslora,
                            .target_modules = config.target_modules},
                           seed);
    parameters_ = lora_parameters(adapter_);
    optimizer_ = make_optimizer(config, parameters_);
  }

  TrainResult run() {
    if (hooks_.on_start) hooks_.on_start(adapter_);
    restore();
    while (done_ < static_cast<int64_t>(plan_.size()) && !stopped_) {
      take_step();
      const bool last = done_ == static_cast<int64_t>(plan_.size());
      if (last || (config_.eval_every > 0 && done_ % config_.eval_every == 0)) measure();
      const bool interrupted = interrupt_requested();
      const bool due = config_.checkpoint_every > 0 && done_ % config_.checkpoint_every == 0 && !last;
      if (!checkpoint_folder_.empty() && (due || interrupted)) save();
      if (!last) throw_if_interrupted();
    }
    return result();
  }

 private:
  // Loss and gradients of the pairs of one step, cut into packed batches that fit the token budget.
  KlLossSums accumulate_gradients(std::span<const int64_t> records, TrainStep& log) {
    const KlLossOptions options{.alpha = config_.alpha,
                                .temperature = config_.temperature,
                                .vocab_limit = vocab_limit_,
                                .rows = config_.loss_rows};
    for (const int64_t record : records) {
      const auto index = static_cast<size_t>(record);
      log.answer_tokens += offsets_[index + 1] - offsets_[index];
    }
    KlLossSums sums;
    const auto batches = make_answer_batches(data_, offsets_, records, config_.tokens_per_batch, student_.device());
    for (size_t b = 0; b < batches.size(); ++b) {
      const AnswerBatch& batch = batches[b];
      set_dropout_seeds(b);
      const auto rows = student_.hidden_states(batch.packed).index_select(0, batch.rows);
      const TeacherLogits teacher = [&](int64_t begin, int64_t end) {
        return teacher_.logits(batch.positions.narrow(0, begin, end - begin), student_.device())
            .narrow(1, 0, vocab_limit_);
      };
      at::Tensor gradient;
      sums += kl_loss(rows.detach(), student_.lm_head, batch.labels, teacher, options,
                      1.0 / static_cast<double>(log.answer_tokens), &gradient);
      if (!std::isfinite(sums.loss)) fail("the loss is not finite", records);
      rows.backward(gradient);
      log.tokens += batch.packed.num_tokens();
    }
    return sums;
  }

  void set_dropout_seeds(size_t batch) {
    if (config_.lora_dropout == 0) return;
    const uint64_t seed = derive_seed(seed_, fmt::format("distill/dropout/{}/{}", done_, batch));
    for (const auto& entry : adapter_.entries) entry.pair->dropout_seed = derive_seed(seed, entry.path);
  }

  void take_step() {
    const auto start = Clock::now();
    const auto& records = plan_[static_cast<size_t>(done_)];
    TrainStep log{.step = done_ + 1, .num_steps = static_cast<int64_t>(plan_.size()), .lr = schedule_.lr(done_)};
    zero_grad(parameters_);
    const KlLossSums sums = accumulate_gradients(records, log);
    const auto count = static_cast<double>(log.answer_tokens);
    log.loss = sums.loss / count;
    log.kl = sums.kl / count;
    log.ce = sums.ce / count;
    log.grad_norm = clip_grad_norm(parameters_, config_.max_grad_norm);
    if (!std::isfinite(log.grad_norm)) fail("the gradient is not finite", records);
    optimizer_->step(log.lr);
    log.update_rms = optimizer_->update_rms();
    log.seconds = seconds_since(start);
    ++done_;
    steps_.push_back(log);
    check_divergence(records);
    if (hooks_.on_step) hooks_.on_step(log);
  }

  // The smoothed loss, far above its own lowest: single steps scatter with the few answer tokens that they hold.
  void check_divergence(std::span<const int64_t> records) {
    smoothed_ = done_ == 1 ? steps_.back().loss : 0.8 * smoothed_ + 0.2 * steps_.back().loss;
    lowest_ = done_ == 1 ? smoothed_ : std::min(lowest_, smoothed_);
    if (smoothed_ <= 3 * std::max(lowest_, 0.1 * steps_.front().loss) || smoothed_ <= steps_.front().loss) return;
    fail(fmt::format("training diverges: the loss rose to {:.3g} (smoothed) from {:.3g}", smoothed_, lowest_), records);
  }

  [[noreturn]] void fail(std::string_view what, std::span<const int64_t> records) const {
    std::vector<int64_t> lines;
    for (const int64_t record : records) lines.push_back(data_.records[static_cast<size_t>(record)].line);
    throw Error(ErrorKind::kNumeric, "train",
                fmt::format("{} at step {} of {} (learning rate {:.3g}; pairs of lines {})", what,
                            std::min<int64_t>(done_ + 1, static_cast<int64_t>(plan_.size())), plan_.size(),
                            schedule_.lr(done_), fmt::join(lines, ", ")),
                "try a tenth of the learning rate, or a longer warm-up");
  }

  void measure() {
    if (data_.held_out.empty()) return;
    held_out_ =
        measure_agreement(student_, teacher_, data_, data_.held_out, config_.tokens_per_batch, config_.loss_rows);
    evals_.push_back({{"step", done_}, {"held_out", to_json(held_out_)}});
    if (hooks_.on_eval && !hooks_.on_eval(done_, held_out_)) stopped_ = true;
  }

  // What must be the same for a checkpoint to be of this run.
  std::string work_hash() const {
    auto settings = config_to_json(config_);
    settings.erase("checkpoint_every");
    return sha256_hex(fmt::format("{} {} {} {} {} {}", settings.dump(), seed_, sequences_hash(data_),
                                  fmt::join(data_.train, ","), teacher_.where(), at::toString(student_.dtype())));
  }

  void save() const {
    TrainCheckpoint checkpoint{.work = work_hash(), .state = {{"done", done_}}, .tensors = optimizer_->state()};
    for (const auto& [path, pair] : adapter_.entries) {
      checkpoint.tensors.push_back({path + ".lora_A.weight", pair->a});
      checkpoint.tensors.push_back({path + ".lora_B.weight", pair->b});
    }
    auto& steps = checkpoint.state["steps"] = nlohmann::json::array();
    for (const TrainStep& step : steps_) steps.push_back(nlohmann::json(to_json(step)));
    checkpoint.state["evals"] = evals_;
    checkpoint.state["smoothed"] = smoothed_;
    checkpoint.state["lowest"] = lowest_;
    save_checkpoint(checkpoint_folder_, checkpoint);
  }

  // Goes on from a checkpoint of this very run; the hooks hear of its steps and measurements again.
  void restore() {
    if (checkpoint_folder_.empty()) return;
    auto checkpoint = load_checkpoint(checkpoint_folder_, work_hash());
    if (!checkpoint) return;
    const at::NoGradGuard no_grad;
    const auto take = [&](const std::string& name, at::Tensor& target) {
      const auto found = std::ranges::find(checkpoint->tensors, name, &NamedTensor::name);
      if (found == checkpoint->tensors.end() || found->tensor.sizes() != target.sizes()) {
        throw Error(ErrorKind::kFormat, checkpoint_folder_.string(), fmt::format("the checkpoint lacks '{}'", name),
                    "delete it to start afresh");
      }
      target.copy_(found->tensor);
      checkpoint->tensors.erase(found);
    };
    for (const auto& [path, pair] : adapter_.entries) {
      take(path + ".lora_A.weight", pair->a);
      take(path + ".lora_B.weight", pair->b);
    }
    optimizer_->load_state(checkpoint->tensors, checkpoint_folder_.string());
    done_ = checkpoint->state.at("done");
    smoothed_ = checkpoint->state.at("smoothed");
    lowest_ = checkpoint->state.at("lowest");
    evals_ = checkpoint->state.at("evals");
    for (const auto& step : checkpoint->state.at("steps")) {
      steps_.push_back(step_from_json(step));
      if (hooks_.on_step) hooks_.on_step(steps_.back());
    }
    for (const auto& eval : evals_) {
      held_out_ = agreement_from_json(eval.at("held_out"));
      if (hooks_.on_eval && !hooks_.on_eval(eval.at("step"), held_out_)) stopped_ = true;
    }
  }

  TrainResult result() {
    TrainResult result{.student = student_, .adapter = adapter_, .held_out = held_out_, .steps = done_};
    result.stopped_early = stopped_ && done_ < static_cast<int64_t>(plan_.size());
    const size_t tail = std::max<size_t>(1, steps_.size() / 10);
    double seconds = 0, tokens = 0;
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (i + tail >= steps_.size()) result.final_loss += steps_[i].loss / static_cast<double>(tail);
      seconds += steps_[i].seconds;
      tokens += static_cast<double>(steps_[i].tokens);
    }
    result.tokens_per_s = seconds > 0 ? tokens / seconds : 0;
    zero_grad(parameters_);
    return result;
  }

  Transformer student_;
  const TeacherSignal& teacher_;
  const DistillData& data_;
  const DistillConfig config_;
  const uint64_t seed_;
  const TrainHooks& hooks_;
  const std::filesystem::path checkpoint_folder_;
  const std::vector<int64_t> offsets_;            // of answer positions, by record
  const std::vector<std::vector<int64_t>> plan_;  // records of each step
  const CosineSchedule schedule_;
  const int64_t vocab_limit_;

  LoraAdapter adapter_;
  std::vector<at::Tensor> parameters_;
  std::unique_ptr<Optimizer> optimizer_;
  int64_t done_ = 0;
  bool stopped_ = false;
  std::vector<TrainStep> steps_;
  nlohmann::json evals_ = nlohmann::json::array();
  Agreement held_out_;
  double smoothed_ = 0, lowest_ = 0;
};

}  // namespace

nlohmann::ordered_json to_json(const TrainStep& step) {
  return {{"step", step.step},
          {"num_steps", step.num_steps},
          {"loss", step.loss},
          {"kl", step.kl},
          {"ce", step.ce},
          {"lr", step.lr},
          {"grad_norm", step.grad_norm},
          {"update_rms", step.update_rms},
          {"tokens", step.tokens},
          {"answer_tokens", step.answer_tokens},
          {"seconds", step.seconds},
          {"tokens_per_s", step.seconds > 0 ? static_cast<double>(step.tokens) / step.seconds : 0.0}};
}

double DistillConfig::peak_lr() const {
  if (lr > 0) return lr;
  if (optimizer == "adamw") return 5e-4;
  switch (parse_muon_scale(muon_scale)) {
    case MuonScale::kOriginal:
      return 0.02;
    case MuonScale::kMatchRmsAdamw:
      return 2e-3;
    case MuonScale::kSpectralUnclamped:
      return 0.02;
  }
  return lr;
}

int64_t num_train_steps(const DistillConfig& config, int64_t train_pairs) {
  std::vector<int64_t> pairs(static_cast<size_t>(train_pairs));
  return static_cast<int64_t>(plan_steps(pairs, config.epochs, config.batch_size, 0).size());
}

TrainResult train_lora(Transformer student, const TeacherSignal& teacher, const DistillData& data,
                       const DistillConfig& config, uint64_t seed, const TrainHooks& hooks,
                       const std::filesystem::path& checkpoint_folder) {
  check_config(config, "distill");
  return Run(std::move(student), teacher, data, config, seed, hooks, checkpoint_folder).run();
}

}  // namespace potstill
