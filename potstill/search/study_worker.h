// A worker of a study: what says that a running trial is being worked on, and by whom.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "potstill/search/optuna_storage.h"

namespace potstill {

// One process among those that work on a study, on this machine or on others that share its file.
class StudyWorker {
 public:
  explicit StudyWorker(const std::filesystem::path& study);
  ~StudyWorker();
  StudyWorker(const StudyWorker&) = delete;
  StudyWorker& operator=(const StudyWorker&) = delete;

  // {"machine", "token"}: kept with each trial that this worker runs.
  const nlohmann::json& identity() const { return identity_; }

  // Takes a running trial over: true when its worker is dead. A worker on this machine holds a lock, which the kernel
  // lets go of when the process ends, however it ends. One on another machine counts as dead when its last heartbeat is
  // older than `grace_s`.
  bool try_take_over(const StoredTrial& trial, double grace_s);
  void take(int64_t trial_id);  // a trial that nobody else knows yet
  void leave(int64_t trial_id);

 private:
  bool try_lock(int64_t trial_id, bool locked);

  std::filesystem::path path_;  // "<study>.lock": byte <trial id> is the lock of a trial
  int descriptor_ = -1;
  nlohmann::json identity_;
};

}  // namespace potstill
