#include "potstill/stages/train_ranks.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/distill/rank_group.h"
#include "potstill/nn/gpus.h"

namespace potstill {
namespace {

constexpr const char* kBegin = "begin";

}  // namespace

TrainRanks::TrainRanks() {
  const RankPlace place = rank_place();
  if (place.size == 1) return;
  const int share = std::max(1, num_cpus() / std::max(1, place.local_size));
  if (at::get_num_threads() > share) at::set_num_threads(share);
  if (const int gpus = num_gpus(); gpus > 0) use_gpu(place.local_rank % gpus);
  group_ = join_ranks(place);
  log_info("rank {} of {}, {} threads", place.rank, place.size, at::get_num_threads());
}

TrainRanks::~TrainRanks() = default;

bool TrainRanks::is_first() const { return !group_ || group_->rank() == 0; }

void TrainRanks::run(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data,
                     ArtifactWriter& out) const {
  if (group_) group_->from_first(kBegin);
  has_begun_ = true;
  run_train_stage(inputs, config, data, out, group_.get());
}

void TrainRanks::join(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data,
                      uint64_t seed) const {
  if (group_->from_first({}) == kBegin) join_train_stage(inputs, config, data, seed, *group_);
}

void TrainRanks::finish() const {
  if (group_ && !has_begun_) group_->from_first("nothing to do");
}

}  // namespace potstill
