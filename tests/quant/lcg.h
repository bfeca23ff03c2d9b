// The generator of tests/golden/quant/gptq.py.
#pragma once

#include <cstdint>

namespace potstill {

class Lcg {
 public:
  explicit Lcg(uint64_t seed) : state_(seed) {}
  double uniform() {  // [-1, 1) in steps of 2⁻²³
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state_ >> 40) / 8388608.0 - 1.0;
  }

 private:
  uint64_t state_;
};

}  // namespace potstill
