// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/kernel_streams.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "fallback/io/socket_error.h"

#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace verbena::io {
namespace {

// What one end did before it sent comes before what the other does with what it received, also when
// both are threads of one process, as in tests. ThreadSanitizer does not see through TCP.
#if defined(__SANITIZE_THREAD__)
char the_network;
void BeforeOtherEnd() { __tsan_release(&the_network); }
void AfterOtherEnd() { __tsan_acquire(&the_network); }
#else
void BeforeOtherEnd() {}
void AfterOtherEnd() {}
#endif

constexpr Nanos kMillisecond = 1000000;
constexpr Nanos kSecond = 1000 * kMillisecond;
constexpr uint32_t kDefaultMaxSegment = 536;   // RFC 9293 3.7.1: any path takes it
constexpr Nanos kMaxTotal = 4 * Nanos{32767};  // seconds of keepalive: idle and three probes

// The options set here exist on every TCP socket, and a refusal would change timing, not results.
void SetOption(int fd, int level, int option, int value) {
  (void)setsockopt(fd, level, option, &value, sizeof(value));
}

int NewSocket(int family) {
  return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
}

// Closes what a failed set-up leaves and tells why. `error` is read before close() changes errno.
absl::Status Abandon(int fd, SocketAction action, const Address& at, const Address& from,
                     int error) {
  close(fd);
  return SocketError(action, at, from, error);
}

msghdr Message(std::span<const iovec> pieces) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());  // neither call writes to it
  message.msg_iovlen = std::min<size_t>(pieces.size(), IOV_MAX);
  return message;
}

// One piece goes by the bare call: nothing for the kernel to copy in, and no cancellation point.
// But of that call a sanitizer does not see what it reads and writes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

ssize_t ReceiveOnce(Socket socket, std::span<const iovec> into) {
  if (into.size() == 1 && !kWatched) {
    return syscall(SYS_recvfrom, socket, into[0].iov_base, into[0].iov_len, 0, nullptr, nullptr);
  }
  msghdr message = Message(into);
  return recvmsg(socket, &message, 0);
}

ssize_t SendOnce(Socket socket, std::span<const iovec> from) {
  if (from.size() == 1 && !kWatched) {
    return syscall(SYS_sendto, socket, from[0].iov_base, from[0].iov_len, MSG_NOSIGNAL, nullptr, 0);
  }
  const msghdr message = Message(from);
  return sendmsg(socket, &message, MSG_NOSIGNAL);
}

// Errors of the connection that was about to be accepted, not of the listener: accept(2) says
// to treat them as if it had not come.
bool ConcernsOneCaller(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::StatusOr<Socket> KernelStreams::Connect(const Address& to, const Address& from) {
  const SocketAction action = SocketAction::kConnect;
  if (!from.empty() && from.family() != to.family()) {
    return SocketError(action, to, from, EAFNOSUPPORT);
  }
  const int fd = NewSocket(to.family());
  if (fd < 0) return SocketError(action, to, from, errno);
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (!from.empty()) {
    if (from.port() == 0) {
      // The port is chosen at connect, when the far address is known: one port serves many peers.
      SetOption(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    } else {
      SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);  // a connection in TIME_WAIT is no hindrance
    }
    if (bind(fd, from.raw(), from.length) != 0) return Abandon(fd, action, to, from, errno);
  }
  // Interrupted, a connect goes on by itself, as one in progress does.
  if (connect(fd, to.raw(), to.length) != 0 && errno != EINPROGRESS && errno != EINTR) {
    return Abandon(fd, action, to, from, errno);
  }
  std::lock_guard lock(mutex_);
  connecting_[fd] = Attempt{to, from};
  return fd;
}

absl::Status KernelStreams::ConnectResult(Socket socket) {
  Attempt attempt;
  {
    std::lock_guard lock(mutex_);
    const auto found = connecting_.find(socket);
    if (found != connecting_.end()) attempt = found->second;
  }
  int error = 0;
  socklen_t size = sizeof(error);
  if (getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error == 0) {
    const Address peer = Peer(socket);
    if (peer.empty()) error = EINPROGRESS;  // asked before it was writable
    // TCP lets a socket meet itself when a local port happens to be the wanted one
    // (RFC 9293 3.5, simultaneous open). Nobody listened.
    if (!peer.empty() && peer == Local(socket)) error = ECONNREFUSED;
  }
  if (error != EINPROGRESS) {
    std::lock_guard lock(mutex_);
    connecting_.erase(socket);
  }
  if (error == 0) return absl::OkStatus();
  return SocketError(SocketAction::kConnect, attempt.to, attempt.from, error);
}

absl::StatusOr<Socket> KernelStreams::Listen(const Address& at, int backlog) {
  const SocketAction action = SocketAction::kListen;
  const int fd = NewSocket(at.family());
  if (fd < 0) return SocketError(action, at, {}, errno);
  SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);  // restart while old connections are in TIME_WAIT
  if (at.family() == AF_INET6) SetOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, at.is_any() ? 0 : 1);
  if (bind(fd, at.raw(), at.length) != 0 || listen(fd, backlog) != 0) {
    return Abandon(fd, action, at, {}, errno);
  }
  return fd;
}

int KernelStreams::Accept(Socket listener) {
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
      return fd;
    }
    if (!ConcernsOneCaller(errno)) return -errno;
  }
}

ssize_t KernelStreams::Receive(Socket socket, std::span<const iovec> into) {
  for (;;) {
    AfterOtherEnd();  // the sanitizer takes the call itself for the write
    const ssize_t count = ReceiveOnce(socket, into);
    AfterOtherEnd();
    if (count >= 0) return count;
    if (errno != EINTR) return -errno;
  }
}

ssize_t KernelStreams::Send(Socket socket, std::span<const iovec> from) {
  BeforeOtherEnd();
  for (;;) {
    const ssize_t count = SendOnce(socket, from);
    if (count >= 0) return count;
    if (errno != EINTR) return -errno;
  }
}

void KernelStreams::FinishSending(Socket socket) { shutdown(socket, SHUT_WR); }

void KernelStreams::Close(Socket socket, bool reset) {
  {
    // Before close(): after it, another thread may be given the same number.
    std::lock_guard lock(mutex_);
    connecting_.erase(socket);
  }
  if (reset) {
    const linger at_once{1, 0};
    (void)setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  }
  close(socket);
}

void KernelStreams::SetLiveness(Socket socket, const Liveness& liveness) {
  const Nanos timeout_ms = (liveness.user_timeout + kMillisecond - 1) / kMillisecond;
  SetOption(socket, IPPROTO_TCP, TCP_USER_TIMEOUT,
            static_cast<int>(std::min<Nanos>(timeout_ms, INT_MAX)));
  if (liveness.keepalive <= 0) {
    SetOption(socket, SOL_SOCKET, SO_KEEPALIVE, 0);
    return;
  }
  // Idle time plus the probes make the bound; the kernel takes each in whole seconds.
  const Nanos bound = (liveness.keepalive - 1) / kSecond + 1;
  const int total = static_cast<int>(std::clamp<Nanos>(bound, 2, kMaxTotal));
  const int interval = std::max(1, total / 4);
  const int probes = std::min(3, (total - 1) / interval);
  SetOption(socket, IPPROTO_TCP, TCP_KEEPINTVL, interval);
  SetOption(socket, IPPROTO_TCP, TCP_KEEPCNT, probes);
  SetOption(socket, IPPROTO_TCP, TCP_KEEPIDLE, std::min(total - probes * interval, 32767));
  SetOption(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
}

// An IPv6 socket may carry IPv4, from a listener for both: then IP_TOS counts (ip(7)), else
// IPV6_TCLASS. The kernel keeps the two ECN bits of a TCP socket to itself.
void KernelStreams::SetTrafficClass(Socket socket, uint8_t traffic_class) {
  SetOption(socket, IPPROTO_IP, IP_TOS, traffic_class);
  SetOption(socket, IPPROTO_IPV6, IPV6_TCLASS, traffic_class);
}

uint32_t KernelStreams::MaxSegment(Socket socket) const {
  int bytes = 0;
  socklen_t size = sizeof(bytes);
  const bool known = getsockopt(socket, IPPROTO_TCP, TCP_MAXSEG, &bytes, &size) == 0 && bytes > 0;
  return known ? static_cast<uint32_t>(bytes) : kDefaultMaxSegment;
}

Address KernelStreams::Local(Socket socket) const {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  auto* raw = reinterpret_cast<sockaddr*>(&storage);
  return getsockname(socket, raw, &length) == 0 ? Address::From(raw, length) : Address();
}

Address KernelStreams::Peer(Socket socket) const {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  auto* raw = reinterpret_cast<sockaddr*>(&storage);
  return getpeername(socket, raw, &length) == 0 ? Address::From(raw, length) : Address();
}

}  // namespace verbena::io
