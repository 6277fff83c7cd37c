// SPDX-License-Identifier: Apache-2.0
#include "fallback/pcap/packet_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "fallback/pcap/capture.h"
#include "fallback/pcap/test_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::pcap {
namespace {

using testing::HasSubstr;
using testing::Not;

std::span<const std::byte> Bytes(absl::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string Unspaced(absl::string_view hex) { return absl::StrReplaceAll(hex, {{" ", ""}}); }

// One packet of 5 bytes. Expect: the section, the interface and the packet, as the draft draws them
// (draft-ietf-opsawg-pcapng 4.1, 4.2, 4.3).
TEST(PacketFileTest, GoldenBytes) {
  const int fd = NewFile();
  PacketFile file(fd, "x", "ping.7");
  file.Packet(0x0123456789abcdef, Way::kOut, Bytes("abc"), Bytes("de"));
  EXPECT_EQ(absl::BytesToHexString(Contents(fd)),
            Unspaced("0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000 "
                     "01000000 2c000000 6500 0000 00000000 "
                     "0200 0600 70696e672e37 0000 0900 0100 09 000000 0000 0000 2c000000 "
                     "06000000 34000000 00000000 67452301 efcdab89 05000000 05000000 "
                     "6162636465 000000 0200 0400 02000000 0000 0000 34000000"));
}

// A file whose disk is full. Expect: one message, with what to do, however many packets follow.
TEST(PacketFileTest, AFullDiskIsToldOnce) {
  const int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  testing::internal::CaptureStderr();
  {
    PacketFile file(fd, "/somewhere/x", "ping.7");
    for (int i = 0; i < 3; ++i) file.Packet(0, Way::kIn, Bytes("abc"), {});
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "verbena E fallback: capture /somewhere/x: No space left on device after 0 packets; it "
            "ends here, and the program goes on. Make room or name another file\n");
}

// Room for half a packet. Expect: the file holds the whole ones and nothing after them.
TEST(PacketFileTest, HalfAPacketIsTakenBack) {
  const int fd = NewFile();
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto on_excess = signal(SIGXFSZ, SIG_IGN);
  testing::internal::CaptureStderr();
  PacketFile file(fd, "x", "ping.7");
  const std::string ip = "\x45" + std::string(39, '\0');
  file.Packet(0, Way::kIn, Bytes(ip), {});
  const std::string whole = Contents(fd);
  rlimit small = before;
  small.rlim_cur = whole.size() + 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  file.Packet(0, Way::kIn, Bytes(ip), {});
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, on_excess);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("after 1 packets"));
  EXPECT_EQ(Contents(fd), whole);
}

class OpenFileTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) {
    return absl::StrCat(testing::TempDir(), "/open_file_", getpid(), "_", name);
  }
};

// %p, twice. Expect: the number of this process.
TEST_F(OpenFileTest, NamesTheProcess) {
  const std::string path = Path("a");
  auto file = OpenFile(absl::StrCat(path, ".%p.%p"));
  ASSERT_TRUE(file.ok()) << file.status();
  const std::string made = absl::StrCat(path, ".", getpid(), ".", getpid());
  EXPECT_EQ(access(made.c_str(), R_OK), 0);
  unlink(made.c_str());
}

// The file of a capture that still runs, and then of one that is over. Expect: refused with the
// remedy; replaced.
TEST_F(OpenFileTest, OneProcessAtATime) {
  const std::string path = Path("b");
  auto first = OpenFile(path);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(std::string(OpenFile(path).status().message()),
              AllOf(HasSubstr(path), HasSubstr("another process"), HasSubstr("Put %p into")));
  (*first)->Packet(0, Way::kIn, Bytes("abc"), {});
  first->reset();
  auto second = OpenFile(path);
  ASSERT_TRUE(second.ok()) << second.status();
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_TRUE(ReadPackets(Contents(fd)).empty());
  close(fd);
  unlink(path.c_str());
}

// A file that is there already, and that anybody may read. Expect: its owner's alone.
TEST_F(OpenFileTest, IsNotForOthersToRead) {
  const std::string path = Path("d");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(fchmod(fd, 0664), 0);
  auto file = OpenFile(path);
  ASSERT_TRUE(file.ok()) << file.status();
  struct stat info;
  ASSERT_EQ(fstat(fd, &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  close(fd);
  unlink(path.c_str());
}

// What must not be overwritten, and what cannot be written. Expect: refused, and left as it was.
TEST_F(OpenFileTest, LeavesOtherFilesAlone) {
  const std::string path = Path("c");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(write(fd, "dear diary", 10), 10);
  EXPECT_THAT(std::string(OpenFile(path).status().message()), HasSubstr("it is left alone"));
  EXPECT_EQ(Contents(fd), "dear diary");
  close(fd);
  unlink(path.c_str());
  EXPECT_THAT(std::string(OpenFile("/dev/null").status().message()),
              HasSubstr("it is no regular file"));
  EXPECT_THAT(std::string(OpenFile("/no/such/folder/x").status().message()),
              AllOf(HasSubstr("No such file or directory"), HasSubstr("VERBENA_PCAP")));
}

}  // namespace
}  // namespace verbena::pcap
