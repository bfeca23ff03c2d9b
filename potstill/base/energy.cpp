#include "potstill/base/energy.h"

#include <fstream>
#include <optional>
#include <string>
#include <system_error>

namespace potstill {
namespace {

std::optional<uint64_t> read_number(const std::filesystem::path& file) {
  std::ifstream stream(file);
  uint64_t value = 0;
  if (stream >> value) return value;
  return std::nullopt;
}

// "intel-rapl:0" is a package, "intel-rapl:0:1" a part of it, "intel-rapl-mmio:0" the same package again.
bool is_package(const std::string& name) {
  constexpr std::string_view kPrefix = "intel-rapl:";
  return name.rfind(kPrefix, 0) == 0 && name.find(':', kPrefix.size()) == std::string::npos;
}

}  // namespace

EnergyMeter::EnergyMeter(const std::filesystem::path& powercap) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(powercap, error)) {
    if (!is_package(entry.path().filename().string())) continue;
    const auto start = read_number(entry.path() / "energy_uj");
    if (!start) continue;
    const auto range = read_number(entry.path() / "max_energy_range_uj");
    packages_.push_back({entry.path() / "energy_uj", *start, range.value_or(0)});
  }
}

double EnergyMeter::joules() const {
  double total = 0;
  for (const Package& package : packages_) {
    const uint64_t now = read_number(package.counter).value_or(package.start);
    total += static_cast<double>(now >= package.start ? now - package.start : now + package.range - package.start);
  }
  return total * 1e-6;
}

}  // namespace potstill
