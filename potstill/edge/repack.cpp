#include "potstill/edge/repack.h"

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
#include "potstill/kernels/kernels.h"
#include "potstill/kernels/lane_order.h"

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

// Bytes from p to the next multiple of `alignment`.
size_t padding_to(const std::byte* p, size_t alignment) {
  return (alignment - reinterpret_cast<uintptr_t>(p) % alignment) % alignment;
}

// Lets go of the whole pages inside: those of a read-only mapping come back from the file if anybody asks.
void release(const std::byte* data, size_t bytes) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t before = padding_to(data, page), whole = bytes > before ? (bytes - before) / page * page : 0;
  if (whole > 0) ::madvise(const_cast<std::byte*>(data) + before, whole, MADV_DONTNEED);
}

}  // namespace

void WeightArena::operator()(std::byte* memory) const { ::munmap(memory, bytes); }

bool repacking_pays(uint64_t weight_bytes) {
  if (available_memory_bytes() < weight_bytes + weight_bytes / 4) return false;
  if (kernels::kernels().lane_group != 0) return true;
  std::ifstream stream("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string choice;
  return weight_bytes >= uint64_t{1} << 30 && std::getline(stream, choice) &&
         choice.find("[never]") == std::string::npos;
}

namespace {

// Moves a matrix to `out`, a few megabytes at a time: no more than that is there twice.
void move_matrix(kernels::MatrixView& matrix, std::byte* out, ThreadPool& pool) {
  const int64_t group = kernels::lane_group_of(matrix, kernels::kernels().lane_group);
  const int64_t rows_a_unit = std::max<int64_t>(group, 1), num_units = matrix.rows / rows_a_unit;
  const size_t unit_bytes = static_cast<size_t>(rows_a_unit) * matrix.row_bytes;
  const auto units_a_chunk = static_cast<int64_t>(std::max<size_t>(1, 8 * kHugePage / unit_bytes));
  for (int64_t first = 0; first < num_units; first += units_a_chunk) {
    const int64_t count = std::min(units_a_chunk, num_units - first);
    const std::byte* data = matrix.data + static_cast<size_t>(first) * unit_bytes;
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
      std::byte* to = out + static_cast<size_t>(first + begin) * unit_bytes;
      if (group != 0) return kernels::put_into_lanes(matrix, group, first + begin, first + end, to);
      std::memcpy(to, data + static_cast<size_t>(begin) * unit_bytes, static_cast<size_t>(end - begin) * unit_bytes);
    });
    release(data, static_cast<size_t>(count) * unit_bytes);
  }
  matrix.data = out;
  matrix.lane_group = group;
}

}  // namespace

void repack(EdgeWeights& weights, ThreadPool& pool) {
  const bool tied = weights.head.data == weights.embedding.data;
  const auto matrices = matrices_of(weights);
  size_t total = kHugePage;
  for (const auto* matrix : matrices) total += round_up<size_t>(matrix->bytes(), 64);
  void* memory = ::mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorKind::kMemory, "--repack", "cannot have " + format_bytes(total) + " for the weights",
                "--no-repack uses the file where it lies");
  }
  ::madvise(memory, total, MADV_HUGEPAGE);
  weights.arena = {static_cast<std::byte*>(memory), WeightArena{total}};
  std::byte* out = weights.arena.get() + padding_to(weights.arena.get(), kHugePage);
  for (auto* matrix : matrices) {
    const std::byte* before = matrix->data;
    move_matrix(*matrix, out, pool);
    std::erase_if(weights.copies, [before](const auto& copy) { return copy.get() == before; });
    out += round_up<size_t>(matrix->bytes(), 64);
  }
  if (tied) weights.head = weights.embedding;
}

}  // namespace potstill::edge
