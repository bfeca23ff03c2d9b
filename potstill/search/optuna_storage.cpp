#include "potstill/search/optuna_storage.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"

namespace potstill {
namespace {

constexpr const char* kRevision = "v3.2.0.a";

// Tables of Optuna 5.0.0's RDB storage: names, types, keys and indexes as its migrations leave them.
constexpr const char* kSchema = R"sql(
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,
  CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
CREATE TABLE version_info (version_info_id INTEGER NOT NULL, schema_version INTEGER, library_version VARCHAR(256),
  PRIMARY KEY (version_info_id), CHECK (version_info_id=1));
CREATE TABLE studies (study_id INTEGER NOT NULL, study_name VARCHAR(512) NOT NULL, PRIMARY KEY (study_id));
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE TABLE study_directions (study_direction_id INTEGER NOT NULL, direction VARCHAR(8) NOT NULL,
  study_id INTEGER NOT NULL, objective INTEGER NOT NULL, PRIMARY KEY (study_direction_id),
  UNIQUE (study_id, objective), FOREIGN KEY(study_id) REFERENCES studies (study_id));
CREATE TABLE study_user_attributes (study_user_attribute_id INTEGER NOT NULL, study_id INTEGER, "key" VARCHAR(512),
  value_json TEXT, PRIMARY KEY (study_user_attribute_id), UNIQUE (study_id, "key"),
  FOREIGN KEY(study_id) REFERENCES studies (study_id));
CREATE TABLE study_system_attributes (study_system_attribute_id INTEGER NOT NULL, study_id INTEGER,
  "key" VARCHAR(512), value_json TEXT, PRIMARY KEY (study_system_attribute_id), UNIQUE (study_id, "key"),
  FOREIGN KEY(study_id) REFERENCES studies (study_id));
CREATE TABLE trials (trial_id INTEGER NOT NULL, number INTEGER, study_id INTEGER, state VARCHAR(8) NOT NULL,
  datetime_start DATETIME, datetime_complete DATETIME, PRIMARY KEY (trial_id),
  FOREIGN KEY(study_id) REFERENCES studies (study_id));
CREATE INDEX ix_trials_study_id ON trials (study_id);
CREATE TABLE trial_user_attributes (trial_user_attribute_id INTEGER NOT NULL, trial_id INTEGER, "key" VARCHAR(512),
  value_json TEXT, PRIMARY KEY (trial_user_attribute_id), UNIQUE (trial_id, "key"),
  FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
CREATE TABLE trial_system_attributes (trial_system_attribute_id INTEGER NOT NULL, trial_id INTEGER,
  "key" VARCHAR(512), value_json TEXT, PRIMARY KEY (trial_system_attribute_id), UNIQUE (trial_id, "key"),
  FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
CREATE TABLE trial_params (param_id INTEGER NOT NULL, trial_id INTEGER, param_name VARCHAR(512), param_value FLOAT,
  distribution_json TEXT, PRIMARY KEY (param_id), UNIQUE (trial_id, param_name),
  FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
CREATE TABLE trial_values (trial_value_id INTEGER NOT NULL, trial_id INTEGER NOT NULL, objective INTEGER NOT NULL,
  value FLOAT, value_type VARCHAR(7) NOT NULL, PRIMARY KEY (trial_value_id), UNIQUE (trial_id, objective),
  FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
CREATE TABLE trial_intermediate_values (trial_intermediate_value_id INTEGER NOT NULL, trial_id INTEGER NOT NULL,
  step INTEGER NOT NULL, intermediate_value FLOAT, intermediate_value_type VARCHAR(7) NOT NULL,
  PRIMARY KEY (trial_intermediate_value_id), UNIQUE (trial_id, step),
  FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
CREATE TABLE trial_heartbeats (trial_heartbeat_id INTEGER NOT NULL, trial_id INTEGER NOT NULL,
  heartbeat DATETIME NOT NULL, PRIMARY KEY (trial_heartbeat_id), UNIQUE (trial_id),
  FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
INSERT INTO version_info VALUES (1, 12, '5.0.0');
)sql";

constexpr std::array<std::pair<TrialState, std::string_view>, 5> kStates{{{TrialState::kRunning, "RUNNING"},
                                                                          {TrialState::kComplete, "COMPLETE"},
                                                                          {TrialState::kPruned, "PRUNED"},
                                                                          {TrialState::kFail, "FAIL"},
                                                                          {TrialState::kWaiting, "WAITING"}}};

bool is_final(TrialState state) { return state != TrialState::kRunning && state != TrialState::kWaiting; }

// Naive UTC, as Optuna 5 writes it.
std::string now() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(since_epoch).count();
  const std::time_t seconds = micros / 1'000'000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &utc);
  return fmt::format("{}.{:06}", text.data(), micros % 1'000'000);
}

// Infinities and NaN have a name and no number.
void bind_value(Statement& statement, double value) {
  if (std::isfinite(value)) {
    statement.bind(value).bind(std::string_view("FINITE"));
  } else {
    statement.bind_null().bind(std::string_view(std::isnan(value) ? "NAN" : value > 0 ? "INF_POS" : "INF_NEG"));
  }
}

double read_value(const Statement& row, int value_column, int type_column) {
  const std::string type = row.text(type_column);
  if (type == "INF_POS") return std::numeric_limits<double>::infinity();
  if (type == "INF_NEG") return -std::numeric_limits<double>::infinity();
  if (type == "NAN") return std::numeric_limits<double>::quiet_NaN();
  return row.real(value_column);
}

}  // namespace

std::string_view state_name(TrialState state) {
  for (const auto& [known, name] : kStates) {
    if (known == state) return name;
  }
  return "?";
}

OptunaStorage::OptunaStorage(const std::filesystem::path& path, const std::string& study_name) : database_(path) {
  Transaction transaction(database_);
  make_schema();
  Statement find(database_, "SELECT study_id FROM studies WHERE study_name = ?");
  if (find.bind(study_name).step()) {
    study_id_ = find.integer(0);
    Statement direction(database_, "SELECT direction FROM study_directions WHERE study_id = ?");
    direction.bind(study_id_);
    int64_t objectives = 0;
    for (; direction.step(); ++objectives) {
      if (direction.text(0) == "MAXIMIZE") objectives += 2;
    }
    if (objectives != 1) {
      throw Error(ErrorKind::kFormat, path.string(),
                  fmt::format("study '{}' does not minimise one value, as this search does", study_name),
                  "give the search another file");
    }
  } else {
    Statement(database_, "INSERT INTO studies (study_name) VALUES (?)").bind(study_name).step();
    study_id_ = database_.last_insert_id();
    Statement(database_, "INSERT INTO study_directions (direction, study_id, objective) VALUES ('MINIMIZE', ?, 0)")
        .bind(study_id_)
        .step();
  }
  transaction.commit();
}

void OptunaStorage::make_schema() {
  Statement tables(database_, "SELECT count(*), sum(name = 'alembic_version') FROM sqlite_master WHERE type = 'table'");
  tables.step();
  if (tables.integer(0) == 0) {
    database_.execute(kSchema);
    Statement(database_, "INSERT INTO alembic_version VALUES (?)").bind(std::string_view(kRevision)).step();
    return;
  }
  if (tables.integer(1) != 1) {
    throw Error(ErrorKind::kFormat, path().string(), "is a database of something else, not an Optuna study",
                "give the search another file");
  }
  Statement version(database_, "SELECT version_num FROM alembic_version");
  const std::string found = version.step() ? version.text(0) : "none";
  if (found != kRevision) {
    throw Error(ErrorKind::kFormat, path().string(),
                fmt::format("holds Optuna's schema '{}' but '{}' is needed", found, kRevision),
                "`optuna storage upgrade --storage sqlite:///FILE` brings an old study up to date");
  }
}

nlohmann::json OptunaStorage::parse(const std::string& json) const { return parse_json(json, path().string()); }

std::optional<nlohmann::json> OptunaStorage::study_attribute(std::string_view key) {
  Statement find(database_, R"(SELECT value_json FROM study_user_attributes WHERE study_id = ? AND "key" = ?)");
  if (!find.bind(study_id_).bind(key).step()) return std::nullopt;
  return parse(find.text(0));
}

void OptunaStorage::set_study_attribute(std::string_view key, const nlohmann::json& value) {
  Statement(database_, R"(INSERT INTO study_user_attributes (study_id, "key", value_json) VALUES (?, ?, ?)
                          ON CONFLICT (study_id, "key") DO UPDATE SET value_json = excluded.value_json)")
      .bind(study_id_)
      .bind(key)
      .bind(to_json_line(value))
      .step();
}

void OptunaStorage::load_attributes(const char* table, std::map<int64_t, StoredTrial*>& by_id,
                                    std::map<std::string, nlohmann::json> StoredTrial::*attributes) {
  Statement rows(database_, fmt::format(R"(SELECT a.trial_id, a."key", a.value_json FROM {} a
                                           JOIN trials t ON t.trial_id = a.trial_id WHERE t.study_id = ?)",
                                        table));
  rows.bind(study_id_);
  while (rows.step()) {
    const auto trial = by_id.find(rows.integer(0));
    if (trial != by_id.end()) (trial->second->*attributes)[rows.text(1)] = parse(rows.text(2));
  }
}

std::vector<StoredTrial> OptunaStorage::trials() {
  std::vector<StoredTrial> trials;
  Statement rows(database_, "SELECT trial_id, number, state FROM trials WHERE study_id = ? ORDER BY number");
  rows.bind(study_id_);
  while (rows.step()) {
    StoredTrial trial;
    trial.id = rows.integer(0);
    trial.number = rows.integer(1);
    const std::string state = rows.text(2);
    bool known = false;
    for (const auto& [value, name] : kStates) {
      if (name == state) {
        trial.state = value;
        known = true;
      }
    }
    if (!known) throw Error(ErrorKind::kFormat, path().string(), fmt::format("unknown state of a trial: '{}'", state));
    trials.push_back(std::move(trial));
  }
  std::map<int64_t, StoredTrial*> by_id;
  for (auto& trial : trials) by_id[trial.id] = &trial;

  Statement params(database_, R"(SELECT p.trial_id, p.param_name, p.param_value FROM trial_params p
                                 JOIN trials t ON t.trial_id = p.trial_id WHERE t.study_id = ?)");
  params.bind(study_id_);
  while (params.step()) {
    const auto trial = by_id.find(params.integer(0));
    if (trial != by_id.end()) trial->second->params[params.text(1)] = params.real(2);
  }
  Statement values(database_, R"(SELECT v.trial_id, v.value, v.value_type FROM trial_values v
                                 JOIN trials t ON t.trial_id = v.trial_id WHERE t.study_id = ? AND v.objective = 0)");
  values.bind(study_id_);
  while (values.step()) {
    const auto trial = by_id.find(values.integer(0));
    if (trial != by_id.end()) trial->second->value = read_value(values, 1, 2);
  }
  Statement reports(database_,
                    R"(SELECT i.trial_id, i.step, i.intermediate_value, i.intermediate_value_type
                       FROM trial_intermediate_values i JOIN trials t ON t.trial_id = i.trial_id WHERE t.study_id = ?)");
  reports.bind(study_id_);
  while (reports.step()) {
    const auto trial = by_id.find(reports.integer(0));
    if (trial != by_id.end()) trial->second->intermediate[reports.integer(1)] = read_value(reports, 2, 3);
  }
  Statement beats(database_, R"(SELECT h.trial_id, (julianday('now') - julianday(h.heartbeat)) * 86400.0
                                FROM trial_heartbeats h JOIN trials t ON t.trial_id = h.trial_id WHERE t.study_id = ?)");
  beats.bind(study_id_);
  while (beats.step()) {
    const auto trial = by_id.find(beats.integer(0));
    if (trial != by_id.end() && !beats.is_null(1)) trial->second->heartbeat_age_s = beats.real(1);
  }
  load_attributes("trial_user_attributes", by_id, &StoredTrial::user_attributes);
  load_attributes("trial_system_attributes", by_id, &StoredTrial::system_attributes);
  return trials;
}

int64_t OptunaStorage::create_trial(TrialState state) {
  Statement insert(database_, R"(INSERT INTO trials (number, study_id, state, datetime_start)
                                 SELECT count(*), ?, ?, ? FROM trials WHERE study_id = ?)");
  insert.bind(study_id_).bind(state_name(state));
  if (state == TrialState::kWaiting) {
    insert.bind_null();
  } else {
    insert.bind(now());
  }
  insert.bind(study_id_).step();
  return database_.last_insert_id();
}

bool OptunaStorage::change_state(int64_t trial_id, TrialState from, TrialState to) {
  const char* column = is_final(to) ? "datetime_complete" : "datetime_start";
  Statement update(database_,
                   fmt::format("UPDATE trials SET state = ?, {} = ? WHERE trial_id = ? AND state = ?", column));
  update.bind(state_name(to)).bind(now()).bind(trial_id).bind(state_name(from)).step();
  return database_.changes() == 1;
}

void OptunaStorage::set_params(int64_t trial_id, const Space& space, const Params& params) {
  for (const auto& [name, value] : params) {
    Statement(database_, R"(INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
                            VALUES (?, ?, ?, ?))")
        .bind(trial_id)
        .bind(name)
        .bind(value)
        .bind(distribution_to_json(space.at(name)).dump())
        .step();
  }
}

void OptunaStorage::set_value(int64_t trial_id, double value) {
  Statement insert(database_, "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, 0, ?, ?)");
  insert.bind(trial_id);
  bind_value(insert, value);
  insert.step();
}

void OptunaStorage::report(int64_t trial_id, int64_t step, double value) {
  Statement insert(database_, R"(INSERT OR REPLACE INTO trial_intermediate_values
                                 (trial_id, step, intermediate_value, intermediate_value_type) VALUES (?, ?, ?, ?))");
  insert.bind(trial_id).bind(step);
  bind_value(insert, value);
  insert.step();
}

void OptunaStorage::forget_reports(int64_t trial_id) {
  Statement(database_, "DELETE FROM trial_intermediate_values WHERE trial_id = ?").bind(trial_id).step();
}

void OptunaStorage::beat(int64_t trial_id) {
  Statement(database_, R"(INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (?, ?)
                          ON CONFLICT (trial_id) DO UPDATE SET heartbeat = excluded.heartbeat)")
      .bind(trial_id)
      .bind(now())
      .step();
}

std::optional<nlohmann::json> OptunaStorage::trial_system_attribute(int64_t trial_id, std::string_view key) {
  Statement find(database_, R"(SELECT value_json FROM trial_system_attributes WHERE trial_id = ? AND "key" = ?)");
  if (!find.bind(trial_id).bind(key).step()) return std::nullopt;
  return parse(find.text(0));
}

void OptunaStorage::set_trial_attribute(int64_t trial_id, std::string_view key, const nlohmann::json& value) {
  Statement(database_, R"(INSERT OR REPLACE INTO trial_user_attributes (trial_id, "key", value_json) VALUES (?, ?, ?))")
      .bind(trial_id)
      .bind(key)
      .bind(to_json_line(value))
      .step();
}

void OptunaStorage::set_trial_system_attribute(int64_t trial_id, std::string_view key, const nlohmann::json& value) {
  Statement(database_,
            R"(INSERT OR REPLACE INTO trial_system_attributes (trial_id, "key", value_json) VALUES (?, ?, ?))")
      .bind(trial_id)
      .bind(key)
      .bind(to_json_line(value))
      .step();
}

}  // namespace potstill
