#include "potstill/recipe/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "potstill/base/error.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class RecipeFile : public testing::Test {
 protected:
  RecipeFile()
      : folder_(fs::path(testing::TempDir()) / (std::string("potstill_recipe_") + std::to_string(::getpid()) +
                                                testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(folder_);
  }
  ~RecipeFile() override { fs::remove_all(folder_); }

  Recipe load(const std::string& text, const std::vector<std::string>& overrides = {}) {
    std::ofstream(folder_ / "my.yaml") << text;
    return load_recipe(folder_ / "my.yaml", overrides);
  }
  std::string complaint(const std::string& text, const std::vector<std::string>& overrides = {}) {
    try {
      load(text, overrides);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  fs::path folder_;
};

constexpr const char* kModels = "teacher: big\nstudent: small\ntask: t.yaml\n";

TEST_F(RecipeFile, FillsTheConfigOfEachSection) {
  const Recipe recipe = load(std::string(kModels) +
                             "seed: 7\nprune: {layers: 12}\nsearch: {trials: 3}\n"
                             "train:\n  optimizer: adamw\n  lora_alpha: 8\nquantize: {group_size: 32}\n");
  EXPECT_EQ(recipe.top.name, "my");  // the file's, when none is given
  EXPECT_EQ(recipe.top.seed, 7);
  EXPECT_EQ(recipe.top.data_teacher, "big");  // the model teacher, when none is given
  ASSERT_TRUE(recipe.prune);
  EXPECT_EQ(recipe.prune->layers, 12);
  ASSERT_TRUE(recipe.search);
  EXPECT_EQ(recipe.search->trials, 3);
  EXPECT_EQ(recipe.train.optimizer, "adamw");
  EXPECT_EQ(recipe.train.lora_alpha, 8);
}

TEST_F(RecipeFile, PruneAndSearchAreDoneOnlyWhenAsked) {
  const Recipe recipe = load(kModels);
  EXPECT_FALSE(recipe.prune);
  EXPECT_FALSE(recipe.search);
}

TEST_F(RecipeFile, OverridesStandAboveTheFile) {
  const Recipe recipe = load(kModels, {"train.rank=64", "seed=9", "search.trials=2", "data_teacher=other"});
  EXPECT_EQ(recipe.train.rank, 64);
  EXPECT_EQ(recipe.top.seed, 9);
  ASSERT_TRUE(recipe.search);
  EXPECT_EQ(recipe.search->trials, 2);
  EXPECT_EQ(recipe.top.data_teacher, "other");
}

TEST_F(RecipeFile, PairsOfOnesOwnNeedNoTask) {
  EXPECT_EQ(load("teacher: a\nstudent: b\npairs: p.jsonl\n").top.pairs, "p.jsonl");
  EXPECT_THAT(complaint("teacher: a\nstudent: b\n"), HasSubstr("'task' is missing"));
}

TEST_F(RecipeFile, SaysWhereAndWhatIsWrong) {
  const std::string models = kModels;
  EXPECT_THAT(complaint(models + "trian:\n  rank: 4\n"), AllOf(HasSubstr("my.yaml:4"), HasSubstr("train")));
  EXPECT_THAT(complaint(models + "train:\n  rnak: 4\n"), AllOf(HasSubstr("my.yaml:5"), HasSubstr("rank")));
  EXPECT_THAT(complaint(models + "train:\n  rank: many\n"), HasSubstr("my.yaml:5"));
  EXPECT_THAT(complaint(models + "train:\n  rank: 0\n"), AllOf(HasSubstr("my.yaml:5"), HasSubstr("rank")));
  EXPECT_THAT(complaint(models + "dtype: fp17\n"), AllOf(HasSubstr("my.yaml:4"), HasSubstr("bf16")));
  EXPECT_THAT(complaint("teacher: a\nstudent: [\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(complaint(""), HasSubstr("key: value"));
  EXPECT_THAT(complaint("student: b\ntask: t\n"), HasSubstr("'teacher' is missing"));
  EXPECT_THAT(complaint("teacher: b\ntask: t\n"), HasSubstr("'student' is missing"));
  EXPECT_THAT(complaint(models, {"train.rnak=4"}), HasSubstr("rank"));
  EXPECT_THAT(complaint(models, {"rank"}), HasSubstr("is not key=value"));
  EXPECT_THROW(load_recipe(folder_ / "absent.yaml"), Error);
}

TEST_F(RecipeFile, PathsMayStartAtTheRecipe) {
  const Recipe recipe = load(kModels);
  std::ofstream(folder_ / "beside.yaml") << "x";
  EXPECT_EQ(recipe.resolve("beside.yaml"), folder_ / "beside.yaml");
  EXPECT_EQ(recipe.resolve("nowhere.yaml"), "nowhere.yaml");
  EXPECT_EQ(recipe.resolve(""), "");
}

TEST_F(RecipeFile, TheRecipesOfTheProjectLoad) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(POTSTILL_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    EXPECT_NO_THROW(load_recipe(entry.path())) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 1);
}

}  // namespace
}  // namespace potstill
