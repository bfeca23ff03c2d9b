// Several ranks of one training: the real Gloo, two ranks as two threads of this process.
#include "potstill/distill/rank_group.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "tests/distill/tiny_models.h"

#include "potstill/base/error.h"
#include "potstill/distill/train.h"

namespace potstill {
namespace {

const bool kOneThread = (at::set_num_threads(1), true);

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(fd);
  return ntohs(address.sin_port);
}

// Runs work(group) on each of `size` ranks; exceptions come back, one slot a rank.
std::vector<std::exception_ptr> on_ranks(int size, const std::function<void(RankGroup&)>& work) {
  const int port = free_port();
  std::vector<std::exception_ptr> failures(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const auto group = join_ranks({.rank = rank,
                                       .size = size,
                                       .local_size = size,
                                       .master_address = "127.0.0.1",
                                       .master_port = port,
                                       .agent_listens = false,
                                       .store_prefix = {}});
        work(*group);
      } catch (...) {
        failures[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return failures;
}

void rethrow_first(const std::vector<std::exception_ptr>& failures) {
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

TEST(RankGroup, AddsUpAndTellsRankZerosText) {
  std::vector<double> sums(3);
  std::vector<std::string> texts(3);
  rethrow_first(on_ranks(3, [&](RankGroup& group) {
    const auto index = static_cast<size_t>(group.rank());
    sums[index] = group.sum({1.0 + group.rank()}, RankGroup::kPatience).front();
    texts[index] = group.from_first(group.rank() == 0 ? "from the first" : "from another");
    group.require_equal("the same", "text");
  }));
  EXPECT_THAT(sums, testing::Each(6.0));
  EXPECT_THAT(texts, testing::Each("from the first"));
}

TEST(RankGroup, RefusesRanksOfDifferentWork) {
  const auto failures =
      on_ranks(2, [](RankGroup& group) { group.require_equal(std::to_string(group.rank()), "seeds"); });
  for (const auto& failure : failures) EXPECT_THROW(std::rethrow_exception(failure), Error);
}

TEST(RankGroup, ReadsItsPlaceFromTheEnvironment) {
  const auto set = [](const char* name, const char* value) { ::setenv(name, value, 1); };
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    ::unsetenv(name);
  }
  EXPECT_EQ(rank_place().size, 1);
  set("OMPI_COMM_WORLD_RANK", "1");
  set("OMPI_COMM_WORLD_SIZE", "3");
  EXPECT_THROW(rank_place(), Error);  // nobody says where to meet
  set("MASTER_ADDR", "10.0.0.1");
  set("MASTER_PORT", "29500");
  EXPECT_EQ(rank_place().rank, 1);
  EXPECT_EQ(rank_place().size, 3);
  set("OMPI_COMM_WORLD_LOCAL_RANK", "1");
  set("OMPI_COMM_WORLD_LOCAL_SIZE", "2");
  EXPECT_EQ(rank_place().local_rank, 1);
  EXPECT_EQ(rank_place().local_size, 2);
  EXPECT_EQ(rank_place().master_port, 29500);
  set("RANK", "2");  // torchrun's come first
  set("WORLD_SIZE", "2");
  EXPECT_THROW(rank_place(), Error);  // rank 2 of 2
  set("RANK", "x");
  EXPECT_THROW(rank_place(), Error);
  for (const char* name : {"RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                           "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    ::unsetenv(name);
  }
}

TEST(TrainLora, TwoRanksGiveTheLossOfOneWithTheSameGlobalBatch) {
  const Transformer student = tiny::random(tiny::config(2), 1), teacher_model = tiny::random(tiny::config(2), 2);
  const DistillData data = tiny::random_data(22, 40, 5);  // the last step has two pairs, or one: a rank may have none
  const tiny::ModelSignal teacher(teacher_model, data);
  DistillConfig config;
  config.rank = 4;
  config.batch_size = 5;
  config.epochs = 2;
  config.optimizer = "adamw";
  config.alpha = 0.7;
  std::vector<TrainStep> alone;
  TrainHooks hooks;
  hooks.on_step = [&](const TrainStep& step) { alone.push_back(step); };
  const auto single = train_lora(student, teacher, data, config, 7, hooks);

  std::vector<std::vector<TrainStep>> steps(2);
  std::vector<std::vector<at::Tensor>> factors(2);
  std::vector<Agreement> held_out(2);
  rethrow_first(on_ranks(2, [&](RankGroup& group) {
    const auto index = static_cast<size_t>(group.rank());
    TrainHooks rank_hooks;
    rank_hooks.group = &group;
    rank_hooks.on_step = [&, index](const TrainStep& step) { steps[index].push_back(step); };
    const auto result = train_lora(student, teacher, data, config, 7, rank_hooks);
    factors[index] = lora_parameters(result.adapter);
    held_out[index] = result.held_out;
  }));
  ASSERT_EQ(steps[0].size(), alone.size());
  for (size_t i = 0; i < alone.size(); ++i) {
    EXPECT_EQ(steps[0][i].loss, steps[1][i].loss);
    EXPECT_NEAR(steps[0][i].loss, alone[i].loss, 2e-5 * alone[i].loss) << "step " << i + 1;
    EXPECT_EQ(steps[0][i].tokens, alone[i].tokens);
  }
  for (size_t i = 0; i < factors[0].size(); ++i) EXPECT_TRUE(factors[0][i].equal(factors[1][i]));
  EXPECT_NEAR(held_out[0].kl, single.held_out.kl, 1e-4 * single.held_out.kl);
  EXPECT_EQ(held_out[0].tokens, single.held_out.tokens);
}

TEST(RankGroup, SaysThatAnotherRankIsGone) {
  const auto failures = on_ranks(2, [](RankGroup& group) {
    group.sum({1.0}, RankGroup::kPatience);
    if (group.rank() == 1) return;  // its connections close
    group.sum({1.0}, std::chrono::milliseconds(5000));
  });
  try {
    ASSERT_TRUE(failures[0]);
    std::rethrow_exception(failures[0]);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNetwork);
    EXPECT_THAT(error.what(), testing::HasSubstr("another rank is gone"));
  }
}

}  // namespace
}  // namespace potstill
