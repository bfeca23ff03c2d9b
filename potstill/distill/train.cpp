#include "potstill/distill/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/base/rng.h"
#include "potstill/base/sha256.h"
#include "potstill/distill/batches.h"
#include "potstill/distill/checkpoint.h"
#include "potstill/distill/delta_norms.h"
#include "potstill/distill/divergence_watch.h"
#include "potstill/distill/kl_loss.h"
#include "potstill/distill/knowledge.h"
#include "potstill/nn/product_rate.h"
#include "potstill/optim/schedule.h"

namespace potstill {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

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
        vocab_limit_(std::min(teacher.vocab_limit(), student_.lm_head.size(0))),
        watch_(config.alpha, vocab_limit_) {
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
    plan_memory();
    if (hooks.measure_deltas) {
      deltas_ = std::make_unique<DeltaNorms>(adapter_, student_);
      flops_per_second_ = measured_flops_per_second(student_.dtype(), student_.device());
    }
  }

  TrainResult run() {
    if (hooks_.on_start) hooks_.on_start(adapter_);
    if (hooks_.group) meet_ranks();
    restore();
    if (good_.tensors.empty()) keep_good();  // for a first step that is not finite
    while (done_ < static_cast<int64_t>(plan_.size()) && !stopped_) {
      try {
        take_step();
      } catch (const Diverged& diverged) {
        go_back(diverged.what);
        continue;
      }
      keep_to_plan();
      const bool last = done_ == static_cast<int64_t>(plan_.size());
      if (last || (config_.eval_every > 0 && done_ % config_.eval_every == 0)) measure();
      const bool interrupted = hooks_.group ? interrupted_ : interrupt_requested();
      const bool due = config_.checkpoint_every > 0 && done_ % config_.checkpoint_every == 0 && !last;
      if (!checkpoint_folder_.empty() && is_first_rank() && (due || interrupted)) save();
      if (!last && interrupted) {
        throw_if_interrupted();
        throw Error(ErrorKind::kInterrupted, "train", "another rank was interrupted", "the same command goes on");
      }
    }
    return result();
  }

 private:
  bool is_first_rank() const { return !hooks_.group || hooks_.group->rank() == 0; }

  // The largest packed batch that the plan will make, by this rank.
  LargestBatch largest_batch() const {
    LargestBatch largest;
    for (const auto& records : plan_) {
      const auto mine = share_of_rank(records, hooks_.group);
      for (const auto& size : answer_batch_sizes(data_, mine, config_.tokens_per_batch, student_.device())) {
        largest.tokens = std::max(largest.tokens, size.rows);
        largest.answer_tokens = std::max(largest.answer_tokens, size.answer_tokens);
      }
    }
    return largest;
  }

  void plan_memory() {
    return_freed_memory();
    const uint64_t resident = rss_bytes();
    const auto table = [&](bool checkpoints) {
      return training_memory(student_, adapter_, config_, resident, largest_batch(), checkpoints);
    };
    checkpoint_activations_ = choose_checkpointing(config_, table(false), resident, available_memory_bytes());
    const auto rows = table(checkpoint_activations_);
    planned_bytes_ = total_bytes(rows);
    if (checkpoint_activations_) return_large_buffers_when_freed();  // short of memory, not of time
    if (hooks_.on_plan) hooks_.on_plan(rows, checkpoint_activations_);
  }

  // Batches of many sizes leave holes in what the allocator keeps, which would add up over the steps.
  void keep_to_plan() const {
    if (static_cast<double>(rss_bytes()) > 1.05 * static_cast<double>(planned_bytes_)) return_freed_memory();
  }

  // All ranks train the same thing, and go on from rank 0's checkpoint.
  void meet_ranks() {
    hooks_.group->require_equal(work_hash(), "settings, models or data");
    const auto file = checkpoint_folder_ / "checkpoint.safetensors";
    const bool has_one = is_first_rank() && !checkpoint_folder_.empty() && std::filesystem::exists(file);
    const std::string bytes = hooks_.group->from_first(has_one ? read_file(file) : std::string());
    if (is_first_rank() || checkpoint_folder_.empty()) return;
    std::filesystem::create_directories(checkpoint_folder_);
    std::filesystem::remove(file);
    if (!bytes.empty()) write_file_atomically(file, bytes);
  }

  // Sums of this rank and its gradients become those of all.
  void share_sums(KlLossSums& sums, TrainStep& log) {
    // Others may need longer for their pairs, so patience grows with the steps.
    const auto slowest = std::chrono::milliseconds(static_cast<int64_t>(4000 * slowest_step_));
    const auto patience = std::max(RankGroup::kPatience, slowest);
    const auto all = hooks_.group->sum(
        {sums.loss, sums.kl, sums.ce, static_cast<double>(sums.tokens), static_cast<double>(log.tokens),
         static_cast<double>(log.rows), interrupt_requested() ? 1.0 : 0.0},
        patience);
    sums = {.loss = all[0], .kl = all[1], .ce = all[2], .tokens = std::llround(all[3])};
    log.tokens = std::llround(all[4]);
    log.rows = std::llround(all[5]);
    interrupted_ = all[6] > 0;
    std::vector<at::Tensor> flat;
    for (const auto& parameter : parameters_) {
      flat.push_back((parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter)).reshape({-1}));
    }
    at::Tensor together = at::cat(flat);
    hooks_.group->sum(together, patience);
    int64_t begin = 0;
    for (const auto& parameter : parameters_) {
      at::Tensor(parameter).mutable_grad() = together.narrow(0, begin, parameter.numel()).reshape(parameter.sizes());
      begin += parameter.numel();
    }
  }

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
    const auto mine = share_of_rank(records, hooks_.group);
    const auto batches = make_answer_batches(data_, offsets_, mine, config_.tokens_per_batch, student_.device());
    for (size_t b = 0; b < batches.size(); ++b) {
      const AnswerBatch& batch = batches[b];
      set_dropout_seeds(b);
      const auto rows = student_.hidden_states(batch.packed, checkpoint_activations_, batch.rows);
      at::Tensor gradient;
      sums += teacher_.loss(rows.detach(), student_.lm_head, batch.labels, batch.positions, options,
                            1.0 / static_cast<double>(log.answer_tokens), &gradient);
      if (!std::isfinite(sums.loss)) break;  // all ranks hear of it below
      rows.backward(gradient);
      log.tokens += batch.size.tokens;
      log.rows += batch.size.rows;
    }
    if (hooks_.group) share_sums(sums, log);
    if (!std::isfinite(sums.loss)) throw Diverged{"the loss is not finite"};
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
    TrainStep log{.step = done_ + 1,
                  .num_steps = static_cast<int64_t>(plan_.size()),
                  .term = loss_term_name(config_, teacher_.quantity())};
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
    watch(log);
    const auto optimizer_start = Clock::now();
    optimizer_->step(log.lr);
    log.optimizer_seconds = seconds_since(optimizer_start);
    log.update_rms = optimizer_->update_rms();
    log.orthogonality_error = optimizer_->orthogonality_error();
    log.seconds = seconds_since(start);
    slowest_step_ = std::max(slowest_step_, log.seconds);
    if (deltas_) {
      log.delta_norm_ratio = deltas_->largest_ratio();
      const auto ranks = static_cast<double>(hooks_.group ? hooks_.group->size() : 1);
      log.flop_share =
          step_flops(student_, adapter_, log.rows, log.answer_tokens, teacher_.head_width(), checkpoint_activations_) /
          (ranks * log.seconds * flops_per_second_);
    }
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
             .state = {{"done", done_}, {"watch", watch_.state()}, {"steps", steps_.size()}},
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
    watch_.load_state(good_.state.at("watch"));
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
  // far, and throws where the run diverges.
  void watch(const TrainStep& log) {
    if (const auto problem = watch_.problem(log)) throw Diverged{*problem};
    if (watch_.is_lowest(log)) keep_good();
    watch_.add(log);
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
    held_out_ = measure_agreement(student_, teacher_, data_, data_.held_out, config_.tokens_per_batch,
                                  config_.loss_rows, hooks_.group);
    evals_.push_back({{"step", done_}, {"held_out", nlohmann::json(to_json(held_out_))}});
    if (hooks_.on_eval && !hooks_.on_eval(done_, held_out_)) stopped_ = true;
  }

  // What must be the same for a checkpoint to be of this run.
  std::string work_hash() const {
    auto settings = config_to_json(config_);
    for (const char* name : {"checkpoint_every", "checkpoint_activations"}) settings.erase(name);
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
    checkpoint.state["watch"] = watch_.state();
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
    watch_.load_state(checkpoint->state.at("watch"));
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
  DivergenceWatch watch_;

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
  bool checkpoint_activations_ = false;
  bool interrupted_ = false;  // some rank was
  double slowest_step_ = 0;   // seconds
  uint64_t planned_bytes_ = 0;
  std::unique_ptr<DeltaNorms> deltas_;
  double flops_per_second_ = 0;
};

}  // namespace

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
