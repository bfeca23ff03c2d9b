// The arithmetic of a decoder, once per instruction set; the best set of the machine is chosen when it is first asked
// for. Every function is the fast form of its namesake `_ref` in kernels_ref.h. None of them allocates or throws, and
// no result depends on how rows, tokens or queries are cut into calls: a caller may split the work over threads as it
// likes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "potstill/kernels/kv_layout.h"
#include "potstill/kernels/matrix.h"

namespace potstill::kernels {

// One KV head's part of attention, for any number of queries that share it.
struct AttentionTask {
  KvLayout layout;
  float scale = 1.0f;  // of the scores: head_dim^-1/2
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
  int64_t num_queries = 0;
  const float* const* queries = nullptr;  // [num_queries] -> [head_dim]
  float* const* outputs = nullptr;        // [num_queries] -> [head_dim]
  const int64_t* begin = nullptr;         // [num_queries] positions seen: [begin, end), never empty
  const int64_t* end = nullptr;
};

// Floats that attention() needs, 64-byte aligned, however many positions there are.
constexpr int64_t kAttentionBlock = 64;  // positions whose scores are alive at a time
constexpr int64_t attention_scratch_floats(const KvLayout& layout, int64_t num_queries) {
  const int64_t tiles = 2 * kAttentionBlock * layout.stride, rows = num_queries * (layout.stride + 2);
  return tiles + rows + 4 * kAttentionBlock + 16 * layout.num_scales() + 16;
}
constexpr int64_t kTileRows = 32;  // rows of a weight that matmul() works on at a time
size_t matmul_scratch_bytes();     // what matmul() needs, 64-byte aligned

struct KernelTable {
  const char* name;    // "portable", "neon", "avx2", "avx512"
  int64_t lane_group;  // rows of the largest group that it takes side by side (lane_order.h); 0: none

  // y[(t - token_begin) * y_stride + r - row_begin] = Σ_k weight[r, k] x[t, k] for rows [row_begin, row_end) and tokens
  // [token_begin, token_end) of x, straight from the file's bytes: for one token or a few. With `add` the sums are
  // added to y. Of rows that lie side by side row_begin and row_end are multiples of kTileRows, or the last row's.
  void (*matvec)(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x,
                 int64_t token_begin, int64_t token_end, bool add, float* y, int64_t y_stride);
  // The same with weights unpacked once for all the tokens. row_begin is a multiple of kTileRows.
  void (*matmul)(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x,
                 int64_t token_begin, int64_t token_end, bool add, float* y, int64_t y_stride, std::byte* scratch);

  // out[k] = x[k] for a row of a weight, dequantized.
  void (*dequantize_row)(const MatrixView& weight, int64_t row, float* out);
  // Codes, scales and sums of Activations (low null: fast). cols % 32 == 0.
  void (*quantize_row)(const float* x, int64_t cols, int8_t* high, int8_t* low, float* scales, float* block_sums,
                       int32_t* offsets);

  // y = x / sqrt(mean(x²) + eps) * weight; y may be x.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* y);
  // gate = silu(gate) * up.
  void (*swiglu)(float* gate, const float* up, int64_t n);
  void (*add)(float* x, const float* y, int64_t n);  // x += y
  void (*softmax)(float* x, int64_t n);              // in place
  void (*attention)(const AttentionTask& task, float* scratch);
  // Into the caches of AttentionTask: key [head_dim] to position `position`, value likewise.
  void (*store_key)(const KvLayout& layout, const float* key, int64_t position, std::byte* keys);
  void (*store_value)(const KvLayout& layout, const float* value, int64_t position, std::byte* values);
};

// The best table for this machine, or the one that POTSTILL_ISA names (portable, neon, avx2, avx512).
// Throws Error(kUsage) once, for a name that is not known or that the machine cannot run.
const KernelTable& kernels();
// The tables that this machine can run, the portable one first: for tests and benchmarks.
std::vector<const KernelTable*> runnable_kernels();
// What kernels() does with a given name; empty = the best one.
const KernelTable& choose_kernels(const std::string& name);

}  // namespace potstill::kernels
