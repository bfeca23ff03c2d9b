#include "potstill/stages/search_explain.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace potstill {
namespace {

const Space kSpace{{"alpha", FloatDistribution{.low = 0.0, .high = 1.0}},
                   {"temperature", FloatDistribution{.low = 1.0, .high = 8.0, .log = true}}};

// Trials over a grid, value = slope · alpha + 1.
std::string why(double slope) {
  std::vector<PastTrial> trials;
  for (const double alpha : {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}) {
    for (const double temperature : {1.0, 2.0, 6.0}) {
      trials.push_back({.number = static_cast<int64_t>(trials.size()),
                        .params = {{"alpha", alpha}, {"temperature", temperature}},
                        .value = 1 + slope * alpha});
    }
  }
  return explain_alpha(kSpace, trials, "kl").value("why", "");
}

TEST(ExplainAlpha, SaysWhichOfTeacherAndLabelsHelped) {
  EXPECT_NE(why(-0.5).find("teacher's distributions teach more"), std::string::npos) << why(-0.5);
  EXPECT_NE(why(0.5).find("labels of the pairs help more"), std::string::npos) << why(0.5);
}

TEST(ExplainAlpha, IsSilentWhereAlphaWasNotSearched) {
  EXPECT_TRUE(explain_alpha({{"lr", FloatDistribution{.low = 0.1, .high = 1.0}}}, {}, "kl").is_null());
}

}  // namespace
}  // namespace potstill
