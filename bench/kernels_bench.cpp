// The products, one thread: bytes of weights a second for matvec (small: from the L2; large: from memory),
// multiplications a second for matmul. POTSTILL_ISA chooses the instruction set.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <vector>

#include "tests/kernels/random_weight.h"

#include "potstill/kernels/kernels.h"
#include "potstill/kernels/lane_order.h"

namespace potstill::kernels {
namespace {

constexpr DType kDTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0};

// Activations of some tokens, with their parts.
struct Planes {
  std::vector<float> x, scales, sums;
  std::vector<int8_t> high, low;
  std::vector<int32_t> offsets;
  Activations view;

  Planes(const KernelTable& table, int64_t cols, int64_t num_tokens, bool exact)
      : x(normals(static_cast<size_t>(cols * num_tokens), 2)),
        scales(x.size() / kBlock),
        sums(scales.size()),
        high(x.size()),
        low(x.size()),
        offsets(scales.size()) {
    int8_t* low_codes = exact ? low.data() : nullptr;
    table.quantize_row(x.data(), cols * num_tokens, high.data(), low_codes, scales.data(), sums.data(), offsets.data());
    view = {num_tokens, cols, x.data(), high.data(), low_codes, scales.data(), sums.data(), offsets.data()};
  }
};

MatrixView in_lanes(MatrixView view, int64_t group, std::vector<std::byte>& bytes) {
  bytes.resize(static_cast<size_t>(view.rows) * view.row_bytes + 64);
  std::byte* out = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64);
  put_into_lanes(view, group, 0, view.rows / group, out);
  view.data = out;
  view.lane_group = group;
  return view;
}

void matvec(benchmark::State& state) {
  std::vector<std::byte> lanes;
  const KernelTable& table = kernels();
  const DType dtype = kDTypes[state.range(0)];
  const bool exact = state.range(1) == 0;
  const int64_t rows = state.range(2), cols = state.range(3), num_tokens = state.range(4);
  const auto weight = random_weight(dtype, rows, cols, 1);
  const int64_t group = lane_group_of(weight.view, table.lane_group);
  const auto view = state.range(5) == 1 && group != 0 ? in_lanes(weight.view, group, lanes) : weight.view;
  const Planes x(table, cols, num_tokens, exact);
  std::vector<float> y(static_cast<size_t>(rows * num_tokens));
  for (auto _ : state) {
    table.matvec(view, 0, rows, x.view, 0, num_tokens, false, y.data(), rows);
    benchmark::DoNotOptimize(y.data());
  }
  state.SetLabel(std::string(table.name) + " " + std::string(dtype_name(dtype)) + (exact ? " exact" : " fast"));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(weight.bytes.size()));
}
BENCHMARK(matvec)
    ->ArgNames({"type", "fast", "rows", "cols", "tokens", "lanes"})
    ->ArgsProduct({{0, 1, 2}, {0, 1}, {512, 100000}, {576, 1536}, {1}, {0, 1}})
    ->ArgsProduct({{0}, {0}, {512}, {576}, {2, 4, 8}, {0, 1}});

void matmul(benchmark::State& state) {
  const KernelTable& table = kernels();
  const DType dtype = kDTypes[state.range(0)];
  const bool exact = state.range(1) == 0;
  const int64_t rows = 576, cols = state.range(2), num_tokens = state.range(3);
  const auto weight = random_weight(dtype, rows, cols, 1);
  const Planes x(table, cols, num_tokens, exact);
  std::vector<float> y(static_cast<size_t>(rows * num_tokens));
  auto* scratch = static_cast<std::byte*>(std::aligned_alloc(64, (matmul_scratch_bytes() + 63) / 64 * 64));
  for (auto _ : state) {
    table.matmul(weight.view, 0, rows, x.view, 0, num_tokens, false, y.data(), rows, scratch);
    benchmark::DoNotOptimize(y.data());
  }
  std::free(scratch);
  state.SetLabel(std::string(table.name) + " " + std::string(dtype_name(dtype)) + (exact ? " exact" : " fast"));
  state.SetItemsProcessed(state.iterations() * rows * cols * num_tokens);
}
BENCHMARK(matmul)->ArgNames({"type", "fast", "cols", "tokens"})->ArgsProduct({{0, 2}, {0, 1}, {576, 1536}, {32, 256}});

}  // namespace
}  // namespace potstill::kernels

BENCHMARK_MAIN();
