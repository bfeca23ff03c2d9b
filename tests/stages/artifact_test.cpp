#include "potstill/stages/artifact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ArtifactTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    fs::create_directories(root_);
    std::ofstream(root_ / "input.txt") << "input";
    key_ = {.stage = "train", .config = {{"lr", 0.1}}, .inputs = {{"data", root_ / "input.txt"}}, .seed = 7};
  }
  void TearDown() override { fs::remove_all(root_); }

  // Runs the stage; its payload is `text`. Counts how often the work was really done.
  Artifact run(const std::string& text, IfExists if_exists = IfExists::kReplace) {
    return run_stage(root_ / "train", key_, if_exists, [&](ArtifactWriter& out) {
      ++runs_;
      write_file_atomically(out.file("payload.txt"), text);
      std::ofstream(out.file("log.txt")) << "run " << runs_;
      out.mark_volatile("log.txt");
      out.record("loss", 0.5);
    });
  }

  fs::path root_;
  StageKey key_;
  int runs_ = 0;
};

TEST_F(ArtifactTest, SameWorkIsDoneOnce) {
  const Artifact first = run("a");
  const Artifact second = run("a");
  EXPECT_EQ(runs_, 1);
  EXPECT_EQ(first.manifest, second.manifest);
  EXPECT_EQ(first.results()["loss"], 0.5);
  EXPECT_EQ(read_file(root_ / "train" / "payload.txt"), "a");
  EXPECT_FALSE(fs::exists(root_ / "train.partial"));
  EXPECT_FALSE(fs::exists(root_ / "train" / "work"));
}

TEST_F(ArtifactTest, AnotherConfigInputOrSeedIsOtherWork) {
  run("a");
  key_.config["lr"] = 0.2;
  run("b");
  EXPECT_EQ(runs_, 2);
  key_.seed = 8;
  run("c");
  EXPECT_EQ(runs_, 3);
  std::ofstream(root_ / "input.txt") << "other input";
  run("d");
  EXPECT_EQ(runs_, 4);
  EXPECT_EQ(read_file(root_ / "train" / "payload.txt"), "d");
}

TEST_F(ArtifactTest, CommandsRefuseToReplaceOtherWork) {
  run("a", IfExists::kRefuse);
  run("a", IfExists::kRefuse);  // the same work: kept
  EXPECT_EQ(runs_, 1);
  key_.seed = 8;
  try {
    run("b", IfExists::kRefuse);
    FAIL() << "replaced without being told to";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("--force"));
  }
  EXPECT_EQ(read_file(root_ / "train" / "payload.txt"), "a");
}

TEST_F(ArtifactTest, FolderOfSomebodyElseIsNotTouched) {
  fs::create_directories(root_ / "train");
  std::ofstream(root_ / "train" / "thesis.txt") << "precious";
  EXPECT_THROW(run("a", IfExists::kRefuse), Error);
  EXPECT_TRUE(fs::exists(root_ / "train" / "thesis.txt"));
}

TEST_F(ArtifactTest, KilledWorkIsTakenUpAgainAndOtherWorkIsNot) {
  const auto killed = [&] {
    run_stage(root_ / "train", key_, IfExists::kReplace, [&](ArtifactWriter& out) {
      EXPECT_FALSE(out.resumed());
      std::ofstream(out.work_file("journal")) << "step 1\n";
      throw std::runtime_error("killed");
    });
  };
  EXPECT_THROW(killed(), std::runtime_error);
  EXPECT_FALSE(fs::exists(root_ / "train"));
  run_stage(root_ / "train", key_, IfExists::kReplace, [&](ArtifactWriter& out) {
    EXPECT_TRUE(out.resumed());
    EXPECT_EQ(read_file(out.work_file("journal")), "step 1\n");
  });
  fs::remove_all(root_ / "train");
  EXPECT_THROW(killed(), std::runtime_error);
  key_.seed = 99;
  run_stage(root_ / "train", key_, IfExists::kReplace, [&](ArtifactWriter& out) {
    EXPECT_FALSE(out.resumed());
    EXPECT_FALSE(fs::exists(out.work_file("journal")));
  });
}

// A stage made again with the same bytes must not make the later stages run again, whatever its log says.
TEST_F(ArtifactTest, FingerprintFollowsTheContentNotTheRun) {
  run("a");
  const std::string first = fingerprint(root_ / "train");
  fs::remove_all(root_ / "train");
  run("a");  // log.txt now says "run 2", and the manifest other seconds
  EXPECT_EQ(runs_, 2);
  EXPECT_EQ(fingerprint(root_ / "train"), first);
  fs::remove_all(root_ / "train");
  run("b");
  EXPECT_NE(fingerprint(root_ / "train"), first);
}

TEST_F(ArtifactTest, FingerprintOfABigFileSeesItsEndsAndSize) {
  const fs::path path = root_ / "big";
  const std::string body(65 << 20, 'w');
  write_file_atomically(path, body);
  const std::string first = fingerprint(path);
  std::string other = body;
  other.back() = 'x';
  write_file_atomically(path, other);
  EXPECT_NE(fingerprint(path), first);
  write_file_atomically(path, body + "w");
  EXPECT_NE(fingerprint(path), first);
  EXPECT_THROW(fingerprint(root_ / "absent"), Error);
}

}  // namespace
}  // namespace potstill
