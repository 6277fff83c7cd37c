// SPDX-License-Identifier: Apache-2.0
// `volume` and `volume_server` as their users run them.
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process/process.h"

namespace verbena::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Program(const std::string& name) {
  const std::string path = "examples/volume/" + name;
  return access(path.c_str(), X_OK) == 0 ? path : "bazel-bin/" + path;
}

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Command : public ::testing::Test {
 protected:
  Command() {
    const char* scratch = std::getenv("TEST_TMPDIR");
    folder_ = std::string(scratch == nullptr ? "/tmp" : scratch) + "/volume_command";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ + "/volumes");
  }
  ~Command() override { std::filesystem::remove_all(folder_); }

  void Serve(std::vector<std::string> words = {}) {
    words.insert(words.begin(), {Program("volume_server"), "--listen", address_});
    words.push_back(folder_ + "/volumes");
    server_ = std::make_unique<Process>(words);
    const std::string line = server_->LineWith("on port ");
    address_ = "127.0.0.1:" + line.substr(line.find_last_of(' ') + 1);
  }
  Finished Run(std::vector<std::string> words) const {
    words.insert(words.begin(), {Program("volume"), "--server", address_});
    return RunToEnd(words);
  }
  // Bytes that repeat with no power of two, so that a block out of place shows.
  std::string MakeFile(const std::string& name, size_t size) const {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i % 251);
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
    return folder_ + "/" + name;
  }

  std::string folder_;
  std::string address_ = "127.0.0.1:0";
  std::unique_ptr<Process> server_;
};

// Expect: what was copied is there, also after the server was killed; a file's last block is filled
// up with zeros.
TEST_F(Command, CopyKillCopy) {
  constexpr size_t kBytes = (size_t{37} << 20) + 12345;
  const std::string source = MakeFile("source", kBytes);
  Serve();
  const Finished put = Run({"copy", source, ":disk0"});
  EXPECT_EQ(put.status, 0) << put.err;
  EXPECT_THAT(put.err, HasSubstr("38809657 bytes written and flushed"));
  server_->Kill(SIGKILL);
  server_->Wait();
  Serve();
  EXPECT_THAT(Run({"list"}).out, HasSubstr("38813696  disk0"));
  const std::string copy = folder_ + "/copy";
  const Finished got = Run({"copy", ":disk0", copy});
  EXPECT_EQ(got.status, 0) << got.err;
  const std::string expected = Contents(source);
  const std::string found = Contents(copy);
  ASSERT_EQ(found.size(), 38813696u);
  EXPECT_EQ(found.compare(0, kBytes, expected), 0);
  EXPECT_EQ(found.find_first_not_of('\0', kBytes), std::string::npos);
  server_->Kill(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0) << server_->err();
}

TEST_F(Command, EachOfThem) {
  Serve({"--buffered", "--no-uring"});
  EXPECT_THAT(Run({"create", "disk0", "1M"}).out, HasSubstr("1048576  disk0"));
  EXPECT_THAT(Run({"info", "disk0"}).out,
              AllOf(HasSubstr("access  read and write"), HasSubstr("threads, page cache")));
  EXPECT_EQ(Run({"copy", MakeFile("source", 8192), ":disk0"}).status, 0);
  EXPECT_EQ(Run({"read", "disk0", "4096", "4096"}).out.substr(0, 3), std::string("\x50\x51\x52"));
  EXPECT_EQ(Run({"trim", "disk0", "4K", "4K"}).status, 0);
  EXPECT_EQ(Run({"read", "disk0", "4096", "4096"}).out, std::string(4096, '\0'));
  EXPECT_THAT(Run({"resize", "disk0", "2M"}).out, HasSubstr("2097152"));
  EXPECT_EQ(Run({"flush", "disk0"}).status, 0);
  EXPECT_EQ(Run({"remove", "disk0"}).status, 0);
  EXPECT_EQ(Run({"list"}).out, "");
}

TEST_F(Command, Mistakes) {
  Serve();
  const Finished help = Run({"--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_THAT(help.out, HasSubstr("volume copy debian.img :disk0"));
  EXPECT_EQ(Run({"fly"}).status, 2);
  EXPECT_EQ(Run({"create", "disk0"}).status, 2);
  EXPECT_THAT(Run({"create", "disk0", "100"}).err, HasSubstr("100 is not a multiple of 4096"));
  EXPECT_THAT(Run({"copy", ":a", ":b"}).err, HasSubstr("a file and a :VOLUME"));
  const Finished unknown = Run({"info", "nobody"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.err, HasSubstr("volume info: there is no volume nobody"));
  EXPECT_THAT(Run({"create", "../outside", "4096"}).err, HasSubstr("no slash"));
  EXPECT_THAT(Run({"copy", folder_ + "/none", ":a"}).err, HasSubstr("No such file"));
  address_ = "127.0.0.1:1";
  EXPECT_THAT(Run({"--patience", "1", "list"}).err, HasSubstr("no connection to 127.0.0.1:1"));
  const Finished nothing = RunToEnd({Program("volume_server")});
  EXPECT_EQ(nothing.status, 2);
  EXPECT_THAT(nothing.err, HasSubstr("which folder"));
}

}  // namespace
}  // namespace verbena::testing
