// SPDX-License-Identifier: Apache-2.0
#include "fallback/io/socket_error.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace verbena::io {
namespace {

constexpr char kErrnoPayload[] = "verbena/errno";

struct Explanation {
  absl::StatusCode code;
  std::string text;
};

Explanation OutOfDescriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return {absl::StatusCode::kResourceExhausted,
          absl::StrCat("this process has its ", limit.rlim_cur,
                       " file descriptors in use; raise the limit with `ulimit -n` (up to ",
                       limit.rlim_max, " without privileges)")};
}

Explanation NoSuchLocalAddress(SocketAction action, const Address& from) {
  if (action == SocketAction::kListen) {
    return {absl::StatusCode::kInvalidArgument,
            "no interface of this machine has that address; `ip address` lists those it has"};
  }
  if (!from.empty()) {
    return {absl::StatusCode::kInvalidArgument,
            absl::StrCat("cannot start from ", from.ToString(),
                         ": no interface has that address, or it already leads there; "
                         "`ip address` lists the addresses")};
  }
  return {absl::StatusCode::kResourceExhausted,
          "no local port is free; close connections, or widen net.ipv4.ip_local_port_range"};
}

Explanation Denied(SocketAction action, const Address& at, const Address& from) {
  const uint16_t port = action == SocketAction::kListen ? at.port() : from.port();
  if (port != 0 && port < 1024) {
    return {absl::StatusCode::kPermissionDenied,
            absl::StrCat("port ", port,
                         " is privileged; use a port >= 1024, or lower "
                         "net.ipv4.ip_unprivileged_port_start")};
  }
  return {absl::StatusCode::kPermissionDenied,
          "the system forbids it: a firewall or a security module of this machine"};
}

Explanation Explain(SocketAction action, const Address& at, const Address& from, int error) {
  switch (error) {
    case EADDRINUSE:
      if (action == SocketAction::kConnect) {
        return {absl::StatusCode::kUnavailable,
                absl::StrCat("local address ", from.ToString(), " is in use; choose another port")};
      }
      return {absl::StatusCode::kUnavailable,
              "address in use: something listens there already; choose another port, or find it "
              "with `ss -ltnp`"};
    case EACCES:
    case EPERM:
      return Denied(action, at, from);
    case EMFILE:
      return OutOfDescriptors();
    case ENFILE:
      return {absl::StatusCode::kResourceExhausted,
              "the system has no file descriptors left; raise fs.file-max"};
    case ENOBUFS:
    case ENOMEM:
      return {absl::StatusCode::kResourceExhausted, "the system has no memory for a socket"};
    case EADDRNOTAVAIL:
      return NoSuchLocalAddress(action, from);
    case EAFNOSUPPORT:
      return {absl::StatusCode::kFailedPrecondition,
              at.family() == AF_INET6
                  ? "this machine has no IPv6; use an IPv4 address"
                  : "not the same address family at both ends, or one this machine lacks"};
    case ECONNREFUSED:
      return {absl::StatusCode::kUnavailable,
              "nobody listens there (connection refused); start the server, or check the port"};
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
      return {absl::StatusCode::kUnavailable,
              absl::StrCat("no way to reach it (", strerror(error),
                           "); check the address and `ip route get ", at.ip(), "`")};
    case ETIMEDOUT:
      return {absl::StatusCode::kUnavailable,
              "no answer (timed out); check that the machine is up and no firewall drops the port"};
    case ECONNRESET:
    case EPIPE:
      return {absl::StatusCode::kUnavailable, "the other end broke the connection; try again"};
    case EINPROGRESS:
      return {absl::StatusCode::kUnavailable, "still connecting"};
    default:
      return {absl::StatusCode::kInternal, strerror(error)};
  }
}

}  // namespace

absl::Status SocketError(SocketAction action, const Address& at, const Address& from, int error) {
  const Explanation why = Explain(action, at, from, error);
  return WithErrno(
      absl::Status(why.code, absl::StrCat(action == SocketAction::kListen ? "listen " : "connect ",
                                          at.ToString(), ": ", why.text)),
      error);
}

absl::Status WithErrno(absl::Status status, int error) {
  status.SetPayload(kErrnoPayload, absl::Cord(absl::StrCat(error)));
  return status;
}

int ErrnoOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrnoPayload);
  int error = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &error)) return 0;
  return error;
}

}  // namespace verbena::io
