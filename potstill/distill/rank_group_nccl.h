// Sums over GPUs by c10d's NCCL, for a build against a LibTorch with CUDA whose headers of CUDA and NCCL are there.
#pragma once

#include <chrono>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace potstill {

// A call of the backend comes back when its sum is there, or throws after its timeout. Nothing is sent before the
// first.
c10::intrusive_ptr<c10d::Backend> make_nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                                    std::chrono::milliseconds patience);

}  // namespace potstill
