// SPDX-License-Identifier: Apache-2.0
// The seven states: which may follow which, what may be set and posted where.
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "fallback/engine/test_cable.h"
#include "gtest/gtest.h"
#include "transport/state_table.h"

namespace verbena::engine {
namespace {

using provider::CheckModify;
using provider::Follows;
using provider::MayFollow;

constexpr QpState kStates[] = {QpState::kReset, QpState::kInit, QpState::kRtr, QpState::kRts,
                               QpState::kSqd,   QpState::kSqe,  QpState::kErr};

std::string Matrix() {
  std::string out = "from\\to";
  for (const QpState to : kStates) absl::StrAppendFormat(&out, "  %-7s", QpStateName(to));
  for (const QpState from : kStates) {
    absl::StrAppendFormat(&out, "\n%-7s", QpStateName(from));
    for (const QpState to : kStates) {
      const char* name = "?";
      switch (MayFollow(from, to)) {
        case Follows::kNo:
          name = ".";
          break;
        case Follows::kByModify:
          name = "modify";
          break;
        case Follows::kByConnection:
          name = "connect";
          break;
      }
      absl::StrAppendFormat(&out, "  %-7s", name);
    }
  }
  std::string trimmed;
  std::istringstream lines(out);
  for (std::string line; std::getline(lines, line);) {
    trimmed += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return trimmed;
}

TEST(States, MatrixIsTheOneInTheText) {
  std::ifstream file("fallback/engine/testdata/states.txt");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(Matrix(), text.str()) << "If the change is meant, this is the new text:\n" << Matrix();
}

TEST(States, ModifyObeysTheTable) {
  // Every pair, on a queue pair that is put into the first state.
  // Expect: done, or refused with both states named and nothing changed.
  for (const QpState from : kStates) {
    for (const QpState to : kStates) {
      Side side;
      QueuePairTestPeer::SetState(&side.qp, from);
      const absl::Status s = side.qp.Modify({.state = to});
      const bool may = MayFollow(from, to) == Follows::kByModify;
      EXPECT_EQ(s.ok(), may) << QpStateName(from) << " " << QpStateName(to) << s;
      EXPECT_EQ(side.qp.state(), may ? to : from);
      if (!may) {
        EXPECT_EQ(s.code(), absl::StatusCode::kFailedPrecondition);
        EXPECT_TRUE(absl::StrContains(s.message(), QpStateName(from)) &&
                    absl::StrContains(s.message(), QpStateName(to)))
            << s;
      }
    }
  }
}

struct PostRow {
  QpState state;
  PostError send, receive;
  bool sends_flush, receives_flush;  // at once
};
constexpr PostRow kPosts[] = {
    {QpState::kReset, PostError::kInvalidState, PostError::kInvalidState, false, false},
    {QpState::kInit, PostError::kInvalidState, PostError::kNone, false, false},
    {QpState::kRtr, PostError::kInvalidState, PostError::kNone, false, false},
    {QpState::kRts, PostError::kNone, PostError::kNone, false, false},
    {QpState::kSqd, PostError::kNone, PostError::kNone, false, false},
    {QpState::kSqe, PostError::kNone, PostError::kNone, true, false},
    {QpState::kErr, PostError::kNone, PostError::kNone, true, true},
};
class PostIn : public testing::TestWithParam<PostRow> {};

TEST_P(PostIn, EachState) {
  Side side;
  QueuePairTestPeer::SetState(&side.qp, GetParam().state);
  EXPECT_EQ(side.Post({.opcode = Opcode::kSend, .id = 1}).error, GetParam().send);
  const ReceiveWr wr{.id = 2};
  bool wake = false;
  EXPECT_EQ(side.qp.PostReceive({&wr, 1}, &wake).error, GetParam().receive);
  EXPECT_EQ(wake, GetParam().receives_flush);
  side.qp.FlushPosted();
  EXPECT_EQ(side.Sends(), GetParam().sends_flush ? "1 WR_FLUSH_ERR" : "");
  EXPECT_EQ(side.Receives(), GetParam().receives_flush ? "2 WR_FLUSH_ERR" : "");
}

INSTANTIATE_TEST_SUITE_P(States, PostIn, testing::ValuesIn(kPosts),
                         [](const auto& i) { return std::string(QpStateName(i.param.state)); });

struct AttributeRow {
  const char* name;
  QpModify over;    // one more than the maximum
  QpModify change;  // at the maximum
  const char* states;
};
const AttributeRow kAttributes[] = {
    {"access", {}, {.access = kEverything}, "INIT RTR RTS SQD"},
    {"min_rnr_timer", {.min_rnr_timer = 32}, {.min_rnr_timer = 31}, "INIT RTR RTS SQD"},
    {"rnr_retry", {.rnr_retry = 8}, {.rnr_retry = 7}, "INIT RTR SQD"},
    {"retry_count", {.retry_count = 8}, {.retry_count = 7}, "INIT RTR SQD"},
    {"timeout", {.timeout = 32}, {.timeout = 31}, "INIT RTR SQD"},
};
class AttributeIn : public testing::TestWithParam<AttributeRow> {};

TEST_P(AttributeIn, EachState) {
  // Expect: taken where the text says so; elsewhere and over its maximum refused, by name.
  for (const QpState state : kStates) {
    const absl::Status s = CheckModify(state, GetParam().change);
    EXPECT_EQ(s.ok(), absl::StrContains(GetParam().states, QpStateName(state)))
        << QpStateName(state) << " " << s;
    if (!s.ok() && state != QpState::kSqe) {
      EXPECT_TRUE(absl::StrContains(s.message(), GetParam().name)) << s;
    }
  }
  if (GetParam().name != std::string("access")) {
    EXPECT_EQ(CheckModify(QpState::kInit, GetParam().over).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

INSTANTIATE_TEST_SUITE_P(Attributes, AttributeIn, testing::ValuesIn(kAttributes),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(States, AttributesAreKept) {
  Side side;
  ASSERT_TRUE(side.qp
                  .Modify({.min_rnr_timer = uint8_t{3},
                           .rnr_retry = uint8_t{4},
                           .retry_count = uint8_t{5},
                           .timeout = uint8_t{6}})
                  .ok());
  const QpAttributes a = side.qp.Query();
  EXPECT_EQ(a.state, QpState::kInit);
  EXPECT_EQ(a.qp_number, 1u);
  EXPECT_EQ(a.min_rnr_timer, 3);
  EXPECT_EQ(a.rnr_retry, 4);
  EXPECT_EQ(a.retry_count, 5);
  EXPECT_EQ(a.timeout, 6);
}

struct PostErrorRow {
  const char* name;
  SendWr wr;
  PostError error;
};
const Sge kFive[5] = {};
const PostErrorRow kPostErrors[] = {
    {"Opcode", {.opcode = static_cast<Opcode>(kOpcodeCount)}, PostError::kInvalidOpcode},
    {"InlineRead",
     {.opcode = Opcode::kRead, .flags = SendFlags::kInline},
     PostError::kInvalidOpcode},
    {"InlineAtomic",
     {.opcode = Opcode::kFetchAdd, .flags = SendFlags::kInline},
     PostError::kInvalidOpcode},
    {"FiveEntries", {.local = std::span<const Sge>(kFive)}, PostError::kTooManySges},
    {"InlineTooLong",
     {.local = Sge{0, 257, 0}, .flags = SendFlags::kInline},
     PostError::kInlineTooLong},
    {"BindOfNothing", {.opcode = Opcode::kBindWindow}, PostError::kInvalidOpcode},
};
class BadPost : public testing::TestWithParam<PostErrorRow> {};

TEST_P(BadPost, EndsTheArray) {
  // Good, bad, good.
  // Expect: one accepted.
  Side side;
  side.qp.Connected(OwnSession(true));
  const SendWr wrs[] = {{.id = 1}, GetParam().wr, {.id = 3}};
  const PostResult r = side.qp.PostSend(wrs);
  EXPECT_EQ(r.accepted, 1u);
  EXPECT_EQ(r.error, GetParam().error);
  EXPECT_EQ(side.qp.outstanding(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Rows, BadPost, testing::ValuesIn(kPostErrors),
                         [](const auto& i) { return std::string(i.param.name); });

TEST(Post, FullQueue) {
  Side side;
  side.qp.Connected(OwnSession(true));
  const std::vector<SendWr> wrs(65);
  const PostResult r = side.qp.PostSend(wrs);
  EXPECT_EQ(r.accepted, 64u);
  EXPECT_EQ(r.error, PostError::kQueueFull);
}

TEST(Post, LengthErrorsAreCompletions) {
  // An atomic of 4 bytes; a message over 2^31 bytes.
  for (const Opcode op : {Opcode::kFetchAdd, Opcode::kSend}) {
    Side side;
    side.qp.Connected(OwnSession(true));
    const Sge huge[] = {{0, 0x7fffffff, 1}, {0, 2, 1}};
    SendWr wr{.opcode = op, .local = Sge{0, 4, 1}, .id = 1};
    if (op == Opcode::kSend) wr.local = std::span<const Sge>(huge);
    EXPECT_TRUE(side.Post(wr).ok());
    side.Drain();
    EXPECT_EQ(side.Sends(), "1 LOC_LEN_ERR");
  }
}

TEST(Post, InlineDataIsCopied) {
  Side side;
  side.qp.Connected(OwnSession(true));
  char data[] = "inline";
  side.Post({.opcode = Opcode::kSend,
             .local = Sge{reinterpret_cast<uint64_t>(data), 6, 0},
             .flags = SendFlags::kInline});
  data[0] = 'X';
  const std::vector<std::byte> sent = side.Drain();
  EXPECT_EQ(static_cast<char>(sent[20]), 'i');
}

TEST(Sqd, StopsAtTheNextRequest) {
  // A large write is half framed when the queue is told to drain; another is behind it.
  // Expect: the first goes out to its end, the second stays; drained when it is acknowledged.
  Wired w;
  Memory from(&w.a, 2 << 20), to(&w.b, 2 << 20);
  w.a.Post({.opcode = Opcode::kWrite, .local = from.sge(), .remote = to.at(), .id = 1});
  w.a.Post({.opcode = Opcode::kWrite, .local = from.sge(0, 8), .remote = to.at(), .id = 2});
  w.cable.Send(0);
  ASSERT_TRUE(w.a.qp.Modify({.state = QpState::kSqd}).ok());
  EXPECT_FALSE(w.a.Had(EventType::kSendQueueDrained));
  QpAttributes a = w.a.qp.Query();
  EXPECT_TRUE(a.draining);
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "1 SUCCESS");
  EXPECT_TRUE(w.a.Had(EventType::kSendQueueDrained));
  a = w.a.qp.Query();
  EXPECT_FALSE(a.draining);
  ASSERT_TRUE(w.a.qp.Modify({.state = QpState::kRts}).ok());
  w.cable.Run();
  EXPECT_EQ(w.a.Sends(), "2 SUCCESS");
}

TEST(Post, PlacesAreFreeWhenTheCompletionIsPolled) {
  // All of a queue's requests are complete, none is polled.
  // Expect: still full; each poll frees one place (IBTA 10.8), the last one all.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  const SendWr write = {.opcode = Opcode::kWrite, .local = from.sge(), .remote = to.at()};
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(w.a.Post(write).ok());
  w.cable.Run();
  EXPECT_EQ(w.a.Post(write).error, PostError::kQueueFull);
  w.a.NextSend();
  EXPECT_TRUE(w.a.Post(write).ok());
  EXPECT_EQ(w.a.Post(write).error, PostError::kQueueFull);
}

TEST(Reset, OldCompletionsDoNotShrinkTheQueue) {
  // A completion from before the reset is polled after it.
  // Expect: the whole queue is there for the new connection.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  const SendWr write = {.opcode = Opcode::kWrite, .local = from.sge(), .remote = to.at()};
  w.a.Post(write);
  w.cable.Run();
  for (int i = 0; i < 63; ++i) w.a.Post(write);
  ASSERT_TRUE(w.a.qp.Modify({.state = QpState::kReset}).ok());
  w.a.NextSend();
  ASSERT_TRUE(w.a.qp.Modify({.state = QpState::kInit}).ok());
  w.a.qp.Connected(OwnSession(true));
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(w.a.Post(write).ok()) << i;
}

TEST(Reset, ForgetsAndConnectsAgain) {
  // A queue pair with sends, receives and half a message is reset, and connected anew.
  // Expect: no completion, RESET refuses posts; the new connection starts from the beginning.
  Wired w;
  Memory from(&w.a, 8), to(&w.b, 8);
  w.b.PostReceive({.local = to.sge(), .id = 11});
  w.a.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 1});
  w.cable.Send(0);
  for (Side* s : {&w.a, &w.b}) {
    ASSERT_TRUE(s->qp.Modify({.state = QpState::kReset}).ok());
    ASSERT_TRUE(s->qp.Modify({.state = QpState::kInit}).ok());
  }
  EXPECT_EQ(w.a.Sends() + w.b.Receives(), "");
  EXPECT_EQ(w.a.qp.outstanding(), 0u);
  w.a.qp.Connected(OwnSession(true));
  w.b.qp.Connected(OwnSession(false));
  Cable cable(&w.a, &w.b);
  w.b.PostReceive({.local = to.sge(), .id = 12});
  w.a.Post({.opcode = Opcode::kSend, .local = from.sge(), .id = 2});
  w.a.Post({.opcode = Opcode::kRead, .local = from.sge(), .remote = to.at(), .id = 3});
  cable.Run();
  EXPECT_EQ(w.a.Sends(), "2 SUCCESS, 3 SUCCESS");
  EXPECT_EQ(w.b.Receives(), "12 SUCCESS");
}

TEST(States, PollingFreesAPlaceAtOnce) {
  // A queue of one request. Its completion is polled, and the next one posted, as soon as it is
  // there: by another thread than the owner, which has not retired the request yet.
  // Expect: accepted.
  SideOptions small;
  small.limits.max_send_wr = 1;
  Wired w(Chunks(0), false, small);
  Memory from(&w.a, 8), to(&w.b, 8);
  PostError second = PostError::kQueueFull;
  w.a.on_news = [&] {
    EXPECT_EQ(w.a.Sends(), "1 SUCCESS");
    second = w.a.Post(WriteOf(from.sge(), to.at(), 2)).error;
  };
  w.a.send_ring.Arm(Notify::kAny);
  ASSERT_TRUE(w.a.Post(WriteOf(from.sge(), to.at(), 1)).ok());
  w.cable.Run();
  EXPECT_EQ(second, PostError::kNone);
  EXPECT_EQ(w.a.Sends(), "2 SUCCESS");
}

}  // namespace
}  // namespace verbena::engine
