#include <fmt/format.h>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/distill/rank_group.h"
#include "potstill/nn/gpus.h"
#ifdef POTSTILL_NCCL
#include "potstill/distill/rank_group_nccl.h"
#endif

namespace potstill {
namespace {

constexpr std::chrono::milliseconds kMeeting{120'000};

// The first line: c10d's messages carry a stack trace behind it.
std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

bool can_use_nccl([[maybe_unused]] const RankPlace& place) {
#ifdef POTSTILL_NCCL
  return num_gpus() > 0 && place.local_size <= num_gpus();  // it refuses two ranks on one GPU
#else
  return false;
#endif
}

class C10dGroup final : public RankGroup {
 public:
  explicit C10dGroup(const RankPlace& place) : rank_(place.rank), size_(place.size) {
    c10::intrusive_ptr<c10d::Store> store;
    try {
      c10d::TCPStoreOptions store_options;
      store_options.port = static_cast<uint16_t>(place.master_port);
      store_options.isServer = place.rank == 0 && !place.agent_listens;
      store_options.numWorkers = static_cast<size_t>(place.size);
      store_options.waitWorkers = false;
      store_options.timeout = kMeeting;
      store = c10::make_intrusive<c10d::TCPStore>(place.master_address, store_options);
      if (!place.store_prefix.empty()) store = c10::make_intrusive<c10d::PrefixStore>(place.store_prefix, store);
      const auto options = c10d::ProcessGroupGloo::Options::create(kMeeting);
      const bool alone = place.master_address == "127.0.0.1" || place.master_address == "localhost";
      options->devices.push_back(alone ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                       : c10d::ProcessGroupGloo::createDefaultDevice());
      cpu_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, place.rank, place.size, options);
    } catch (const std::exception& error) {
      throw Error(ErrorKind::kNetwork, fmt::format("rank {} of {}", rank_, size_),
                  fmt::format("does not meet the others at {}:{}: {}", place.master_address, place.master_port,
                              first_line(error)),
                  "every rank must be started, with the same MASTER_ADDR and MASTER_PORT, reachable from all");
    }
    at::Tensor able = at::full({1}, can_use_nccl(place) ? 1 : 0, at::kInt);
    sum_by(*cpu_, able, kPatience);
#ifdef POTSTILL_NCCL
    if (able.item<int>() == size_) gpu_ = make_nccl_backend(store, rank_, size_, kPatience);
#endif
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void sum(at::Tensor& tensor, std::chrono::milliseconds patience) override {
    POTSTILL_CHECK(tensor.is_contiguous());
    if (tensor.is_cpu() || gpu_) return sum_by(tensor.is_cpu() ? *cpu_ : *gpu_, tensor, patience);
    at::Tensor host = tensor.cpu();
    sum_by(*cpu_, host, patience);
    tensor.copy_(host);
  }

 private:
  void sum_by(c10d::Backend& backend, at::Tensor& tensor, std::chrono::milliseconds patience) const {
    try {
      std::vector<at::Tensor> tensors = {tensor};
      c10d::AllreduceOptions options;
      options.timeout = patience;
      const auto work = backend.allreduce(tensors, options);
      if (work->wait()) return;
      throw std::runtime_error("the sum did not come to an end");
    } catch (const std::exception& error) {
      throw Error(ErrorKind::kNetwork, fmt::format("rank {} of {}", rank_, size_),
                  fmt::format("another rank is gone: {}", first_line(error)),
                  "see why it ended in its own output; the same command on all ranks goes on from the last checkpoint");
    }
  }

  int rank_, size_;
  c10::intrusive_ptr<c10d::Backend> cpu_, gpu_;  // gpu_: none where what is on GPUs goes through the host's memory
};

}  // namespace

std::unique_ptr<RankGroup> join_ranks(const RankPlace& place) { return std::make_unique<C10dGroup>(place); }

}  // namespace potstill
