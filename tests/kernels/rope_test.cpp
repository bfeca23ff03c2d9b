#include "potstill/kernels/rope.h"

#include <gtest/gtest.h>

#include "tests/kernels/random_weight.h"

namespace potstill::kernels {
namespace {

TEST(Rope, EqualsItsDefinitionInBothOrdersFarOut) {
  const std::vector<float> frequencies{1.0f, 0.1f, 0.01f, 1.7e-3f, 3e-5f};
  for (const RopeOrder order : {RopeOrder::kHalves, RopeOrder::kInterleaved}) {
    for (const int64_t position : {0, 1, 17, 8191, 131071}) {
      auto head = normals(10, 1);
      const auto expected = rope_ref(order, position, frequencies, head);
      std::vector<float> cosines(5), sines(5);
      rope_angles(position, frequencies, cosines, sines);
      rope(order, cosines, sines, head.data());
      for (size_t i = 0; i < head.size(); ++i) EXPECT_NEAR(head[i], expected[i], 1e-6) << position << " " << i;
    }
  }
}

}  // namespace
}  // namespace potstill::kernels
