// SPDX-License-Identifier: Apache-2.0
// Initiators whose hand-shake is right, and what follows is not; or is, in an odd way. Each in one
// piece and byte by byte, from an own peer or from an iWARP device.
// Expect: the Terminate of the row (or none), the queue pair's cause, no descriptor left over, and
// the next caller is served.
#include <functional>
#include <iterator>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/tcp_peer.h"
#include "tests/conformance/check.h"
#include "tests/hostile/end.h"

namespace verbena::hostile {
namespace {

using conformance::Check;
using engine::Bytes;
using engine::MakeFpdu;
using engine::SendHeader;
using engine::UntaggedOf;
using engine::WriteHeader;
using ::testing::HasSubstr;
using engine::operator+;
namespace error = wire::error;

enum class Peer { kOwn, kForeign, kForeignCrc };
enum class Then { kListen, kHalfClose, kReset };

struct Row {
  const char* name;
  Peer peer;
  std::function<Bytes(const Site&)> bytes;  // behind the ready frame
  wire::TerminateError error = {};          // none: there is no Terminate
  const char* cause = "";                   // "": the connection lives
  Then then = Then::kListen;
  bool together = false;  // byte by byte the first part is over when the second comes
};

template <typename Header, typename Change>
Bytes With(Header h, Change change, size_t payload = 8) {
  h.length = static_cast<uint16_t>(sizeof(Header) - wire::kLengthSize + payload);
  change(h);
  return MakeFpdu(h, Bytes(payload));
}
Bytes Read(const Site& site, uint32_t msn, uint32_t size, uint64_t at) {
  wire::ReadRequest r;
  r.sink_stag = 5;
  r.size = size;
  r.source_stag = site.key();
  r.source_offset = at;
  return MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, msn), wire::AsBytes(r));
}
Bytes Send(uint32_t msn, size_t size = 8) { return MakeFpdu(SendHeader(msn), Bytes(size)); }
Bytes OfText(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}
Bytes Prefix(Bytes bytes, size_t size) {
  bytes.resize(size);
  return bytes;
}

const Row kRows[] = {
    // Fields out of range.
    {"TaggedVersion", Peer::kForeign,
     [](auto& s) { return With(WriteHeader(s.key(), s.at()), [](auto& h) { h.ddp ^= 2; }); },
     error::kTaggedVersion, "DDP version is not 1"},
    {"UntaggedVersion", Peer::kForeign,
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.ddp ^= 1; }); },
     error::kUntaggedVersion, "DDP version is not 1"},
    {"RdmapVersion", Peer::kForeign,
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.rdmap ^= 0x40; }); },
     error::kRdmapVersion, "RDMAP version is not 1"},
    {"OpcodeC", Peer::kOwn,
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.rdmap = 0x4c; }); },
     error::kUnexpectedOpcode, "reserved RDMAP opcode"},
    {"OpcodeE", Peer::kForeign,
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.rdmap = 0x4e; }); },
     error::kUnexpectedOpcode, "reserved RDMAP opcode"},
    {"LengthBelowTheTaggedHeader", Peer::kForeign,
     [](auto& s) { return With(WriteHeader(s.key(), s.at()), [](auto& h) { h.length = 13; }); },
     error::kFpdu, "ULPDU_Length is below the 14 bytes"},
    {"LengthBelowTheUntaggedHeader", Peer::kForeign,
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.length = 17; }); }, error::kFpdu,
     "ULPDU_Length is below the 18 bytes"},
    {"Queue4", Peer::kForeign,
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.queue_number = 4; }); },
     error::kQueueNumber, "queue number does not exist"},
    {"QueueOfTerminates", Peer::kForeign,
     [](auto&) { return With(SendHeader(1), [](auto& h) { h.queue_number = 2; }); },
     error::kUnexpectedOpcode, "on another opcode's queue"},
    {"MsnOfTheSecond", Peer::kForeign, [](auto&) { return Send(2); }, error::kMsn,
     "a Send out of sequence"},
    {"OffsetOfTheFirstSegment", Peer::kForeign,
     [](auto&) { return MakeFpdu(SendHeader(1, 1), Bytes(8)); }, error::kMessageOffset,
     "a Send segment at a wrong offset"},
    {"ReadRequestInTwoSegments", Peer::kForeign,
     [](auto&) {
       return With(
           UntaggedOf(wire::Opcode::kReadRequest, 1),
           [](auto& h) { h.ddp &= static_cast<uint8_t>(~wire::kLast); }, 28);
     },
     error::kTooLong, "lacks the Last flag"},
    // Memory.
    {"UnknownKey", Peer::kForeign,
     [](auto& s) { return MakeFpdu(WriteHeader(s.key() ^ 1, s.at()), Bytes(8)); }, error::kStag,
     "write to key"},
    {"WriteBeforeTheRegion", Peer::kForeign,
     [](auto& s) { return MakeFpdu(WriteHeader(s.key(), s.at() - 1), Bytes(8)); }, error::kBounds,
     "out of the region's bounds"},
    {"WriteBehindTheRegion", Peer::kOwn,
     [](auto& s) { return MakeFpdu(WriteHeader(s.key(), s.at() + 4089), Bytes(8)); },
     error::kBounds, "out of the region's bounds"},
    {"WriteThatWraps", Peer::kForeign,
     [](auto& s) { return MakeFpdu(WriteHeader(s.key(), ~0ull - 3), Bytes(8)); }, error::kWrap,
     "write to key"},
    {"ReadBehindTheRegion", Peer::kForeign, [](auto& s) { return Read(s, 1, 5000, s.at()); },
     error::kReadBounds, "read from key"},
    {"SendLongerThanItsReceive", Peer::kForeign, [](auto&) { return Send(1, 65); }, error::kTooLong,
     "longer than the receive posted"},
    {"NoReceivePosted", Peer::kForeign, [](auto&) { return Send(1) + Send(2); }, error::kNoBuffer,
     "found no receive posted"},
    {"InvalidatesARegion", Peer::kForeign,
     [](auto& s) {
       return With(SendHeader(1), [&](auto& h) {
         h.rdmap = wire::RdmapByte(wire::Opcode::kSendInvalidate);
         h.ulp = s.key();
       });
     },
     error::kCannotInvalidate, "names no window"},
    // Messages that this end did not agree to, or did not ask for.
    {"TwoReadsWhereOneIsAgreed", Peer::kForeign,
     [](auto& s) { return Read(s, 1, 4096, s.at()) + Read(s, 2, 8, s.at()); },
     error::kStreamCatastrophic, "more reads and atomics in flight than the 1", Then::kListen,
     /*together=*/true},
    {"AtomicOfAStranger", Peer::kForeign,
     [](auto& s) {
       return MakeFpdu(UntaggedOf(wire::Opcode::kAtomicRequest, 1),
                       wire::AsBytes(wire::MakeFetchAdd(1, s.key(), s.at(), 1)));
     },
     error::kUnexpectedOpcode, "an atomic request that was not negotiated"},
    {"ControlOfAStranger", Peer::kForeign,
     [](auto&) {
       return engine::MakeControlFpdu({wire::ControlType::kAck, wire::NakCode::kNone, 0, 0});
     },
     error::kUnexpectedOpcode, "an opcode that was not negotiated"},
    {"AnswerThatNobodyAskedFor", Peer::kOwn,
     [](auto&) { return With(WriteHeader(1, 0), [](auto& h) { h.rdmap = 0x42; }); }, error::kStag,
     "nobody asked for"},
    {"SecondRequest", Peer::kForeign, [](auto&) { return OfText(ForeignRequest()); },
     error::kRdmapVersion, "RDMAP version is not 1"},
    {"Http", Peer::kOwn, [](auto&) { return OfText("GET / HTTP/1.1\r\nHost: here\r\n\r\n"); },
     error::kUntaggedVersion, "DDP version is not 1"},
    {"WrongCrc", Peer::kForeignCrc, [](auto&) { return Send(1); }, error::kCrc,
     "the CRC of an FPDU is wrong"},
    // Ends.
    {"CutInAHeader",
     Peer::kForeign,
     [](auto&) { return Prefix(Send(1), 10); },
     {},
     "closed the connection while something was under way",
     Then::kHalfClose},
    {"CutInAPayload",
     Peer::kOwn,
     [](auto&) { return Prefix(Send(1), 22); },
     {},
     "ended without a goodbye",
     Then::kHalfClose},
    {"CutInACrc",
     Peer::kForeign,
     [](auto&) { return Prefix(Send(1), 30); },
     {},
     "closed the connection while something was under way",
     Then::kHalfClose},
    {"Reset",
     Peer::kOwn,
     [](auto&) { return Prefix(Send(1), 22); },
     {},
     "the peer vanished",
     Then::kReset},
    {"Terminates",
     Peer::kForeign,
     [](auto&) {
       return MakeFpdu(UntaggedOf(wire::Opcode::kTerminate, 1),
                       OfText(std::string("\x12\x02\0\0", 4)));
     },
     {},
     "the peer terminated the stream: DDP untagged buffer"},
    {"TerminatesWithoutAReason", Peer::kForeign,
     [](auto&) {
       return With(
           UntaggedOf(wire::Opcode::kTerminate, 1), [](auto&) {}, 3);
     },
     error::kUnspecified, "shorter than its opcode demands"},
    // Odd and legal.
    {"ReservedBits", Peer::kForeign,
     [](auto&) {
       return With(SendHeader(1), [](auto& h) {
         h.ddp |= 0x3c;
         h.rdmap |= 0x30;
         h.ulp = 0xffffffff;
       });
     }},
    {"EmptyWriteToNowhere", Peer::kForeign,
     [](auto&) { return MakeFpdu(WriteHeader(0xdead, 0xbeef)) + Send(1); }},
    {"SegmentsOfOneByte", Peer::kForeign,
     [](auto&) {
       Bytes all;
       for (uint32_t i = 0; i < 8; ++i) {
         all = all + With(
                         SendHeader(1, i),
                         [&](auto& h) {
                           if (i < 7) h.ddp &= static_cast<uint8_t>(~wire::kLast);
                         },
                         1);
       }
       return all;
     }},
    {"SegmentsOfNothing", Peer::kForeign,
     [](auto&) {
       const auto first = [](auto& h) { h.ddp &= static_cast<uint8_t>(~wire::kLast); };
       return With(SendHeader(1), first, 0) + With(SendHeader(1), first, 0) + Send(1);
     }},
    {"AWriteInsideASend", Peer::kForeign,
     [](auto& s) {
       return With(SendHeader(1), [](auto& h) { h.ddp &= static_cast<uint8_t>(~wire::kLast); }) +
              MakeFpdu(WriteHeader(s.key(), s.at() + 512), Bytes(8)) +
              MakeFpdu(SendHeader(1, 8), Bytes(8));
     }},
    {"ManyMessagesInOneSegment", Peer::kOwn,
     [](auto& s) {
       Bytes all;
       for (int i = 0; i < 100; ++i) all = all + MakeFpdu(WriteHeader(s.key(), s.at()), Bytes(9));
       return all + Send(1);
     }},
};

class Streams : public ::testing::TestWithParam<std::tuple<size_t, bool>> {};

TEST_P(Streams, EndOrLiveAsTheyShould) {
  const Row& row = kRows[std::get<0>(GetParam())];
  const bool one_by_one = std::get<1>(GetParam());
  const bool crc = row.peer == Peer::kForeignCrc;
  const int descriptors = CountDescriptors();
  {
    Site site;
    testing::Caller caller(site.port());
    caller.Say(row.peer == Peer::kOwn ? OwnRequest() : ForeignRequest(crc));
    Site::Served served = site.Serve();
    Check(served.accepted);
    const std::string reply = caller.Hear(20);
    caller.Hear(static_cast<uint8_t>(reply[19]));
    caller.Say(Text(MakeFpdu(WriteHeader(0, 0), {}, crc) + row.bytes(site)), one_by_one);
    if (row.then == Then::kHalfClose) caller.HalfClose();
    if (row.then == Then::kReset) caller.Reset();
    if (*row.cause == '\0') {
      EXPECT_TRUE(site.Received(served.qp)) << served.qp.cause();
      EXPECT_EQ(served.qp.state(), QpState::kRts);
    } else {
      Check(served.qp.WaitUntilDisconnected(absl::Seconds(60)));
      EXPECT_THAT(std::string(served.qp.cause().message()), HasSubstr(row.cause));
    }
    if (row.error != wire::TerminateError{}) {
      std::string heard;
      EXPECT_TRUE(caller.HearOut(&heard));
      const std::vector<engine::Fpdu> said = engine::ParseFpdus(OfText(heard));
      ASSERT_FALSE(said.empty());
      ASSERT_EQ(said.back().opcode(), wire::Opcode::kTerminate);
      const wire::Terminate terminate = Check(wire::DecodeTerminate(said.back().payload));
      EXPECT_EQ(terminate.error, row.error) << wire::TerminateText(terminate.error);
    }
    EXPECT_TRUE(site.ServesTheNext());
  }
  EXPECT_EQ(CountDescriptors(), descriptors);
}

// Each row in one call, and byte by byte.
std::vector<std::tuple<size_t, bool>> Cases() {
  std::vector<std::tuple<size_t, bool>> cases;
  for (size_t i = 0; i < std::size(kRows); ++i) {
    cases.emplace_back(i, false);
    if (!kRows[i].together) cases.emplace_back(i, true);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Table, Streams, ::testing::ValuesIn(Cases()), [](const auto& i) {
  return std::string(kRows[std::get<0>(i.param)].name) + (std::get<1>(i.param) ? "ByteByByte" : "");
});

}  // namespace
}  // namespace verbena::hostile
