// The learning rate over a run: a linear rise, then half a cosine.
#pragma once

#include <cstdint>

namespace potstill {

struct CosineSchedule {
  double peak = 0;
  double min_ratio = 0;  // the last step's rate would be peak · min_ratio
  int64_t warmup_steps = 0, num_steps = 0;

  // Step 0 is the first. Rises as peak · (step + 1) / warmup_steps; then
  // min + (peak - min) / 2 · (1 + cos(π (step - warmup_steps) / (num_steps - warmup_steps))).
  double lr(int64_t step) const;
};

}  // namespace potstill
