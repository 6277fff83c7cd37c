// SPDX-License-Identifier: Apache-2.0
// What a stranger may do with the ports that a listener opens: nothing. The stranger speaks the
// rendezvous by hand, over TCP alone, and comes to the device without selection.
#include <optional>
#include <string>

#include "connect/limits.h"
#include "connect/messages.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/check.h"
#include "tests/selection/hosts.h"

namespace verbena::selection {
namespace {

using conformance::Check;
using connect::Answer;
using connect::Purpose;
using connect::Reason;

class Tokens : public testing::Test {
 protected:
  static connect::Ask Question(Purpose purpose = Purpose::kProof) {
    return {purpose, connect::LinkBit(Link::kRoce), 0, {*connect::ParseIp("10.1.0.2")}};
  }
  // What the listener answers to `private_data` in a rendezvous.
  std::optional<Answer> Ask(const std::string& private_data) {
    Path path = Check(tcp.Resolve(listener.address()));
    provider::Selection selection;
    selection.rendezvous = true;
    path.impl()->Announce(selection);
    End end(path.device());
    EXPECT_EQ(path.Connect(end.qp, {.private_data = private_data}).status().code(),
              absl::StatusCode::kAborted);
    return connect::DecodeAnswer(end.qp.impl()->outcome().private_data);
  }
  Answer Ask(const connect::Ask& ask) { return *Ask(Encode(ask)); }
  // Goes to the port that was offered.
  absl::StatusCode Go(const Answer& answer, const std::string& private_data) {
    Path path = Check(device.Resolve(connect::WithPort(answer.address, answer.port)));
    End end(path.device());
    return path.Connect(end.qp, {.private_data = private_data}).status().code();
  }
  static std::string Text(const connect::Token& token) { return {token.begin(), token.end()}; }

  Hosts hosts;
  Context server = hosts.Open(1);
  Context tcp = hosts.Open(2, {.composed = false});
  Context device = hosts.OpenDevice(2);
  Listener listener = Check(server.Listen(Hosts::address(1, 7471)));
};

TEST_F(Tokens, RightOnceOnly) {
  const Answer answer = Ask(Question());
  ASSERT_EQ(answer.reason, Reason::kNone);
  EXPECT_EQ(connect::ToText(answer.address), "10.1.0.1");
  EXPECT_EQ(Go(answer, Text(answer.token) + std::string(40, '\0')), absl::StatusCode::kOk);
  EXPECT_EQ(Go(answer, Text(answer.token)), absl::StatusCode::kUnavailable);  // replayed
  EXPECT_FALSE(listener.TryNext().is_open());
}

TEST_F(Tokens, Wrong) {
  const Answer answer = Ask(Question());
  std::string wrong = Text(answer.token);
  wrong[15] ^= 1;
  EXPECT_EQ(Go(answer, wrong), absl::StatusCode::kAborted);
  EXPECT_EQ(server.counters().refusals.at("refused"), 1u);
  // One try: the port is gone.
  EXPECT_EQ(Go(answer, Text(answer.token)), absl::StatusCode::kUnavailable);
}

TEST_F(Tokens, Missing) {
  EXPECT_EQ(Go(Ask(Question()), ""), absl::StatusCode::kAborted);
  EXPECT_FALSE(listener.TryNext().is_open());
}

TEST_F(Tokens, Late) {
  const Answer answer = Ask(Question());
  (void)listener.Next(connect::kOfferTime + absl::Milliseconds(1));
  EXPECT_EQ(Go(answer, Text(answer.token)), absl::StatusCode::kUnavailable);
}

TEST_F(Tokens, AreRandom) {
  const Answer first = Ask(Question()), second = Ask(Question());
  EXPECT_NE(first.token, second.token);
  EXPECT_NE(first.port, second.port);
}

TEST_F(Tokens, OutstandingOffersAreBounded) {
  for (size_t i = 0; i < connect::kOffersPerPeer; ++i) {
    EXPECT_EQ(Ask(Question()).reason, Reason::kNone);
  }
  EXPECT_EQ(Ask(Question()).reason, Reason::kBusy);
  (void)listener.Next(connect::kOfferTime + absl::Milliseconds(1));
  EXPECT_EQ(Ask(Question()).reason, Reason::kNone);
}

TEST_F(Tokens, MalformedQuestionsAreRefused) {
  for (const std::string& bad : {std::string(), std::string("hello"), std::string(56, '\xff'),
                                 Encode(Question()).substr(0, 20)}) {
    const std::optional<Answer> answer = Ask(bad);
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->reason, Reason::kMalformed);
  }
  EXPECT_FALSE(listener.TryNext().is_open());
}

// A redirect is the application's: it needs no token, serves once, and is refused with the
// listener.
TEST_F(Tokens, ClosingTheListenerClosesItsPorts) {
  const Answer answer = Ask(Question(Purpose::kConnect));
  Check(listener.Close());
  EXPECT_EQ(Go(answer, ""), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace verbena::selection
