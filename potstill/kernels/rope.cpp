#include "potstill/kernels/rope.h"

#include <cmath>

namespace potstill::kernels {

void rope_angles(int64_t position, std::span<const float> inverse_frequencies, std::span<float> cosines,
                 std::span<float> sines) {
  for (size_t i = 0; i < inverse_frequencies.size(); ++i) {
    const double angle = static_cast<double>(position) * inverse_frequencies[i];
    cosines[i] = static_cast<float>(std::cos(angle));
    sines[i] = static_cast<float>(std::sin(angle));
  }
}

// Two loops rather than one with a stride: each is a plain pattern that the compiler turns into vectors.
void rope(RopeOrder order, std::span<const float> cosines, std::span<const float> sines, float* head) {
  const size_t half = cosines.size();
  if (order == RopeOrder::kHalves) {
    for (size_t i = 0; i < half; ++i) {
      const float a = head[i], b = head[i + half];
      head[i] = a * cosines[i] - b * sines[i];
      head[i + half] = a * sines[i] + b * cosines[i];
    }
  } else {
    for (size_t i = 0; i < half; ++i) {
      const float a = head[2 * i], b = head[2 * i + 1];
      head[2 * i] = a * cosines[i] - b * sines[i];
      head[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
  }
}

std::vector<double> rope_ref(RopeOrder order, int64_t position, std::span<const float> inverse_frequencies,
                             std::span<const float> head) {
  const size_t half = inverse_frequencies.size();
  std::vector<double> turned(2 * half);
  for (size_t i = 0; i < half; ++i) {
    const size_t first = order == RopeOrder::kHalves ? i : 2 * i;
    const size_t second = order == RopeOrder::kHalves ? i + half : 2 * i + 1;
    const double angle = static_cast<double>(position) * inverse_frequencies[i];
    turned[first] = head[first] * std::cos(angle) - head[second] * std::sin(angle);
    turned[second] = head[first] * std::sin(angle) + head[second] * std::cos(angle);
  }
  return turned;
}

}  // namespace potstill::kernels
