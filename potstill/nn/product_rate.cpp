#include "potstill/nn/product_rate.h"

#include <algorithm>
#include <chrono>

#include "potstill/nn/matmul.h"

namespace potstill {

double measured_flops_per_second(at::ScalarType dtype, at::Device device) {
  const auto a = at::randn({512, 1024}).to(device, dtype), b = at::randn({1024, 1024}).to(device, dtype);
  // item() waits for a device that works on its own.
  const auto product = [&] { return times_transposed(a, b)[0][0].item<double>(); };
  product();  // starts the threads, builds the kernel
  double best = 1e30, total = 0;
  while (total < 0.05) {
    const auto start = std::chrono::steady_clock::now();
    product();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return 2.0 * 512 * 1024 * 1024 / best;
}

}  // namespace potstill
