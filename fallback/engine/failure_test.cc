// SPDX-License-Identifier: Apache-2.0
// How connections end: refusals with their reasons, Terminate, goodbyes, streams that break.
#include <cerrno>

#include "absl/strings/match.h"
#include "fallback/engine/test_allocations.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

using wire::ControlType;
using wire::NakCode;

SendWr SendOf(const Sge& sge, uint64_t id) {
  return {.opcode = Opcode::kSend, .local = sge, .id = id};
}
SendWr WriteOf(const Sge& sge, RemoteAddress to, uint64_t id) {
  return {.opcode = Opcode::kWrite, .local = sge, .remote = to, .id = id};
}
SendWr ReadOf(const Sge& sge, RemoteAddress from, uint64_t id) {
  return {.opcode = Opcode::kRead, .local = sge, .remote = from, .id = id};
}

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

class Failure : public testing::Test {
 protected:
  Wired w_;
  Memory from_{&w_.a, 64}, to_{&w_.b, 64};
};

TEST_F(Failure, GoodbyeIsNoError) {
  // A disconnects with work of both ends outstanding.
  // Expect: BYE on the wire, everything flushed at both ends, no cause, an event each.
  w_.b.PostReceive({.local = to_.sge(), .id = 11});
  w_.a.PostReceive({.local = from_.sge(), .id = 12});
  w_.a.qp.Disconnect();
  EXPECT_TRUE(w_.a.qp.closing());
  w_.cable.Run();
  EXPECT_EQ(w_.cable.Trace(0), "BYE(0)");
  EXPECT_TRUE(w_.a.qp.finished() && w_.b.qp.finished());
  EXPECT_EQ(w_.a.Receives() + ", " + w_.b.Receives(), "12 WR_FLUSH_ERR, 11 WR_FLUSH_ERR");
  EXPECT_TRUE(w_.a.qp.cause().ok() && w_.b.qp.cause().ok());
  EXPECT_TRUE(w_.a.Had(EventType::kDisconnected) && w_.b.Had(EventType::kDisconnected));
  w_.cable.Cut(1);
  w_.cable.Cut(0);
  EXPECT_EQ(w_.a.events.size(), 1u);
}

TEST_F(Failure, DisconnectAcknowledgesWhatItTook) {
  // The target has received a message and disconnects before its acknowledgement went out.
  // Expect: the sender's request succeeds: it was delivered.
  w_.b.PostReceive({.local = to_.sge(), .id = 11});
  w_.a.Post(SendOf(from_.sge(0, 8), 1));
  w_.cable.Send(0);
  w_.cable.Deliver(0);
  EXPECT_EQ(w_.b.Receives(), "11 SUCCESS");
  w_.b.qp.Disconnect();
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
}

TEST_F(Failure, AcknowledgementAndGoodbyeInOnePiece) {
  // Expect: what was acknowledged succeeds, the rest is flushed.
  for (uint64_t id : {1, 2}) w_.a.Post(SendOf(from_.sge(0, 8), id));
  w_.a.Drain();
  w_.a.Feed(MakeControlFpdu({ControlType::kAck, NakCode::kNone, 2, 0}) +
            MakeControlFpdu({ControlType::kBye, NakCode::kNone, 0, 0}));
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 WR_FLUSH_ERR");
}

TEST_F(Failure, AcknowledgementAndRefusalInOnePiece) {
  // Expect: the refusal hits the request that it names.
  for (uint64_t id : {1, 2}) w_.a.Post(SendOf(from_.sge(0, 8), id));
  w_.a.Drain();
  w_.a.Feed(MakeControlFpdu({ControlType::kAck, NakCode::kNone, 2, 0}) +
            MakeControlFpdu({ControlType::kNak, NakCode::kRemoteOperation, 3, 0}));
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 REM_OP_ERR");
}

TEST_F(Failure, AcknowledgementAndNonsenseInOnePiece) {
  // Expect: the same when this end finds the fault.
  for (uint64_t id : {1, 2}) w_.a.Post(SendOf(from_.sge(0, 8), id));
  w_.a.Drain();
  w_.a.Feed(MakeControlFpdu({ControlType::kAck, NakCode::kNone, 2, 0}) +
            MakeControlFpdu({ControlType::kResume, NakCode::kNone, 1, 0}));
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 WR_FLUSH_ERR");
}

TEST_F(Failure, DisconnectAnswersReadsFirst) {
  // A large read is being answered when the target disconnects.
  // Expect: the whole answer, then BYE: the read succeeds.
  Memory source(&w_.b, 3 << 20), sink(&w_.a, 3 << 20);
  source.Fill(5);
  w_.a.Post(ReadOf(sink.sge(), source.at(), 1));
  w_.cable.Send(0);
  w_.cable.Deliver(0);
  w_.b.qp.Disconnect();
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
  EXPECT_TRUE(sink.Has(5, 0, 3 << 20));
}

TEST(FailureBefore, DisconnectBeforeThePeerHasSpoken) {
  // The responder may not speak first, and disconnects at once; then the ready frame comes.
  // Expect: BYE answers it.
  Side b;
  Session s = OwnSession(false);
  s.ready_frame = ReadyFrame::kWrite;
  b.qp.Connected(s);
  b.qp.Disconnect();
  EXPECT_EQ(TraceOf(b.Drain()), "");
  b.Feed(MakeFpdu(WriteHeader(0, 0)));
  EXPECT_EQ(TraceOf(b.Drain()), "BYE(0)");
}

TEST_F(Failure, StreamEndsWithoutGoodbye) {
  // Two writes, a send and a receive are outstanding.
  // Expect: RETRY_EXC_ERR on the oldest, the rest flushed, a cause that says what to do.
  for (uint64_t id : {1, 2}) w_.a.Post(WriteOf(from_.sge(), to_.at(), id));
  w_.a.PostReceive({.local = from_.sge(), .id = 12});
  w_.cable.Send(0);
  w_.cable.Cut(1);
  EXPECT_EQ(w_.a.Sends(), "1 RETRY_EXC_ERR, 2 WR_FLUSH_ERR");
  EXPECT_EQ(w_.a.Receives(), "12 WR_FLUSH_ERR");
  EXPECT_TRUE(w_.a.qp.finished());
  EXPECT_TRUE(absl::StrContains(w_.a.qp.cause().message(), "without a goodbye"));
  EXPECT_TRUE(w_.a.qp.Gather(true, 0).empty());
}

TEST_F(Failure, OfTwoRefusedRequestsTheEarlierHasTheReason) {
  // A read has been taken, a send behind it is refused, and then the read's region is closed before
  // the answer has left.
  // Expect: the read has its own error, not that of the send.
  Memory target(&w_.b, 8), receive(&w_.b, 8);
  w_.b.PostReceive({.local = receive.sge(), .id = 11});
  receive.Kill();
  w_.a.Post(ReadOf(from_.sge(0, 8), target.at(), 1));
  w_.a.Post(SendOf(from_.sge(0, 8), 2));
  w_.cable.Send(0);
  w_.cable.Deliver(0);
  target.Kill();
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 REM_ACCESS_ERR, 2 WR_FLUSH_ERR");
  EXPECT_EQ(w_.b.Receives(), "11 LOC_PROT_ERR");
}

TEST_F(Failure, NoMemoryForWhatIsHalfSent) {
  // Half a write has left when its region is closed, and the rest cannot be copied.
  // Expect: the stream is given up, nothing more of the region leaves.
  Memory large(&w_.a, 8192);
  w_.a.Post(WriteOf(large.sge(), to_.at(), 1));
  EXPECT_FALSE(w_.a.qp.Gather(true, 0).empty());
  w_.a.qp.Sent(100);
  large.Kill();
  RefuseQuietly(true);
  w_.a.qp.KeepUnsent();
  RefuseQuietly(false);
  EXPECT_EQ(w_.a.Sends(), "1 RETRY_EXC_ERR");
  EXPECT_TRUE(w_.a.qp.Gather(true, 0).empty());
  EXPECT_TRUE(w_.a.qp.finished());
}

TEST_F(Failure, NoMemoryForWhatIsHalfGathered) {
  // The answer to a read and a write are gathered; a second write names memory that is gone, and
  // what was gathered so far cannot be copied.
  // Expect: nothing of it leaves, or the peer would take what follows for something else.
  Memory theirs(&w_.b, 8192), answered(&w_.a, 8192);
  w_.b.Post(ReadOf(theirs.sge(), answered.at(), 11));
  w_.a.Feed(w_.b.Drain());
  Sge gone = from_.sge();
  gone.key ^= 1;
  w_.a.Post(WriteOf(gone, to_.at(), 1));
  RefuseQuietly(true);
  EXPECT_TRUE(w_.a.qp.Gather(true, 0).empty());
  RefuseQuietly(false);
  EXPECT_EQ(w_.a.Sends(), "1 LOC_PROT_ERR");
}

TEST_F(Failure, StreamBreaks) {
  w_.a.Post(WriteOf(from_.sge(), to_.at(), 1));
  w_.cable.Cut(1, ECONNRESET);
  EXPECT_EQ(w_.a.Sends(), "1 RETRY_EXC_ERR");
  EXPECT_TRUE(absl::StrContains(w_.a.qp.cause().message(), "reset")) << w_.a.qp.cause();
}

TEST_F(Failure, RefusalIsReadAfterSendingFailed) {
  // The socket takes no more (EPIPE); what the peer said before it went is still to be read.
  // Expect: its reason, not RETRY_EXC_ERR.
  w_.a.Post(SendOf(from_.sge(), 1));
  w_.cable.Send(0);
  w_.a.Post(SendOf(from_.sge(), 2));
  w_.a.qp.Gather(true, 0);
  w_.a.qp.SendFailed(EPIPE);
  EXPECT_EQ(w_.a.Sends(), "");
  w_.a.Feed(MakeControlFpdu({ControlType::kNak, NakCode::kRemoteAccess, 2, 0}, "why"));
  EXPECT_EQ(w_.a.Sends(), "1 REM_ACCESS_ERR, 2 WR_FLUSH_ERR");
}

TEST_F(Failure, FlushesInPostingOrder) {
  // Requests of every kind, some sent, some not; then ERR.
  // Expect: one flush each, oldest first, receives too; what is posted afterwards follows.
  w_.a.Post(WriteOf(from_.sge(), to_.at(), 1));
  w_.a.Post(ReadOf(from_.sge(0, 8), to_.at(), 2));
  w_.cable.Send(0);
  w_.a.Post(SendOf(from_.sge(), 3));
  for (uint64_t id : {11, 12}) w_.a.PostReceive({.local = from_.sge(), .id = id});
  ASSERT_TRUE(w_.a.qp.Modify({.state = QpState::kErr}).ok());
  EXPECT_EQ(w_.a.Sends(), "1 WR_FLUSH_ERR, 2 WR_FLUSH_ERR, 3 WR_FLUSH_ERR");
  EXPECT_EQ(w_.a.Receives(), "11 WR_FLUSH_ERR, 12 WR_FLUSH_ERR");
  w_.a.Post(SendOf(from_.sge(), 4));
  w_.a.PostReceive({.local = from_.sge(), .id = 13});
  w_.a.qp.FlushPosted();
  EXPECT_EQ(w_.a.Sends() + " " + w_.a.Receives(), "4 WR_FLUSH_ERR 13 WR_FLUSH_ERR");
}

TEST_F(Failure, AnErrorDoesNotCutAnFpdu) {
  // Half of a large write's bytes have left when the queue pair fails; its memory goes away.
  // Expect: the rest of that FPDU still goes out as it was, then BYE.
  Memory large(&w_.a, 100000), target(&w_.b, 100000);
  large.Fill(9);
  w_.a.Post(WriteOf(large.sge(), target.at(), 1));
  const auto vectors = w_.a.qp.Gather(true, 0);
  size_t all = 0;
  for (const iovec& v : vectors) all += v.iov_len;
  Bytes stream(1000);
  std::copy_n(static_cast<const std::byte*>(vectors[0].iov_base), 16, stream.begin());
  std::copy_n(static_cast<const std::byte*>(vectors[1].iov_base), 984, stream.begin() + 16);
  w_.a.qp.Sent(1000);
  w_.a.qp.Disconnect();
  large.Fill(77);
  stream = stream + w_.a.Drain();
  EXPECT_EQ(TraceOf(stream), "Write~ Write* BYE(0)");
  EXPECT_GE(stream.size(), all);
  w_.b.Feed(stream);
  EXPECT_TRUE(target.Has(9, 0, 100000));
}

TEST_F(Failure, LocalKeyInItsTurn) {
  // Write, send from a key that does not exist, write.
  // Expect: success, LOC_PROT_ERR, flush; nothing of the last two at the peer.
  w_.a.Post(WriteOf(from_.sge(0, 8), to_.at(), 1));
  w_.a.Post(SendOf({0x1000, 8, 0xbad}, 2));
  w_.a.Post(WriteOf(from_.sge(0, 8), to_.at(8), 3));
  from_.Fill(1);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS, 2 LOC_PROT_ERR, 3 WR_FLUSH_ERR");
  EXPECT_EQ(to_.word(1), 0u);
  EXPECT_TRUE(w_.b.Had(EventType::kDisconnected));
}

TEST_F(Failure, ReadAnswerBlamesTheReadForItsSink) {
  // An unsignalled write, then a read into memory that may not be written.
  // Expect: the write succeeded silently; the read has the error.
  Wired w(Chunks(0), false, {.signal_all = false});
  Memory from(&w.a, 8), sink(&w.a, 8, Access::kLocalRead), to(&w.b, 8);
  w.a.Post(WriteOf(from.sge(), to.at(), 1));
  w.a.Post(ReadOf(sink.sge(), to.at(), 2));
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "2 LOC_PROT_ERR");
}

TEST_F(Failure, ReadAnswerBlamesTheAtomicForItsSink) {
  Wired w(Chunks(0), false, {.signal_all = false});
  Memory from(&w.a, 8), sink(&w.a, 8, Access::kLocalRead), to(&w.b, 8);
  w.a.Post(WriteOf(from.sge(), to.at(), 1));
  w.a.Post({.opcode = Opcode::kFetchAdd, .local = sink.sge(), .remote = to.at(), .id = 2});
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "2 LOC_PROT_ERR");
}

TEST_F(Failure, ReceiveIntoMemoryThatMayNotBeWritten) {
  // Expect: LOC_PROT_ERR at the target, REM_OP_ERR at the sender.
  Memory readonly(&w_.b, 64, Access::kLocalRead);
  w_.b.PostReceive({.local = readonly.sge(), .id = 11});
  w_.b.receive_ring.Arm(Notify::kAny);
  w_.b.on_news = [&] {
    EXPECT_EQ(w_.b.qp.state(), QpState::kErr);
    EXPECT_FALSE(w_.b.qp.cause().ok());
  };
  w_.a.Post(SendOf(from_.sge(0, 8), 1));
  w_.cable.Run();
  EXPECT_EQ(w_.b.Receives(), "11 LOC_PROT_ERR");
  EXPECT_EQ(w_.a.Sends(), "1 REM_OP_ERR");
}

TEST_F(Failure, RegionDiesBetweenTwoPieces) {
  // A large write is half there when its target is deregistered.
  // Expect: not one byte more is placed; the writer hears REM_ACCESS_ERR.
  Memory large(&w_.a, 50000), target(&w_.b, 50000);
  large.Fill(9);
  w_.a.Post(WriteOf(large.sge(), target.at(), 1));
  const Bytes stream = w_.a.Drain();
  w_.b.Feed(std::span(stream).first(20000));
  EXPECT_TRUE(target.Has(9, 0, 19000));
  target.Kill();
  w_.b.Feed(std::span(stream).subspan(20000));
  for (size_t i = 20000 / 8; i < 50000 / 8; ++i) ASSERT_EQ(target.word(i), 0u);
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 REM_ACCESS_ERR");
}

TEST_F(Failure, RegionDiesWhileItIsSent) {
  // What is gathered and half sent lies in a region that is deregistered, and then used anew.
  // Expect: the rest goes out as it was: the stream stays whole and the request succeeds.
  Memory large(&w_.a, 50000), target(&w_.b, 50000);
  large.Fill(4);
  w_.a.Post(WriteOf(large.sge(), target.at(), 1));
  const auto vectors = w_.a.qp.Gather(true, 0);
  Bytes stream(16);
  std::copy_n(static_cast<const std::byte*>(vectors[0].iov_base), 16, stream.begin());
  w_.a.qp.Sent(16);
  w_.a.qp.KeepUnsent();
  large.Kill();
  large.Fill(99);
  w_.b.Feed(stream + w_.a.Drain());
  EXPECT_TRUE(target.Has(4, 0, 50000));
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 SUCCESS");
}

TEST_F(Failure, RegionDiesBeforeItsReadIsAnswered) {
  // The peer's read is taken, then the region is deregistered.
  // Expect: REM_ACCESS_ERR for the reader; nothing of the target's own queue is blamed.
  Memory source(&w_.b, 64);
  w_.b.PostReceive({.local = to_.sge(), .id = 11});
  w_.a.Post(ReadOf(from_.sge(0, 8), source.at(), 1));
  w_.cable.Send(0);
  w_.cable.Deliver(0);
  source.Kill();
  w_.cable.Run();
  EXPECT_EQ(w_.a.Sends(), "1 REM_ACCESS_ERR");
  EXPECT_EQ(w_.b.Receives(), "11 WR_FLUSH_ERR");
}

TEST_F(Failure, RegionDiesWhileAReadOfItIsSent) {
  // A read of three batches; its source is deregistered after the first was gathered. The target
  // has a write of its own outstanding.
  // Expect: REM_ACCESS_ERR for the reader; that write is flushed: it did nothing wrong.
  Memory source(&w_.b, 3 << 20), sink(&w_.a, 3 << 20);
  w_.a.Post(ReadOf(sink.sge(), source.at(), 1));
  w_.cable.Send(0);
  w_.cable.Deliver(0);
  w_.b.qp.Gather(true, 0);
  w_.b.qp.Sent(100);
  w_.b.Post(WriteOf(to_.sge(), from_.at(), 21));
  w_.b.qp.KeepUnsent();
  source.Kill();
  w_.b.Drain();
  EXPECT_EQ(w_.b.Sends(), "21 WR_FLUSH_ERR");
  EXPECT_TRUE(w_.b.Had(EventType::kQpAccessError));
}

TEST_F(Failure, HalfASharedReceiveIsFlushed) {
  // A message of two segments took a shared receive; the connection dies between them.
  // Expect: that receive is flushed before LAST_WQE_REACHED; the others stay in the queue.
  ReceiveQueue shared(8, 2);
  SideOptions right = {.number = 2, .shared = &shared};
  Wired w(Chunks(0), false, {}, right);
  Memory large(&w.a, 100000), into(&w.b, 100000);
  for (uint64_t id : {11, 12}) {
    const ReceiveWr wr{.local = into.sge(), .id = id};
    bool wake = false;
    shared.Post({&wr, 1}, &wake);
  }
  w.a.Post(SendOf(large.sge(), 1));
  const Bytes stream = w.a.Drain();
  w.b.Feed(std::span(stream).first(60000));
  w.b.qp.ReceiveEnded(0, 0);
  EXPECT_EQ(w.b.Receives(), "11 WR_FLUSH_ERR");
  EXPECT_TRUE(w.b.Had(EventType::kLastWqeReached));
  EXPECT_FALSE(shared.empty());
}

TEST_F(Failure, CompletionQueueOverflowed) {
  // Expect: Fail() makes the fatal event, with the state to match, and tells the peer goodbye.
  w_.a.on_news = [&] {
    EXPECT_EQ(w_.a.qp.state(), QpState::kErr);
    EXPECT_EQ(w_.a.qp.cause().message(), "full");
  };
  w_.a.qp.Fail(absl::ResourceExhaustedError("full"));
  w_.cable.Run();
  EXPECT_TRUE(w_.a.Had(EventType::kQpFatal));
  EXPECT_EQ(w_.a.qp.cause().message(), "full");
  EXPECT_EQ(w_.b.qp.state(), QpState::kErr);
}

}  // namespace
}  // namespace verbena::engine
