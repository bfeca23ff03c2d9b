#include "potstill/base/energy.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace potstill {
namespace {

class EnergyTest : public testing::Test {
 protected:
  EnergyTest() : root_(testing::TempDir() + "/powercap_" + std::to_string(::getpid())) {}
  ~EnergyTest() override { std::filesystem::remove_all(root_); }
  void put(const std::string& zone, const std::string& file, uint64_t value) {
    std::filesystem::create_directories(root_ / zone);
    std::ofstream(root_ / zone / file) << value << "\n";
  }
  std::filesystem::path root_;
};

TEST_F(EnergyTest, AddsThePackagesAndNotTheirParts) {
  for (const char* zone : {"intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl-mmio:0", "dtpm"}) {
    put(zone, "energy_uj", 5'000'000);
    put(zone, "max_energy_range_uj", 10'000'000);
  }
  const EnergyMeter meter(root_);
  EXPECT_TRUE(meter.readable());
  put("intel-rapl:0", "energy_uj", 7'000'000);
  put("intel-rapl:0:0", "energy_uj", 9'000'000);
  put("intel-rapl:1", "energy_uj", 1'000'000);  // it went past its end
  EXPECT_NEAR(meter.joules(), 2.0 + 6.0, 1e-9);
}

TEST_F(EnergyTest, IsNotReadableWhereThereIsNothing) {
  const EnergyMeter meter(root_);
  EXPECT_FALSE(meter.readable());
  EXPECT_EQ(meter.joules(), 0);
}

}  // namespace
}  // namespace potstill
