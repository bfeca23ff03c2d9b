// The inner loops of rounding to a grid, over plain memory. Weights lie transposed, [columns, rows], so that one column
// is contiguous over rows: every row is independent of the others and kLanes of them advance together.
//
// Compiled for several instruction sets, chosen at run time, without fused multiply-add: the codes are the same bits on
// each of them, and for any number of threads.
#pragma once

#include <cstdint>

namespace potstill::quant {

inline constexpr int64_t kLanes = 16;  // rows at a time; row counts are padded to a multiple with zeros
inline constexpr int64_t kMaxBlock = 256;

enum class Clip { kNone, kSearch };

// The codes of a grid: −8 … 7, or −128 … 127.
struct CodeRange {
  float min = -8.0f, max = 7.0f;
};

// How a group's scale is chosen. importance [columns] weights a column's squared error in the search.
struct ScaleSearch {
  Clip clip = Clip::kNone;
  bool symmetric = true;
  int64_t group_size = 64;
  const float* importance = nullptr;
  CodeRange range = {};
};

// [columns, rows] weights in visiting order with their outcome.
struct ColumnWork {
  int64_t rows = 0;                   // a multiple of kLanes
  int64_t columns = 0;                // I
  float* weights = nullptr;           // [columns, rows], updated in place
  int8_t* codes = nullptr;            // [columns, rows]
  const int32_t* group_of = nullptr;  // [columns]: group of the column visited i-th
  float* scales = nullptr;            // [groups, rows]
  float* zeros = nullptr;             // [groups, rows]
  CodeRange range = {};
};

// Scales and zeros of every group for rows [row, row + kLanes); columns must lie in their own order.
void choose_scales(const ColumnWork& work, const ScaleSearch& search, int64_t row);

// Codes of every column for rows [row, row + kLanes): round to nearest.
void round_columns(const ColumnWork& work, int64_t row);

// One block of GPTQ's loop for rows [row, row + kLanes).                                          gptq.md section 4
//   for i in block: q = grid(w_i); e_i = (w_i − q) / U_ii; w_j −= e_i U_ij for the later j of the block
// Leaves e in errors [block, rows] for the lazy update of the columns after the block. With `dynamic`, a group's scale
// is chosen when its first column is reached, from the weights as updated so far; the block holds whole groups.
struct GptqBlock {
  int64_t begin = 0, end = 0;    // columns, at most kMaxBlock
  const float* upper = nullptr;  // U [columns, columns], row-major
  float* errors = nullptr;
  bool dynamic = false;
};
void gptq_block(const ColumnWork& work, const GptqBlock& block, const ScaleSearch& search, int64_t row);

// One sweep of coordinate descent on the codes of rows [row, row + kLanes), columns in their own order.   section 10
//   v = w − q, g = H v:  code j moves by the whole t nearest to g_j / (s H_jj), which lowers vᵀ H v by
//   2 t s g_j − t² s² H_jj >= 0, and g −= t s H_:j
// hessian [columns, columns] is symmetric with a positive diagonal; gradient [columns, kLanes] holds g of these rows
// and is kept up to date. Returns the number of codes that moved. work.weights is not read.
int64_t descend_codes(const ColumnWork& work, const float* hessian, float* gradient, int64_t row);

}  // namespace potstill::quant
