// What this process uses and what this machine has.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace potstill {

uint64_t rss_bytes();       // of this process now (VmRSS)
uint64_t peak_rss_bytes();  // of this process so far (VmHWM)
void reset_peak_rss();      // peak_rss_bytes counts from now on, where the kernel allows it
uint64_t available_memory_bytes();
uint64_t free_disk_bytes(
    const std::filesystem::path& path);  // of the file system that holds path or its nearest parent
int num_cpus();                          // that this process may run on, and that its container's quota pays for
// Of a cgroup-v2 "cpu.max" file: processors' worth of time, rounded up; a large number where there is no limit.
int cpu_quota(const std::filesystem::path& cpu_max);
std::string cpu_name();  // "AMD EPYC …"
// Tells the allocator to keep what is freed for the next of the large short-lived buffers that training makes, instead
// of giving it back and having the kernel clear it anew (7 % of a bf16 step). For programs, at their start.
void keep_freed_memory();
void return_freed_memory();              // what the allocator keeps, to the kernel
void return_large_buffers_when_freed();  // takes keep_freed_memory() back: no holes between buffers, at some time
// oneDNN compiles a kernel of about 1 MB for every shape of product that it meets and keeps 1,024 of them, LibTorch's
// layer over it as many again, where packed batches of uneven length bring new shapes at every step; a step needs fewer
// than 64. The environment's own numbers win. For programs, at their start.
void limit_kernel_cache();
bool cpu_has_avx512();       // AVX-512 F, BW, DQ and VL
bool cpu_has_native_bf16();  // AVX512_BF16 or AMX: bf16 products at full rate

}  // namespace potstill
