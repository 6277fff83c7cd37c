// SPDX-License-Identifier: Apache-2.0
// What no sane peer sends. Whatever it is: a reason goes out as NAK and Terminate, nothing is
// placed, and the queue pair stands in ERR.
#include <functional>
#include <random>

#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

using wire::Control;
using wire::ControlType;
using wire::NakCode;
namespace error = wire::error;

// A connected end with a receive, a readable and writable region of 64 bytes and one write of its
// own on the wire (request 1).
struct Victim {
  explicit Victim(const Session& session = OwnSession(false)) {
    side.qp.Connected(session);
    side.PostReceive({.local = into.sge(), .id = 11});
    if (!session.initiator) side.Feed(MakeFpdu(WriteHeader(0, 0), {}, session.crc));
    side.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = {0, 7}, .id = 1});
    side.Drain();
  }
  Side side;
  Memory into{&side, 64}, from{&side, 64};
};

struct Row {
  const char* name;
  std::function<Bytes(Victim&)> bytes;
  wire::TerminateError error;
  NakCode code = NakCode::kProtocol;
};

Bytes With(wire::UntaggedHeader h, const std::function<void(wire::UntaggedHeader&)>& f,
           size_t payload = 0) {
  h.length = static_cast<uint16_t>(wire::kUntaggedUlpdu + payload);
  f(h);
  return MakeFpdu(h, Bytes(payload));
}
Bytes With(wire::TaggedHeader h, const std::function<void(wire::TaggedHeader&)>& f,
           size_t payload = 0) {
  h.length = static_cast<uint16_t>(wire::kTaggedUlpdu + payload);
  f(h);
  return MakeFpdu(h, Bytes(payload));
}

wire::ReadRequest ReadOf(Victim& v, uint32_t size) {
  wire::ReadRequest r;
  r.size = size;
  r.source_stag = v.from.key();
  r.source_offset = v.from.at().address;
  return r;
}
Bytes ReadFpdu(Victim& v, uint32_t msn, uint32_t size = 8) {
  return MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, msn), wire::AsBytes(ReadOf(v, size)));
}
wire::AtomicRequest AddOf(Victim& v) {
  return wire::MakeFetchAdd(1, v.from.key(), v.from.at().address, 1);
}
Bytes AtomicFpdu(const wire::AtomicRequest& r, uint32_t msn = 1) {
  return MakeFpdu(UntaggedOf(wire::Opcode::kAtomicRequest, msn), wire::AsBytes(r));
}
Bytes Say(ControlType type, uint32_t rsn, uint32_t value = 0) {
  return MakeControlFpdu({type, NakCode::kNone, rsn, value});
}

const Row kRows[] = {
    // The headers' fixed fields.
    {"TaggedVersion", [](Victim&) { return With(WriteHeader(0, 0), [](auto& h) { h.ddp ^= 3; }); },
     error::kTaggedVersion},
    {"UntaggedVersion", [](Victim&) { return With(SendHeader(1), [](auto& h) { h.ddp ^= 3; }); },
     error::kUntaggedVersion},
    {"RdmapVersion", [](Victim&) { return With(SendHeader(1), [](auto& h) { h.rdmap ^= 0xc0; }); },
     error::kRdmapVersion},
    {"ReservedOpcode", [](Victim&) { return With(SendHeader(1), [](auto& h) { h.rdmap = 0x4c; }); },
     error::kUnexpectedOpcode},
    {"SendInATaggedHeader",
     [](Victim&) { return With(WriteHeader(0, 0), [](auto& h) { h.rdmap = 0x43; }); },
     error::kUnexpectedOpcode},
    {"WriteInAnUntaggedHeader",
     [](Victim&) { return With(SendHeader(1), [](auto& h) { h.rdmap = 0x40; }); },
     error::kUnexpectedOpcode},
    {"QueueNumber",
     [](Victim&) { return With(SendHeader(1), [](auto& h) { h.queue_number = 4; }); },
     error::kQueueNumber},
    {"QueueOfOtherMessages",
     [](Victim&) { return With(SendHeader(1), [](auto& h) { h.queue_number = 1; }); },
     error::kUnexpectedOpcode},
    // Sequences.
    {"SendMsnAhead", [](Victim&) { return MakeFpdu(SendHeader(2)); }, error::kMsn},
    {"SendMsnBehind", [](Victim&) { return MakeFpdu(SendHeader(0)); }, error::kMsn},
    {"SendOffset", [](Victim&) { return MakeFpdu(SendHeader(1, 4)); }, error::kMessageOffset},
    {"SendOffsetOfTheSecondSegment",
     [](Victim&) {
       wire::UntaggedHeader first = SendHeader(1);
       first.ddp = wire::kDdpVersion;
       return MakeFpdu(first, Bytes(8)) + MakeFpdu(SendHeader(1, 12), Bytes(8));
     },
     error::kMessageOffset},
    {"SendMsnOfTheSecondSegment",
     [](Victim&) {
       wire::UntaggedHeader first = SendHeader(1);
       first.ddp = wire::kDdpVersion;
       return MakeFpdu(first, Bytes(8)) + MakeFpdu(SendHeader(2, 8), Bytes(8));
     },
     error::kMsn},
    {"ReadMsn", [](Victim& v) { return ReadFpdu(v, 2); }, error::kMsn},
    {"AtomicMsn", [](Victim& v) { return AtomicFpdu(AddOf(v), 2); }, error::kMsn},
    {"ImmediateMsn",
     [](Victim&) {
       return MakeFpdu(WriteHeader(0, 0, wire::kWithImmediate)) +
              MakeFpdu(UntaggedOf(wire::Opcode::kImmediate, 2), Bytes(8));
     },
     error::kMsn},
    // Messages in the wrong place.
    {"ImmediateWithoutWrite",
     [](Victim&) { return MakeFpdu(UntaggedOf(wire::Opcode::kImmediate, 1), Bytes(8)); },
     error::kUnexpectedOpcode},
    {"WriteInPlaceOfAnImmediate",
     [](Victim&) {
       return MakeFpdu(WriteHeader(0, 0, wire::kWithImmediate)) + MakeFpdu(WriteHeader(0, 0));
     },
     error::kUnexpectedOpcode},
    {"SendInPlaceOfAnImmediate",
     [](Victim&) {
       return MakeFpdu(WriteHeader(0, 0, wire::kWithImmediate)) + MakeFpdu(SendHeader(1));
     },
     error::kMsn},
    {"AnswerNobodyAskedFor",
     [](Victim&) {
       return With(
           WriteHeader(1, 0), [](auto& h) { h.rdmap = 0x42; }, 8);
     },
     error::kStag},
    // Sizes.
    {"ReadRequestTooShort",
     [](Victim&) { return MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), Bytes(27)); },
     error::kUnspecified},
    {"AtomicRequestTooLong",
     [](Victim&) { return MakeFpdu(UntaggedOf(wire::Opcode::kAtomicRequest, 1), Bytes(53)); },
     error::kTooLong},
    {"HugeTerminate",
     [](Victim&) { return MakeFpdu(UntaggedOf(wire::Opcode::kTerminate, 1), Bytes(40000)); },
     error::kFpdu},
    {"ControlWithTextTooLong",
     [](Victim&) {
       return MakeControlFpdu({ControlType::kNak, NakCode::kProtocol, 1, 0}, std::string(129, 'x'));
     },
     error::kTooLong},
    // Control messages.
    {"AckWithText",
     [](Victim&) {
       return MakeControlFpdu({ControlType::kAck, NakCode::kNone, 1, 0}, "x");
     },
     error::kTooLong},
    {"UnknownControl", [](Victim&) { return Say(static_cast<ControlType>(7), 1); },
     error::kUnexpectedOpcode},
    {"AckBeyondWhatWasSent", [](Victim&) { return Say(ControlType::kAck, 2); },
     error::kUnspecified},
    {"AckGoesBack", [](Victim&) { return Say(ControlType::kAck, 1) + Say(ControlType::kAck, 0); },
     error::kUnspecified},
    {"ResumeWhenNotRefused", [](Victim&) { return Say(ControlType::kResume, 2); },
     error::kUnspecified},
    {"RefusalOfAWrite", [](Victim&) { return Say(ControlType::kRnrNak, 1, 1); },
     error::kUnspecified},
    {"RefusalOfWhatWasNotSent", [](Victim&) { return Say(ControlType::kRnrNak, 2, 1); },
     error::kUnspecified},
    {"RefusalWithABadTimer", [](Victim&) { return Say(ControlType::kRnrNak, 1, 32); },
     error::kMessageOffset},
    // Requests.
    {"AtomicWithAMask",
     [](Victim& v) {
       wire::AtomicRequest r = AddOf(v);
       r.operand_mask = 1;
       return AtomicFpdu(r);
     },
     error::kUnspecified, NakCode::kRemoteInvalidRequest},
    {"AtomicOfUnknownCode",
     [](Victim& v) {
       wire::AtomicRequest r = AddOf(v);
       r.operation = 1;
       return AtomicFpdu(r);
     },
     error::kUnspecified, NakCode::kRemoteInvalidRequest},
    {"SeventeenReads",
     [](Victim& v) {
       Bytes all;
       for (uint32_t msn = 1; msn <= 17; ++msn) all = all + ReadFpdu(v, msn);
       return all;
     },
     error::kStreamCatastrophic, NakCode::kRemoteInvalidRequest},
    {"WriteThatWraps",
     [](Victim& v) { return MakeFpdu(WriteHeader(v.into.key(), ~0ull - 3), Bytes(8)); },
     error::kWrap, NakCode::kRemoteAccess},
    {"ReadThatWraps",
     [](Victim& v) {
       wire::ReadRequest r = ReadOf(v, 8);
       r.source_offset = ~0ull - 3;
       return MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), wire::AsBytes(r));
     },
     error::kReadWrap, NakCode::kRemoteAccess},
    {"WriteInTheKeyOfAnotherDomain",
     [](Victim& v) {
       v.into.region.domain = 9;
       return MakeFpdu(WriteHeader(v.into.key(), v.into.at().address), Bytes(8));
     },
     error::kStagNotAssociated, NakCode::kRemoteAccess},
};

class Malformed : public testing::TestWithParam<std::tuple<size_t, size_t>> {};

TEST_P(Malformed, IsAnswered) {
  // Expect, however the bytes are split: NAK with the code, Terminate with the RFC's numbers, own
  // requests and receives flushed, nothing stored, then silence.
  const Row& row = kRows[std::get<0>(GetParam())];
  Victim v;
  const Bytes bad = row.bytes(v);
  v.side.Feed(bad, Chunks(std::get<1>(GetParam())));
  const std::vector<Fpdu> sent = ParseFpdus(v.side.Drain());
  ASSERT_GE(sent.size(), 2u);
  ASSERT_EQ(sent.back().opcode(), wire::Opcode::kTerminate);
  const Control nak = wire::ReadControl(sent[sent.size() - 2].untagged);
  EXPECT_EQ(nak.type, ControlType::kNak);
  EXPECT_EQ(nak.code, row.code);
  const auto terminate = wire::DecodeTerminate(sent.back().payload);
  ASSERT_TRUE(terminate.ok());
  EXPECT_EQ(terminate->error, row.error)
      << wire::TerminateText(terminate->error) << " instead of " << wire::TerminateText(row.error);
  EXPECT_EQ(v.side.qp.state(), QpState::kErr);
  EXPECT_TRUE(v.side.qp.finished());
  const std::string name = row.name;
  EXPECT_EQ(v.side.Sends(), name == "AckGoesBack" ? "1 SUCCESS" : "1 WR_FLUSH_ERR");
  EXPECT_EQ(v.side.Receives(), "11 WR_FLUSH_ERR");
  EXPECT_TRUE(v.from.IsZero());
  // What follows is read and ignored.
  v.side.Feed(bad);
  EXPECT_TRUE(v.side.Drain().empty());
}

INSTANTIATE_TEST_SUITE_P(Table, Malformed,
                         testing::Combine(testing::Range<size_t>(0, std::size(kRows)),
                                          testing::Values(0, 1)),
                         [](const auto& i) {
                           return std::string(kRows[std::get<0>(i.param)].name) +
                                  (std::get<1>(i.param) == 0 ? "" : "ByteByByte");
                         });

TEST(Malformed, ResumeOfAnotherRequest) {
  // Refused is 2, resumed is 3.
  Victim v;
  v.side.Feed(MakeFpdu(SendHeader(1), Bytes(8)));
  v.side.Feed(MakeFpdu(SendHeader(2), Bytes(8)));
  EXPECT_TRUE(TraceOf(v.side.Drain()).starts_with("RNR-NAK(3)"));
  v.side.Feed(Say(ControlType::kResume, 4));
  EXPECT_EQ(v.side.qp.state(), QpState::kErr);
}

TEST(Malformed, RefusedTwiceAtOnce) {
  Side side;
  side.qp.Connected(OwnSession(true));
  Memory from(&side, 8);
  side.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 1});
  side.Drain();
  side.Feed(Say(ControlType::kRnrNak, 1, 12) + Say(ControlType::kRnrNak, 1, 12));
  EXPECT_EQ(side.qp.state(), QpState::kErr);
}

struct AnswerRow {
  const char* name;
  uint32_t stag_plus;
  uint64_t offset;
  uint32_t size;
  bool last;
  wire::TerminateError error;
};
class WrongAnswer : public testing::TestWithParam<AnswerRow> {};

TEST_P(WrongAnswer, IsABadResponse) {
  // A read of 64 bytes is answered with something else.
  // Expect: BAD_RESP_ERR, not a byte stored, and the peer is told (RFC 5040 7.1).
  Side side;
  side.qp.Connected(OwnSession(true));
  Memory into(&side, 128);
  side.Post({.opcode = Opcode::kRead, .local = into.sge(0, 64), .remote = {0x1000, 7}, .id = 1});
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  const auto request = wire::Load<wire::ReadRequest>(sent[0].payload.data());
  const AnswerRow& row = GetParam();
  wire::TaggedHeader h = WriteHeader(request.sink_stag + row.stag_plus, row.offset);
  h.rdmap = wire::RdmapByte(wire::Opcode::kReadResponse);
  if (!row.last) h.ddp &= static_cast<uint8_t>(~wire::kLast);
  h.length = static_cast<uint16_t>(wire::kTaggedUlpdu + row.size);
  side.Feed(MakeFpdu(h, Bytes(row.size, std::byte{1})));
  EXPECT_EQ(side.Sends(), "1 BAD_RESP_ERR");
  EXPECT_TRUE(into.IsZero());
  const std::vector<Fpdu> said = ParseFpdus(side.Drain());
  ASSERT_EQ(said.size(), 2u);
  EXPECT_EQ(wire::ReadControl(said[0].untagged).code, NakCode::kProtocol);
  const auto terminate = wire::DecodeTerminate(said[1].payload);
  ASSERT_TRUE(terminate.ok());
  EXPECT_EQ(terminate->error, row.error);
  EXPECT_EQ(terminate->segment_length, h.length);
}

constexpr AnswerRow kAnswers[] = {{"OtherSink", 1, 0, 64, true, error::kStag},
                                  {"OtherOffset", 0, 8, 56, true, error::kBounds},
                                  {"TooShort", 0, 0, 60, true, error::kBounds},
                                  {"TooLong", 0, 0, 68, true, error::kBounds},
                                  {"TooLongAndNotLast", 0, 0, 68, false, error::kBounds},
                                  {"NotLast", 0, 0, 64, false, error::kBounds}};
INSTANTIATE_TEST_SUITE_P(Rows, WrongAnswer, testing::ValuesIn(kAnswers),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(WrongAnswer, OfAnAtomic) {
  // An atomic's answer with another request's number; and one to a read.
  for (const Opcode op : {Opcode::kFetchAdd, Opcode::kRead}) {
    Side side;
    side.qp.Connected(OwnSession(true));
    Memory into(&side, 8);
    side.Post({.opcode = op, .local = into.sge(), .remote = {0x1000, 7}, .id = 1});
    side.Drain();
    wire::AtomicResponse body;
    body.request_id = 99;
    side.Feed(MakeFpdu(UntaggedOf(wire::Opcode::kAtomicResponse, 1), wire::AsBytes(body)));
    EXPECT_EQ(side.Sends(), "1 BAD_RESP_ERR");
    EXPECT_TRUE(into.IsZero());
    EXPECT_EQ(ParseFpdus(side.Drain()).back().opcode(), wire::Opcode::kTerminate);
  }
}

class WrongCrc : public testing::TestWithParam<int> {};

TEST_P(WrongCrc, IsFound) {
  // One bit of each FPDU of a kind is wrong: header, payload, pad or trailer.
  // Expect: a Terminate with MPA's CRC error, no completion, and no part of a write's last 8 bytes.
  std::vector<std::function<Bytes(Victim&)>> kinds = {
      [](Victim& v) {
        return MakeFpdu(WriteHeader(v.into.key(), v.into.at().address), Bytes(9, std::byte{5}),
                        true);
      },
      [](Victim&) { return MakeFpdu(SendHeader(1), Bytes(9, std::byte{5}), true); },
      [](Victim& v) {
        return MakeFpdu(UntaggedOf(wire::Opcode::kReadRequest, 1), wire::AsBytes(ReadOf(v, 8)),
                        true);
      },
      [](Victim&) {
        return MakeControlFpdu({ControlType::kAck, NakCode::kNone, 1, 0}, {}, true);
      },
  };
  const auto& kind = kinds[GetParam()];
  Victim probe(OwnSession(false, true));
  const size_t size = kind(probe).size();
  // Behind the fields that are checked before the CRC can be: those have errors of their own.
  for (size_t byte = GetParam() == 0 ? 16 : 20; byte < size; ++byte) {
    Victim v(OwnSession(false, true));
    Bytes bad = kind(v);
    bad[byte] ^= std::byte{0x10};
    v.side.Feed(bad);
    const std::vector<Fpdu> sent = ParseFpdus(v.side.Drain());
    ASSERT_FALSE(sent.empty()) << byte;
    ASSERT_EQ(sent.back().opcode(), wire::Opcode::kTerminate);
    EXPECT_EQ(wire::DecodeTerminate(sent.back().payload)->error, error::kCrc) << byte;
    EXPECT_EQ(v.side.Receives(), "11 WR_FLUSH_ERR");
    EXPECT_EQ(v.side.Sends(), "1 WR_FLUSH_ERR");
    if (GetParam() == 0) {
      EXPECT_EQ(v.into.word(0) >> 8, 0u);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, WrongCrc, testing::Range(0, 4));

TEST(Noise, NeverCrashes) {
  // Valid messages with random bytes changed, and pure noise, in pieces of any size.
  // Expect: no crash (and nothing for a sanitizer), ERR or still RTS.
  std::minstd_rand random(1);
  for (int round = 0; round < 2000; ++round) {
    Victim v(OwnSession(false, round % 3 == 0));
    const Bytes parts[] = {
        MakeFpdu(WriteHeader(v.into.key(), v.into.at().address), Bytes(24)),
        MakeFpdu(SendHeader(1), Bytes(8)),
        ReadFpdu(v, 1),
        AtomicFpdu(AddOf(v), 2),
        Say(ControlType::kAck, 1),
        MakeFpdu(WriteHeader(0, 0, wire::kWithImmediate)),
        MakeFpdu(UntaggedOf(wire::Opcode::kImmediate, 2), Bytes(8)),
    };
    Bytes stream;
    for (int i = 0; i < 6; ++i) stream = stream + parts[random() % std::size(parts)];
    for (int flips = random() % 4; flips > 0; --flips) {
      stream[random() % stream.size()] ^= static_cast<std::byte>(1u << random() % 8);
    }
    if (round % 10 == 0) {
      for (std::byte& b : stream) b = static_cast<std::byte>(random());
    }
    v.side.Feed(stream, Chunks::Seeded(round));
    v.side.Drain();
    v.side.qp.ReceiveEnded(0, 0);
    EXPECT_EQ(v.side.qp.state(), QpState::kErr);
  }
}

}  // namespace
}  // namespace verbena::engine
