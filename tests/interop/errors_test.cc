// SPDX-License-Identifier: Apache-2.0
// What a plain iWARP peer can do wrong, and what it can say that we did wrong: the right Terminate,
// the right completion, and a process that goes on. tests/interop/run has the same with the
// kernel's siw, as far as siw can be made to err; and it has these with siw as the end that judges:
// with VERBENA_INTEROP_DEVICE=verbs:siw0 every row is played to siw, and its column applies.
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <vector>

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

// The end that the script plays to: Verbena over TCP, or over a device.
std::string Judge() {
  const char* device = std::getenv("VERBENA_INTEROP_DEVICE");
  return device == nullptr ? "tcp" : device;
}
bool SiwJudges() { return Judge() != "tcp"; }
std::string Host() { return SiwJudges() ? std::getenv("VERBENA_SOFT_RDMA_ADDRESS") : "127.0.0.1"; }

// One end that accepts the script's connections. It lends a region to be written and read, one to
// be written only, and one to be read only.
class Target {
 public:
  Target()
      : end({.provider = Judge()}),
        listener(Check(end.context.Listen(Host() + ":0"), "listen")),
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
  // Whether the connection ends; devices tell more or less on the way.
  bool Ends() {
    for (;;) {
      const EventType event = NextEvent();
      if (event == EventType::kDisconnected) return true;
      if (event == EventType::kDeviceFatal) return false;
    }
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
  // Where siw says or does another thing.
  std::optional<wire::TerminateError> siw_says = {};
  std::optional<WcStatus> siw_receive = {};
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
  WorkCompletion wc;
  if (SiwJudges()) {
    EXPECT_EQ(peer->ReadTerminate(), v.siw_says.value_or(v.terminate));
    EXPECT_TRUE(target.Ends());
    EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), v.siw_receive.value_or(v.receive));
  } else {
    EXPECT_EQ(peer->ReadTerminate(), v.terminate);
    EXPECT_EQ(target.NextEvent(), EventType::kEstablished);
    EXPECT_EQ(target.NextEvent(), v.event);
    EXPECT_EQ(target.NextEvent(), EventType::kDisconnected);
    EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), v.receive);
    EXPECT_FALSE(target.end.qp.cause().ok());
  }
  EXPECT_EQ(wc.id, 9u);
  EXPECT_EQ(target.end.qp.state(), QpState::kErr);

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
Bytes ManyReads(const Target& t) {  // more than siw has places for, too
  Bytes all;
  for (uint32_t i = 1; i <= 300; ++i) all = std::move(all) + Read(t.end.region, 0, 8, i);
  return all;
}

// Layer and type exchanged, and no flag that tells: as the RFC reads it, another error.
constexpr wire::TerminateError kUnexpectedOpcodeOfSiw = wire::error::kInsufficientIrd;

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
        Violation{"ReadsMoreAtOnceThanAgreed", ManyReads, wire::error::kStreamCatastrophic,
                  EventType::kQpRequestError},
        Violation{"SendsWhatDoesNotFit",
                  [](const Target&) { return MakeFpdu(SendHeader(1), Bytes(17)); },
                  wire::error::kTooLong, EventType::kQpRequestError, WcStatus::kLocalLengthError,
                  false, wire::error::kNoBuffer},
        Violation{"SendsTwiceForOneReceive",
                  [](const Target&) {
                    return MakeFpdu(SendHeader(1), Bytes(16)) + MakeFpdu(SendHeader(2), Bytes(1));
                  },
                  wire::error::kNoBuffer, EventType::kQpRequestError, WcStatus::kSuccess},
        Violation{"SkipsAMessageNumber",
                  [](const Target&) { return MakeFpdu(SendHeader(2), Bytes(8)); },
                  wire::error::kMsn, EventType::kQpRequestError, WcStatus::kFlushed, false,
                  std::nullopt, WcStatus::kLocalProtectionError},
        Violation{"SkipsAnOffset",
                  [](const Target&) { return MakeFpdu(SendHeader(1, 4), Bytes(8)); },
                  wire::error::kMessageOffset, EventType::kQpRequestError, WcStatus::kFlushed,
                  false, std::nullopt, WcStatus::kLocalProtectionError},
        Violation{"SaysAnOpcodeThatIsNone",
                  [](const Target&) {
                    return MakeFpdu(UntaggedOf(static_cast<Opcode>(0xd), 1), Bytes(8));
                  },
                  wire::error::kUnexpectedOpcode, EventType::kQpRequestError, WcStatus::kFlushed,
                  false, kUnexpectedOpcodeOfSiw},
        Violation{"MiscountsTheCrc", WrongCrc, wire::error::kCrc, EventType::kQpRequestError,
                  WcStatus::kFlushed, true, std::nullopt, WcStatus::kLocalProtectionError}),
    [](const auto& i) { return std::string(i.param.name); });

TEST(PeerInvalidates, AKeyThatIsNone) {
  // Expect: the receive fails, and the connection with it.
  Target target;
  auto peer = target.Connect(false);
  for (const uint64_t id : {9, 10}) {
    ASSERT_TRUE(
        target.end.qp.PostReceive({.local = target.end.region.slice(0, 16), .id = id}).ok());
  }
  wire::UntaggedHeader h = SendHeader(1);
  h.rdmap = wire::RdmapByte(Opcode::kSendInvalidate);
  h.ulp = 0xdead00;
  peer->Say(MakeFpdu(h, Bytes(8)));
  WorkCompletion wc;
  EXPECT_EQ(target.end.AwaitReceive(kLong, &wc),
            SiwJudges() ? WcStatus::kRemoteInvalidRequest : WcStatus::kLocalProtectionError);
  EXPECT_EQ(target.end.AwaitReceive(kLong, &wc), WcStatus::kFlushed);
  // siw has the code in the wrong type (siw_qp_rx.c siw_rdmap_complete).
  constexpr wire::TerminateError kOfSiw{wire::kLayerRdmap, wire::kRemoteOp, 9};
  EXPECT_EQ(peer->ReadTerminate(), SiwJudges() ? kOfSiw : wire::error::kCannotInvalidate);
}

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
  if (!SiwJudges()) {  // a device does not say
    EXPECT_TRUE(absl::IsUnavailable(target.end.qp.cause())) << target.end.qp.cause();
  }
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

// What it answers to a read of 8 bytes.
struct WrongAnswer {
  const char* name;
  std::function<Bytes(const wire::ReadRequest&)> bytes;
  std::string statuses;  // of this read and of one behind it
  wire::TerminateError terminate;
  std::string siw_statuses;
  bool crc = false;
};
class PeerAnswersWrong : public testing::TestWithParam<WrongAnswer> {};

Bytes Answer(const wire::ReadRequest& r, size_t size, uint32_t stag_off = 0, uint64_t offset = 0,
             bool crc = false) {
  wire::TaggedHeader h = WriteHeader(r.sink_stag + stag_off, r.sink_offset + offset);
  h.rdmap = wire::RdmapByte(Opcode::kReadResponse);
  return MakeFpdu(h, Bytes(size, std::byte{7}), crc);
}

void OpenTwoReads(Target& target) {
  for (const uint64_t id : {1, 2}) {
    EXPECT_TRUE(target.end.qp
                    .PostSend({.opcode = verbena::Opcode::kRead,
                               .local = target.end.region.slice(0, 8),
                               .remote = {0x1000, 7},
                               .id = id})
                    .ok());
  }
}

TEST_P(PeerAnswersWrong, NothingGoesBeyondTheBuffer) {
  // Two reads are open, and the first is answered.
  // Expect: the statuses; the bytes around the buffer stay; the connection is over.
  const WrongAnswer& a = GetParam();
  Target target;
  auto peer = target.Connect(a.crc);
  peer->Say(MakeFpdu(WriteHeader(0, 0), {}, a.crc));
  const std::byte before = target.end.memory[8];
  std::string statuses;
  OpenTwoReads(target);
  const auto asked = peer->ReadFpdu();
  ASSERT_TRUE(asked.has_value() && asked->opcode() == Opcode::kReadRequest);
  peer->Say(a.bytes(wire::Load<wire::ReadRequest>(asked->payload.data())));
  for (int i = 0; i < 2; ++i) {
    statuses += std::string(i == 0 ? "" : " ") + WcStatusName(target.end.AwaitSend(kLong));
  }
  EXPECT_EQ(statuses, SiwJudges() ? a.siw_statuses : a.statuses);
  EXPECT_EQ(peer->ReadTerminate(), a.terminate);
  EXPECT_EQ(target.end.memory[8], before);
}

// siw looks at no right of a read's source (tests/soft_rdma/deviations/siw.txt).
INSTANTIATE_TEST_SUITE_P(RulesOfReads, PeerErrs,
                         testing::Values(Violation{
                             "ReadsWhereItMayWrite",
                             [](const Target& t) { return Read(t.write_only, 0, 8); },
                             wire::error::kAccess, EventType::kQpAccessError}),
                         [](const auto& i) { return std::string(i.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Rules, PeerAnswersWrong,
    testing::Values(
        WrongAnswer{"ToAnotherKey", [](const auto& r) { return Answer(r, 8, 1); },
                    "BAD_RESP_ERR WR_FLUSH_ERR", wire::error::kStag, "REM_OP_ERR WR_FLUSH_ERR"},
        WrongAnswer{"ToAnotherPlace", [](const auto& r) { return Answer(r, 8, 0, 8); },
                    "BAD_RESP_ERR WR_FLUSH_ERR", wire::error::kBounds, "REM_OP_ERR WR_FLUSH_ERR"},
        WrongAnswer{"TooLittle", [](const auto& r) { return Answer(r, 7); },
                    "BAD_RESP_ERR WR_FLUSH_ERR", wire::error::kBounds, "REM_OP_ERR WR_FLUSH_ERR"},
        WrongAnswer{"TooMuch", [](const auto& r) { return Answer(r, 9); },
                    "BAD_RESP_ERR WR_FLUSH_ERR", wire::error::kBounds, "REM_OP_ERR WR_FLUSH_ERR"},
        WrongAnswer{"WithAWrongCrc",
                    [](const auto& r) {
                      Bytes fpdu = Answer(r, 8, 0, 0, true);
                      fpdu.back() ^= std::byte{1};
                      return fpdu;
                    },
                    "WR_FLUSH_ERR WR_FLUSH_ERR", wire::error::kCrc, "REM_OP_ERR WR_FLUSH_ERR",
                    true}),
    [](const auto& i) { return std::string(i.param.name); });

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
  OpenTwoReads(target);
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
