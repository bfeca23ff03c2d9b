#include "potstill/base/machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace potstill {
namespace {

TEST(Machine, ReadsAContainersQuotaOfProcessors) {
  const auto quota = [](const std::string& text) {
    const auto path = std::filesystem::path(testing::TempDir()) / "cpu.max";
    std::ofstream(path) << text;
    return cpu_quota(path);
  };
  EXPECT_EQ(quota("200000 100000\n"), 2);
  EXPECT_EQ(quota("150000 100000\n"), 2);
  EXPECT_EQ(quota("20000 100000\n"), 1);
  EXPECT_GT(quota("max 100000\n"), 1 << 20);
  EXPECT_GT(quota(""), 1 << 20);
  EXPECT_GT(cpu_quota("/nonexistent/cpu.max"), 1 << 20);
  EXPECT_GE(num_cpus(), 1);
}

}  // namespace
}  // namespace potstill
