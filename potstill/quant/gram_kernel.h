// The innermost part of X Xᵀ, for processors whose BLAS does not use what they have: MKL multiplies fp32 by AVX2 on
// other makers' processors, and no BLAS in LibTorch sums products of bf16 in fp32.
#pragma once

#include <cstdint>

namespace potstill::quant {

constexpr int64_t kGramPanel = 48;  // columns

// x [tokens, columns] is packed into panels of kGramPanel columns, [steps, kGramPanel] words of 32 bits each: a word is
// one token's fp32, or two tokens' bf16.
struct GramKernel {
  int64_t tokens_of_step;
  int64_t most_steps;  // of a panel, so that two of them stay in the L2
  // columns <= kGramPanel; what is missing of a panel or a step becomes zero. stride: values from a token to the next.
  void (*pack)(const void* x, int64_t stride, int64_t tokens, int64_t columns, uint32_t* panel);
  // sum[i, j] += Σ over the steps of rows[s, i] · columns[s, j], in fp32 before it is added.
  void (*add_tile)(const uint32_t* rows, const uint32_t* columns, int64_t steps, int64_t num_rows, int64_t num_columns,
                   double* sum, int64_t stride);
};

// For fp32 (AVX-512) and bf16 (AVX512_BF16); the caller makes sure that the processor has it.
extern const GramKernel kGramFp32, kGramBf16;

}  // namespace potstill::quant
