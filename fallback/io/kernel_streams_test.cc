// SPDX-License-Identifier: Apache-2.0
// Streams on the kernel's TCP over loopback, and the errors that people meet.
#include "fallback/io/kernel_streams.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <vector>

#include "fallback/io/socket_error.h"
#include "gtest/gtest.h"

namespace verbena::io {
namespace {

Address Ip(const char* ip, uint16_t port = 0) { return *Address::FromIp(ip, port); }

bool WaitFor(Socket socket, short events) {
  pollfd fd{socket, events, 0};
  return poll(&fd, 1, 5000) == 1;
}

int Option(Socket socket, int level, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  getsockopt(socket, level, option, &value, &size);
  return value;
}

ssize_t SendText(Streams& streams, Socket socket, std::string text) {
  const iovec piece{text.data(), text.size()};
  return streams.Send(socket, {&piece, 1});
}

// What one Receive gives, or "errno N".
std::string ReceiveText(Streams& streams, Socket socket) {
  char buffer[64];
  const iovec pieces[] = {{buffer, 2}, {buffer + 2, sizeof(buffer) - 2}};
  const ssize_t count = streams.Receive(socket, pieces);
  if (count < 0) return "errno " + std::to_string(-count);
  return std::string(buffer, count);
}

struct Pair {
  Socket listener, caller, callee;
};

class KernelStreamsTest : public testing::Test {
 protected:
  Pair Connected(const Address& at, const Address& from = {}) {
    auto listener = streams_.Listen(at, 8);
    EXPECT_TRUE(listener.ok()) << listener.status();
    auto caller = streams_.Connect(streams_.Local(*listener), from);
    EXPECT_TRUE(caller.ok()) << caller.status();
    EXPECT_TRUE(WaitFor(*caller, POLLOUT));
    EXPECT_TRUE(streams_.ConnectResult(*caller).ok());
    EXPECT_TRUE(WaitFor(*listener, POLLIN));
    const int callee = streams_.Accept(*listener);
    EXPECT_GE(callee, 0);
    EXPECT_EQ(streams_.Accept(*listener), -EAGAIN);
    return {*listener, *caller, callee};
  }
  void CloseAll(const Pair& pair) {
    for (Socket each : {pair.listener, pair.caller, pair.callee}) streams_.Close(each, false);
  }

  KernelStreams streams_;
};

// Connect, accept, a word each way, end of stream. Expect: both ends send at once (NODELAY), are
// non-blocking and close on exec, and name each other.
TEST_F(KernelStreamsTest, ConnectsAndTalks) {
  const Pair pair = Connected(Ip("127.0.0.1"), Ip("127.0.0.1"));
  for (Socket each : {pair.caller, pair.callee}) {
    EXPECT_EQ(Option(each, IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_TRUE(fcntl(each, F_GETFL) & O_NONBLOCK);
    EXPECT_TRUE(fcntl(each, F_GETFD) & FD_CLOEXEC);
  }
  EXPECT_EQ(streams_.Local(pair.caller), streams_.Peer(pair.callee));
  EXPECT_EQ(streams_.Peer(pair.caller), streams_.Local(pair.listener));

  EXPECT_EQ(ReceiveText(streams_, pair.callee), "errno " + std::to_string(EAGAIN));
  EXPECT_EQ(SendText(streams_, pair.caller, "hello"), 5);
  EXPECT_TRUE(WaitFor(pair.callee, POLLIN));
  EXPECT_EQ(ReceiveText(streams_, pair.callee), "hello");
  streams_.FinishSending(pair.caller);
  EXPECT_TRUE(WaitFor(pair.callee, POLLIN));
  EXPECT_EQ(ReceiveText(streams_, pair.callee), "");
  EXPECT_EQ(SendText(streams_, pair.callee, "bye"), 3);
  EXPECT_TRUE(WaitFor(pair.caller, POLLIN));
  EXPECT_EQ(ReceiveText(streams_, pair.caller), "bye");
  CloseAll(pair);
}

// More pieces than the kernel takes at once. Expect: a short write, no error.
TEST_F(KernelStreamsTest, ManyPiecesAreAShortWrite) {
  const Pair pair = Connected(Ip("127.0.0.1"));
  char byte = 'x';
  const std::vector<iovec> pieces(3000, iovec{&byte, 1});
  const ssize_t sent = streams_.Send(pair.caller, pieces);
  EXPECT_GT(sent, 0);
  EXPECT_LT(sent, 3000);
  CloseAll(pair);
}

// An IPv4 caller on a listener at [::]. Expect: taken, and shown as an IPv4 address.
TEST_F(KernelStreamsTest, DualStackListenerTakesIpv4) {
  auto any = provider::Lookup({"", 0}, true);
  ASSERT_TRUE(any.ok());
  if (any->front().family() != AF_INET6) GTEST_SKIP() << "this machine has no IPv6";
  auto listener = streams_.Listen(any->front(), 8);
  ASSERT_TRUE(listener.ok()) << listener.status();
  auto caller = streams_.Connect(Ip("127.0.0.1", streams_.Local(*listener).port()), {});
  ASSERT_TRUE(caller.ok()) << caller.status();
  ASSERT_TRUE(WaitFor(*listener, POLLIN));
  const int callee = streams_.Accept(*listener);
  ASSERT_GE(callee, 0);
  EXPECT_EQ(streams_.Peer(callee), streams_.Local(*caller));
  EXPECT_EQ(streams_.Peer(callee).ip(), "127.0.0.1");
  CloseAll({*listener, *caller, callee});
}

// Close with reset. Expect: the peer's read fails with ECONNRESET, its write with EPIPE, no signal.
TEST_F(KernelStreamsTest, ResetReachesThePeer) {
  const Pair pair = Connected(Ip("127.0.0.1"));
  streams_.Close(pair.caller, true);
  ASSERT_TRUE(WaitFor(pair.callee, POLLIN));
  EXPECT_EQ(ReceiveText(streams_, pair.callee), "errno " + std::to_string(ECONNRESET));
  EXPECT_EQ(SendText(streams_, pair.callee, "x"), -EPIPE);
  streams_.Close(pair.callee, false);
  streams_.Close(pair.listener, false);
}

// Expect: the bounds on silence are what the kernel is told, with the total of the keepalive kept.
TEST_F(KernelStreamsTest, Liveness) {
  const Pair pair = Connected(Ip("127.0.0.1"));
  for (const int seconds : {1, 2, 3, 8, 60, 7200}) {
    streams_.SetLiveness(pair.caller,
                         {.user_timeout = 1500000001, .keepalive = seconds * 1000000000LL});
    EXPECT_EQ(Option(pair.caller, IPPROTO_TCP, TCP_USER_TIMEOUT), 1501);
    EXPECT_EQ(Option(pair.caller, SOL_SOCKET, SO_KEEPALIVE), 1);
    EXPECT_EQ(Option(pair.caller, IPPROTO_TCP, TCP_KEEPIDLE) +
                  Option(pair.caller, IPPROTO_TCP, TCP_KEEPINTVL) *
                      Option(pair.caller, IPPROTO_TCP, TCP_KEEPCNT),
              std::max(seconds, 2));
  }
  streams_.SetLiveness(pair.caller, {});
  EXPECT_EQ(Option(pair.caller, SOL_SOCKET, SO_KEEPALIVE), 0);
  CloseAll(pair);
}

// Expect: nobody there, or somebody else there, is said with the address and the errno.
// IPv4, IPv6, and IPv4 that comes in on an IPv6 socket. Expect: the option that counts for what the
// socket carries is set (ip(7), ipv6(7)).
TEST_F(KernelStreamsTest, TrafficClass) {
  for (const bool mapped : {false, true}) {
    auto listener = streams_.Listen(Ip(mapped ? "::" : "127.0.0.1"), 8);
    ASSERT_TRUE(listener.ok()) << listener.status();
    auto caller = streams_.Connect(Ip("127.0.0.1", streams_.Local(*listener).port()), {});
    ASSERT_TRUE(caller.ok() && WaitFor(*caller, POLLOUT) && WaitFor(*listener, POLLIN));
    const Socket callee = streams_.Accept(*listener);
    for (Socket each : {*caller, callee}) {
      EXPECT_EQ(Option(each, IPPROTO_IP, IP_TOS), 0);
      streams_.SetTrafficClass(each, 0x68);
      EXPECT_EQ(Option(each, IPPROTO_IP, IP_TOS), 0x68);
    }
    CloseAll({*listener, *caller, callee});
  }
  const Pair pair = Connected(Ip("::1"));
  streams_.SetTrafficClass(pair.caller, 0x68);
  EXPECT_EQ(Option(pair.caller, IPPROTO_IPV6, IPV6_TCLASS), 0x68);
  CloseAll(pair);
}

// A listener that bounds the segments of its connections. Expect: its callee has that, less the
// timestamps of each segment; a socket that is none has what any path takes.
TEST_F(KernelStreamsTest, MaxSegment) {
  auto listener = streams_.Listen(Ip("127.0.0.1"), 8);
  ASSERT_TRUE(listener.ok()) << listener.status();
  const int bound = 1400;
  ASSERT_EQ(setsockopt(*listener, IPPROTO_TCP, TCP_MAXSEG, &bound, sizeof(bound)), 0);
  auto caller = streams_.Connect(streams_.Local(*listener), {});
  ASSERT_TRUE(caller.ok() && WaitFor(*caller, POLLOUT) && WaitFor(*listener, POLLIN));
  const Socket callee = streams_.Accept(*listener);
  for (Socket each : {*caller, callee}) {
    EXPECT_LE(streams_.MaxSegment(each), 1400u);
    EXPECT_GE(streams_.MaxSegment(each), 1360u);
  }
  CloseAll({*listener, *caller, callee});
  EXPECT_EQ(streams_.MaxSegment(-1), 536u);
}

TEST_F(KernelStreamsTest, RefusedAndInUse) {
  auto listener = streams_.Listen(Ip("127.0.0.1"), 8);
  ASSERT_TRUE(listener.ok());
  const Address at = streams_.Local(*listener);

  auto second = streams_.Listen(at, 8);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrnoOf(second.status()), EADDRINUSE);
  EXPECT_NE(second.status().message().find("listen " + at.ToString() + ": address in use"),
            std::string::npos)
      << second.status();

  streams_.Close(*listener, false);
  auto caller = streams_.Connect(at, {});
  absl::Status result = caller.status();
  if (caller.ok()) {
    ASSERT_TRUE(WaitFor(*caller, POLLOUT));
    result = streams_.ConnectResult(*caller);
    streams_.Close(*caller, false);
  }
  EXPECT_EQ(ErrnoOf(result), ECONNREFUSED);
  EXPECT_NE(result.message().find("connect " + at.ToString() + ": nobody listens there"),
            std::string::npos)
      << result;
}

// A socket that meets itself (its own port is the wanted one) is no connection.
TEST_F(KernelStreamsTest, ConnectToItselfIsRefused) {
  auto listener = streams_.Listen(Ip("127.0.0.1"), 8);  // finds a free port
  ASSERT_TRUE(listener.ok());
  const Address at = streams_.Local(*listener);
  streams_.Close(*listener, false);
  auto caller = streams_.Connect(at, at);
  ASSERT_TRUE(caller.ok()) << caller.status();
  ASSERT_TRUE(WaitFor(*caller, POLLOUT));
  EXPECT_EQ(ErrnoOf(streams_.ConnectResult(*caller)), ECONNREFUSED);
  streams_.Close(*caller, false);
}

// Addresses that are not this machine's, and two families at once.
TEST_F(KernelStreamsTest, WrongAddresses) {
  // 192.0.2.0/24 is for documentation (RFC 5737): no interface has it.
  auto listener = streams_.Listen(Ip("192.0.2.1", 7471), 8);
  EXPECT_EQ(ErrnoOf(listener.status()), EADDRNOTAVAIL);
  EXPECT_EQ(listener.status().code(), absl::StatusCode::kInvalidArgument);
  auto caller = streams_.Connect(Ip("127.0.0.1", 7471), Ip("192.0.2.1"));
  EXPECT_EQ(ErrnoOf(caller.status()), EADDRNOTAVAIL);
  EXPECT_NE(caller.status().message().find("192.0.2.1"), std::string::npos) << caller.status();
  caller = streams_.Connect(Ip("127.0.0.1", 7471), Ip("::1"));
  EXPECT_EQ(ErrnoOf(caller.status()), EAFNOSUPPORT);
}

// Without descriptors. Expect: the error gives the limit and how to raise it.
TEST_F(KernelStreamsTest, OutOfDescriptors) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 3;  // those of the test itself are taken
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  auto listener = streams_.Listen(Ip("127.0.0.1"), 8);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(listener.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(listener.status().message().find("its 3 file descriptors"), std::string::npos)
      << listener.status();
  EXPECT_NE(listener.status().message().find("ulimit -n"), std::string::npos);
}

// What root in a test cannot provoke: the table itself. Expect: kind and remedy.
TEST(SocketError, SaysWhatToDo) {
  const Address web = Ip("0.0.0.0", 80), far = Ip("10.0.0.2", 7471);
  struct Row {
    absl::Status status;
    absl::StatusCode code;
    const char* part;
  };
  const Row rows[] = {
      {SocketError(SocketAction::kListen, web, {}, EACCES), absl::StatusCode::kPermissionDenied,
       "net.ipv4.ip_unprivileged_port_start"},
      {SocketError(SocketAction::kListen, web, {}, EACCES), absl::StatusCode::kPermissionDenied,
       "listen 0.0.0.0:80: port 80 is privileged; use a port >= 1024"},
      {SocketError(SocketAction::kConnect, far, {}, EPERM), absl::StatusCode::kPermissionDenied,
       "firewall"},
      {SocketError(SocketAction::kConnect, far, {}, EHOSTUNREACH), absl::StatusCode::kUnavailable,
       "connect 10.0.0.2:7471: no way to reach it"},
      {SocketError(SocketAction::kConnect, far, {}, ETIMEDOUT), absl::StatusCode::kUnavailable,
       "timed out"},
      {SocketError(SocketAction::kConnect, far, {}, EADDRNOTAVAIL),
       absl::StatusCode::kResourceExhausted, "ip_local_port_range"},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(row.status.code(), row.code) << row.status;
    EXPECT_NE(row.status.message().find(row.part), std::string::npos) << row.status;
  }
  EXPECT_EQ(ErrnoOf(absl::OkStatus()), 0);
  EXPECT_EQ(ErrnoOf(absl::UnavailableError("other")), 0);
}

}  // namespace
}  // namespace verbena::io
