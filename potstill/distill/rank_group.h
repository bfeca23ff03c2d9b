// RankGroup: the processes that train one adapter together, each on its share of every step's pairs. Only sums go
// between them: the gradients of the LoRA factors, and a few numbers.
#pragma once

#include <ATen/ATen.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace potstill {

class RankGroup {
 public:
  virtual ~RankGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Adds the tensor of all ranks up, in place: the same bytes on each. Contiguous, on the CPU or on this rank's GPU,
  // the same shape and dtype everywhere. Throws Error(kNetwork) when a rank is gone, at once where the operating system
  // says so and otherwise after `patience`.
  virtual void sum(at::Tensor& tensor, std::chrono::milliseconds patience) = 0;

  // Rank 0's text on every rank.
  std::string from_first(const std::string& text);
  // Numbers added up over the ranks.
  std::vector<double> sum(const std::vector<double>& numbers, std::chrono::milliseconds patience);
  // Throws Error(kInput) on every rank unless all have the same text; `what` names it.
  void require_equal(const std::string& text, const std::string& what);

  static constexpr std::chrono::milliseconds kPatience{50'000};  // a dead rank is noticed within a minute
};

// Every size()-th of the items, beginning with rank(): what this rank does of a common list; all without a group.
std::vector<int64_t> share_of_rank(std::span<const int64_t> items, const RankGroup* group);

// Where this process stands among others: RANK and WORLD_SIZE (torchrun), or Open MPI's or MPICH's own variables;
// MASTER_ADDR and MASTER_PORT say where rank 0 listens.
struct RankPlace {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks of this machine, where that is told
  std::string master_address;
  int master_port = 0;
  bool agent_listens = false;  // torchrun's own process serves the store
  std::string store_prefix;
};
// Of the environment; size 1 for a process alone. Throws Error(kUsage) for variables that contradict each other.
RankPlace rank_place();

// Meets the others, by c10d: Gloo sums what is on the CPU; NCCL what is on GPUs, in a build that has it and where each
// rank of a machine has a GPU of its own. Throws Error(kNetwork) when they do not come within two minutes;
// Error(kUsage) in a build without Gloo.
std::unique_ptr<RankGroup> join_ranks(const RankPlace& place);

}  // namespace potstill
