// The ranks of a data-parallel training, out of the environment: for callers without LibTorch's headers.
#pragma once

#include <memory>

#include "potstill/stages/train_stage.h"

namespace potstill {

class RankGroup;

class TrainRanks {
 public:
  // Meets the other ranks where the environment names any (distill/rank_group.h), and takes this rank's share of the
  // machine's threads. Throws Error(kUsage | kNetwork).
  TrainRanks();
  ~TrainRanks();
  bool joined() const { return group_ != nullptr; }
  bool is_first() const;
  // The first rank's work, or a process's alone; and the other ranks'.
  void run(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data,
           ArtifactWriter& out) const;
  void join(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data, uint64_t seed) const;
  // By the first rank, at the end: tells the others that there was nothing to do where run() was not called.
  void finish() const;

 private:
  std::unique_ptr<RankGroup> group_;
  mutable bool has_begun_ = false;
};

}  // namespace potstill
