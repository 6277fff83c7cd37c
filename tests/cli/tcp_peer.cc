// SPDX-License-Identifier: Apache-2.0
#include "tests/cli/tcp_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "tests/process/process.h"

namespace verbena::testing {
namespace {

// The descriptor waits no longer than kPatience for bytes.
void LimitWaiting(int fd) {
  const timeval limit{kPatience.count(), 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

}  // namespace

BoundSocket::BoundSocket(bool listening, bool ipv6) {
  fd_ = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 address{};
  socklen_t length = ipv6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  generic->sa_family = ipv6 ? AF_INET6 : AF_INET;
  if (ipv6) {
    address.sin6_addr = in6addr_loopback;
  } else {
    reinterpret_cast<sockaddr_in*>(&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  if (bind(fd_, generic, length) != 0 || (listening && listen(fd_, 8) != 0)) return;
  getsockname(fd_, generic, &length);
  // Both families keep the port in the same place.
  port_ = ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

BoundSocket::~BoundSocket() {
  if (fd_ >= 0) close(fd_);
}

WrongServer::WrongServer(std::string answer, bool silent)
    : socket_(true), answer_(std::move(answer)), silent_(silent), thread_([this] { Serve(); }) {}

WrongServer::~WrongServer() {
  shutdown(socket_.fd(), SHUT_RDWR);  // wakes accept()
  thread_.join();
}

void WrongServer::Serve() {
  while (true) {
    const int caller = accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC);
    if (caller < 0) return;
    LimitWaiting(caller);
    std::array<char, 4096> bytes;
    if (read(caller, bytes.data(), bytes.size()) > 0) {
      (void)!write(caller, answer_.data(), answer_.size());
      while (silent_ && read(caller, bytes.data(), bytes.size()) > 0) {
      }
    }
    close(caller);
  }
}

bool SayAndBeClosed(const std::string& port, const std::string& bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  LimitWaiting(fd);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(port)));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bool closed = false;
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0) {
    (void)!send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    std::array<char, 4096> in;
    ssize_t count = 0;
    while ((count = read(fd, in.data(), in.size())) > 0) {
    }
    closed = count == 0 || errno == ECONNRESET;
  }
  close(fd);
  return closed;
}

}  // namespace verbena::testing
