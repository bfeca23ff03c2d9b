#include "potstill/distill/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/base/sha256.h"
#include "potstill/distill/batches.h"
#include "potstill/distill/checkpoint.h"
#include "potstill/distill/kl_loss.h"
#include "potstill/distill/knowledge_cache.h"
#include "potstill/optim/adamw.h"
#include "potstill/optim/lora_muon.h"
#include "potstill/optim/muon.h"
#include "potstill/optim/schedule.h"

namespace potstill {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, const DistillConfig& config,
                                          std::vector<at::Tensor> parameters) {
  if (name == "adamw") {
    return std::make_unique<AdamW>(
        std::move(parameters),
        AdamWOptions{.beta1 = config.beta1, .beta2 = config.beta2, .weight_decay = config.weight_decay});
  }
  if (name == "lora-muon") {
    return std::make_unique<LoraMuon>(
        std::move(parameters), LoraMuonOptions{.momentum = config.momentum, .weight_decay = config.weight_decay});
  }
  return std::make_unique<Muon>(std::move(parameters), MuonOptions{.momentum = config.momentum,
                                                                   .weight_decay = config.weight_decay,
                                                                   .scale = parse_muon_scale(config.muon_scale)});
}

// Peak 1: a phase's own rate is multiplied in.
CosineSchedule make_schedule(const DistillConfig& config, int64_t num_steps) {
  const auto warmup = static_cast<int64_t>(std::ceil(config.warmup_ratio * static_cast<double>(num_steps)));
  return {
      .peak = 1, .min_ratio = config.min_lr_ratio, .warmup_steps = std::min(warmup, num_steps), .num_steps = num_steps};
}

// Thrown where the run cannot go on as it is; caught in run(), which may go back.
struct Diverged {
  std::string what;
};

constexpr int kMostRetries = 2;
constexpr const char* kGood = "good/";  // before the names of a checkpoint's tensors that are the last good step's

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
    phases_ = optimizer_phases(config.optimizer);
    enter_phase();
  }

  TrainResult run() {
    if (hooks_.on_start) hooks_.on_start(adapter_);
    restore();
    if (good_.tensors.empty()) keep_good();  // for a first step that is not finite
    while (done_ < static_cast<int64_t>(plan_.size()) && !stopped_) {
      try {
        take_step();
      } catch (const Diverged& diverged) {
        go_back(diverged.what);
        continue;
      }
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
    const KlLossOptions options{.divergence = parse_divergence(config_.divergence),
                                .jsd_beta = config_.jsd_beta,
                                .alpha = config_.alpha,
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
      if (!std::isfinite(sums.loss)) throw Diverged{"the loss is not finite"};
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
    TrainStep log{.step = done_ + 1, .num_steps = static_cast<int64_t>(plan_.size())};
    enter_phase();
    log.lr = lr();
    zero_grad(parameters_);
    const KlLossSums sums = accumulate_gradients(records, log);
    const auto count = static_cast<double>(log.answer_tokens);
    log.loss = sums.loss / count;
    log.kl = sums.kl / count;
    log.ce = sums.ce / count;
    log.grad_norm = clip_grad_norm(parameters_, config_.max_grad_norm);
    if (!std::isfinite(log.grad_norm)) throw Diverged{"the gradient is not finite"};
    watch(log.loss);
    const auto optimizer_start = Clock::now();
    optimizer_->step(log.lr);
    log.optimizer_seconds = seconds_since(optimizer_start);
    log.update_rms = optimizer_->update_rms();
    log.seconds = seconds_since(start);
    steps_.push_back(log);
    ++done_;
    if (hooks_.on_step) hooks_.on_step(log);
  }

  // The optimizer of the step at hand; its state begins at zero where its phase begins.
  void enter_phase() {
    const auto steps = static_cast<double>(plan_.size());
    size_t now = 0;
    while (now + 1 < phases_.size() && static_cast<double>(done_) >= phases_[now].until * steps - 1e-9) ++now;
    if (optimizer_ && now == phase_) return;
    phase_ = now;
    optimizer_ = make_optimizer(phases_[now].optimizer, config_, parameters_);
  }

  // The optimizer that took the last step, whose state a checkpoint holds.
  void restore_phase() {
    const int64_t steps = done_;
    done_ = std::max<int64_t>(0, steps - 1);
    enter_phase();
    done_ = steps;
  }

  double lr() const { return schedule_.lr(done_) * lr_factor_ * config_.peak_lr(phases_[phase_].optimizer); }

  // Where a diverged run goes on from: the step at hand.
  void keep_good() {
    good_ = {.work = {},
             .state = {{"done", done_}, {"smoothed", smoothed_}, {"lowest", lowest_}, {"steps", steps_.size()}},
             .tensors = current_tensors()};
    for (auto& [name, tensor] : good_.tensors) tensor = tensor.detach().clone();
  }

  void go_back(const std::string& what) {
    const auto& records = plan_[static_cast<size_t>(done_)];
    if (config_.on_divergence != "retry" || retries_ == kMostRetries) fail(what, records);
    ++retries_;
    lr_factor_ /= 10;
    const int64_t from = done_;
    zero_grad(parameters_);
    done_ = good_.state.at("done");
    smoothed_ = good_.state.at("smoothed");
    lowest_ = good_.state.at("lowest");
    steps_.resize(good_.state.at("steps"));
    while (!evals_.empty() && evals_.back().at("step").get<int64_t>() > done_) evals_.erase(evals_.size() - 1);
    optimizer_ = nullptr;
    enter_phase();
    auto tensors = good_.tensors;
    take_tensors(tensors);
    log_warning("train: {} at step {} of {}: going on from step {} at {:.3g} times the learning rate", what, from + 1,
                plan_.size(), done_, lr_factor_);
  }

  // Factors, then the optimizer's state.
  std::vector<NamedTensor> current_tensors() const {
    std::vector<NamedTensor> tensors = optimizer_->state();
    for (const auto& [path, pair] : adapter_.entries) {
      tensors.push_back({path + ".lora_A.weight", pair->a});
      tensors.push_back({path + ".lora_B.weight", pair->b});
    }
    return tensors;
  }

  void take_tensors(std::vector<NamedTensor>& tensors) {
    const at::NoGradGuard no_grad;
    const auto take = [&](const std::string& name, at::Tensor& target) {
      const auto found = std::ranges::find(tensors, name, &NamedTensor::name);
      if (found == tensors.end() || found->tensor.sizes() != target.sizes()) {
        throw Error(ErrorKind::kFormat, checkpoint_folder_.string(), fmt::format("the checkpoint lacks '{}'", name),
                    "delete it to start afresh");
      }
      target.copy_(found->tensor);
      tensors.erase(found);
    };
    for (const auto& [path, pair] : adapter_.entries) {
      take(path + ".lora_A.weight", pair->a);
      take(path + ".lora_B.weight", pair->b);
    }
    optimizer_->load_state(tensors, checkpoint_folder_.string());
  }

  // The loss of the step at hand, before it changes anything: keeps what it was computed from where it is the lowest so
  // far, and throws where it is far above that. Smoothed: single steps scatter with the few answer tokens that they
  // hold.
  void watch(double loss) {
    const double first = done_ == 0 ? loss : steps_.front().loss;
    const double smoothed = done_ == 0 ? loss : 0.8 * smoothed_ + 0.2 * loss;
    if (done_ > 0 && smoothed > 3 * std::max(lowest_, 0.1 * first) && smoothed > first) {
      throw Diverged{
          fmt::format("training diverges: the loss rose to {:.3g} (smoothed) from {:.3g}", smoothed, lowest_)};
    }
    if (done_ == 0 || smoothed <= lowest_) keep_good();
    smoothed_ = smoothed;
    lowest_ = done_ == 0 ? smoothed : std::min(lowest_, smoothed);
  }

  [[noreturn]] void fail(std::string_view what, std::span<const int64_t> records) const {
    std::vector<int64_t> lines;
    for (const int64_t record : records) lines.push_back(data_.records[static_cast<size_t>(record)].line);
    throw Error(ErrorKind::kNumeric, "train",
                fmt::format("{} at step {} of {} (learning rate {:.3g}; pairs of lines {})", what,
                            std::min<int64_t>(done_ + 1, static_cast<int64_t>(plan_.size())), plan_.size(), lr(),
                            fmt::join(lines, ", ")),
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
    TrainCheckpoint checkpoint{.work = work_hash(), .state = {{"done", done_}}, .tensors = current_tensors()};
    for (const auto& [name, tensor] : good_.tensors) checkpoint.tensors.push_back({kGood + name, tensor});
    checkpoint.state["good"] = good_.state;
    checkpoint.state["retries"] = retries_;
    checkpoint.state["lr_factor"] = lr_factor_;
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
    done_ = checkpoint->state.at("done");
    retries_ = checkpoint->state.at("retries");
    lr_factor_ = checkpoint->state.at("lr_factor");
    std::vector<NamedTensor> tensors;
    good_ = {.work = {}, .state = checkpoint->state.at("good"), .tensors = {}};
    for (auto& [name, tensor] : checkpoint->tensors) {
      const bool is_good = name.starts_with(kGood);
      (is_good ? good_.tensors : tensors)
          .push_back({is_good ? name.substr(std::string_view(kGood).size()) : name, tensor});
    }
    restore_phase();
    take_tensors(tensors);
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
    result.retries = retries_;
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
  std::vector<OptimizerPhase> phases_;
  size_t phase_ = 0;
  std::unique_ptr<Optimizer> optimizer_;
  TrainCheckpoint good_;  // what the step with the lowest smoothed loss began with
  int retries_ = 0;       // after divergence
  double lr_factor_ = 1;
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

std::vector<OptimizerPhase> optimizer_phases(const std::string& text) {
  constexpr const char* kHow = "muon, adamw or lora-muon; or several in turn with their shares, adamw:0.5,muon:0.5";
  const auto refuse = [&](const std::string& what) { throw Error(ErrorKind::kUsage, "optimizer", what, kHow); };
  std::vector<OptimizerPhase> phases;
  double until = 0;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t colon = part.find(':');
    const std::string name = part.substr(0, colon);
    if (name != "muon" && name != "adamw" && name != "lora-muon") refuse(fmt::format("'{}' is no optimizer", name));
    double share = 1;
    if (colon != std::string::npos) {
      char* rest = nullptr;
      share = std::strtod(part.c_str() + colon + 1, &rest);
      if (*rest != 0 || !(share > 0 && share <= 1)) refuse(fmt::format("'{}' is no share of the steps", part));
    }
    until += share;
    phases.push_back({name, until});
  }
  if (std::abs(until - 1) > 1e-6) refuse(fmt::format("the shares of '{}' add up to {}, not 1", text, until));
  return phases;
}

double DistillConfig::peak_lr() const { return peak_lr(optimizer_phases(optimizer).front().optimizer); }

double DistillConfig::peak_lr(const std::string& name) const {
  if (lr > 0) return lr;
  if (name == "adamw") return 5e-4;
  if (name == "lora-muon") return 0.05;
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
