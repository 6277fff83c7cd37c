// SPDX-License-Identifier: Apache-2.0
// What RFC 7306 demands and no other test shows: rows of docs/rfc/7306.md.
#include "fallback/engine/test_cable.h"
#include "fallback/engine/test_fpdu.h"
#include "gtest/gtest.h"

namespace verbena::engine {
namespace {

Bytes FetchAdd(Memory& target, uint64_t add, uint64_t shift = 0) {
  return MakeFpdu(
      UntaggedOf(wire::Opcode::kAtomicRequest, 1),
      wire::AsBytes(wire::MakeFetchAdd(9, target.key(), target.at(shift).address, add)));
}

TEST(Atomic, RunsWhenItsLastByteIsThere) {
  // 5.4. A request comes byte by byte.
  // Expect: the word is as it was until the last one; then the sum, and an answer with the value
  // from before.
  Side side;
  side.qp.Connected(OwnSession(false));
  Memory target(&side, 64);
  target.word(0) = 40;
  const Bytes request = FetchAdd(target, 2);
  side.Feed(std::span(request).first(request.size() - 1), Chunks(1));
  EXPECT_EQ(target.word(0), 40u);
  EXPECT_TRUE(side.Drain().empty());
  side.Feed(std::span(request).last(1));
  EXPECT_EQ(target.word(0), 42u);
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_EQ(sent.size(), 1u);
  const auto answer = wire::Load<wire::AtomicResponse>(sent[0].payload.data());
  EXPECT_EQ(uint32_t{answer.request_id}, 9u);
  EXPECT_EQ(uint64_t{answer.original}, 40u);
}

TEST(Atomic, IsDoneWhenItsAnswerIsThere) {
  // 5.4. The peer acknowledges the request and has not answered it.
  // Expect: no completion; one with the answer's last byte.
  Side side;
  side.qp.Connected(OwnSession(true));
  Memory result(&side, 8);
  side.Post({.opcode = Opcode::kFetchAdd, .local = result.sge(), .remote = {0x1000, 7}, .id = 1});
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_EQ(sent.size(), 1u);
  side.Feed(MakeControlFpdu({wire::ControlType::kAck, wire::NakCode::kNone, 1, 0}));
  EXPECT_EQ(side.Sends(), "");
  wire::AtomicResponse body;
  body.request_id = wire::Load<wire::AtomicRequest>(sent[0].payload.data()).request_id;
  body.original = 5;
  const Bytes answer = MakeFpdu(UntaggedOf(wire::Opcode::kAtomicResponse, 1), wire::AsBytes(body));
  side.Feed(std::span(answer).first(answer.size() - 1), Chunks(1));
  EXPECT_EQ(side.Sends(), "");
  EXPECT_EQ(result.word(0), 0u);
  side.Feed(std::span(answer).last(1));
  EXPECT_EQ(side.Sends(), "1 SUCCESS");
  EXPECT_EQ(result.word(0), 5u);
}

TEST(Atomic, TerminateNamesIt) {
  // 8.1, 8.2. A word that is not aligned.
  // Expect: a catastrophe of this stream, with the DDP header and without one of a read.
  Side side;
  side.qp.Connected(OwnSession(false));
  Memory target(&side, 64);
  const Bytes request = FetchAdd(target, 2, 4);
  side.Feed(request);
  const std::vector<Fpdu> sent = ParseFpdus(side.Drain());
  ASSERT_FALSE(sent.empty());
  ASSERT_EQ(sent.back().opcode(), wire::Opcode::kTerminate);
  const auto terminate = wire::DecodeTerminate(sent.back().payload);
  ASSERT_TRUE(terminate.ok());
  EXPECT_EQ(terminate->error, wire::error::kStreamCatastrophic);
  EXPECT_EQ(Bytes(terminate->ddp_header.begin(), terminate->ddp_header.end()),
            Bytes(request.begin() + 2, request.begin() + 20));
  EXPECT_TRUE(terminate->read_request.empty());
}

}  // namespace
}  // namespace verbena::engine
