#include "potstill/recipe/yaml_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace potstill {
namespace {

using ::testing::HasSubstr;

struct DistillSection {
  double temperature = 1.0;
  int64_t steps = 5;
  bool packed = true;
  std::string optimizer = "muon";
  std::vector<double> range = {0, 1};

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("temperature", self.temperature, "softmax temperature", in_range(0.1, 100));
    visit("steps", self.steps, "optimizer steps", at_least(1));
    visit("packed", self.packed, "no padding", any());
    visit("optimizer", self.optimizer, "optimizer", one_of({"muon", "adamw"}));
    visit("range", self.range, "two numbers", any());
  }
};

DistillSection read(const std::string& yaml) {
  DistillSection section;
  read_section(YAML::Load(yaml), "r.yaml", "distill", section);
  return section;
}

std::string complaint(const std::string& yaml) {
  try {
    read(yaml);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(YamlFields, ReadsWhatIsThereAndKeepsTheDefaults) {
  const DistillSection section = read("temperature: 2\npacked: false\nrange: [1e-5, 1e-2]\n");
  EXPECT_EQ(section.temperature, 2.0);
  EXPECT_FALSE(section.packed);
  EXPECT_EQ(section.range, (std::vector<double>{1e-5, 1e-2}));
  EXPECT_EQ(section.steps, 5);
  EXPECT_EQ(section.optimizer, "muon");
}

TEST(YamlFields, MisspeltKeyNamesLineAndNearestKey) {
  EXPECT_EQ(complaint("steps: 3\ntemprature: 2\n"),
            "r.yaml:2: [distill] unknown key 'temprature'\n  hint: did you mean 'temperature'?");
  EXPECT_THAT(complaint("qqqqqqqq: 2\n"), HasSubstr("known keys: temperature, steps, packed"));
}

TEST(YamlFields, WrongTypesAndRangesNameTheLine) {
  EXPECT_THAT(complaint("steps: three\n"),
              HasSubstr("r.yaml:1: [distill]: 'steps' is three but must be a whole number"));
  EXPECT_THAT(complaint("steps: 2.5\n"), HasSubstr("must be a whole number"));
  EXPECT_THAT(complaint("\ntemperature: -1\n"),
              HasSubstr("r.yaml:2: [distill]: 'temperature' is -1 but must be in [0.1, 100]"));
  EXPECT_THAT(complaint("temperature: .nan\n"), HasSubstr("must be in [0.1, 100]"));
  EXPECT_THAT(complaint("optimizer: moun\n"), HasSubstr("did you mean 'muon'?"));
  EXPECT_THAT(complaint("range: 3\n"), HasSubstr("must be a list"));
}

TEST(YamlFields, JsonKeepsTheDeclaredOrder) {
  EXPECT_EQ(config_to_json(DistillSection{}).dump(),
            R"({"temperature":1.0,"steps":5,"packed":true,"optimizer":"muon","range":[0.0,1.0]})");
}

}  // namespace
}  // namespace potstill
