#include "potstill/search/study_worker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <random>

#include "potstill/base/check.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

// The kernel that this process runs under, until it is booted again: all who see it share its locks.
std::string machine_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

// Never drawn from the study's seed: two workers with one seed must differ.
std::string new_token() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}", device(), device(), static_cast<uint32_t>(::getpid()));
}

}  // namespace

StudyWorker::StudyWorker(const std::filesystem::path& study)
    : path_(study.string() + ".lock"), identity_({{"machine", machine_id()}, {"token", new_token()}}) {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw Error(ErrorKind::kIo, path_.string(), std::strerror(errno));
}

StudyWorker::~StudyWorker() { ::close(descriptor_); }

bool StudyWorker::try_lock(int64_t trial_id, bool locked) {
  struct flock lock = {};
  lock.l_type = locked ? F_WRLCK : F_UNLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = trial_id;
  lock.l_len = 1;
  if (::fcntl(descriptor_, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  throw Error(ErrorKind::kIo, path_.string(), fmt::format("cannot be locked: {}", std::strerror(errno)),
              "keep the study on a file system that has locks");
}

bool StudyWorker::try_take_over(const StoredTrial& trial, double grace_s) {
  const auto worker = trial.system_attributes.find("potstill:worker");
  if (trial.state != TrialState::kRunning || worker == trial.system_attributes.end()) return false;  // Optuna's own
  const std::string machine = worker->second.is_object() ? worker->second.value("machine", "") : "";
  const bool here = machine.empty() || machine == identity_["machine"];
  if (!here && trial.heartbeat_age_s && *trial.heartbeat_age_s < grace_s) return false;
  return try_lock(trial.id, true);
}

void StudyWorker::take(int64_t trial_id) {
  const bool locked = try_lock(trial_id, true);
  POTSTILL_CHECK(locked);
}

void StudyWorker::leave(int64_t trial_id) { try_lock(trial_id, false); }

}  // namespace potstill
