#include "potstill/quant/gptq.h"

#include <algorithm>
#include <vector>

#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/quant/column_kernels.h"
#include "potstill/quant/parallel.h"

namespace potstill {
namespace {

using quant::kLanes;

quant::CodeRange code_range(int64_t bits) { return bits == 8 ? quant::CodeRange{-128, 127} : quant::CodeRange{}; }

// Owns what the kernels work on: the weight transposed, its rows padded to whole lanes.
struct Columns {
  Columns(const at::Tensor& weight, const GridSpec& grid) : num_rows(weight.size(0)), bits(grid.bits) {
    const int64_t I = weight.size(1), padded = round_up(num_rows, kLanes);
    POTSTILL_CHECK(bits == 4 || bits == 8);
    require_group_divides(grid.group_size, I, "weight");
    weights = at::zeros({I, padded}, at::kFloat);
    weights.slice(1, 0, num_rows).copy_(weight.t());
    codes = at::zeros({I, padded}, at::kChar);
    scales = at::ones({I / grid.group_size, padded}, at::kFloat);
    zeros = at::zeros({I / grid.group_size, padded}, at::kFloat);
    set_order(at::arange(I, at::kLong), grid.group_size);
  }

  // Column i of `weights` is column order[i] of the model from now on.
  void set_order(const at::Tensor& new_order, int64_t group_size) {
    order = new_order.contiguous();
    const int64_t* columns = order.const_data_ptr<int64_t>();
    group_of.resize(static_cast<size_t>(order.numel()));
    for (size_t i = 0; i < group_of.size(); ++i) group_of[i] = static_cast<int32_t>(columns[i] / group_size);
  }

  quant::ColumnWork work() {
    return {.rows = weights.size(1),
            .columns = weights.size(0),
            .weights = weights.mutable_data_ptr<float>(),
            .codes = codes.mutable_data_ptr<int8_t>(),
            .group_of = group_of.data(),
            .scales = scales.mutable_data_ptr<float>(),
            .zeros = zeros.mutable_data_ptr<float>(),
            .range = code_range(bits)};
  }

  // Back to [O, I], in the model's own order of columns.
  QuantizedWeight result(bool symmetric) const {
    const auto own_order = at::empty_like(codes).index_copy_(0, order, codes);
    return {own_order.slice(1, 0, num_rows).t().contiguous(), scales.slice(1, 0, num_rows).t().contiguous(),
            zeros.slice(1, 0, num_rows).t().to(at::kChar).contiguous(), symmetric, bits};
  }

  int64_t num_rows, bits;
  at::Tensor weights, codes, scales, zeros, order;
  std::vector<int32_t> group_of;
};

quant::ScaleSearch make_search(const GridSpec& grid, const at::Tensor& importance) {
  return {.clip = grid.clip == ClipRule::kNone ? quant::Clip::kNone : quant::Clip::kSearch,
          .symmetric = grid.symmetric,
          .group_size = grid.group_size,
          .importance = importance.const_data_ptr<float>(),
          .range = code_range(grid.bits)};
}

at::Tensor search_weights(const GridSpec& grid, const at::Tensor& importance, int64_t I) {
  if (grid.clip != ClipRule::kHessian || !importance.defined()) return at::ones({I}, at::kFloat);
  return importance.to(at::kFloat).contiguous();
}

void choose_all_scales(Columns& columns, const quant::ScaleSearch& search) {
  const auto work = columns.work();
  quant::for_each_chunk(work.rows / kLanes, [&](int64_t i) { quant::choose_scales(work, search, i * kLanes); });
}

}  // namespace

QuantizedWeight round_to_nearest(const at::Tensor& weight, const GridSpec& grid, const at::Tensor& importance) {
  Columns columns(weight, grid);
  const auto weighting = search_weights(grid, importance, weight.size(1));
  choose_all_scales(columns, make_search(grid, weighting));
  const auto work = columns.work();
  quant::for_each_chunk(work.rows / kLanes, [&](int64_t i) { quant::round_columns(work, i * kLanes); });
  return columns.result(grid.symmetric);
}

GptqResult gptq_quantize(const at::Tensor& weight, const HessianFactor& factor, const GridSpec& grid, QuantOrder order,
                         int64_t block_size) {
  if (!factor.upper.defined()) return {round_to_nearest(weight, grid, factor.importance)};
  const int64_t I = weight.size(1);
  POTSTILL_CHECK(factor.upper.size(0) == I && block_size > 0);
  Columns columns(weight, grid);
  // A scale for a whole row cannot wait for the loop to reach its group: every column is of it.
  const bool dynamic = order != QuantOrder::kStatic && grid.group_size <= quant::kMaxBlock;
  auto weighting = search_weights(grid, factor.importance, I);
  if (!dynamic) choose_all_scales(columns, make_search(grid, weighting));  // from the original contiguous groups

  columns.weights = columns.weights.index_select(0, factor.order);
  columns.set_order(factor.order, grid.group_size);
  weighting = weighting.index_select(0, factor.order);
  const auto search = make_search(grid, weighting);
  // whole groups: scales chosen inside a block see every update so far (gptq.md section 4, the stale-scale quirk)
  const int64_t whole = dynamic ? grid.group_size : 1;
  const int64_t block = std::min(std::max(block_size, whole) / whole * whole, quant::kMaxBlock / whole * whole);
  const auto errors = at::empty({block, columns.weights.size(1)}, at::kFloat);
  const auto work = columns.work();
  double loss = 0.0;
  for (int64_t begin = 0; begin < I; begin += block) {
    const int64_t end = std::min(begin + block, I);
    const quant::GptqBlock task{.begin = begin,
                                .end = end,
                                .upper = factor.upper.const_data_ptr<float>(),
                                .errors = errors.mutable_data_ptr<float>(),
                                .dynamic = dynamic};
    quant::for_each_chunk(work.rows / kLanes, [&](int64_t i) { quant::gptq_block(work, task, search, i * kLanes); });
    const auto made = errors.slice(0, 0, end - begin);
    loss += made.slice(1, 0, columns.num_rows).square().sum(at::kDouble).item<double>();
    if (end < I) {  // the lazy update: all later columns at once, one matrix product
      const auto coupling = factor.upper.slice(0, begin, end).slice(1, end, I);
      columns.weights.slice(0, end, I).addmm_(coupling.t(), made, /*beta=*/1, /*alpha=*/-1);
    }
  }
  return {columns.result(grid.symmetric), 0.5 * loss};
}

}  // namespace potstill
