#include "potstill/distill/rank_group_nccl.h"

#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace potstill {

c10::intrusive_ptr<c10d::Backend> make_nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                                    std::chrono::milliseconds patience) {
  // Without it a call returns before the sum is there, and a rank that is gone ends the process by c10d's watchdog:
  // with a trace, without our message.
  ::setenv("TORCH_NCCL_BLOCKING_WAIT", "1", 0);
  const auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = patience;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::PrefixStore>("nccl", store), rank, size,
                                                     options);
}

}  // namespace potstill
