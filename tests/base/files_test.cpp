// Files that appear whole or not at all, journals that survive a kill, JSON lines, hashes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "potstill/base/atomic_file.h"
#include "potstill/base/byte_reader.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/mapped_file.h"
#include "potstill/base/sha256.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

template <class Function>
std::string message_of(const Function& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST_F(Files, AtomicFileAppearsOnlyWhenCommitted) {
  const fs::path path = folder_ / "a.bin";
  {
    AtomicFile file(path);
    file.write("half");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_TRUE(fs::is_empty(folder_));  // given up: not even the partial file stays
  AtomicFile file(path);
  file.write("12345678");
  file.write_at(2, std::as_bytes(std::span("xy", 2)));
  file.write(std::string(3 << 20, 'z'));  // past the buffer
  file.commit();
  const std::string contents = read_file(path);
  EXPECT_EQ(contents.substr(0, 9), "12xy5678z");
  EXPECT_EQ(contents.size(), 8u + (3 << 20));
}

TEST_F(Files, FullDiskIsOneClearErrorAndLeavesNothing) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  // A link makes the partial file land on the device that is always full.
  fs::create_symlink("/dev/full", folder_ / "out.partial");
  AtomicFile file(folder_ / "out");
  const std::string message = message_of([&] {
    file.write(std::string(4 << 20, 'x'));
    file.commit();
  });
  EXPECT_THAT(message, HasSubstr("No space left on device"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(Files, MissingFolderNamesThePath) {
  EXPECT_THAT(message_of([&] { AtomicFile file(folder_ / "no" / "such"); }), HasSubstr("no/such"));
  EXPECT_THAT(message_of([&] { MappedFile file(folder_ / "absent"); }), HasSubstr("absent: No such file"));
  EXPECT_THAT(message_of([&] { MappedFile file(folder_); }), HasSubstr("not a regular file"));
}

TEST_F(Files, JournalCutsATornLastLine) {
  const fs::path path = folder_ / "journal.jsonl";
  std::ofstream(path) << "{\"a\":1}\n{\"a\":2}\n{\"a\":";
  {
    Journal journal(path);
    journal.append("{\"a\":3}");
  }
  EXPECT_EQ(read_file(path), "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
}

TEST_F(Files, JsonLinesSplitAtNewlineOnlyAndNameTheLine) {
  const fs::path path = folder_ / "rows.jsonl";
  std::ofstream(path) << "{\"t\":\"a\u0085b\u2028c\"}\n\n{\"t\":7}\n";
  const auto records = read_jsonl(path);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(required_string(records[0], path, "t"), "a\u0085b\u2028c");
  EXPECT_EQ(records[1].line, 3);
  EXPECT_THAT(message_of([&] { required_string(records[1], path, "t"); }),
              HasSubstr("rows.jsonl:3: field 't' is not a string"));
  EXPECT_THAT(message_of([&] { required_string(records[1], path, "u"); }), HasSubstr("field 'u' is missing"));
  std::ofstream(path) << "{\"t\":\"ok\"}\n{\"t\":\n";
  EXPECT_THAT(message_of([&] { read_jsonl(path); }), HasSubstr("rows.jsonl:2"));
  std::ofstream(path) << "[1]\n";
  EXPECT_THAT(message_of([&] { read_jsonl(path); }), HasSubstr("not a JSON object"));
}

TEST(Sha256, EqualsTheStandardsExample) {  // FIPS 180-4, example "abc"
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ByteReader, RefusesLengthsPastTheEnd) {
  const char bytes[] = "abcdefgh";
  ByteReader reader("f", std::as_bytes(std::span(bytes, 8)));
  reader.read<uint32_t>("first");
  EXPECT_THAT(message_of([&] { reader.take(~uint64_t{0}, "huge"); }),
              HasSubstr("f @4: huge needs 18446744073709551615 bytes but 4 remain"));
  EXPECT_THAT(message_of([&] { reader.read<uint64_t>("eight"); }), HasSubstr("4 remain"));
  EXPECT_EQ(reader.remaining(), 4u);
}

TEST(Errors, SayWhereWhatAndWhatToDo) {
  const Error error(ErrorKind::kInput, "a.yaml:14", "unknown key 'temprature'", "did you mean 'temperature'?");
  EXPECT_STREQ(error.what(), "a.yaml:14: unknown key 'temprature'\n  hint: did you mean 'temperature'?");
  EXPECT_EQ(error.exit_code(), 2);
  EXPECT_EQ(nearest_name("temprature", std::vector<std::string>{"alpha", "temperature"}), "temperature");
  EXPECT_EQ(nearest_name("zzz", std::vector<std::string>{"alpha", "temperature"}), "");
}

}  // namespace
}  // namespace potstill
