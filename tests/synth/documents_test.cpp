#include "potstill/synth/documents.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "potstill/base/error.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class Documents : public testing::Test {
 protected:
  Documents() : folder_(fs::path(testing::TempDir()) / ("potstill_documents_" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "sub");
  }
  ~Documents() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }
  fs::path folder_;
};

TEST_F(Documents, CutsSectionsIntoPassagesOfWholeSentences) {
  write("b.md",
        "# Pumps\n\nThe *pump* stops by itself when the [tank](http://x.org/y) is empty.\nThe red lamp lights up.\n\n"
        "```\nint code = 1;\n```\n\n## Filters\n\n- Clean the filter once a month with warm water.\n"
        "- Never use soap on the filter of the pump.\n");
  write("sub/a.txt", "One two three four five six seven eight nine ten. Eleven twelve thirteen fourteen fifteen.\n");
  write("c.pdf", "Not read at all by anything in here today, thanks.");
  const auto subtopics = read_documents(folder_, 20);
  ASSERT_EQ(subtopics.size(), 3u);
  EXPECT_EQ(subtopics[0].name, "b.md#Pumps");
  EXPECT_EQ(subtopics[0].facts,
            std::vector<std::string>{"The pump stops by itself when the tank is empty. The red lamp lights up."});
  EXPECT_EQ(subtopics[1].name, "b.md#Filters");
  EXPECT_EQ(subtopics[1].facts.size(), 1u);
  EXPECT_EQ(subtopics[2].name, "sub/a.txt");
  const auto shorter = read_documents(folder_, 12);
  EXPECT_EQ(shorter[2].facts, std::vector<std::string>{"One two three four five six seven eight nine ten."})
      << "the rest has too few words";
}

TEST_F(Documents, SaysWhatIsMissing) {
  EXPECT_THROW(read_documents(folder_, 50), Error);
  EXPECT_THROW(read_documents(folder_ / "none", 50), Error);
}

}  // namespace
}  // namespace potstill
