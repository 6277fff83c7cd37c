// SPDX-License-Identifier: Apache-2.0
// The queue pair's states as tables: state × operation, state × state, state × attribute. IBTA
// 10.3.1, ibv_modify_qp(3), ibv_post_send(3), ibv_post_recv(3).
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

using testing::HasSubstr;

// A queue pair of the client in `state`. RTR and SQE cannot be reached by request: accepting and
// connecting take INIT to RTS, and a reliable queue pair never enters SQE (IBTA 10.3.1.6).
struct InState {
  InState(ConformanceBase& test, QpState state) {
    const bool connected = state != QpState::kReset && state != QpState::kInit;
    if (connected) {
      pair = MakePair(test);
    } else {
      pair.client = std::make_unique<End>(*test.client().devices()[0], EndOptions{});
    }
    QueuePair& qp = pair.client->qp;
    if (qp.state() != state) Check(qp.Modify({.state = state}));
    EXPECT_EQ(qp.state(), state);
  }
  QueuePair& qp() { return pair.client->qp; }

  Pair pair;
};

enum class Outcome { kRefused, kWaits, kRuns, kFlushes };

struct StateRow {
  std::string name;
  QpState state;
  Outcome send;
  Outcome receive;
};

const StateRow kStates[] = {
    {"Reset", QpState::kReset, Outcome::kRefused, Outcome::kRefused},
    {"Init", QpState::kInit, Outcome::kRefused, Outcome::kWaits},
    {"Rts", QpState::kRts, Outcome::kRuns, Outcome::kWaits},
    {"Sqd", QpState::kSqd, Outcome::kWaits, Outcome::kWaits},
    {"Err", QpState::kErr, Outcome::kFlushes, Outcome::kFlushes},
};

CONFORMANCE_TABLE(PostInState, StateRow, kStates);

TEST_P(PostInState, Send) {
  // A write is posted in each state.
  // Expect: refused before RTS, runs in RTS, waits in SQD, flushes in ERR.
  InState in(*this, row().state);
  Sge local = in.pair.client->slice(0, 8);
  RemoteAddress remote = in.pair.server ? in.pair.server->at(0) : RemoteAddress{};
  const PostResult result =
      in.qp().PostSend({.opcode = Opcode::kWrite, .local = local, .remote = remote, .id = 1});
  switch (row().send) {
    case Outcome::kRefused:
      EXPECT_THAT(result, Refused(PostError::kInvalidState));
      EXPECT_TRUE(StaysEmpty(in.pair.client->cq));
      break;
    case Outcome::kWaits:
      EXPECT_TRUE(result.ok());
      EXPECT_TRUE(StaysEmpty(in.pair.client->cq));
      break;
    case Outcome::kRuns:
      EXPECT_THAT(WaitOne(in.pair.client->cq), Succeeded(1));
      break;
    case Outcome::kFlushes:
      EXPECT_TRUE(result.ok());
      EXPECT_THAT(WaitOne(in.pair.client->cq), Flushed(1));
      break;
  }
}

TEST_P(PostInState, Receive) {
  // A receive is posted in each state.
  // Expect: refused in RESET only, flushes in ERR.
  InState in(*this, row().state);
  const PostResult result = in.qp().PostReceive({.local = in.pair.client->slice(0, 8), .id = 1});
  switch (row().receive) {
    case Outcome::kRefused:
      EXPECT_THAT(result, Refused(PostError::kInvalidState));
      break;
    case Outcome::kFlushes:
      EXPECT_TRUE(result.ok());
      EXPECT_THAT(WaitOne(in.pair.client->cq), Flushed(1));
      break;
    default:
      EXPECT_TRUE(result.ok());
      EXPECT_TRUE(StaysEmpty(in.pair.client->cq));
      break;
  }
}

struct TransitionRow {
  std::string name;
  QpState from;
  QpState to;
  bool allowed;
};

// ibv_modify_qp(3)'s table without its connecting steps, which belong to Connect and Accept, and
// with RESET to ERR, which IBTA 10.3.1 has and Linux has not.
std::vector<TransitionRow> Transitions() {
  using enum QpState;
  const QpState froms[] = {kReset, kInit, kRts, kSqd, kErr};
  const QpState tos[] = {kReset, kInit, kRtr, kRts, kSqd, kSqe, kErr};
  std::vector<TransitionRow> rows;
  for (QpState from : froms) {
    for (QpState to : tos) {
      bool allowed = to == kReset || to == kErr;
      if (to == kInit) allowed = from == kReset || from == kInit;
      if (to == kRts || to == kSqd) allowed = from == kRts || from == kSqd;
      rows.push_back({absl::StrCat(QpStateName(from), "To", QpStateName(to)), from, to, allowed});
    }
  }
  return rows;
}

CONFORMANCE_TABLE(Transition, TransitionRow, Transitions());

TEST_P(Transition, AllowedOrRefused) {
  // Every state to every other by Modify.
  // Expect: the new state, or FailedPrecondition that names both and changes nothing.
  InState in(*this, row().from);
  const absl::Status status = in.qp().Modify({.state = row().to});
  if (row().allowed) {
    EXPECT_THAT(status, IsOk());
    EXPECT_EQ(in.qp().state(), row().to);
  } else {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 testing::AllOf(HasSubstr(QpStateName(row().from)),
                                                HasSubstr(QpStateName(row().to)))));
    EXPECT_EQ(in.qp().state(), row().from);
  }
}

struct AttributeRow {
  std::string name;
  QpState state;  // that the queue pair is in
  QpModify change;
  bool allowed;
};

// ibv_modify_qp(3): which attribute may be set in which state, and its range.
const AttributeRow kAttributes[] = {
    {"AccessInInit", QpState::kInit, {.access = Access::kRemoteRead}, true},
    {"AccessInRts", QpState::kRts, {.access = Access::kRemoteRead}, true},
    {"AccessInSqd", QpState::kSqd, {.access = Access::kRemoteRead}, true},
    {"RnrTimerInRts", QpState::kRts, {.min_rnr_timer = 31}, true},
    {"RnrTimerInSqd", QpState::kSqd, {.min_rnr_timer = 0}, true},
    {"RnrTimerTooLarge", QpState::kRts, {.min_rnr_timer = 32}, false},
    {"RnrRetryInSqd", QpState::kSqd, {.rnr_retry = 7}, true},
    {"RnrRetryInRts", QpState::kRts, {.rnr_retry = 7}, false},
    {"RnrRetryTooLarge", QpState::kSqd, {.rnr_retry = 8}, false},
    {"RetryCountInSqd", QpState::kSqd, {.retry_count = 0}, true},
    {"RetryCountInRts", QpState::kRts, {.retry_count = 0}, false},
    {"RetryCountTooLarge", QpState::kSqd, {.retry_count = 8}, false},
    {"TimeoutInSqd", QpState::kSqd, {.timeout = 31}, true},
    {"TimeoutInRts", QpState::kRts, {.timeout = 14}, false},
    {"TimeoutTooLarge", QpState::kSqd, {.timeout = 32}, false},
    {"RnrTimerInReset", QpState::kReset, {.min_rnr_timer = 1}, false},
    {"RnrTimerInErr", QpState::kErr, {.min_rnr_timer = 1}, false},
};

CONFORMANCE_TABLE(Attribute, AttributeRow, kAttributes);

TEST_P(Attribute, TakenOrRefused) {
  // Each attribute in states that take it and that do not, and out of range.
  // Expect: Query tells the new value, or InvalidArgument and the former one.
  InState in(*this, row().state);
  const QpAttributes before = in.qp().Query();
  const QpModify& change = row().change;
  const absl::Status status = in.qp().Modify(change);
  EXPECT_THAT(status,
              StatusIs(row().allowed ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument));
  const QpAttributes after = in.qp().Query();
  const QpAttributes& rest = before;
  const bool set = row().allowed;
  EXPECT_EQ(after.state, rest.state);
  EXPECT_EQ(after.min_rnr_timer,
            set ? change.min_rnr_timer.value_or(rest.min_rnr_timer) : rest.min_rnr_timer);
  EXPECT_EQ(after.rnr_retry, set ? change.rnr_retry.value_or(rest.rnr_retry) : rest.rnr_retry);
  EXPECT_EQ(after.retry_count,
            set ? change.retry_count.value_or(rest.retry_count) : rest.retry_count);
  EXPECT_EQ(after.timeout, set ? change.timeout.value_or(rest.timeout) : rest.timeout);
}

}  // namespace
}  // namespace verbena::conformance
