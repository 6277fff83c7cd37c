// SPDX-License-Identifier: Apache-2.0
// A plain iWARP peer whose acknowledgement is required: a read behind the requests stands in for
// it.
#include <string>

#include "fallback/engine/foreign.h"
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

Session Confirmed(uint32_t depth = 16, bool crc = false,
                  std::optional<LentBytes> lent = LentBytes{0x5000, 0x77}) {
  Session s = ForeignSession(true, 1460, crc, depth);
  s.confirm = true;
  s.lent = lent;
  return s;
}

class Confirm : public testing::Test {
 protected:
  void Connect(const Session& session) {
    session_ = session;
    side_.qp.Connected(session);
  }
  void Write(uint64_t id, uint32_t length = 8) {
    side_.Post({.opcode = Opcode::kWrite,
                .local = memory_.sge(0, length),
                .remote = {0x1000, 7},
                .id = id});
  }
  // What is sent now, with the reads kept.
  std::string Sent() {
    const Bytes stream = side_.Drain();
    for (const Fpdu& f : ParseFpdus(stream)) {
      if (f.opcode() == wire::Opcode::kReadRequest) {
        reads_.push_back(wire::Load<wire::ReadRequest>(f.payload.data()));
      }
    }
    return TraceOf(stream);
  }
  // The peer answers the oldest read.
  void Answer(size_t size = kLentSize) {
    ASSERT_FALSE(reads_.empty());
    wire::TaggedHeader h = WriteHeader(reads_.front().sink_stag, reads_.front().sink_offset);
    h.rdmap = wire::RdmapByte(wire::Opcode::kReadResponse);
    side_.Feed(MakeFpdu(h, Bytes(size, std::byte{9}), session_.crc), Chunks(1));
    reads_.erase(reads_.begin());
  }

  Side side_;
  Memory memory_{&side_, 100000};
  Session session_;
  std::vector<wire::ReadRequest> reads_;
};

TEST_F(Confirm, OneRequestOneRead) {
  // Expect: no completion when TCP has it, but when the read behind it is answered. It reads the
  // eight bytes that the peer lends for that.
  Connect(Confirmed());
  EXPECT_TRUE(side_.qp.capabilities().remote_completion);
  Write(1);
  EXPECT_EQ(Sent(), "Write Read");
  EXPECT_EQ(uint32_t{reads_[0].size}, 8u);
  EXPECT_EQ(uint32_t{reads_[0].source_stag}, 0x77u);
  EXPECT_EQ(uint64_t{reads_[0].source_offset}, 0x5000u);
  EXPECT_EQ(side_.Sends(), "");
  Answer();
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
  EXPECT_EQ(Sent(), "");
}

TEST_F(Confirm, OneReadForMany) {
  Connect(Confirmed());
  for (uint64_t id = 1; id <= 5; ++id) Write(id);
  EXPECT_EQ(Sent(), "Write Write Write Write Write Read");
  Write(6);
  EXPECT_EQ(Sent(), "Write Read");
  Answer();
  EXPECT_EQ(side_.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS, 4 SUCCESS, 5 SUCCESS");
  Answer();
  EXPECT_EQ(side_.Sends(), "6 SUCCESS");
}

TEST_F(Confirm, NeverInsideAMessageNorTooRare) {
  // 64 sends of three segments each. Expect: a read each 32, between messages.
  Connect(Confirmed());
  for (uint64_t id = 0; id < 64; ++id) {
    side_.Post({.opcode = Opcode::kSend, .local = memory_.sge(0, 3000), .id = id});
  }
  std::string expected;
  for (int i = 1; i <= 64; ++i) {
    expected += i == 1 ? "" : " ";
    expected += "Send~ Send~ Send";
    if (i % 32 == 0) expected += " Read";
  }
  EXPECT_EQ(Sent(), expected);
}

TEST_F(Confirm, AReadOfTheProgramIsEnough) {
  Connect(Confirmed());
  Write(1);
  side_.Post({.opcode = Opcode::kRead, .local = memory_.sge(8, 8), .remote = {0x1000, 7}, .id = 2});
  EXPECT_EQ(Sent(), "Write Read");
  EXPECT_EQ(uint32_t{reads_[0].source_stag}, 7u);
  Answer();
  EXPECT_EQ(side_.Sends(), "1 SUCCESS, 2 SUCCESS");
  EXPECT_EQ(memory_.data()[8], std::byte{9});
}

TEST_F(Confirm, WaitsForAPlaceAmongTheReads) {
  // One read may be in flight, and the program's is.
  // Expect: the confirming one goes when that is answered.
  Connect(Confirmed(1));
  side_.Post({.opcode = Opcode::kRead, .local = memory_.sge(8, 8), .remote = {0x1000, 7}, .id = 1});
  Write(2);
  EXPECT_EQ(Sent(), "Read Write");
  EXPECT_EQ(side_.Sends(), "");
  Answer();
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
  EXPECT_EQ(Sent(), "Read");
  Answer();
  EXPECT_EQ(side_.Sends(), "2 SUCCESS");
}

TEST_F(Confirm, APeerThatLendsNothingIsReadNothing) {
  Connect(Confirmed(16, true, std::nullopt));
  Write(1);
  EXPECT_EQ(Sent(), "Write Read");
  EXPECT_EQ(uint32_t{reads_[0].size}, 0u);
  Answer(0);
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
}

TEST_F(Confirm, TheSendQueueDrains) {
  // Expect: SQD is reached when what had begun is applied, not when it was sent.
  Connect(Confirmed());
  Write(1);
  Write(2);
  EXPECT_EQ(Sent(), "Write Write Read");
  ASSERT_TRUE(side_.qp.Modify({.state = QpState::kSqd}).ok());
  EXPECT_FALSE(side_.Had(EventType::kSendQueueDrained));
  Answer();
  EXPECT_TRUE(side_.Had(EventType::kSendQueueDrained));
}

TEST_F(Confirm, ARefusalIsTheRequests) {
  // The peer terminates: the write was not applied.
  // Expect: its status, where a local completion would have been a success.
  Connect(Confirmed());
  Write(1);
  Write(2);
  Sent();
  wire::UntaggedHeader h = UntaggedOf(wire::Opcode::kTerminate, 1);
  h.queue_number = wire::kTerminateQueue;
  const Bytes bounds = {std::byte{0x11}, std::byte{1}, std::byte{0}, std::byte{0}};
  side_.Feed(MakeFpdu(h, bounds));
  EXPECT_EQ(side_.Sends(), "1 REM_ACCESS_ERR, 2 WR_FLUSH_ERR");
}

TEST_F(Confirm, ARefusalThatNamesTheSegment) {
  // Three writes and a send; the Terminate brings the header of the second write's second segment.
  // Expect: the first was applied, the second has the status, the rest is flushed.
  Connect(Confirmed());
  Write(1);
  side_.Post(
      {.opcode = Opcode::kWrite, .local = memory_.sge(0, 3000), .remote = {0x9000, 8}, .id = 2});
  Write(3);
  side_.Post({.opcode = Opcode::kSend, .local = memory_.sge(0, 8), .id = 4});
  Sent();
  wire::TaggedHeader segment = WriteHeader(8, 0x9000 + 1440);
  wire::Terminate t;
  t.error = wire::error::kBounds;
  t.ddp_header = wire::AsBytes(segment).subspan(wire::kLengthSize);
  Bytes body(wire::kMaxTerminateBody);
  body.resize(wire::EncodeTerminate(t, body));
  wire::UntaggedHeader h = UntaggedOf(wire::Opcode::kTerminate, 1);
  h.queue_number = wire::kTerminateQueue;
  side_.Feed(MakeFpdu(h, body));
  EXPECT_EQ(side_.Sends(), "1 SUCCESS, 2 REM_ACCESS_ERR, 3 WR_FLUSH_ERR, 4 WR_FLUSH_ERR");
}

TEST_F(Confirm, ARefusalThatNamesTheMessage) {
  // The same for the second of two sends, by its number; and for one that was never sent.
  for (const uint32_t msn : {2u, 9u}) {
    Side side;
    side.qp.Connected(Confirmed());
    Memory memory(&side, 64);
    for (const uint64_t id : {1, 2}) {
      side.Post({.opcode = Opcode::kSend, .local = memory.sge(0, 8), .id = id});
    }
    side.Drain();
    const wire::UntaggedHeader segment = SendHeader(msn);
    wire::Terminate t;
    t.error = wire::error::kNoBuffer;
    t.ddp_header = wire::AsBytes(segment).subspan(wire::kLengthSize);
    Bytes body(wire::kMaxTerminateBody);
    body.resize(wire::EncodeTerminate(t, body));
    wire::UntaggedHeader h = UntaggedOf(wire::Opcode::kTerminate, 1);
    h.queue_number = wire::kTerminateQueue;
    side.Feed(MakeFpdu(h, body));
    EXPECT_EQ(side.Sends(),
              msn == 2 ? "1 SUCCESS, 2 RNR_RETRY_EXC_ERR" : "1 RNR_RETRY_EXC_ERR, 2 WR_FLUSH_ERR");
  }
}

TEST_F(Confirm, ARefusalThatNamesTheRead) {
  // A write and two reads. The Terminate brings what the first asked for, with its number, or, as
  // siw's, with its size for a number; and its number alone.
  // Expect: the write was applied, the first read has the status.
  struct Row {
    uint32_t msn;
    bool asked;
  };
  for (const Row& row : {Row{1, true}, Row{8, true}, Row{2, true}, Row{1, false}}) {
    Side side;
    side.qp.Connected(Confirmed());
    Memory memory(&side, 64);
    side.Post(
        {.opcode = Opcode::kWrite, .local = memory.sge(0, 8), .remote = {0x1000, 7}, .id = 1});
    for (const uint64_t id : {2, 3}) {
      side.Post({.opcode = Opcode::kRead,
                 .local = memory.sge(8, 8),
                 .remote = {0x1000 * id, 7},
                 .id = id});
    }
    const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
    ASSERT_EQ(sent.size(), 3u);
    wire::UntaggedHeader segment = sent[1].untagged;
    EXPECT_EQ(uint32_t{segment.msn}, 1u);
    segment.msn = row.msn;
    wire::Terminate t;
    t.error = wire::error::kReadBounds;
    t.ddp_header = wire::AsBytes(segment).subspan(wire::kLengthSize);
    if (row.asked) t.read_request = sent[1].payload;
    Bytes body(wire::kMaxTerminateBody);
    body.resize(wire::EncodeTerminate(t, body));
    wire::UntaggedHeader h = UntaggedOf(wire::Opcode::kTerminate, 1);
    h.queue_number = wire::kTerminateQueue;
    side.Feed(MakeFpdu(h, body));
    EXPECT_EQ(side.Sends(), "1 SUCCESS, 2 REM_ACCESS_ERR, 3 WR_FLUSH_ERR") << row.msn;
  }
}

TEST_F(Confirm, AnAnswerOfAnotherShape) {
  Connect(Confirmed());
  Write(1);
  Sent();
  Answer(7);
  EXPECT_EQ(side_.Sends(), "1 BAD_RESP_ERR");
  EXPECT_EQ(Sent(), "Terminate");
}

TEST_F(Confirm, AnAtomicsAnswer) {
  // Expect: a fault, and nothing is written: the read in question has no buffer.
  Connect(Confirmed());
  memory_.Fill(5);
  Write(1, 4096);
  Sent();
  ASSERT_EQ(reads_.size(), 1u);
  wire::UntaggedHeader h = UntaggedOf(wire::Opcode::kAtomicResponse, 1);
  h.queue_number = wire::kAtomicResponseQueue;
  wire::AtomicResponse answer;
  answer.request_id = reads_.front().sink_stag;
  answer.original = ~uint64_t{0};
  side_.Feed(MakeFpdu(h, wire::AsBytes(answer)));
  EXPECT_EQ(side_.Sends(), "1 WR_FLUSH_ERR");
  EXPECT_EQ(side_.qp.state(), QpState::kErr);
  EXPECT_TRUE(memory_.Has(5, 0, 4096));
}

TEST_F(Confirm, AnEmptyAnswersSinkIsNotLookedAt) {
  Connect(Confirmed(16, false, std::nullopt));
  Write(1);
  Sent();
  ASSERT_EQ(reads_.size(), 1u);
  reads_.front().sink_stag = 0;
  Answer(0);
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
}

TEST_F(Confirm, WaitsForTheReadyFramesAnswer) {
  // One read in flight, and the ready frame is one.
  // Expect: the write goes, and the read behind it only after the answer.
  Session session = Confirmed(1);
  session.ready_frame = ReadyFrame::kRead;
  Connect(session);
  Write(1);
  Sent();
  ASSERT_EQ(reads_.size(), 1u);
  Answer(0);
  Sent();
  ASSERT_EQ(reads_.size(), 1u);
  Answer();
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
}

TEST_F(Confirm, AFenceWaitsForReadsOfTheProgramAlone) {
  // A write whose confirming read is not answered, and a fenced one; then a read, and a fenced one.
  // Expect: the first fence waits for nothing, the second for the answer of the program's read.
  Connect(Confirmed());
  Write(1);
  EXPECT_EQ(Sent(), "Write Read");
  const auto fenced = [&](uint64_t id) {
    side_.Post({.opcode = Opcode::kWrite,
                .local = memory_.sge(0, 8),
                .remote = {0x1000, 7},
                .id = id,
                .flags = SendFlags::kFence});
  };
  fenced(2);
  EXPECT_EQ(Sent(), "Write Read");
  side_.Post({.opcode = Opcode::kRead, .local = memory_.sge(8, 8), .remote = {0x1000, 7}, .id = 3});
  fenced(4);
  EXPECT_EQ(Sent(), "Read");
  for (int i = 0; i < 3; ++i) Answer();
  EXPECT_EQ(side_.Sends(), "1 SUCCESS, 2 SUCCESS, 3 SUCCESS");
  EXPECT_EQ(Sent(), "Write Read");
}

TEST_F(Confirm, AnAnswerThatNobodyAskedFor) {
  Connect(Confirmed());
  Write(1);
  Sent();
  reads_.push_back(reads_.front());
  Answer();
  EXPECT_EQ(side_.Sends(), "1 SUCCESS");
  Answer();
  EXPECT_EQ(side_.qp.state(), QpState::kErr);
}

TEST(LentBytes, StandAtTheEnd) {
  const std::string text(
      "hi"
      "VerbConf"
      "\x01\x02\x03\x04\x05\x06\x07\x08"
      "\x11\x12\x13\x14",
      22);
  auto data = std::as_bytes(std::span(text));
  EXPECT_EQ(TakeLentBytes(&data), (LentBytes{0x0102030405060708, 0x11121314}));
  EXPECT_EQ(data.size(), 2u);
  EXPECT_EQ(TakeLentBytes(&data), std::nullopt);
  EXPECT_EQ(data.size(), 2u);
  for (size_t n = 0; n < 20; ++n) {
    auto cut = std::as_bytes(std::span(text)).last(n);
    EXPECT_EQ(TakeLentBytes(&cut), std::nullopt);
  }
}

}  // namespace
}  // namespace verbena::engine
