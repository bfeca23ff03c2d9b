// Study: minimises a function of a point by trials that are kept in an Optuna file. It can be killed at any moment and
// goes on with the same random numbers; several processes may work on one study.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/search/optuna_storage.h"
#include "potstill/search/sampler.h"
#include "potstill/search/study_worker.h"

namespace potstill {

// A running trial, as the objective sees it.
class Trial {
 public:
  int64_t number() const { return stored_->number; }
  // The value of a parameter: what a recipe would say. A name that is not in the space is a broken invariant.
  nlohmann::json param(const std::string& name) const;
  double number_param(const std::string& name) const { return param(name).get<double>(); }
  nlohmann::ordered_json params() const;
  uint64_t seed() const { return seed_; }  // of this trial, from the study's seed and its number

  void report(int64_t step, double value);
  // Whether what was reported so far is behind the median of the study's complete trials; the objective then throws
  // TrialPruned.
  bool is_behind_median() const;
  void set_user_attribute(std::string_view key, const nlohmann::json& value);

 private:
  friend class Study;
  Trial(OptunaStorage& storage, const Space& space, const StoredTrial& stored, uint64_t seed)
      : storage_(&storage), space_(&space), stored_(&stored), seed_(seed) {}
  OptunaStorage* storage_;
  const Space* space_;
  const StoredTrial* stored_;
  uint64_t seed_;
};

// Thrown by an objective to give a trial up early; its value is the last one that it reported.
struct TrialPruned {};

struct StudyOptions {
  std::string name = "potstill";
  std::string sampler = "gp";  // or "tpe", "random"
  int64_t n_startup_trials = 10;
  uint64_t seed = 0;
  // A running trial's worker gives a sign of life this often; a worker on another machine that has given none for twice
  // as long is dead, and its trial is done again.
  double heartbeat_interval_s = 60;
  // Whether minimise() stays until the trials of other workers are finished too (or their workers are dead).
  bool waits_for_others = true;
};

class Study {
 public:
  // Throws Error(kInput) when the file holds a study of another space, sampler or seed.
  Study(const std::filesystem::path& path, Space space, StudyOptions options);
  ~Study();

  // A first point to try (values as a recipe says them; what it leaves open is sampled). The same point is queued once
  // in a study's life.
  void enqueue(const nlohmann::ordered_json& point);

  // Runs trials until the study has `num_trials` of them finished or, without waits_for_others, under work elsewhere.
  // NaN or Error(kNumeric) fails a trial and the study goes on; any other exception leaves the trial to the next run of
  // the study, with the same parameters, as a kill does. on_finished sees each trial of this worker once it is stored.
  void minimise(const std::function<double(Trial&)>& objective, int64_t num_trials,
                const std::function<void(const StoredTrial&)>& on_finished = {});

  const Space& space() const { return space_; }
  std::vector<StoredTrial> trials() { return storage_.trials(); }
  std::optional<StoredTrial> best();  // of the complete trials; the first of equals
  nlohmann::ordered_json params_of(const StoredTrial& trial) const;

 private:
  class Heartbeat;
  std::optional<StoredTrial> next_trial(int64_t num_trials);
  Params sample(const std::vector<StoredTrial>& trials, int64_t number) const;
  void run(const StoredTrial& stored, const std::function<double(Trial&)>& objective);
  void finish(const StoredTrial& stored, TrialState state, std::optional<double> value);
  bool others_are_running();

  OptunaStorage storage_;
  Space space_;
  StudyOptions options_;
  std::unique_ptr<PointSampler> sampler_;
  StudyWorker worker_;
};

}  // namespace potstill
