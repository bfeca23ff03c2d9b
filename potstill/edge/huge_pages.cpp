#include "potstill/edge/huge_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"

namespace potstill::edge {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Each matrix once; of a tied head the table alone.
std::vector<kernels::MatrixView*> matrices_of(EdgeWeights& weights) {
  std::vector<kernels::MatrixView*> matrices{&weights.embedding};
  for (LayerWeights& layer : weights.layers) {
    for (Linear* linear : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj, &layer.gate_proj, &layer.up_proj,
                           &layer.down_proj}) {
      matrices.push_back(&linear->weight);
    }
  }
  if (weights.head.data != weights.embedding.data) matrices.push_back(&weights.head);
  return matrices;
}

size_t bytes_of(const kernels::MatrixView& matrix) { return static_cast<size_t>(matrix.rows) * matrix.row_bytes; }

// Lets go of the whole pages inside: those of a read-only mapping come back from the file if anybody asks.
void release(const std::byte* data, size_t bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = round_up(reinterpret_cast<uintptr_t>(data), page),
                  end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace

void WeightArena::operator()(std::byte* memory) const { ::munmap(memory, bytes); }

bool huge_pages_pay(uint64_t weight_bytes) {
  if (weight_bytes < uint64_t{1} << 30 || available_memory_bytes() < weight_bytes + weight_bytes / 4) return false;
  std::ifstream stream("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string choice;
  return std::getline(stream, choice) && choice.find("[never]") == std::string::npos;
}

void move_to_huge_pages(EdgeWeights& weights, ThreadPool& pool) {
  if (!weights.copies.empty()) return;  // a folder's 4-bit weights are copies already
  const bool tied = weights.head.data == weights.embedding.data;
  const auto matrices = matrices_of(weights);
  size_t total = kHugePage;
  for (const auto* matrix : matrices) total += round_up<size_t>(bytes_of(*matrix), 64);
  void* memory = ::mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorKind::kMemory, "--huge-pages", "cannot have " + format_bytes(total) + " for the weights",
                "leave the option out: the file is then used where it lies");
  }
  ::madvise(memory, total, MADV_HUGEPAGE);
  weights.arena = {static_cast<std::byte*>(memory), WeightArena{total}};
  auto* out = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<uintptr_t>(memory), uintptr_t{kHugePage}));
  for (auto* matrix : matrices) {
    const std::byte* data = matrix->data;
    const size_t bytes = bytes_of(*matrix);
    for (size_t at = 0; at < bytes; at += 8 * kHugePage) {  // both copies of no more than this much at a time
      const size_t chunk = std::min(8 * kHugePage, bytes - at);
      pool.parallel_for(static_cast<int64_t>(chunk), int64_t{1} << 20, [&](int64_t begin, int64_t end, int) {
        std::memcpy(out + at + begin, data + at + begin, static_cast<size_t>(end - begin));
      });
      release(data + at, chunk);
    }
    matrix->data = out;
    out += round_up<size_t>(bytes, 64);
  }
  if (tied) weights.head = weights.embedding;
}

}  // namespace potstill::edge
