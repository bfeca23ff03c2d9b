// Energy that the processor's packages say they used, where the kernel lets us read it (Linux powercap: RAPL of Intel
// and AMD).
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace potstill {

// Counts from its construction. Readable by root alone on most machines.
class EnergyMeter {
 public:
  explicit EnergyMeter(const std::filesystem::path& powercap = "/sys/class/powercap");

  bool readable() const { return !packages_.empty(); }
  // Joules of all packages since construction; counters that wrapped once are set right. 0 when not readable.
  double joules() const;

 private:
  struct Package {
    std::filesystem::path counter;
    uint64_t start = 0, range = 0;  // microjoules; the counter begins again after `range`
  };
  std::vector<Package> packages_;
};

}  // namespace potstill
