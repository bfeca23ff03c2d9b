#include "potstill/synth/journal_writer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "potstill/base/error.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

fs::path fresh(const std::string& name) {
  const auto path = fs::temp_directory_path() / fmt::format("potstill_journal_{}_{}", ::getpid(), name);
  fs::remove(path);
  return path;
}

TEST(JournalWriter, LinesComeInOrderAndAreReadBackByTheirPlaces) {
  const auto path = fresh("order");
  std::string expected;
  std::vector<JournalWriter::Place> places;
  {
    JournalWriter writer(path);
    for (int i = 0; i < 500; ++i) {
      places.push_back(writer.append(fmt::format("line {} {}", i, std::string(static_cast<size_t>(i % 7), 'x'))));
      expected += fmt::format("line {} {}\n", i, std::string(static_cast<size_t>(i % 7), 'x'));
      if (i % 100 == 0) writer.flush();
    }
    writer.flush();
    EXPECT_EQ(read_file(path), expected);
    EXPECT_EQ(writer.read(places[203]), fmt::format("line 203 {}", std::string(0, 'x')));
    EXPECT_EQ(writer.read(places[499]), fmt::format("line 499 {}", std::string(2, 'x')));
  }
  EXPECT_EQ(read_file(path), expected);
  fs::remove(path);
}

TEST(JournalWriter, PlacesCountWhatWasThereAndNotATornLine) {
  const auto path = fresh("torn");
  std::ofstream(path) << "first\ntorn";
  {
    JournalWriter writer(path);
    const auto place = writer.append("second");
    writer.flush();
    EXPECT_EQ(place.offset, 6u);
    EXPECT_EQ(writer.read(place), "second");
    EXPECT_EQ(writer.read({0, 5}), "first");
    fs::resize_file(path, 3);
    EXPECT_THROW(writer.read(place), Error);
  }
  fs::remove(path);
}

TEST(JournalWriter, WhatIsLeftIsWrittenAtTheEnd) {
  const auto path = fresh("end");
  { JournalWriter(path).append("only line"); }
  EXPECT_EQ(read_file(path), "only line\n");
  fs::remove(path);
}

TEST(JournalWriter, AFullDiskIsTheNextCallsError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  EXPECT_THROW(
      {
        JournalWriter writer("/dev/full");
        writer.append("line");
        writer.flush();
      },
      std::exception);
}

}  // namespace
}  // namespace potstill
