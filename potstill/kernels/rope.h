// Rotary position embedding, in the two orders that files use.                      RoFormer, arXiv:2104.09864
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace potstill::kernels {

enum class RopeOrder {
  kHalves,       // element i turns with i + head_dim / 2: Hugging Face, GGUF of qwen2 and qwen3
  kInterleaved,  // element 2 i turns with 2 i + 1: GGUF of llama, whose q and k rows are permuted for it
};

// cos and sin of position * inverse_frequencies[i], taken in double: at position 100,000 a float angle is wrong by
// 1e-3.
void rope_angles(int64_t position, std::span<const float> inverse_frequencies, std::span<float> cosines,
                 std::span<float> sines);
// Turns one head [2 * cosines.size()] in place.
void rope(RopeOrder order, std::span<const float> cosines, std::span<const float> sines, float* head);
std::vector<double> rope_ref(RopeOrder order, int64_t position, std::span<const float> inverse_frequencies,
                             std::span<const float> head);

}  // namespace potstill::kernels
