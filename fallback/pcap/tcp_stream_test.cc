// SPDX-License-Identifier: Apache-2.0
#include "fallback/pcap/tcp_stream.h"

#include <memory>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "fallback/pcap/test_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::pcap {
namespace {

using testing::ElementsAre;

io::Address Ip(const char* ip, uint16_t port) { return *io::Address::FromIp(ip, port); }

class TcpStreamTest : public testing::Test {
 protected:
  void Move(TcpStream& stream, Way way, std::string bytes) {
    const size_t half = bytes.size() / 2;
    const iovec pieces[] = {{bytes.data(), half},
                            {bytes.data() + half, bytes.size() - half},
                            {nullptr, 1000}};  // room that nothing came into
    stream.Moved(++now_, way, pieces, bytes.size());
  }
  // "2000>1000 SA 5:1 4": ports, flags, sequence and acknowledged numbers, bytes of payload. With
  // the checksums right.
  std::vector<std::string> Packets() {
    std::vector<std::string> lines;
    for (const ReadPacket& p : ReadPackets(Contents(fd_))) {
      EXPECT_TRUE(p.good_checksums) << lines.size();
      std::string flags;
      for (int bit = 0; bit < 5; ++bit) {
        if ((p.flags >> bit & 1) != 0) flags.push_back("FSRPA"[bit]);
      }
      lines.push_back(absl::StrCat(p.from, ">", p.to, " ", flags, " ", p.sequence, ":",
                                   p.acknowledged, " ", p.payload.size()));
    }
    return lines;
  }
  std::string Hex() { return absl::BytesToHexString(Contents(fd_)); }

  const int fd_ = NewFile();
  PacketFile file_{fd_, "x", "ping.7"};
  int64_t now_ = 0;
};

// A connection that this end made: hand-shake, a frame each way, the end. Expect: what a kernel's
// TCP would have sent, with numbers that fit each other.
TEST_F(TcpStreamTest, AConnectionFromBeginningToEnd) {
  TcpStream stream(&file_, Ip("10.0.0.1", 1000), Ip("10.0.0.2", 2000));
  stream.Begin(1, true, 100);
  Move(stream, Way::kOut, MpaFrame(false, 20));
  Move(stream, Way::kIn, MpaFrame(true, 16) + Fpdu(14, 'x'));
  stream.Ended(9, Way::kOut, false);
  stream.Ended(9, Way::kOut, false);
  stream.Ended(9, Way::kIn, false);
  stream.Ended(9, Way::kOut, true);
  EXPECT_THAT(
      Packets(),
      ElementsAre("1000>2000 S 100:0 0", "2000>1000 SA 100:101 0", "1000>2000 A 101:101 0",
                  "1000>2000 PA 101:101 40", "2000>1000 PA 101:141 36", "2000>1000 PA 137:141 20",
                  "1000>2000 FA 141:157 0", "2000>1000 FA 157:142 0", "1000>2000 RA 142:158 0"));
}

// The first packet of a connection that the peer made, over IPv4 and IPv6. Expect: these bytes
// (RFC 791 3.1, RFC 8200 3, RFC 9293 3.1).
TEST_F(TcpStreamTest, GoldenBytes) {
  TcpStream v4(&file_, Ip("10.0.0.1", 7471), Ip("10.0.0.2", 0xabcd));
  v4.Begin(1, false, 0x100000);
  EXPECT_THAT(Hex(), testing::HasSubstr("4500002c00004000400626ca0a0000020a000001"
                                        "abcd1d2f001000000000000060"
                                        "02ffffbebe00000103030e"));
  TcpStream v6(&file_, Ip("fd00::1", 7471), Ip("fd00::2", 0xabcd));
  v6.Begin(1, false, 0x100000);
  EXPECT_THAT(Hex(), testing::HasSubstr("6000000000180640fd000000000000000000000000000002"
                                        "fd000000000000000000000000000001"
                                        "abcd1d2f0010000000000000"
                                        "6002ffff"));
}

// Both ends are in the file. Expect: one hand-shake, each frame once, the numbers in step; also
// when one end has closed and the other reads on.
TEST_F(TcpStreamTest, BothEndsInOneFile) {
  auto caller = std::make_unique<TcpStream>(&file_, Ip("10.0.0.1", 1000), Ip("10.0.0.2", 2000));
  caller->Begin(1, true, 100);
  Move(*caller, Way::kOut, MpaFrame(false, 20));
  TcpStream called(&file_, Ip("10.0.0.2", 2000), Ip("10.0.0.1", 1000));
  called.Join(caller.get());
  Move(called, Way::kIn, MpaFrame(false, 20));
  Move(called, Way::kOut, MpaFrame(true, 20));
  Move(*caller, Way::kIn, MpaFrame(true, 20));
  Move(*caller, Way::kOut, Fpdu(14, 'x'));
  caller->Ended(9, Way::kOut, false);
  caller.reset();
  Move(called, Way::kIn, Fpdu(14, 'x'));
  called.Ended(9, Way::kIn, false);
  called.Ended(9, Way::kOut, false);
  EXPECT_THAT(Packets(), ElementsAre("1000>2000 S 100:0 0", "2000>1000 SA 100:101 0",
                                     "1000>2000 A 101:101 0", "1000>2000 PA 101:101 40",
                                     "2000>1000 PA 101:141 40", "1000>2000 PA 141:141 20",
                                     "1000>2000 FA 161:141 0", "2000>1000 FA 141:162 0"));
}

// The largest FPDU that MPA can say. Expect: two packets, since an IP packet cannot hold it; one of
// the largest that we send is one.
TEST_F(TcpStreamTest, TheLargestFpdus) {
  TcpStream stream(&file_, Ip("10.0.0.1", 1000), Ip("10.0.0.2", 2000));
  stream.Begin(1, true, 0);
  Move(stream, Way::kOut, MpaFrame(false, 0));
  Move(stream, Way::kOut, Fpdu(65535, 'x') + Fpdu(18 + (60 << 10), 'y'));
  const std::vector<std::string> packets = Packets();
  EXPECT_THAT(std::vector(packets.begin() + 4, packets.end()),
              ElementsAre("1000>2000 PA 21:1 65495", "1000>2000 PA 65516:1 49",
                          "1000>2000 PA 65565:1 61464"));
}

// The stream ends within a frame. Expect: its beginning, before the end.
TEST_F(TcpStreamTest, HalfAFrameIsNotLost) {
  TcpStream stream(&file_, Ip("10.0.0.1", 1000), Ip("10.0.0.2", 2000));
  stream.Begin(1, true, 0);
  Move(stream, Way::kIn, MpaFrame(true, 0).substr(0, 7));
  stream.Ended(9, Way::kIn, true);
  const std::vector<std::string> packets = Packets();
  EXPECT_THAT(std::vector(packets.begin() + 3, packets.end()),
              ElementsAre("2000>1000 PA 1:1 7", "2000>1000 RA 8:1 0"));
}

}  // namespace
}  // namespace verbena::pcap
