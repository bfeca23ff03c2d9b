#include "potstill/search/study.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/search/gp_sampler.h"
#include "potstill/search/median_pruner.h"
#include "potstill/search/tpe.h"

namespace potstill {
namespace {

using namespace std::chrono_literals;
constexpr auto kPoll = 200ms;  // between looks at what other workers do

constexpr const char* kFixedParams = "fixed_params";    // Optuna's own name
constexpr const char* kWorker = "potstill:worker";      // on trials that this program runs: whose they are
constexpr const char* kSettings = "potstill:settings";  // of the study: what may not change between runs

nlohmann::ordered_json external_params(const Space& space, const Params& params) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [name, value] : params) {
    const auto distribution = space.find(name);
    if (distribution != space.end()) object[name] = external_value(distribution->second, value);
  }
  return object;
}

std::unique_ptr<PointSampler> make_sampler(const StudyOptions& options) {
  if (options.sampler == "random") return std::make_unique<RandomSampler>();
  if (options.sampler == "tpe") {
    return std::make_unique<TpeSampler>(TpeOptions{.n_startup_trials = options.n_startup_trials, .seed = options.seed});
  }
  if (options.sampler == "gp") {
    return std::make_unique<GpSampler>(GpOptions{.n_startup_trials = options.n_startup_trials, .seed = options.seed});
  }
  throw Error(ErrorKind::kUsage, "search", fmt::format("unknown sampler '{}'", options.sampler),
              "known: gp, tpe, random");
}

}  // namespace

// Signs of life of a running trial's worker, from a thread and a connection of its own.
class Study::Heartbeat {
 public:
  Heartbeat(const OptunaStorage& storage, const StudyOptions& options, int64_t trial_id)
      : thread_([path = storage.path(), name = options.name, interval = options.heartbeat_interval_s,
                 trial_id](const std::stop_token& stop) { beat(path, name, interval, trial_id, stop); }) {}

 private:
  static void beat(const std::filesystem::path& path, const std::string& study, double interval_s, int64_t trial_id,
                   const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any wakes;
    std::unique_lock lock(mutex);
    while (
        !wakes.wait_for(lock, stop, std::chrono::duration<double>(interval_s), [&] { return stop.stop_requested(); })) {
      if (stop.stop_requested()) return;
      try {
        OptunaStorage(path, study).beat(trial_id);
      } catch (const Error& error) {  // the trial goes on; another machine may take it for dead
        log_warning("search: no heartbeat for trial: {}", error.what());
      }
    }
  }
  std::jthread thread_;
};

nlohmann::json Trial::param(const std::string& name) const {
  POTSTILL_CHECK(space_->contains(name));
  return external_value(space_->at(name), stored_->params.at(name));
}

nlohmann::ordered_json Trial::params() const { return external_params(*space_, stored_->params); }

void Trial::report(int64_t step, double value) { storage_->report(stored_->id, step, value); }

bool Trial::is_behind_median() const {
  const auto trials = storage_->trials();
  const std::vector<PastTrial> all(trials.begin(), trials.end());
  const auto self = std::ranges::find(all, number(), &PastTrial::number);
  return self != all.end() && potstill::is_behind_median(all, *self);
}

void Trial::set_user_attribute(std::string_view key, const nlohmann::json& value) {
  storage_->set_trial_attribute(stored_->id, key, value);
}

Study::Study(const std::filesystem::path& path, Space space, StudyOptions options)
    : storage_(path, options.name), space_(std::move(space)), options_(std::move(options)), worker_(path) {
  for (const auto& [name, distribution] : space_) check_distribution(distribution, fmt::format("search: '{}'", name));
  sampler_ = make_sampler(options_);
  const nlohmann::json settings = {{"space", space_to_json(space_)},
                                   {"sampler", options_.sampler},
                                   {"n_startup_trials", options_.n_startup_trials},
                                   {"seed", options_.seed}};
  Transaction transaction = storage_.begin();
  const auto found = storage_.study_attribute(kSettings);
  if (found && *found != settings) {
    std::string differs;
    for (const auto& [key, value] : settings.items()) {
      if (!found->contains(key) || (*found)[key] != value) differs += (differs.empty() ? "" : ", ") + key;
    }
    throw Error(ErrorKind::kInput, path.string(), fmt::format("holds a study with another {}", differs),
                "give the search another file, or delete this one");
  }
  if (!found) storage_.set_study_attribute(kSettings, settings);
  transaction.commit();
}

Study::~Study() = default;

void Study::enqueue(const nlohmann::ordered_json& point) {
  for (const auto& [name, value] : point.items()) {
    const auto distribution = space_.find(name);
    if (distribution == space_.end()) {
      throw Error(ErrorKind::kUsage, "search", fmt::format("the start point sets '{}', which is not searched", name));
    }
    internal_value(distribution->second, value, fmt::format("search: start point '{}'", name));
  }
  const nlohmann::json fixed = point;
  Transaction transaction = storage_.begin();
  for (const auto& trial : storage_.trials()) {
    const auto known = trial.system_attributes.find(kFixedParams);
    if (known != trial.system_attributes.end() && known->second == fixed) return;
  }
  storage_.set_trial_system_attribute(storage_.create_trial(TrialState::kWaiting), kFixedParams, fixed);
  transaction.commit();
}

Params Study::sample(const std::vector<StoredTrial>& trials, int64_t number) const {
  std::vector<PastTrial> past;
  for (const auto& trial : trials) {
    // Optuna's tools can add trials of their own to a study; those that lie in our space count.
    const bool ours = std::ranges::all_of(space_, [&](const auto& item) {
      const auto param = trial.params.find(item.first);
      return param != trial.params.end() && holds(item.second, param->second);
    });
    if (ours && trial.number != number) past.push_back(trial);
  }
  Rng rng(options_.seed, fmt::format("search/trial/{}", number));
  return sampler_->sample(space_, past, number, rng);
}

// One transaction: an abandoned trial first, then a queued one, then a new one. A running trial always has all of its
// parameters on the disk.
std::optional<StoredTrial> Study::next_trial(int64_t num_trials) {
  Transaction transaction = storage_.begin();
  auto trials = storage_.trials();
  for (auto& trial : trials) {
    if (!worker_.try_take_over(trial, 2 * options_.heartbeat_interval_s)) continue;  // its worker lives
    storage_.forget_reports(trial.id);
    storage_.set_trial_system_attribute(trial.id, kWorker, worker_.identity());
    storage_.beat(trial.id);
    storage_.change_state(trial.id, TrialState::kRunning, TrialState::kRunning);  // a new start time
    transaction.commit();
    return trial;
  }
  const auto started = std::ranges::count_if(trials, [](const auto& t) { return t.state != TrialState::kWaiting; });
  if (started >= num_trials) return std::nullopt;

  StoredTrial next;
  const auto waiting = std::ranges::find(trials, TrialState::kWaiting, &StoredTrial::state);
  if (waiting != trials.end()) {
    next = *waiting;
    storage_.change_state(next.id, TrialState::kWaiting, TrialState::kRunning);
  } else {
    next.number = static_cast<int64_t>(trials.size());
    next.id = storage_.create_trial(TrialState::kRunning);
  }
  next.state = TrialState::kRunning;
  next.params = sample(trials, next.number);
  const auto fixed = next.system_attributes.find(kFixedParams);
  if (fixed != next.system_attributes.end()) {
    for (const auto& [name, value] : fixed->second.items()) {
      const auto distribution = space_.find(name);
      if (distribution != space_.end()) {
        next.params[name] = internal_value(distribution->second, value, storage_.path().string());
      }
    }
  }
  storage_.set_params(next.id, space_, next.params);
  storage_.set_trial_system_attribute(next.id, kWorker, worker_.identity());
  storage_.beat(next.id);
  worker_.take(next.id);  // nobody else knows this trial before the commit
  transaction.commit();
  return next;
}

void Study::minimise(const std::function<double(Trial&)>& objective, int64_t num_trials,
                     const std::function<void(const StoredTrial&)>& on_finished) {
  while (true) {
    throw_if_interrupted();
    const auto stored = next_trial(num_trials);
    if (!stored) {
      if (!options_.waits_for_others || !others_are_running()) return;
      std::this_thread::sleep_for(kPoll);  // one of them may die and leave its trial to us
      continue;
    }
    try {
      const Heartbeat heartbeat(storage_, options_, stored->id);
      run(*stored, objective);
    } catch (...) {
      worker_.leave(stored->id);
      throw;
    }
    worker_.leave(stored->id);
    if (!on_finished) continue;
    for (const auto& trial : storage_.trials()) {
      if (trial.id == stored->id) on_finished(trial);
    }
  }
}

void Study::run(const StoredTrial& stored, const std::function<double(Trial&)>& objective) {
  Trial trial(storage_, space_, stored, derive_seed(options_.seed, fmt::format("search/trial/{}/work", stored.number)));
  try {
    const double value = objective(trial);
    if (std::isnan(value)) {
      trial.set_user_attribute("error", "the objective is not a number");
      finish(stored, TrialState::kFail, std::nullopt);
    } else {
      finish(stored, TrialState::kComplete, value);
    }
  } catch (const TrialPruned&) {
    std::optional<double> last;
    for (const auto& known : storage_.trials()) {
      if (known.id == stored.id && !known.intermediate.empty()) last = known.intermediate.rbegin()->second;
    }
    finish(stored, TrialState::kPruned, last && std::isfinite(*last) ? last : std::nullopt);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNumeric) throw;
    trial.set_user_attribute("error", error.what());
    finish(stored, TrialState::kFail, std::nullopt);
  }
}

void Study::finish(const StoredTrial& stored, TrialState state, std::optional<double> value) {
  Transaction transaction = storage_.begin();
  const auto worker = storage_.trial_system_attribute(stored.id, kWorker);
  if (worker && *worker != worker_.identity()) {
    log_warning("search: trial {} was taken over by another worker, which believed this one dead: its result counts",
                stored.number);
    return;
  }
  if (value) storage_.set_value(stored.id, *value);
  const bool ours = storage_.change_state(stored.id, TrialState::kRunning, state);
  if (!ours) {
    throw Error(ErrorKind::kInput, storage_.path().string(),
                fmt::format("trial {} was finished by another program while it ran here", stored.number));
  }
  transaction.commit();
}

bool Study::others_are_running() {
  return std::ranges::any_of(storage_.trials(), [](const auto& trial) {
    return trial.state == TrialState::kRunning && trial.system_attributes.contains(kWorker);
  });
}

std::optional<StoredTrial> Study::best() {
  std::optional<StoredTrial> best;
  for (auto& trial : storage_.trials()) {
    if (trial.state == TrialState::kComplete && (!best || trial.value < best->value)) best = std::move(trial);
  }
  return best;
}

nlohmann::ordered_json Study::params_of(const StoredTrial& trial) const {
  return external_params(space_, trial.params);
}

}  // namespace potstill
