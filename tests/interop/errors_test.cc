// SPDX-License-Identifier: Apache-2.0
// What a plain iWARP peer can do wrong, and what it can say that we did wrong: the right Terminate,
// the right completion, and a process that goes on. tests/interop/run has the same with the
// kernel's siw, as far as siw can be made to err.
#include <functional>
#include <string>

#include "fallback/wire/rdmap.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/interop/end.h"
#include "tests/interop/scripted_peer.h"

namespace verbena::interop {
namespace {

using engine::MakeFpdu;
using engine::operator+;
using engine::SendHeader;
using engine::UntaggedOf;
using engine::WriteHeader;
using wire::Opcode;

constexpr absl::Duration kLong = absl::Seconds(20);

// One Verbena end over TCP that accepts the script's connections. It lends a region to be written
// and read, one to be written only, and one to be read only.
class Target {
 public:
  Target()
      : end({.provider = "tcp"}),
        listener(Check(end.context.Listen("127.0.0.1:0"), "listen")),
        write_only(Check(end.pd.Register(spare, Access::kLocalWrite | Access::kRemoteWrite), "mr")),
        read_only(Check(end.pd.Register(spare, Access::kRemoteRead), "mr")) {}

  // A new connection, of revision 2 without ready frames, on which one read may be in flight.
  std::unique_ptr<ScriptedPeer> Connect(bool crc) {
    auto peer = std::make_unique<ScriptedPeer>(listener.address());
    wire::MpaFrame request;
    request.enhanced = true;
    request.ird = request.ord = 1;
    request.crc = crc;
    peer->Say(request);
    end.qp = Check(end.pd.CreateQueuePair({.send_cq = &end.send_cq, .receive_cq = &end.receive_cq}),
                   "qp");
    auto asked = Check(listener.Next(kLong), "request");
    Check(asked.Accept(end.qp), "accept");
    EXPECT_FALSE(peer->ReadFrame().frame.rejected);
    return peer;
  }
  EventType NextEvent() {
    auto event = end.context.events().Next(kLong);
    EXPECT_TRUE(event.ok()) << event.status();
    return event.ok() ? event->type : EventType::kDeviceFatal;
  }

  std::vector<std::byte> spare = std::vector<std::byte>(64);
  End end;
  Listener listener;
  MemoryRegion write_only, read_only;
};

Bytes Read(const MemoryRegion& from, uint64_t offset, uint32_t size, uint32_t msn = 1) {
  wire::ReadRequest body;
  body.sink_stag = 5;
  body.size = size;
  body.source_stag = from.remote_key();
  body.source_offset = from.address() + offset;
  return MakeFpdu(UntaggedOf(Opcode::kReadRequest, msn), wire::AsBytes(body));
}
Bytes Write(const MemoryRegion& to, uint64_t offset, size_t size) {
  return MakeFpdu(WriteHeader(to.remote_key(), to.address() + offset), Bytes(size));
}

struct Violation {
  const char* name;
  std::function<Bytes(const Target&)> bytes;
  wire::TerminateError terminate;
  EventType event;
  WcStatus receive = WcStatus::kFlushed;  // of the one that is posted, of 16 bytes
  bool crc = false;
};

class PeerErrs : public testing::TestWithParam<Violation> {};

TEST_P(PeerErrs, IsToldAndTheProcessGoesOn) {
  // Expect: a Terminate that is the last that it hears; an event that says whose fault it is; the
  // receive is not lost; and the next connection works.
  const Violation& v = GetParam();
  Target target;
  auto peer = target.Connect(v.crc);
  ASSERT_TRUE(target.end.qp.PostReceive({.local = target.end.region.slice(0, 16), .id = 9}).ok());
  peer->Say(MakeFpdu(WriteHeader(0, 0), {}, v.crc) + v.bytes(target));
  EXPECT_EQ(peer->ReadTerminate(), v.terminate);
  EXPECT_EQ(target.NextEvent(), EventType::kEstablished);
  EXPECT_EQ(target.NextEvent(), v.event);
  EXPECT_EQ(target.NextEvent(), EventType::kDisconnected);
  WorkCompletion wc;
  EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), v.receive);
  EXPECT_EQ(wc.id, 9u);
  EXPECT_EQ(target.end.qp.state(), QpState::kErr);
  EXPECT_FALSE(target.end.qp.cause().ok());

  peer->HangUp();
  target.end.Disconnect();
  peer = target.Connect(false);
  Bytes hello(8, std::byte{0x77});
  ASSERT_TRUE(target.end.qp.PostReceive({.local = target.end.region.slice(0, 16), .id = 10}).ok());
  peer->Say(MakeFpdu(SendHeader(1), hello));
  EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), WcStatus::kSuccess);
  EXPECT_EQ(target.end.memory[7], std::byte{0x77});
}

Bytes WrongCrc(const Target&) {
  Bytes fpdu = MakeFpdu(SendHeader(1), Bytes(8), true);
  fpdu.back() ^= std::byte{1};
  return fpdu;
}
Bytes ManyReads(const Target& t) {  // in one segment
  Bytes all;
  for (uint32_t i = 1; i <= 16; ++i) all = std::move(all) + Read(t.end.region, 0, 8, i);
  return all;
}

INSTANTIATE_TEST_SUITE_P(
    Rules, PeerErrs,
    testing::Values(
        Violation{"WritesToAKeyThatIsNone",
                  [](const Target&) { return MakeFpdu(WriteHeader(0xdead, 0), Bytes(8)); },
                  wire::error::kStag, EventType::kQpAccessError},
        Violation{"WritesPastTheEnd", [](const Target& t) { return Write(t.write_only, 60, 8); },
                  wire::error::kBounds, EventType::kQpAccessError},
        Violation{"WritesWhereItMayRead", [](const Target& t) { return Write(t.read_only, 0, 8); },
                  wire::error::kStag, EventType::kQpAccessError},
        Violation{"ReadsPastTheEnd", [](const Target& t) { return Read(t.read_only, 60, 8); },
                  wire::error::kReadBounds, EventType::kQpAccessError},
        Violation{"ReadsWhereItMayWrite", [](const Target& t) { return Read(t.write_only, 0, 8); },
                  wire::error::kAccess, EventType::kQpAccessError},
        Violation{"ReadsMoreAtOnceThanAgreed", ManyReads, wire::error::kStreamCatastrophic,
                  EventType::kQpRequestError},
        Violation{"SendsWhatDoesNotFit",
                  [](const Target&) { return MakeFpdu(SendHeader(1), Bytes(17)); },
                  wire::error::kTooLong, EventType::kQpRequestError, WcStatus::kLocalLengthError},
        Violation{"SendsTwiceForOneReceive",
                  [](const Target&) {
                    return MakeFpdu(SendHeader(1), Bytes(16)) + MakeFpdu(SendHeader(2), Bytes(1));
                  },
                  wire::error::kNoBuffer, EventType::kQpRequestError, WcStatus::kSuccess},
        Violation{"SkipsAMessageNumber",
                  [](const Target&) { return MakeFpdu(SendHeader(2), Bytes(8)); },
                  wire::error::kMsn, EventType::kQpRequestError},
        Violation{"SkipsAnOffset",
                  [](const Target&) { return MakeFpdu(SendHeader(1, 4), Bytes(8)); },
                  wire::error::kMessageOffset, EventType::kQpRequestError},
        Violation{"SaysAnOpcodeThatIsNone",
                  [](const Target&) {
                    return MakeFpdu(UntaggedOf(static_cast<Opcode>(0xd), 1), Bytes(8));
                  },
                  wire::error::kUnexpectedOpcode, EventType::kQpRequestError},
        Violation{"MiscountsTheCrc", WrongCrc, wire::error::kCrc, EventType::kQpRequestError,
                  WcStatus::kFlushed, true}),
    [](const auto& i) { return std::string(i.param.name); });

TEST(FirstWord, MayBeWrong) {
  // RFC 5044 7.1.2 has the accepting end wait for the first FPDU; this one is of no known opcode.
  // Expect: a Terminate all the same, and no kEstablished.
  Target target;
  auto peer = target.Connect(false);
  peer->Say(MakeFpdu(UntaggedOf(static_cast<Opcode>(0xd), 1), Bytes(8)));
  EXPECT_EQ(peer->ReadTerminate(), wire::error::kUnexpectedOpcode);
  EXPECT_EQ(target.NextEvent(), EventType::kQpRequestError);
}

TEST(PeerLeaves, InTheMiddleOfAnFpdu) {
  // The stream ends behind half a message.
  // Expect: our side ends it, too; the receive is flushed; the cause says what was open.
  Target target;
  auto peer = target.Connect(false);
  ASSERT_TRUE(target.end.qp.PostReceive({.local = target.end.region.slice(0, 16), .id = 9}).ok());
  const Bytes fpdu = MakeFpdu(SendHeader(1), Bytes(16));
  peer->Say(std::span(fpdu).first(25));
  peer->FinishSending();
  EXPECT_TRUE(peer->AtEnd());
  WorkCompletion wc;
  EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), WcStatus::kFlushed);
  EXPECT_TRUE(absl::IsUnavailable(target.end.qp.cause())) << target.end.qp.cause();
}

TEST(PeerLeaves, AndIsLetGo) {
  // A clean half-close by either end. Expect: ours follows, and nobody is to blame.
  Target target;
  auto peer = target.Connect(false);
  peer->FinishSending();
  EXPECT_TRUE(peer->AtEnd());
  EXPECT_TRUE(target.end.qp.WaitUntilDisconnected(kLong).ok());
  EXPECT_TRUE(target.end.qp.cause().ok()) << target.end.qp.cause();

  auto second = target.Connect(false);
  second->Say(MakeFpdu(WriteHeader(0, 0)));  // it has spoken
  ASSERT_TRUE(target.end.qp.Disconnect().ok());
  EXPECT_TRUE(second->AtEnd()) << "no word of ours goes to a plain peer";
}

// What the peer says of a read of ours, in the order of RFC 5040 4.8 and in siw's.
struct Verdict {
  const char* name;
  Bytes body;
  WcStatus status;
  const char* text;
};
Bytes Word(int a, int b, int c, int d) {
  return {std::byte(a), std::byte(b), std::byte(c), std::byte(d)};
}
class PeerComplains : public testing::TestWithParam<Verdict> {};

TEST_P(PeerComplains, TheReadFails) {
  // Two reads are open. Expect: the older gets the status, the other is flushed; the cause has the
  // peer's words.
  Target target;
  auto peer = target.Connect(false);
  peer->Say(MakeFpdu(WriteHeader(0, 0)));
  for (const uint64_t id : {1, 2}) {
    ASSERT_TRUE(target.end.qp
                    .PostSend({.opcode = verbena::Opcode::kRead,
                               .local = target.end.region.slice(0, 8),
                               .remote = {0x1000, 7},
                               .id = id})
                    .ok());
  }
  ASSERT_TRUE(peer->ReadFpdu().has_value());
  wire::UntaggedHeader h = UntaggedOf(Opcode::kTerminate, 1);
  h.queue_number = wire::kTerminateQueue;
  peer->Say(MakeFpdu(h, GetParam().body));
  EXPECT_EQ(target.end.AwaitSend(kLong), GetParam().status);
  EXPECT_EQ(target.end.AwaitSend(kLong), WcStatus::kFlushed);
  EXPECT_THAT(target.end.qp.cause().message(), testing::HasSubstr(GetParam().text));
  EXPECT_TRUE(peer->AtEnd());
}

INSTANTIATE_TEST_SUITE_P(
    Words, PeerComplains,
    testing::Values(Verdict{"RfcStag", Word(0x01, 0x00, 0x00, 0), WcStatus::kRemoteAccessError,
                            "invalid STag"},
                    Verdict{"RfcBounds", Word(0x01, 0x01, 0x00, 0), WcStatus::kRemoteAccessError,
                            "base or bounds"},
                    Verdict{"SiwBoundsWithTheHeader",
                            Word(0x10, 0x01, 0x03, 0) + Word(0, 0x2e, 0x41, 0x41) + Bytes(16),
                            WcStatus::kRemoteAccessError, "RDMAP: base or bounds"},
                    Verdict{"RfcNoBuffer", Word(0x12, 0x02, 0x00, 0), WcStatus::kRnrRetryExceeded,
                            "no receive buffer"},
                    Verdict{"SiwNoBuffer", Word(0x21, 0x02, 0x01, 0) + Word(0, 0x12, 0, 0),
                            WcStatus::kRnrRetryExceeded, "no receive buffer"},
                    Verdict{"RfcCrc", Word(0x20, 0x02, 0x00, 0), WcStatus::kRetryExceeded, "CRC"}),
    [](const auto& i) { return std::string(i.param.name); });

}  // namespace
}  // namespace verbena::interop
