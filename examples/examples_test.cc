// SPDX-License-Identifier: Apache-2.0
// Each example does what its first lines say, as the processes that a reader would start.
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/process/process.h"

namespace verbena::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Program(const std::string& name) {
  const std::string path = "examples/" + name;
  return access(path.c_str(), X_OK) == 0 ? path : "bazel-bin/" + path;
}

std::string Scratch(const std::string& name) {
  const char* folder = std::getenv("TEST_TMPDIR");
  return std::string(folder == nullptr ? "/tmp" : folder) + "/" + name;
}

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Writes a file whose bytes repeat with no power of two, so that a chunk out of place shows.
std::string MakeFile(const std::string& name, size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i % 251);
  std::string path = Scratch(name);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string PortOf(const std::string& line) { return line.substr(line.find_last_of(": ") + 1); }

TEST(Examples, LendAMegabyte) {
  Process server({Program("lend_a_megabyte_server"), "127.0.0.1:0"});
  const std::string port = PortOf(server.LineWith("listening on "));
  const Finished client = RunToEnd({Program("lend_a_megabyte_client"), "127.0.0.1:" + port});
  EXPECT_EQ(client.status, 0) << client.err;
  EXPECT_THAT(client.out, HasSubstr("read back exactly what was written"));
  EXPECT_EQ(server.Wait(), 0) << server.err();
  EXPECT_THAT(server.out(), HasSubstr("the client left this: greetings from afar"));
}

// Check() ends the program with the reason.
TEST(Examples, NobodyThere) {
  const Finished client = RunToEnd({Program("lend_a_megabyte_client"), "127.0.0.1:1"});
  EXPECT_EQ(client.status, 1);
  EXPECT_THAT(client.err, HasSubstr("127.0.0.1:1"));
}

TEST(Examples, HotLoop) {
  const Finished done = RunToEnd({Program("hot_loop"), "100000"});
  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_THAT(done.out, HasSubstr("the counter is 100000"));
}

TEST(Examples, EventDriven) {
  const Finished done = RunToEnd({Program("event_driven")});
  EXPECT_EQ(done.status, 0) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("server got: hello"), HasSubstr("client got: hello")));
}

TEST(Examples, OutOfBand) {
  const std::string job = Scratch("job");
  std::filesystem::remove_all(job);
  std::filesystem::create_directory(job);
  Process first({Program("out_of_band"), "0", job});
  Process second({Program("out_of_band"), "1", job});
  EXPECT_EQ(first.Wait(), 0) << first.err();
  EXPECT_EQ(second.Wait(), 0) << second.err();
  EXPECT_THAT(first.out(), HasSubstr("over tcp has greetings from rank 1"));
  EXPECT_THAT(second.out(), HasSubstr("over tcp has greetings from rank 0"));
}

TEST(FileCopy, AllSizes) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{1} << 20, (size_t{37} << 20) + 12345}) {
    const std::string source = MakeFile("source", size);
    const std::string copy = Scratch("copy");
    Process server({Program("file_copy"), "serve", "--port", "0", "--out", copy});
    const std::string port = PortOf(server.LineWith("listening on port "));
    const Finished sent = RunToEnd({Program("file_copy"), "send", "127.0.0.1:" + port, source});
    EXPECT_EQ(sent.status, 0) << size << ": " << sent.err;
    EXPECT_THAT(sent.out, AllOf(HasSubstr("GB/s"), HasSubstr(" over tcp (")));
    EXPECT_EQ(server.Wait(), 0) << size << ": " << server.err();
    EXPECT_THAT(server.out(), HasSubstr("received " + std::to_string(size) + " bytes in "));
    EXPECT_TRUE(Contents(source) == Contents(copy)) << size;
  }
}

// The sender dies while it sends: no file, no part of one, and the receiver says so.
TEST(FileCopy, SenderKilled) {
  const std::string source = Scratch("sparse");
  std::ofstream(source).put('x');
  std::filesystem::resize_file(source, uint64_t{1} << 30);
  const std::string copy = Scratch("never");
  Process server({Program("file_copy"), "serve", "--port", "0", "--out", copy});
  const std::string port = PortOf(server.LineWith("listening on port "));
  Process sender({Program("file_copy"), "send", "127.0.0.1:" + port, source});
  sender.LineWith("sending 1073741824 bytes over tcp");
  sender.Kill(SIGKILL);
  sender.Wait();
  EXPECT_EQ(server.Wait(), 1);
  EXPECT_FALSE(server.err().empty());
  EXPECT_FALSE(std::filesystem::exists(copy));
  EXPECT_FALSE(std::filesystem::exists(copy + ".part"));
  std::filesystem::remove(source);
}

TEST(FileCopy, Mistakes) {
  EXPECT_EQ(RunToEnd({Program("file_copy")}).status, 2);
  const Finished missing = RunToEnd({Program("file_copy"), "send", "127.0.0.1:1", Scratch("none")});
  EXPECT_EQ(missing.status, 1);
  EXPECT_THAT(missing.err, HasSubstr("No such file"));
}

}  // namespace
}  // namespace verbena::testing
