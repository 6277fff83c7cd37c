// SPDX-License-Identifier: Apache-2.0
// How connections end: goodbyes, streams and memory that go away, what is flushed.
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

TEST_F(Failure, NoMemoryForWhatHasACrc) {
  // Expect: the stream is given up, and nothing of the write leaves.
  Side side;
  side.qp.Connected(OwnSession(true, /*crc=*/true));
  Memory large(&side, 8192);
  side.Post(WriteOf(large.sge(), {0, 7}, 1));
  RefuseQuietly(true);
  EXPECT_TRUE(side.qp.Gather(true, 0).empty());
  RefuseQuietly(false);
  EXPECT_EQ(side.Sends(), "1 RETRY_EXC_ERR");
  EXPECT_TRUE(side.qp.finished());
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
