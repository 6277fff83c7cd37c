// SPDX-License-Identifier: Apache-2.0
#include "transport/connection.h"

#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "transport/context_state.h"
#include "transport/fake_provider.h"

namespace verbena {
namespace {

using absl::StatusCode;
using Kind = ConnectOutcome::Kind;

class Connection : public testing::Test {
 protected:
  Connection()
      : provider(new fake::Context),
        state(std::unique_ptr<fake::Context>(provider)),
        listening(new fake::Listener),
        listener(std::unique_ptr<fake::Listener>(listening), &state),
        pair(new fake::QueuePair),
        qp(std::unique_ptr<fake::QueuePair>(pair), provider) {
    state.devices.push_back(std::make_unique<Device>(&provider->device, provider));
  }
  std::unique_ptr<fake::ConnectionRequest> Request() {
    return std::make_unique<fake::ConnectionRequest>(&provider->device);
  }
  Path MakePath(absl::Status start = absl::OkStatus()) {
    auto impl = std::make_unique<fake::Path>(&provider->device);
    impl->start = std::move(start);
    return Path(std::move(impl), state.devices[0].get(), provider);
  }

  fake::Context* provider;
  ContextState state;
  fake::Listener* listening;
  Listener listener;
  fake::QueuePair* pair;
  QueuePair qp;
};

TEST_F(Connection, PortOfEveryAddressForm) {
  const struct {
    const char* address;
    int port;
  } rows[] = {{"[::]:7471", 7471},     {"10.0.0.1:65535", 65535},
              {"[fe80::1%eth0]:1", 1}, {"localhost:80", 80},
              {"no port", 0},          {"", 0}};
  for (const auto& row : rows) {
    listening->bound = row.address;
    EXPECT_EQ(listener.port(), row.port) << row.address;
  }
}

TEST_F(Connection, NextWaitsForARequest) {
  provider->steps = {[] {}, [this] { listening->waiting = Request(); }};
  auto request = listener.Next();
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(&request->device(), state.devices[0].get());
  EXPECT_EQ(request->device().name(), "fake");
  EXPECT_EQ(request->info().peer, "[::1]:51022");
}

TEST_F(Connection, NextTimesOut) {
  const auto request = listener.Next(absl::Milliseconds(4));
  EXPECT_EQ(request.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(request.status().message().find("listener [::]:7471: nobody connected within 4ms"),
            std::string::npos)
      << request.status();
}

TEST_F(Connection, TryNextWithoutARequest) { EXPECT_FALSE(listener.TryNext().is_open()); }

// A provider's slip. Expect: the peer is rejected and the log says so; nothing is dereferenced.
TEST_F(Connection, RequestOfAnUnknownDeviceIsRejected) {
  fake::Device other(nullptr, "other");
  fake::Journal journal;
  auto request = std::make_unique<fake::ConnectionRequest>(&other);
  request->journal = &journal;
  listening->waiting = std::move(request);
  testing::internal::CaptureStderr();
  EXPECT_FALSE(listener.TryNext().is_open());
  EXPECT_NE(testing::internal::GetCapturedStderr().find("[::1]:51022"), std::string::npos);
  EXPECT_EQ(journal.closed, 1);
}

TEST_F(Connection, ConnectAnswersTheAcceptorsData) {
  provider->steps = {[] {},
                     [this] {
                       pair->latest = {Kind::kEstablished, std::string("a\0b", 3), {}};
                     }};
  const auto accepted = MakePath().Connect(qp);
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_EQ(accepted->private_data, std::string("a\0b", 3));
}

TEST_F(Connection, ConnectPassesARefusalToStart) {
  const absl::Status refused = absl::FailedPreconditionError("qp 0x12: is not in INIT");
  EXPECT_EQ(MakePath(refused).Connect(qp).status(), refused);
}

struct OutcomeRow {
  ConnectOutcome outcome;
  StatusCode code;
  const char* end;  // of the message
};

TEST_F(Connection, ConnectFailures) {
  const OutcomeRow rows[] = {
      {{Kind::kRejected, "", {}},
       StatusCode::kAborted,
       "connect [::1]:7471 (qp 0x12): the peer rejected it"},
      {{Kind::kRejected, "full", {}}, StatusCode::kAborted, "rejected it: full"},
      {{Kind::kRejected, "\x01", {}}, StatusCode::kAborted, "rejected it: \\x01"},
      {{Kind::kRejected, "full", absl::AbortedError("rejected")},
       StatusCode::kAborted,
       "rejected: full"},
      {{Kind::kRejected, "full", absl::AbortedError("it said full")},
       StatusCode::kAborted,
       "it said full"},
      {{Kind::kRejected, "", absl::FailedPreconditionError("no atomics")},
       StatusCode::kFailedPrecondition,
       "no atomics"},
      {{Kind::kUnreachable, "", {}}, StatusCode::kUnavailable, "does it listen?"},
      {{Kind::kUnreachable, "", absl::DeadlineExceededError("silent")},
       StatusCode::kDeadlineExceeded,
       "silent"},
  };
  for (const OutcomeRow& row : rows) {
    pair->latest = row.outcome;
    const absl::Status status = MakePath().Connect(qp).status();
    EXPECT_EQ(status.code(), row.code) << status;
    const std::string end = row.end;
    const std::string message(status.message());
    EXPECT_EQ(message.substr(message.size() - std::min(message.size(), end.size())), end);
  }
}

// A provider that never answers. Expect: an end, a second after the deadline, and a queue pair that
// will not connect later behind the caller's back.
TEST_F(Connection, ConnectEndsWithoutAnOutcome) {
  const auto accepted = MakePath().Connect(qp, {.deadline = absl::Milliseconds(50)});
  EXPECT_EQ(accepted.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(provider->awaited, absl::Milliseconds(1050));
  EXPECT_EQ(qp.state(), QpState::kErr);
}

}  // namespace
}  // namespace verbena
