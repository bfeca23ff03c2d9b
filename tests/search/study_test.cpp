#include "potstill/search/study.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <set>
#include <string>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class StudyTest : public ::testing::Test {
 protected:
  StudyTest() : folder_(fs::temp_directory_path() / ("potstill_study_" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~StudyTest() override { fs::remove_all(folder_); }
  fs::path file(const std::string& name) const { return folder_ / name; }
  fs::path folder_;
};

const Space kSpace{{"x", FloatDistribution{.low = -1.0, .high = 1.0}},
                   {"lr", FloatDistribution{.low = 1e-5, .high = 1e-2, .log = true}},
                   {"rank", CategoricalDistribution{{8, 16, 32}}}};
const StudyOptions kOptions{.n_startup_trials = 4, .seed = 7};

double objective(Trial& trial) {
  const double x = trial.number_param("x") - 0.3, lr = std::log10(trial.number_param("lr")) + 3.0;
  return x * x + lr * lr + (trial.param("rank") == 16 ? 0.0 : 0.1);
}

std::vector<Params> params_of(Study& study) {
  std::vector<Params> params;
  for (const auto& trial : study.trials()) params.push_back(trial.params);
  return params;
}

TEST_F(StudyTest, KeepsTrialsAndFindsTheBest) {
  Study study(file("a.db"), kSpace, kOptions);
  study.enqueue({{"x", 0.3}, {"rank", 16}});
  study.minimise(
      [](Trial& trial) {
        trial.report(10, 0.5);
        trial.set_user_attribute("kl", {{"mean", 0.25}});
        return objective(trial);
      },
      12);
  const auto trials = study.trials();
  ASSERT_EQ(trials.size(), 12u);
  EXPECT_EQ(trials[0].params.at("x"), 0.3);
  EXPECT_EQ(trials[0].params.at("rank"), 1.0);  // the index of 16
  double least = std::numeric_limits<double>::infinity();
  for (const auto& trial : trials) {
    EXPECT_EQ(trial.state, TrialState::kComplete);
    EXPECT_EQ(trial.intermediate.at(10), 0.5);
    EXPECT_EQ(trial.user_attributes.at("kl")["mean"], 0.25);
    least = std::min(least, trial.value);
  }
  EXPECT_EQ(study.best()->value, least);
}

TEST_F(StudyTest, GoesOnWithTheSameNumbersAfterEveryStop) {
  Study whole(file("whole.db"), kSpace, kOptions);
  whole.minimise(objective, 15);
  for (int64_t trials = 1; trials <= 15; ++trials) {  // opened anew for each trial
    Study study(file("parts.db"), kSpace, kOptions);
    study.minimise(objective, trials);
  }
  Study parts(file("parts.db"), kSpace, kOptions);
  EXPECT_EQ(params_of(parts), params_of(whole));
  EXPECT_EQ(parts.best()->number, whole.best()->number);
}

TEST_F(StudyTest, RetriesTheTrialOfAKilledProcess) {
  Study whole(file("whole.db"), kSpace, kOptions);
  whole.minimise(objective, 10);
  const pid_t child = ::fork();
  if (child == 0) {
    Study study(file("killed.db"), kSpace, kOptions);
    study.minimise(
        [](Trial& trial) {
          trial.report(1, 1.0);
          if (trial.number() == 6) ::kill(::getpid(), SIGKILL);
          return objective(trial);
        },
        10);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));

  Study study(file("killed.db"), kSpace, kOptions);
  ASSERT_EQ(study.trials().back().state, TrialState::kRunning);
  std::vector<int64_t> ran;
  study.minimise(
      [&](Trial& trial) {
        ran.push_back(trial.number());
        return objective(trial);
      },
      10);
  EXPECT_EQ(ran, (std::vector<int64_t>{6, 7, 8, 9}));
  EXPECT_TRUE(study.trials()[6].intermediate.empty());  // what the killed try reported is gone
  EXPECT_EQ(params_of(study), params_of(whole));
}

TEST_F(StudyTest, TwoProcessesShareAStudy) {
  std::vector<pid_t> children;
  for (int worker = 0; worker < 2; ++worker) {
    children.push_back(::fork());
    if (children.back() == 0) {
      Study study(file("shared.db"), kSpace, kOptions);
      study.enqueue({{"x", 0.0}});
      study.minimise(
          [&](Trial& trial) {
            // A worker's trial lasts until the other has one too: else a loaded machine may leave one worker without
            // any.
            write_file_atomically(file("worker" + std::to_string(worker)), "");
            const auto other = file("worker" + std::to_string(1 - worker));
            for (int i = 0; i < 6000 && !std::filesystem::exists(other); ++i) ::usleep(10'000);
            trial.set_user_attribute("worker", worker);
            return objective(trial);
          },
          30);
      ::_exit(0);
    }
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  Study study(file("shared.db"), kSpace, kOptions);
  std::set<int64_t> numbers, workers;
  std::set<Params> points;
  for (const auto& trial : study.trials()) {
    EXPECT_EQ(trial.state, TrialState::kComplete);
    numbers.insert(trial.number);
    workers.insert(trial.user_attributes.at("worker").get<int64_t>());
    points.insert(trial.params);
  }
  EXPECT_EQ(numbers.size(), 30u);
  EXPECT_EQ(*numbers.rbegin(), 29);
  EXPECT_EQ(points.size(), 30u);
  EXPECT_EQ(workers.size(), 2u);
}

TEST_F(StudyTest, ADeadWorkersTrialIsDoneByTheOther) {
  std::vector<pid_t> children;
  for (int worker = 0; worker < 2; ++worker) {
    children.push_back(::fork());
    if (children.back() == 0) {
      Study study(file("shared.db"), kSpace, kOptions);
      study.minimise(
          [&](Trial& trial) {
            if (worker == 0) {
              write_file_atomically(file("dead"), std::to_string(trial.number()));
              ::kill(::getpid(), SIGKILL);
            }
            for (int i = 0; i < 6000 && !fs::exists(file("dead")); ++i) ::usleep(10'000);
            return objective(trial);
          },
          12);
      ::_exit(0);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(children[0], &status, 0), children[0]);
  EXPECT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(::waitpid(children[1], &status, 0), children[1]);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  Study study(file("shared.db"), kSpace, kOptions);
  const auto trials = study.trials();
  ASSERT_EQ(trials.size(), 12u);
  std::set<Params> points;
  for (const auto& trial : trials) {
    EXPECT_EQ(trial.state, TrialState::kComplete) << trial.number;
    points.insert(trial.params);
  }
  EXPECT_EQ(points.size(), 12u);
}

// A study whose first trial is left running by a process that was killed in it.
void leave_a_trial(const fs::path& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    Study study(path, kSpace, kOptions);
    study.minimise([](Trial&) -> double { return ::kill(::getpid(), SIGKILL); }, 1);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
}

TEST_F(StudyTest, AWorkerOnAnotherMachineIsDeadWhenItsHeartbeatIsOld) {
  leave_a_trial(file("a.db"));
  StudyOptions options = kOptions;
  options.waits_for_others = false;
  const auto trials_run = [&](const std::string& heartbeat) {
    {
      Database other(file("a.db"));
      other.execute(R"(UPDATE trial_system_attributes SET value_json = '{"machine": "elsewhere", "token": "1"}'
                       WHERE "key" = 'potstill:worker')");
      other.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '" + heartbeat + "')");
    }
    Study study(file("a.db"), kSpace, options);
    int64_t count = 0;
    study.minimise(
        [&](Trial& trial) {
          ++count;
          return objective(trial);
        },
        1);
    return count;
  };
  EXPECT_EQ(trials_run("-60 seconds"), 0);  // twice the interval has not passed
  EXPECT_EQ(trials_run("-600 seconds"), 1);
}

TEST_F(StudyTest, ARunningTrialGivesSignsOfLife) {
  StudyOptions options = kOptions;
  options.heartbeat_interval_s = 0.02;
  Study study(file("a.db"), kSpace, options);
  const auto heartbeat = [&] {
    Database database(file("a.db"));
    Statement row(database, "SELECT heartbeat FROM trial_heartbeats");
    return row.step() ? row.text(0) : std::string();
  };
  study.minimise(
      [&](Trial& trial) {
        const std::string first = heartbeat();
        EXPECT_FALSE(first.empty());
        std::string later = first;
        for (int i = 0; i < 3000 && later == first; ++i) {
          ::usleep(10'000);
          later = heartbeat();
        }
        EXPECT_GT(later, first);
        return objective(trial);
      },
      1);
}

TEST_F(StudyTest, AWorkerThatWasTakenForDeadLeavesTheTrialToTheOther) {
  StudyOptions options = kOptions;
  options.waits_for_others = false;
  Study study(file("a.db"), kSpace, options);
  study.minimise(
      [&](Trial& trial) {
        if (trial.number() == 0) {
          Database other(file("a.db"));
          other.execute(R"(UPDATE trial_system_attributes SET value_json = '{"machine": "elsewhere", "token": "1"}'
                           WHERE "key" = 'potstill:worker')");
        }
        return objective(trial);
      },
      2);
  const auto trials = study.trials();
  ASSERT_EQ(trials.size(), 2u);
  EXPECT_EQ(trials[0].state, TrialState::kRunning);  // the other's
  EXPECT_EQ(trials[1].state, TrialState::kComplete);
}

TEST_F(StudyTest, FailedAndPrunedTrialsAreKeptAsSuch) {
  Study study(file("a.db"), kSpace, kOptions);
  study.minimise(
      [](Trial& trial) -> double {
        if (trial.number() == 1) return std::nan("");
        if (trial.number() == 2) throw Error(ErrorKind::kNumeric, "train", "the loss is not a number");
        if (trial.number() == 3) {
          trial.report(5, 0.75);
          throw TrialPruned{};
        }
        return 1.0;
      },
      6);
  const auto trials = study.trials();
  EXPECT_EQ(trials[1].state, TrialState::kFail);
  EXPECT_EQ(trials[2].state, TrialState::kFail);
  EXPECT_NE(trials[2].user_attributes.at("error").get<std::string>().find("not a number"), std::string::npos);
  EXPECT_EQ(trials[3].state, TrialState::kPruned);
  EXPECT_EQ(trials[3].value, 0.75);
  EXPECT_EQ(study.best()->number, 0);
}

TEST_F(StudyTest, OtherErrorsLeaveTheTrialToTheNextRun) {
  Study study(file("a.db"), kSpace, kOptions);
  EXPECT_THROW(study.minimise([](Trial&) -> double { throw Error(ErrorKind::kIo, "disk", "is full"); }, 3), Error);
  const auto before = params_of(study);
  study.minimise(objective, 3);
  EXPECT_EQ(study.trials().size(), 3u);
  EXPECT_EQ(params_of(study)[0], before[0]);
}

TEST_F(StudyTest, RefusesAnotherSearchInTheSameFile) {
  { Study study(file("a.db"), kSpace, kOptions); }
  Space wider = kSpace;
  wider["x"] = FloatDistribution{.low = -2.0, .high = 1.0};
  EXPECT_THROW(Study(file("a.db"), wider, kOptions), Error);
  EXPECT_THROW(Study(file("a.db"), kSpace, StudyOptions{.n_startup_trials = 4, .seed = 8}), Error);
  EXPECT_NO_THROW(Study(file("a.db"), kSpace, kOptions));
}

TEST_F(StudyTest, RefusesFilesThatAreNoStudy) {
  write_file_atomically(file("text.db"), std::string(4096, 'x'));
  EXPECT_THROW(Study(file("text.db"), kSpace, kOptions), Error);
  {
    Database other(file("other.db"));
    other.execute("CREATE TABLE cats (name TEXT)");
  }
  EXPECT_THROW(Study(file("other.db"), kSpace, kOptions), Error);
  { Study study(file("old.db"), kSpace, kOptions); }
  {
    Database old(file("old.db"));
    old.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'");
  }
  EXPECT_THROW(Study(file("old.db"), kSpace, kOptions), Error);
  EXPECT_THROW(Study(file("no/such/folder/a.db"), kSpace, kOptions), Error);
}

TEST_F(StudyTest, QueuesAPointOnceAndChecksIt) {
  Study study(file("a.db"), kSpace, kOptions);
  for (int i = 0; i < 3; ++i) study.enqueue({{"x", 0.5}});
  EXPECT_EQ(study.trials().size(), 1u);
  EXPECT_EQ(study.trials()[0].state, TrialState::kWaiting);
  EXPECT_THROW(study.enqueue({{"x", 2.0}}), Error);
  EXPECT_THROW(study.enqueue({{"y", 0.0}}), Error);
}

}  // namespace
}  // namespace potstill
