#include "potstill/base/machine.h"

#include <malloc.h>
#include <sched.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

namespace potstill {
namespace {

// The number behind "key" in a /proc file that counts in kB, as bytes; 0 where there is none.
uint64_t proc_kilobytes(const char* file, const std::string& key) {
  std::ifstream stream(file);
  std::string line;
  while (std::getline(stream, line)) {
    if (line.rfind(key, 0) == 0) return std::stoull(line.substr(key.size())) * 1024;
  }
  return 0;
}

std::string cpuinfo_value(const std::string& key) {
  std::ifstream stream("/proc/cpuinfo");
  std::string line;
  while (std::getline(stream, line)) {
    const size_t colon = line.find(':');
    if (line.rfind(key, 0) == 0 && colon != std::string::npos && colon + 2 <= line.size())
      return line.substr(colon + 2);
  }
  return {};
}

}  // namespace

uint64_t rss_bytes() { return proc_kilobytes("/proc/self/status", "VmRSS:"); }
uint64_t peak_rss_bytes() { return proc_kilobytes("/proc/self/status", "VmHWM:"); }
void reset_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }  // proc(5): sets VmHWM to the present size

uint64_t available_memory_bytes() { return proc_kilobytes("/proc/meminfo", "MemAvailable:"); }

uint64_t free_disk_bytes(const std::filesystem::path& path) {
  std::filesystem::path existing = std::filesystem::absolute(path);
  while (!std::filesystem::exists(existing) && existing.has_relative_path()) existing = existing.parent_path();
  std::error_code error;
  const auto space = std::filesystem::space(existing, error);
  return error ? 0 : space.available;
}

// Processors' worth of time that a container's quota allows (cgroup v2: "max 100000" or "150000 100000"), or a large
// number.
int cpu_quota(const std::filesystem::path& cpu_max) {
  std::ifstream stream(cpu_max);
  double quota = 0, period = 0;
  if (!(stream >> quota >> period) || quota <= 0 || period <= 0) return INT_MAX;
  return std::max(1, static_cast<int>(std::ceil(quota / period)));
}

int num_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int count = ::sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::min(count, cpu_quota("/sys/fs/cgroup/cpu.max"));  // inside a container that is its own
}

std::string cpu_name() {
  const std::string name = cpuinfo_value("model name");
  return name.empty() ? "unknown processor" : name;
}

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that glibc allows
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
#endif
}

void return_freed_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void return_large_buffers_when_freed() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
#endif
}

void limit_kernel_cache() {
  for (const char* cache : {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"}) ::setenv(cache, "64", 0);
}

bool cpu_has_avx512() {
  const std::string flags = " " + cpuinfo_value("flags") + " ";
  for (const char* flag : {" avx512f ", " avx512bw ", " avx512dq ", " avx512vl "}) {
    if (flags.find(flag) == std::string::npos) return false;
  }
  return true;
}

bool cpu_has_native_bf16() {
  const std::string flags = " " + cpuinfo_value("flags") + " ";
  return flags.find(" avx512_bf16 ") != std::string::npos || flags.find(" amx_bf16 ") != std::string::npos;
}

}  // namespace potstill
