#include "potstill/search/space.h"

#include <gtest/gtest.h>

#include "potstill/base/error.h"

namespace potstill {
namespace {

const Distribution kLog = FloatDistribution{.low = 1e-5, .high = 1e-2, .log = true};
const Distribution kStepped = FloatDistribution{.low = 0.0, .high = 0.2, .step = 0.05};
const Distribution kInt = IntDistribution{.low = 2, .high = 20, .step = 3};
const Distribution kChoice = CategoricalDistribution{{8, 16, "all", nullptr, true}};

TEST(Space, SpellsDistributionsAsOptunaDoes) {
  EXPECT_EQ(distribution_to_json(kLog).dump(),
            R"({"name":"FloatDistribution","attributes":{"step":null,"low":1e-05,"high":0.01,"log":true}})");
  EXPECT_EQ(distribution_to_json(kInt).dump(),
            R"({"name":"IntDistribution","attributes":{"log":false,"step":3,"low":2,"high":20}})");
  EXPECT_EQ(distribution_to_json(kChoice).dump(),
            R"({"name":"CategoricalDistribution","attributes":{"choices":[8,16,"all",null,true]}})");
}

TEST(Space, ReadsWhatItWrites) {
  for (const Distribution& distribution : {kLog, kStepped, kInt, kChoice}) {
    const nlohmann::json json = nlohmann::json::parse(distribution_to_json(distribution).dump());
    EXPECT_EQ(distribution_from_json(json, "test"), distribution) << json;
  }
}

TEST(Space, TurnsValuesIntoOneDoubleAndBack) {
  EXPECT_EQ(internal_value(kChoice, "all", "test"), 2.0);
  EXPECT_EQ(external_value(kChoice, 3.0), nullptr);
  EXPECT_EQ(internal_value(kInt, 11, "test"), 11.0);
  EXPECT_TRUE(external_value(kInt, 11.0).is_number_integer());
  EXPECT_EQ(external_value(kLog, 1e-3), 1e-3);
}

TEST(Space, RefusesValuesOutsideTheDistribution) {
  EXPECT_THROW(internal_value(kChoice, 32, "test"), Error);
  EXPECT_THROW(internal_value(kInt, 12, "test"), Error);
  EXPECT_THROW(internal_value(kLog, 0.1, "test"), Error);
  EXPECT_THROW(internal_value(kLog, "0.001", "test"), Error);
  EXPECT_THROW(external_value(kChoice, 5.0), Error);
  EXPECT_FALSE(holds(kChoice, 0.5));
  EXPECT_TRUE(holds(kStepped, 0.15000000000000002));
}

TEST(Space, RefusesDistributionsThatCannotBe) {
  EXPECT_THROW(check_distribution(FloatDistribution{.low = 1.0, .high = 0.0}, "t"), Error);
  EXPECT_THROW(check_distribution(FloatDistribution{.low = 0.0, .high = 1.0, .log = true}, "t"), Error);
  EXPECT_THROW(check_distribution(FloatDistribution{.low = 1.0, .high = 2.0, .log = true, .step = 0.5}, "t"), Error);
  EXPECT_THROW(check_distribution(FloatDistribution{.low = 0.0, .high = 1.0, .step = 0.3}, "t"), Error);
  EXPECT_THROW(check_distribution(IntDistribution{.low = 0, .high = 5, .step = 2}, "t"), Error);
  EXPECT_THROW(check_distribution(CategoricalDistribution{}, "t"), Error);
  EXPECT_THROW(check_distribution(CategoricalDistribution{{1, 1}}, "t"), Error);
  EXPECT_THROW(check_distribution(CategoricalDistribution{{nlohmann::json::array()}}, "t"), Error);
}

TEST(Space, RefusesForeignJsonInWords) {
  for (const char* bad : {"[]", "{}", R"({"name":"Uniform","attributes":{}})",
                          R"({"name":"FloatDistribution","attributes":{"low":"x","high":1}})",
                          R"({"name":"FloatDistribution","attributes":{"low":2,"high":1}})"}) {
    EXPECT_THROW(distribution_from_json(nlohmann::json::parse(bad), "t"), Error) << bad;
  }
}

TEST(Space, SingleValuedDistributionsAreKnown) {
  EXPECT_TRUE(is_single(FloatDistribution{.low = 2.0, .high = 2.0}));
  EXPECT_TRUE(is_single(CategoricalDistribution{{16}}));
  EXPECT_FALSE(is_single(kLog));
}

}  // namespace
}  // namespace potstill
