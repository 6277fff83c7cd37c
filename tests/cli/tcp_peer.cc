// SPDX-License-Identifier: Apache-2.0
#include "tests/cli/tcp_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "tests/process/process.h"

namespace verbena::testing {
namespace {

// The descriptor waits no longer than kPatience for bytes, and holds none back.
void Prepare(int fd) {
  const timeval limit{kPatience.count(), 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  const int yes = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

// What the other end does not want any more is not missed.
void SayTo(int fd, const std::string& bytes, bool one_by_one) {
  const size_t step = one_by_one ? 1 : bytes.size();
  for (size_t at = 0; at < bytes.size(); at += step) {
    if (send(fd, bytes.data() + at, step, MSG_NOSIGNAL) < 0) return;
  }
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

WrongServer::WrongServer(std::string answer, bool silent, bool one_by_one)
    : socket_(true),
      answer_(std::move(answer)),
      silent_(silent),
      one_by_one_(one_by_one),
      thread_([this] { Serve(); }) {}

WrongServer::~WrongServer() {
  shutdown(socket_.fd(), SHUT_RDWR);  // wakes accept()
  thread_.join();
}

void WrongServer::Serve() {
  while (true) {
    const int caller = accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC);
    if (caller < 0) return;
    Prepare(caller);
    std::array<char, 4096> bytes;
    if (read(caller, bytes.data(), bytes.size()) > 0) {
      SayTo(caller, answer_, one_by_one_);
      while (silent_ && read(caller, bytes.data(), bytes.size()) > 0) {
      }
    }
    close(caller);
  }
}

Caller::Caller(const std::string& port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  Prepare(fd_);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(port)));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) close(std::exchange(fd_, -1));
}

Caller::~Caller() {
  if (fd_ >= 0) close(fd_);
}

std::string Caller::address() const {
  sockaddr_in mine{};
  socklen_t length = sizeof mine;
  getsockname(fd_, reinterpret_cast<sockaddr*>(&mine), &length);
  return "127.0.0.1:" + std::to_string(ntohs(mine.sin_port));
}

void Caller::Say(const std::string& bytes, bool one_by_one) { SayTo(fd_, bytes, one_by_one); }

std::string Caller::Hear(size_t size) {
  std::string bytes(size, '\0');
  const ssize_t count = recv(fd_, bytes.data(), size, MSG_WAITALL);
  bytes.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return bytes;
}

bool Caller::HasHeard() const {
  char byte;
  return recv(fd_, &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0;
}

bool Caller::HearOut(std::string* bytes) {
  std::array<char, 4096> in;
  ssize_t count = 0;
  while ((count = read(fd_, in.data(), in.size())) > 0) {
    if (bytes != nullptr) bytes->append(in.data(), static_cast<size_t>(count));
  }
  return count == 0 || errno == ECONNRESET;
}

void Caller::HalfClose() { shutdown(fd_, SHUT_WR); }

void Caller::Reset() {
  const linger at_once{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(std::exchange(fd_, -1));
}

bool SayAndBeClosed(const std::string& port, const std::string& bytes) {
  Caller caller(port);
  caller.Say(bytes);
  return caller.HearOut();
}

}  // namespace verbena::testing
