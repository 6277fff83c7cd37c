// SPDX-License-Identifier: Apache-2.0
// RFC 5040 8.1.1: what a completion queue that overflows does to those that do not use it.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <future>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/conformance/check.h"
#include "transport/context.h"

namespace verbena {
namespace {

using conformance::Check;

constexpr absl::Duration kLong = absl::Seconds(20);

// Two connected queue pairs of one context, that share nothing with others of it.
struct Link {
  Link(Device& device, Listener& listener, Path& path, uint32_t entries)
      : pd(Check(device.AllocateProtectionDomain())),
        region(Check(pd.Register(memory, Access::kLocalWrite))),
        near_cq(Check(device.CreateCompletionQueue({.entries = entries}))),
        far_cq(Check(device.CreateCompletionQueue({.entries = entries}))),
        near(Check(pd.CreateQueuePair({.send_cq = &near_cq, .receive_cq = &near_cq}))),
        far(Check(pd.CreateQueuePair({.send_cq = &far_cq, .receive_cq = &far_cq}))) {
    std::future<absl::Status> connected =
        std::async(std::launch::async, [&] { return path.Connect(near).status(); });
    Check(Check(listener.Next(kLong)).Accept(far));
    Check(connected.get());
  }
  void Send() {
    Check(far.PostReceive({.local = region.slice(8, 8), .id = 2}));
    Check(near.PostSend({.opcode = Opcode::kSend, .local = region.slice(0, 8), .id = 1}));
  }

  std::array<std::byte, 16> memory = {};
  ProtectionDomain pd;
  MemoryRegion region;
  CompletionQueue near_cq, far_cq;
  QueuePair near, far;
};

TEST(CompletionQueues, OverflowHarmsTheirOwnStreams) {
  // Two connections of one context. Nobody polls the queue of one, until it overflows.
  // Expect: that connection ends; the other one carries messages as before.
  Context context = Check(Context::Open({.device = "tcp"}));
  Device& device = *context.devices()[0];
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  Path path = Check(context.Resolve("127.0.0.1:" + std::to_string(listener.port())));
  Link full(device, listener, path, 4), other(device, listener, path, 64);
  for (uint32_t i = 0; i <= full.far_cq.entries(); ++i) {
    full.Send();
    Check(full.near_cq.Wait(1, kLong).status());
  }
  while (full.far.state() != QpState::kErr) Check(context.events().Next(kLong).status());
  EXPECT_EQ(full.far_cq.counters().overflows, 1u);
  for (int i = 0; i < 10; ++i) {
    other.Send();
    EXPECT_TRUE(Check(other.near_cq.Wait(1, kLong)).front().ok());
    EXPECT_TRUE(Check(other.far_cq.Wait(1, kLong)).front().ok());
  }
  EXPECT_EQ(other.far.state(), QpState::kRts);
}

TEST(CompletionQueues, OverflowTakesNoDeadlineAway) {
  // A queue pair connects to a port where nobody answers; its completion queue overflows meanwhile.
  // Expect: the connect ends at its deadline all the same.
  Context context = Check(Context::Open({.device = "tcp"}));
  Device& device = *context.devices()[0];
  Listener listener = Check(context.Listen("127.0.0.1:0"));
  Path path = Check(context.Resolve("127.0.0.1:" + std::to_string(listener.port())));
  Link full(device, listener, path, 4);
  QueuePair waiting =
      Check(full.pd.CreateQueuePair({.send_cq = &full.far_cq, .receive_cq = &full.far_cq}));
  const int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in name{.sin_family = AF_INET,
                   .sin_port = 0,
                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
                   .sin_zero = {}};
  socklen_t size = sizeof name;
  ASSERT_EQ(bind(silent, reinterpret_cast<sockaddr*>(&name), size), 0);
  ASSERT_EQ(listen(silent, 1), 0);
  ASSERT_EQ(getsockname(silent, reinterpret_cast<sockaddr*>(&name), &size), 0);
  Path nowhere = Check(context.Resolve("127.0.0.1:" + std::to_string(ntohs(name.sin_port))));
  Check(nowhere.StartConnect(waiting, {.deadline = absl::Seconds(1)}));
  for (uint32_t i = 0; i <= full.far_cq.entries(); ++i) {
    full.Send();
    Check(full.near_cq.Wait(1, kLong).status());
  }
  EventType last = EventType::kCqError;
  while (last != EventType::kUnreachable) last = Check(context.events().Next(kLong)).type;
  close(silent);
}

}  // namespace
}  // namespace verbena
