// OptunaStorage: one study in an SQLite file with Optuna's schema (revision v3.2.0.a, the one of Optuna 3.2 to 5.0), so
// that optuna.load_study and optuna-dashboard open it, and so that several processes can work on it.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/search/sampler.h"
#include "potstill/search/space.h"
#include "potstill/search/sqlite.h"

namespace potstill {

struct StoredTrial : PastTrial {
  int64_t id = 0;
  std::optional<double> heartbeat_age_s = {};  // seconds since its worker's last sign of life
  std::map<std::string, nlohmann::json> user_attributes, system_attributes;
};

class OptunaStorage {
 public:
  // Makes the file, the schema and the study (minimise, one objective) where they are missing. Throws Error(kFormat)
  // for a file that is something else and for a study that maximises.
  OptunaStorage(const std::filesystem::path& path, const std::string& study_name);

  // Hold one for every read that a write depends on. A single write is a transaction by itself.
  Transaction begin() { return Transaction(database_); }

  std::optional<nlohmann::json> study_attribute(std::string_view key);
  void set_study_attribute(std::string_view key, const nlohmann::json& value);

  std::vector<StoredTrial> trials();  // by number
  // number = count of the study's trials: hold a transaction.
  int64_t create_trial(TrialState state);
  // Moves a trial from one state to another; false when another worker was faster.
  bool change_state(int64_t trial_id, TrialState from, TrialState to);
  void set_params(int64_t trial_id, const Space& space, const Params& params);
  void set_value(int64_t trial_id, double value);
  void report(int64_t trial_id, int64_t step, double value);  // NaN and infinities are kept as such
  void forget_reports(int64_t trial_id);
  void beat(int64_t trial_id);  // a sign of life of the trial's worker, in Optuna's table of heartbeats
  void set_trial_attribute(int64_t trial_id, std::string_view key, const nlohmann::json& value);         // user
  void set_trial_system_attribute(int64_t trial_id, std::string_view key, const nlohmann::json& value);  // Optuna's own

  std::optional<nlohmann::json> trial_system_attribute(int64_t trial_id, std::string_view key);

  const std::filesystem::path& path() const { return database_.path(); }

 private:
  void make_schema();
  void load_attributes(const char* table, std::map<int64_t, StoredTrial*>& by_id,
                       std::map<std::string, nlohmann::json> StoredTrial::*attributes);
  nlohmann::json parse(const std::string& json) const;

  Database database_;
  int64_t study_id_ = 0;
};

std::string_view state_name(TrialState state);  // "RUNNING", "COMPLETE", …

}  // namespace potstill
