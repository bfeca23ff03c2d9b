#include "potstill/distill/rank_group.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "potstill/base/error.h"
#include "potstill/base/sha256.h"

namespace potstill {
namespace {

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != 0 ? std::optional<std::string>(value) : std::nullopt;
}

std::optional<int> number(const char* name) {
  const auto text = variable(name);
  if (!text) return std::nullopt;
  int value = -1;
  const auto [stop, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || stop != text->data() + text->size() || value < 0) {
    throw Error(ErrorKind::kUsage, name, fmt::format("is '{}', which is no whole number", *text),
                "torchrun and mpirun set it; unset it to train in one process");
  }
  return value;
}

}  // namespace

std::vector<int64_t> share_of_rank(std::span<const int64_t> items, const RankGroup* group) {
  const size_t first = group ? static_cast<size_t>(group->rank()) : 0;
  const size_t stride = group ? static_cast<size_t>(group->size()) : 1;
  std::vector<int64_t> share;
  for (size_t i = first; i < items.size(); i += stride) share.push_back(items[i]);
  return share;
}

RankPlace rank_place() {
  RankPlace place;
  std::optional<int> rank, size;
  constexpr const char* kNames[][4] = {
      {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
      {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"}};
  for (const auto& names : kNames) {
    rank = number(names[0]);
    size = number(names[1]);
    if (!rank && !size) continue;
    if (!rank || !size || *size < 1 || *rank >= *size) {
      throw Error(
          ErrorKind::kUsage, names[0],
          fmt::format("{} = {} and {} = {} do not go together", names[0], rank ? std::to_string(*rank) : "(unset)",
                      names[1], size ? std::to_string(*size) : "(unset)"),
          "set both, or none to train in one process");
    }
    place.local_rank = number(names[2]).value_or(0);
    place.local_size = number(names[3]).value_or(1);
    break;
  }
  if (!size || *size == 1) return place;
  place.rank = *rank;
  place.size = *size;
  const auto address = variable("MASTER_ADDR");
  const auto port = number("MASTER_PORT");
  if (!address || !port) {
    throw Error(ErrorKind::kUsage, address ? "MASTER_PORT" : "MASTER_ADDR",
                fmt::format("is not set, and {} ranks must find each other", place.size),
                "torchrun sets it; with mpirun: -x MASTER_ADDR=HOST -x MASTER_PORT=29500");
  }
  place.master_address = *address;
  place.master_port = *port;
  place.agent_listens = variable("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True";
  if (place.agent_listens) {  // as torch.distributed's env:// does it: each attempt of torchrun under a key of its own
    place.store_prefix = fmt::format("/worker/attempt_{}", variable("TORCHELASTIC_RESTART_COUNT").value_or("0"));
  }
  return place;
}

std::string RankGroup::from_first(const std::string& text) {
  at::Tensor length = at::full({1}, rank() == 0 ? static_cast<int64_t>(text.size()) : 0, at::kLong);
  sum(length, kPatience);
  at::Tensor bytes = at::zeros({length.item<int64_t>()}, at::kByte);
  if (bytes.numel() == 0) return {};
  if (rank() == 0) std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  sum(bytes, kPatience);
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<size_t>(bytes.numel())};
}

std::vector<double> RankGroup::sum(const std::vector<double>& numbers, std::chrono::milliseconds patience) {
  at::Tensor tensor = at::tensor(numbers, at::kDouble);
  sum(tensor, patience);
  const double* values = tensor.const_data_ptr<double>();
  return {values, values + tensor.numel()};
}

void RankGroup::require_equal(const std::string& text, const std::string& what) {
  const std::string own = sha256_hex(text), first = from_first(own);
  const auto others = sum(std::vector<double>{own == first ? 0.0 : 1.0}, kPatience);
  if (others.front() == 0) return;
  throw Error(ErrorKind::kInput, fmt::format("rank {} of {}", rank(), size()),
              fmt::format("{} of the ranks have {} other than rank 0's", others.front(), what),
              "start the same command on every rank, over the same files");
}

}  // namespace potstill
