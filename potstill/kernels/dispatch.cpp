// Which instruction set runs. This file is compiled for the oldest machine; the tables' own files are not.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "potstill/base/error.h"
#include "potstill/kernels/kernels.h"
#include "potstill/kernels/tables.h"
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace potstill::kernels {
#if defined(__x86_64__)
namespace {

bool has_f16c() {  // gcc 12's __builtin_cpu_supports does not know the name
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace
#endif

std::vector<const KernelTable*> runnable_kernels() {
  std::vector<const KernelTable*> tables{&portable_table()};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && has_f16c();
  if (avx2) tables.push_back(&avx2_table());
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni")) {
    tables.push_back(&avx512_table());
  }
#elif defined(__aarch64__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) tables.push_back(&neon_table());
#endif
  return tables;
}

const KernelTable& choose_kernels(const std::string& name) {
  const auto tables = runnable_kernels();
  if (name.empty()) return *tables.back();
  std::string names;
  for (const KernelTable* table : tables) {
    if (table->name == name) return *table;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", table->name);
  }
  throw Error(ErrorKind::kUsage, "POTSTILL_ISA", fmt::format("'{}' cannot run here", name),
              fmt::format("this machine runs: {}", names));
}

const KernelTable& kernels() {
  static const KernelTable& chosen = [&]() -> const KernelTable& {
    const char* name = std::getenv("POTSTILL_ISA");
    return choose_kernels(name == nullptr ? "" : name);
  }();
  return chosen;
}

// Codes, scales and minima of a tile's chunk; or sixteen rows of it as fp32.
size_t matmul_scratch_bytes() {
  constexpr size_t kCodes = kTileRows * kChunkCols, kHeads = kTileRows * kChunkCols / kBlock * 2 * sizeof(float);
  constexpr size_t kFloats = 16 * kChunkCols * sizeof(float);
  return std::max(kCodes + kHeads, kFloats);
}

}  // namespace potstill::kernels
