// SPDX-License-Identifier: Apache-2.0
// A device is taken away: ibv_get_async_event(3) IBV_EVENT_DEVICE_FATAL, rdma_get_cm_event(3)
// RDMA_CM_EVENT_DEVICE_REMOVAL.
#include <cstdio>
#include <cstdlib>

#include "tests/conformance/pair.h"
#include "transport/out_of_band.h"

namespace verbena::conformance {
namespace {

CONFORMANCE_SUITE(DeviceRemoval);

TEST_P(DeviceRemoval, EverybodyIsToldAndNothingNewIsMade) {
  // The device of a connection with receives at both ends is removed, by the shell command in
  // VERBENA_REMOVE_DEVICE, which waits until nobody has it open (tests/soft_rdma/inside).
  // Expect: kDeviceFatal in both contexts, ERR with that cause, the flush; what would need the
  // device is refused as Unavailable, everything can be closed, and then the contexts' addresses
  // have no way over it.
  const char* command = std::getenv("VERBENA_REMOVE_DEVICE");
  if (command == nullptr) GTEST_SKIP() << "machine: no device of it may be removed";
  Pair pair = MakePair(*this);
  Listener listener = Check(server().Listen(AnyPort()));
  for (End* end : {pair.client.get(), pair.server.get()}) {
    PostReceive(end->qp, {.local = end->slice(0, 8), .id = 1});
  }
  std::FILE* const removal = popen(command, "r");
  ASSERT_NE(removal, nullptr);
  for (Context* context : {&client(), &server()}) {
    const Event fatal = WaitForEvent(*context, EventType::kDeviceFatal);
    EXPECT_THAT(fatal.status, StatusIs(absl::StatusCode::kUnavailable));
  }
  for (End* end : {pair.client.get(), pair.server.get()}) {
    EXPECT_THAT(WaitOne(end->cq), Flushed(1));
    EXPECT_EQ(end->qp.state(), QpState::kErr);
    EXPECT_THAT(end->device.AllocateProtectionDomain(), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_THAT(end->device.CreateCompletionQueue({.entries = 1}),
                StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_THAT(end->qp.Close(), IsOk());
  }
  pair = {};
  EXPECT_EQ(pclose(removal), 0);  // both contexts have let go of it
  for (Context* context : {&client(), &server()}) {
    EXPECT_THAT(Check(DecodeContact(context->address())).ways, testing::IsEmpty());
  }
  EXPECT_FALSE(server().Listen(AnyPort()).ok());
}

}  // namespace
}  // namespace verbena::conformance
