// SPDX-License-Identifier: Apache-2.0
// Requests that are refused: the reason at both ends, NAK, Terminate.
#include "absl/strings/match.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

using wire::ControlType;
using wire::NakCode;

struct RefusalRow {
  const char* name;
  Opcode opcode;
  Access access;   // of the target's region
  uint32_t shift;  // added to the offset
  uint32_t key_xor;
  uint32_t length;
  WcStatus status;
  wire::TerminateError error;
  const char* text;
};

constexpr Access kNoWrite = Access::kLocalWrite | Access::kRemoteRead;
constexpr Access kNoRead = Access::kLocalWrite | Access::kRemoteWrite;
constexpr RefusalRow kRefusals[] = {
    {"WriteKey", Opcode::kWrite, kEverything, 0, 1, 8, WcStatus::kRemoteAccessError,
     wire::error::kStag, "not registered"},
    {"WriteBounds", Opcode::kWrite, kEverything, 57, 0, 8, WcStatus::kRemoteAccessError,
     wire::error::kBounds, "out of the region's bounds"},
    {"WriteRights", Opcode::kWrite, kNoWrite, 0, 0, 8, WcStatus::kRemoteAccessError,
     wire::error::kStag, "does not allow"},
    {"ReadKey", Opcode::kRead, kEverything, 0, 1, 8, WcStatus::kRemoteAccessError,
     wire::error::kReadStag, "not registered"},
    {"ReadBounds", Opcode::kRead, kEverything, 60, 0, 5, WcStatus::kRemoteAccessError,
     wire::error::kReadBounds, "out of the region's bounds"},
    {"ReadRights", Opcode::kRead, kNoRead, 0, 0, 8, WcStatus::kRemoteAccessError,
     wire::error::kAccess, "does not allow"},
    {"AtomicKey", Opcode::kFetchAdd, kEverything, 0, 1, 8, WcStatus::kRemoteAccessError,
     wire::error::kReadStag, "not registered"},
    {"AtomicRights", Opcode::kFetchAdd, kNoRead, 0, 0, 8, WcStatus::kRemoteAccessError,
     wire::error::kAccess, "does not allow"},
    {"AtomicMisaligned", Opcode::kFetchAdd, kEverything, 4, 0, 8, WcStatus::kRemoteInvalidRequest,
     wire::error::kStreamCatastrophic, "aligned to 8"},
    {"InvalidateNoWindow", Opcode::kSendWithInvalidate, kEverything, 0, 0, 8,
     WcStatus::kRemoteAccessError, wire::error::kCannotInvalidate, "may invalidate"},
    {"SendTooLong", Opcode::kSend, kEverything, 0, 0, 33, WcStatus::kRemoteInvalidRequest,
     wire::error::kTooLong, "longer than the receive"},
};

class Refusal : public testing::TestWithParam<RefusalRow> {};

TEST_P(Refusal, NamesTheRequestAndTheReason) {
  // A good write, then the offence, then another write.
  // Expect: success, the status of the offence, a flush; the reason as text at both ends; NAK with
  // the request's number and a Terminate with the RFC's code on the wire.
  const RefusalRow& row = GetParam();
  Wired w;
  Memory from(&w.a, 64), to(&w.b, 64, kEverything), target(&w.b, 64, row.access);
  w.b.PostReceive({.local = to.sge(0, 32), .id = 11});
  w.a.Post(WriteOf(from.sge(0, 8), to.at(), 1));
  w.a.Post({.opcode = row.opcode,
            .local = from.sge(0, row.length),
            .remote = {target.at(row.shift).address, target.key() ^ row.key_xor},
            .id = 2,
            .invalidate = target.key()});
  w.a.Post(WriteOf(from.sge(0, 8), to.at(), 3));
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(),
            std::string("1 SUCCESS, 2 ") + WcStatusName(row.status) + ", 3 WR_FLUSH_ERR");
  EXPECT_TRUE(absl::StrContains(w.a.qp.cause().message(), row.text)) << w.a.qp.cause();
  EXPECT_TRUE(absl::StrContains(w.b.qp.cause().message(), row.text)) << w.b.qp.cause();
  EXPECT_EQ(w.a.qp.state(), QpState::kErr);
  EXPECT_EQ(w.b.qp.state(), QpState::kErr);
  EXPECT_TRUE(w.b.Had(row.status == WcStatus::kRemoteAccessError ? EventType::kQpAccessError
                                                                 : EventType::kQpRequestError));
  EXPECT_TRUE(w.a.Had(EventType::kDisconnected) && w.b.Had(EventType::kDisconnected));
  const std::vector<Fpdu> sent = ParseFpdus(w.cable.Sent(1));
  ASSERT_GE(sent.size(), 2u);
  EXPECT_EQ(wire::ReadControl(sent[sent.size() - 2].untagged).rsn, 3u);
  ASSERT_EQ(sent.back().opcode(), wire::Opcode::kTerminate);
  const auto terminate = wire::DecodeTerminate(sent.back().payload);
  ASSERT_TRUE(terminate.ok());
  EXPECT_EQ(terminate->error, row.error);
  EXPECT_EQ(w.b.qp.counters().protection_errors, 1u);
}

TEST_P(Refusal, StateAndCauseAreThereWithTheFirstNews) {
  // The target is told by an event or a completion, whichever comes first, and asks at once, as
  // another thread would.
  // Expect: ERR and the cause, not RTS.
  const RefusalRow& row = GetParam();
  Wired w;
  Memory from(&w.a, 64), to(&w.b, 64, kEverything), target(&w.b, 64, row.access);
  w.b.PostReceive({.local = to.sge(0, 32), .id = 11});
  w.b.receive_ring.Arm(Notify::kAny);
  int asked = 0;
  w.b.on_news = [&] {
    ++asked;
    EXPECT_EQ(w.b.qp.Query().state, QpState::kErr);
    EXPECT_TRUE(absl::StrContains(w.b.qp.cause().message(), row.text)) << w.b.qp.cause();
  };
  w.a.Post({.opcode = row.opcode,
            .local = from.sge(0, row.length),
            .remote = {target.at(row.shift).address, target.key() ^ row.key_xor},
            .id = 2,
            .invalidate = target.key()});
  w.cable.Run();
  EXPECT_EQ(asked, 3);  // the offence, the receive's completion, disconnected
  EXPECT_EQ(w.b.notified, 1);
}

INSTANTIATE_TEST_SUITE_P(Rows, Refusal, testing::ValuesIn(kRefusals),
                         [](const auto& i) { return std::string(i.param.name); });

struct NakRow {
  NakCode code;
  const char* status;
};
class Nak : public testing::TestWithParam<NakRow> {};

TEST_P(Nak, BecomesAStatus) {
  Wired w;
  Memory from(&w.a, 8);
  w.a.Post(SendOf(from.sge(), 1));
  w.a.Post(SendOf(from.sge(), 2));
  w.a.Drain();
  w.a.Feed(MakeControlFpdu({ControlType::kNak, GetParam().code, 3, 0}, "no more beer"));
  EXPECT_EQ(w.a.Sends(), std::string("1 SUCCESS, 2 ") + GetParam().status);
  EXPECT_TRUE(absl::StrContains(w.a.qp.cause().message(), "no more beer")) << w.a.qp.cause();
}

INSTANTIATE_TEST_SUITE_P(Codes, Nak,
                         testing::Values(NakRow{NakCode::kRemoteAccess, "REM_ACCESS_ERR"},
                                         NakRow{NakCode::kRemoteInvalidRequest, "REM_INV_REQ_ERR"},
                                         NakRow{NakCode::kRemoteOperation, "REM_OP_ERR"},
                                         NakRow{NakCode::kProtocol, "REM_INV_REQ_ERR"}),
                         [](const auto& i) {
                           return std::to_string(static_cast<int>(i.param.code));
                         });

TEST(Nak, WithNothingOutstanding) {
  // Expect: the reason is kept, nothing crashes.
  Wired w;
  w.a.Feed(MakeControlFpdu({ControlType::kNak, NakCode::kRemoteOperation, 0, 0}, ""));
  EXPECT_EQ(w.a.qp.state(), QpState::kErr);
  EXPECT_FALSE(w.a.qp.cause().ok());
}

TEST(Nak, LongReasonIsCut) {
  // The text of a refusal has room for 128 bytes on the wire; the addresses make this one long.
  Wired w;
  Memory from(&w.a, 8);
  w.a.Post(WriteOf(from.sge(), {~0ull - 8, 0xffffffff}, 1));
  w.cable.Run();
  const std::vector<Fpdu> sent = ParseFpdus(w.cable.Sent(1));
  ASSERT_GE(sent.size(), 2u);
  EXPECT_LE(sent[sent.size() - 2].payload.size(), wire::kMaxControlText);
  EXPECT_EQ(w.a.Sends(), "1 REM_ACCESS_ERR");
}

struct TerminateRow {
  const char* name;
  wire::TerminateError error;
  const char* status;
};
constexpr TerminateRow kTerminates[] = {
    {"InvalidStag", wire::error::kStag, "REM_ACCESS_ERR"},
    {"Bounds", wire::error::kBounds, "REM_ACCESS_ERR"},
    {"ReadStag", wire::error::kReadStag, "REM_ACCESS_ERR"},
    {"AccessRights", wire::error::kAccess, "REM_ACCESS_ERR"},
    {"NoBuffer", wire::error::kNoBuffer, "RNR_RETRY_EXC_ERR"},
    {"TooLong", wire::error::kTooLong, "REM_INV_REQ_ERR"},
    {"Msn", wire::error::kMsn, "REM_INV_REQ_ERR"},
    {"UnexpectedOpcode", wire::error::kUnexpectedOpcode, "REM_OP_ERR"},
    {"Unspecified", wire::error::kUnspecified, "REM_OP_ERR"},
    {"Crc", wire::error::kCrc, "RETRY_EXC_ERR"},
    {"TcpLost", wire::error::kTcpLost, "RETRY_EXC_ERR"},
};
class TerminateFromPeer : public testing::TestWithParam<TerminateRow> {};

TEST_P(TerminateFromPeer, FailsTheOldestReadAndExplains) {
  // A plain iWARP peer: two reads are open when it terminates.
  // Expect: the first has the status, the second is flushed, cause() has the RFC's words.
  Side side;
  side.qp.Connected(ForeignSession(true));
  Memory into(&side, 8);
  for (uint64_t id : {1, 2}) side.Post(ReadOf(into.sge(), {0x1000, 7}, id));
  side.Drain();
  wire::Terminate t;
  t.error = GetParam().error;
  Bytes body(wire::kMaxTerminateBody);
  body.resize(wire::EncodeTerminate(t, body));
  side.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kTerminate, 1), body), Chunks(1));
  EXPECT_EQ(side.Sends(), std::string("1 ") + GetParam().status + ", 2 WR_FLUSH_ERR");
  EXPECT_TRUE(absl::StrContains(side.qp.cause().message(), wire::TerminateText(t.error)))
      << side.qp.cause();
}

INSTANTIATE_TEST_SUITE_P(Codes, TerminateFromPeer, testing::ValuesIn(kTerminates),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(TerminateFromPeer, WithTwoReadings) {
  // The kernel's siw without flags: the nibbles of the first byte may be either way round.
  // Expect: both readings in the text.
  Side side;
  side.qp.Connected(ForeignSession(true));
  Memory into(&side, 8);
  side.Post(ReadOf(into.sge(), {0x1000, 7}, 1));
  side.Drain();
  const std::byte body[] = {std::byte{0x12}, std::byte{0x01}, std::byte{0}, std::byte{0}};
  const auto decoded = wire::DecodeTerminate(body);
  ASSERT_TRUE(decoded.ok());
  side.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kTerminate, 1), body));
  EXPECT_EQ(side.qp.state(), QpState::kErr);
  EXPECT_EQ(absl::StrContains(side.qp.cause().message(), "(or: "), decoded->ambiguous);
}

}  // namespace
}  // namespace verbena::engine
