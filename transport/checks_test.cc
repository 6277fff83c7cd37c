// SPDX-License-Identifier: Apache-2.0
// What providers refuse alike: the code, and object, fact and remedy in the text.
#include "transport/checks.h"

#include <cerrno>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::provider {
namespace {

using ::testing::HasSubstr;

struct Refused {
  const char* name;
  absl::Status status;
  absl::StatusCode code;
  const char* text;
};

const DeviceAttributes kSmall = [] {
  DeviceAttributes a;
  a.max_work_requests = 100;
  a.max_sge = 4;
  return a;
}();

class Refusals : public ::testing::TestWithParam<Refused> {};

TEST_P(Refusals, SayObjectFactAndRemedy) {
  EXPECT_EQ(GetParam().status.code(), GetParam().code);
  EXPECT_THAT(std::string(GetParam().status.message()), HasSubstr(GetParam().text));
}

INSTANTIATE_TEST_SUITE_P(
    Table, Refusals,
    ::testing::Values(
        Refused{"Limit", CheckLimit("region bytes", 5, 4, "rxe0"),
                absl::StatusCode::kInvalidArgument,
                "region bytes: 5 asked for, at most 4 on device rxe0"},
        Refused{"PrivateData", CheckPrivateData("accept", std::string(197, 'x'), 196, "tcp"),
                absl::StatusCode::kInvalidArgument,
                "accept: private data bytes: 197 asked for, at most 196 on device tcp"},
        Refused{"ConnectedAlready", CheckIdle("connect qp 1", QpState::kRts, false),
                absl::StatusCode::kFailedPrecondition,
                "connect qp 1: it is in state RTS; only one in INIT can be connected (modify it to "
                "RESET, then INIT)"},
        Refused{"ConnectingAlready", CheckIdle("connect qp 1", QpState::kInit, true),
                absl::StatusCode::kFailedPrecondition, "INIT and connecting already; only one"},
        Refused{"OtherDevice", OtherDevice("connect 10.0.0.1:1", "path"),
                absl::StatusCode::kInvalidArgument,
                "connect 10.0.0.1:1: the queue pair is of another device; make it on "
                "path.device()"},
        Refused{"NoDescriptor", NoDescriptor("listen :1", EMFILE),
                absl::StatusCode::kResourceExhausted, "`ulimit -n`"},
        Refused{"NoEntries", CheckCqEntries("completion queue", 0, 100, "tcp"),
                absl::StatusCode::kInvalidArgument,
                "completion queue entries: 0 asked for, at least 1 is needed"},
        Refused{"TooManyEntries", CheckCqEntries("resize completion queue", 101, 100, "tcp"),
                absl::StatusCode::kInvalidArgument,
                "resize completion queue entries: 101 asked for, at most 100 on device tcp"},
        Refused{"MoreWaits", MoreWaitsThan(3), absl::StatusCode::kInvalidArgument,
                "resize completion queue to 3 entries: more completions than that wait in it; poll "
                "them first"},
        Refused{"NoChannel", CheckNotify(nullptr), absl::StatusCode::kFailedPrecondition,
                "the completion queue has no channel; name one when creating it"},
        Refused{"EmptySharedQueue", CheckSrqLimits({.max_wr = 0}, kSmall, "tcp"),
                absl::StatusCode::kInvalidArgument, "max_wr is 0, at least 1 is needed"},
        Refused{"LongSharedQueue", CheckSrqLimits({.max_wr = 101}, kSmall, "tcp"),
                absl::StatusCode::kInvalidArgument,
                "shared receive queue max_wr: 101 asked for, at most 100 on device tcp"},
        Refused{"WideSharedQueue", CheckSrqLimits({.max_wr = 1, .max_sge = 5}, kSmall, "tcp"),
                absl::StatusCode::kInvalidArgument,
                "shared receive queue max_sge: 5 asked for, at most 4 on device tcp"},
        Refused{"SharedLimit", CheckSrqLimit(11, 10), absl::StatusCode::kInvalidArgument,
                "shared receive queue limit: 11 asked for, the queue holds 10"}),
    [](const auto& i) { return std::string(i.param.name); });

TEST(Checks, LetPassWhatIsRight) {
  EXPECT_TRUE(CheckLimit("region bytes", 4, 4, "tcp").ok());
  EXPECT_TRUE(CheckPrivateData("accept", std::string(196, 'x'), 196, "tcp").ok());
  EXPECT_TRUE(CheckIdle("connect qp 1", QpState::kInit, false).ok());
  EXPECT_TRUE(CheckCqEntries("completion queue", 100, 100, "tcp").ok());
  EXPECT_TRUE(CheckNotify(&kSmall).ok());
  EXPECT_TRUE(CheckSrqLimits({.max_wr = 100, .max_sge = 4}, kSmall, "tcp").ok());
  EXPECT_TRUE(CheckSrqLimit(10, 10).ok());
}

}  // namespace
}  // namespace verbena::provider
