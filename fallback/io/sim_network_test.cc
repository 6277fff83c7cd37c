// SPDX-License-Identifier: Apache-2.0
// The simulated network by itself: what its streams do, moved by hand with Advance.
#include "fallback/io/sim_network.h"

#include <errno.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fallback/io/socket_error.h"
#include "gtest/gtest.h"

namespace verbena::io {
namespace {

constexpr Nanos kMs = 1'000'000;
constexpr Nanos kSecond = 1000 * kMs;

Address Ip(const char* ip, uint16_t port = 0) { return *Address::FromIp(ip, port); }

ssize_t Send(World& world, Socket socket, std::string text) {
  const iovec piece{text.data(), text.size()};
  return world.streams().Send(socket, {&piece, 1});
}

ssize_t Receive(World& world, Socket socket, std::string& text, size_t room = 4096) {
  std::vector<char> buffer(room);
  const iovec pieces[] = {{buffer.data(), room / 3}, {buffer.data() + room / 3, room - room / 3}};
  const ssize_t count = world.streams().Receive(socket, pieces);
  if (count > 0) text.append(buffer.data(), count);
  return count;
}

// Two nodes with one connection from the first to the second.
struct Net {
  explicit Net(SimOptions options, const char* a_ip = "10.0.0.1", const char* b_ip = "10.0.0.2")
      : network(options), a(network.NewWorld(a_ip)), b(network.NewWorld(b_ip)) {
    listener = *b->streams().Listen(Ip(b_ip), 4);
    caller = *a->streams().Connect(b->streams().Local(listener), {});
    network.Advance(10 * kMs);
    EXPECT_TRUE(a->streams().ConnectResult(caller).ok());
    callee = b->streams().Accept(listener);
    EXPECT_GE(callee, 0);
  }
  SimNetwork network;
  std::unique_ptr<World> a, b;
  Socket listener, caller, callee;
};

std::string Pattern(size_t size) {
  std::string bytes(size, 0);
  uint32_t x = 12345;
  for (char& byte : bytes) byte = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  return bytes;
}

// Sends `bytes`, reads them at the other end while time goes on in steps. The trace has each call's
// result and instant.
std::pair<std::string, std::string> Transfer(Net& net, const std::string& bytes) {
  std::string got, trace;
  size_t sent = 0;
  for (int step = 0; got.size() < bytes.size() && step < 100000; ++step) {
    if (sent < bytes.size()) {
      const ssize_t count = Send(*net.a, net.caller, bytes.substr(sent, 1500));
      if (count > 0) sent += count;
      trace += std::to_string(net.network.Now()) + " s" + std::to_string(count) + "\n";
    }
    const ssize_t count = Receive(*net.b, net.callee, got);
    if (count != -EAGAIN) trace += "r" + std::to_string(count) + "\n";
    net.network.Advance(7000);
  }
  return {got, trace};
}

// Many seeds. Expect: every byte in its place, whatever was done to them; and much was done.
TEST(SimNetwork, KeepsOrderAndContent) {
  SimInjected total;
  const std::string bytes = Pattern(20000);
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SimOptions options;
    options.seed = seed;
    options.capacity = 5000;
    Net net(options);
    ASSERT_EQ(Transfer(net, bytes).first, bytes) << net.network.Describe();
    const SimInjected injected = net.network.injected();
    total.partial_reads += injected.partial_reads;
    total.short_writes += injected.short_writes;
    total.delays += injected.delays;
    total.would_blocks += injected.would_blocks;
    EXPECT_EQ(injected.resets, 0u);
  }
  EXPECT_GT(total.partial_reads, 100u);
  EXPECT_GT(total.short_writes, 100u);
  EXPECT_GT(total.delays, 100u);
  EXPECT_GT(total.would_blocks, 20u);
}

// Expect: one seed, one run; another seed, another run.
TEST(SimNetwork, SameSeedSameTrace) {
  const std::string bytes = Pattern(5000);
  std::vector<std::string> traces;
  for (uint64_t seed : {7, 7, 8}) {
    SimOptions options;
    options.seed = seed;
    Net net(options);
    traces.push_back(Transfer(net, bytes).second + net.network.Describe());
  }
  EXPECT_EQ(traces[0], traces[1]);
  EXPECT_NE(traces[0], traces[2]);
}

// Expect: nothing arrives before the latency, everything by latency and delay; Calm injects
// nothing.
TEST(SimNetwork, Latency) {
  SimOptions calm = SimOptions::Calm();
  Net net(calm);
  std::string got;
  EXPECT_EQ(Send(*net.a, net.caller, "hello"), 5);
  EXPECT_EQ(Receive(*net.b, net.callee, got), -EAGAIN);
  net.network.Advance(calm.latency - 1);
  EXPECT_EQ(Receive(*net.b, net.callee, got), -EAGAIN);
  net.network.Advance(1);
  EXPECT_EQ(Receive(*net.b, net.callee, got), 5);
  EXPECT_EQ(net.network.Describe(),
            "seed 1: 0 partial reads, 0 short writes, 0 resets, 0 delays, 0 would-blocks, "
            "0 losses, 0 duplicates");
}

TEST(SimNetwork, CapacityBoundsWhatIsUnderWay) {
  SimOptions options = SimOptions::Calm();
  options.capacity = 1000;
  Net net(options);
  EXPECT_EQ(Send(*net.a, net.caller, Pattern(1500)), 1000);
  EXPECT_EQ(Send(*net.a, net.caller, "x"), -EAGAIN);
  net.network.Advance(kMs);
  EXPECT_EQ(Send(*net.a, net.caller, "x"), -EAGAIN);  // arrived, not read
  std::string got;
  EXPECT_EQ(Receive(*net.b, net.callee, got, 300), 300);
  EXPECT_EQ(Send(*net.a, net.caller, Pattern(1500)), 300);
}

// Half-close both ways, then close. Expect: data, then 0, again and again.
TEST(SimNetwork, EndOfStreamAfterTheData) {
  Net net(SimOptions::Calm());
  Send(*net.a, net.caller, "bye");
  net.a->streams().FinishSending(net.caller);
  EXPECT_EQ(Send(*net.a, net.caller, "x"), -EPIPE);
  std::string got;
  EXPECT_EQ(Receive(*net.b, net.callee, got), -EAGAIN);
  net.network.Advance(kMs);
  EXPECT_EQ(Receive(*net.b, net.callee, got), 3);
  EXPECT_EQ(Receive(*net.b, net.callee, got), 0);
  EXPECT_EQ(Receive(*net.b, net.callee, got), 0);
  EXPECT_EQ(Send(*net.b, net.callee, "ok"), 2);  // the other direction goes on
  net.b->streams().Close(net.callee, false);
  net.network.Advance(kMs);
  got.clear();
  EXPECT_EQ(Receive(*net.a, net.caller, got), 2);
  EXPECT_EQ(Receive(*net.a, net.caller, got), 0);
  EXPECT_EQ(Receive(*net.b, net.callee, got), -EBADF);
}

// Expect: a reset comes after what arrived before it, once; then end of stream and EPIPE.
TEST(SimNetwork, CloseWithReset) {
  Net net(SimOptions::Calm());
  std::string got;
  Send(*net.a, net.caller, "arrives");
  net.network.Advance(kMs);
  Send(*net.a, net.caller, "does not");
  net.a->streams().Close(net.caller, true);
  net.network.Advance(kMs);
  EXPECT_EQ(Receive(*net.b, net.callee, got), 7);
  EXPECT_EQ(Receive(*net.b, net.callee, got), -ECONNRESET);
  EXPECT_EQ(Receive(*net.b, net.callee, got), 0);
  EXPECT_EQ(Send(*net.b, net.callee, "x"), -EPIPE);
  EXPECT_EQ(got, "arrives");
}

// Close with bytes unread. Expect: a reset instead of an end, what was sent before arrives.
TEST(SimNetwork, CloseWithUnreadDataResets) {
  Net net(SimOptions::Calm());
  std::string got;
  Send(*net.a, net.caller, "never read");
  Send(*net.b, net.callee, "last words");
  net.network.Advance(kMs);
  net.b->streams().Close(net.callee, false);
  net.network.Advance(kMs);
  EXPECT_EQ(Receive(*net.a, net.caller, got), 10);
  EXPECT_EQ(Receive(*net.a, net.caller, got), -ECONNRESET);
}

// Sending to an end that is closed. Expect: taken, answered by a reset; reads see the orderly end.
TEST(SimNetwork, SendAfterThePeerClosed) {
  Net net(SimOptions::Calm());
  std::string got;
  net.b->streams().Close(net.callee, false);
  net.network.Advance(kMs);
  EXPECT_EQ(Send(*net.a, net.caller, "x"), 1);
  net.network.Advance(kMs);
  EXPECT_EQ(Receive(*net.a, net.caller, got), 0);
  EXPECT_EQ(Send(*net.a, net.caller, "x"), -EPIPE);
}

TEST(SimNetwork, ResetBreaksBothEnds) {
  Net net(SimOptions::Calm());
  std::string got;
  EXPECT_TRUE(net.network.ResetOne());
  EXPECT_FALSE(net.network.ResetOne());
  EXPECT_FALSE(net.network.Reset(net.caller));
  EXPECT_EQ(Receive(*net.a, net.caller, got), -ECONNRESET);
  EXPECT_EQ(Send(*net.b, net.callee, "x"), -ECONNRESET);
  EXPECT_EQ(net.network.injected().resets, 1u);

  SimOptions options;
  options.reset_probability = 1;
  options.would_block = 0;
  Net fragile(options);
  EXPECT_EQ(Send(*fragile.a, fragile.caller, "x"), -ECONNRESET);
  EXPECT_EQ(Receive(*fragile.b, fragile.callee, got), -ECONNRESET);
}

TEST(SimNetwork, ConnectErrors) {
  SimNetwork network(SimOptions::Calm());
  auto a = network.NewWorld("10.0.0.1"), b = network.NewWorld("10.0.0.2");
  const auto outcome = [&](const Address& to, const Address& from) {
    auto socket = a->streams().Connect(to, from);
    if (!socket.ok()) return ErrnoOf(socket.status());
    EXPECT_EQ(ErrnoOf(a->streams().ConnectResult(*socket)), EINPROGRESS);
    network.Advance(kMs);
    const int error = ErrnoOf(a->streams().ConnectResult(*socket));
    a->streams().Close(*socket, false);
    return error;
  };
  EXPECT_EQ(outcome(Ip("10.0.0.2", 7471), {}), ECONNREFUSED);
  EXPECT_EQ(outcome(Ip("10.0.0.9", 7471), {}), EHOSTUNREACH);
  EXPECT_EQ(outcome(Ip("10.0.0.2", 7471), Ip("10.0.0.2")), EADDRNOTAVAIL);
  EXPECT_EQ(outcome(Ip("fd00::2", 7471), {}), ENETUNREACH);

  const Socket listener = *b->streams().Listen(Ip("0.0.0.0", 7471), 4);
  EXPECT_EQ(ErrnoOf(b->streams().Listen(Ip("10.0.0.2", 7471), 4).status()), EADDRINUSE);
  EXPECT_EQ(ErrnoOf(b->streams().Listen(Ip("10.0.0.1", 1), 4).status()), EADDRNOTAVAIL);
  EXPECT_TRUE(a->streams().Listen(Ip("10.0.0.1", 7471), 4).ok());  // another node
  EXPECT_EQ(outcome(Ip("10.0.0.2", 7471), Ip("10.0.0.1", 5000)), 0);
  b->streams().Close(listener, false);
  EXPECT_EQ(outcome(Ip("10.0.0.2", 7471), {}), ECONNREFUSED);
}

// A node talks to itself by its loopback address; IPv6 nodes; two worlds at one address.
TEST(SimNetwork, Addresses) {
  SimNetwork network(SimOptions::Calm());
  auto one = network.NewWorld("fd00::1"), twin = network.NewWorld("fd00::1");
  const Socket listener = *one->streams().Listen(Ip("::"), 4);
  const uint16_t port = one->streams().Local(listener).port();
  EXPECT_NE(port, 0);
  const Socket caller = *twin->streams().Connect(Ip("::1", port), {});
  network.Advance(kMs);
  EXPECT_TRUE(twin->streams().ConnectResult(caller).ok());
  const Socket callee = one->streams().Accept(listener);
  EXPECT_EQ(one->streams().Local(callee).ToString(), "[fd00::1]:" + std::to_string(port));
  EXPECT_EQ(one->streams().Peer(callee), twin->streams().Local(caller));
}

// A world that goes away takes its connections along.
TEST(SimNetwork, WorldDies) {
  Net net(SimOptions::Calm());
  std::string got;
  net.b.reset();
  net.network.Advance(kMs);
  EXPECT_EQ(Receive(*net.a, net.caller, got), -ECONNRESET);
}

// A short partition. Expect: nothing passes, then everything does, in order.
TEST(SimNetwork, PartitionKeepsAndReleases) {
  Net net(SimOptions::Calm());
  std::string got;
  net.network.Partition("10.0.0.1", "10.0.0.2", true);
  Send(*net.a, net.caller, "held");
  net.a->streams().FinishSending(net.caller);
  net.network.Advance(10 * kSecond);
  EXPECT_EQ(Receive(*net.b, net.callee, got), -EAGAIN);
  net.network.Partition("10.0.0.2", "10.0.0.1", false);
  EXPECT_EQ(Receive(*net.b, net.callee, got), -EAGAIN);
  net.network.Advance(kMs);
  EXPECT_EQ(Receive(*net.b, net.callee, got), 4);
  EXPECT_EQ(Receive(*net.b, net.callee, got), 0);
}

// A long one. Expect: unacknowledged data time out after user_timeout, an idle connection after
// keepalive, one without bounds waits.
TEST(SimNetwork, PartitionAndLiveness) {
  Net net(SimOptions::Calm());
  std::string got;
  net.a->streams().SetLiveness(net.caller, {.user_timeout = 3 * kSecond, .keepalive = kSecond});
  net.network.Partition("10.0.0.1", "10.0.0.2", true);
  Send(*net.a, net.caller, "x");
  net.network.Advance(3 * kSecond - kMs);
  EXPECT_EQ(Receive(*net.a, net.caller, got), -EAGAIN);
  net.network.Advance(kMs);
  EXPECT_EQ(Receive(*net.a, net.caller, got), -ETIMEDOUT);
  EXPECT_EQ(Receive(*net.b, net.callee, got), -EAGAIN);

  Net idle(SimOptions::Calm());
  idle.b->streams().SetLiveness(idle.callee, {.user_timeout = 9 * kSecond, .keepalive = kSecond});
  idle.network.Advance(100 * kSecond);  // silence without a partition is none
  EXPECT_EQ(Receive(*idle.b, idle.callee, got), -EAGAIN);
  idle.network.Partition("10.0.0.1", "10.0.0.2", true);
  idle.network.Advance(kSecond);
  EXPECT_EQ(Receive(*idle.b, idle.callee, got), -ETIMEDOUT);
  EXPECT_EQ(Receive(*idle.a, idle.caller, got), -EAGAIN);
  // Healed: the first word to the end that gave up is answered by a reset.
  idle.network.Partition("10.0.0.1", "10.0.0.2", false);
  Send(*idle.a, idle.caller, "still there?");
  idle.network.Advance(kMs);
  EXPECT_EQ(Receive(*idle.a, idle.caller, got), -ECONNRESET);
}

// Connecting into a partition: the caller's bound, or the system's.
TEST(SimNetwork, ConnectTimesOut) {
  SimNetwork network(SimOptions::Calm());
  auto a = network.NewWorld("10.0.0.1"), b = network.NewWorld("10.0.0.2");
  const Socket listener = *b->streams().Listen(Ip("10.0.0.2", 7471), 4);
  network.Partition("10.0.0.1", "10.0.0.2", true);
  const Socket caller = *a->streams().Connect(b->streams().Local(listener), {});
  a->streams().SetLiveness(caller, {.user_timeout = kSecond});
  network.Advance(2 * kSecond);
  const absl::Status status = a->streams().ConnectResult(caller);
  EXPECT_EQ(ErrnoOf(status), ETIMEDOUT);
  EXPECT_NE(status.message().find("connect 10.0.0.2:7471: no answer"), std::string::npos) << status;
}

}  // namespace
}  // namespace verbena::io
