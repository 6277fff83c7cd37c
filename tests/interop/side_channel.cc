// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/side_channel.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "transport/address.h"

namespace verbena::interop {

namespace {

constexpr char kHello = '!';

provider::Address Where(const std::string& host_port) {
  const auto parsed = provider::ParseHostPort(host_port);
  if (!parsed.ok()) Die(std::string(parsed.status().message()));
  const auto found = provider::Lookup(*parsed, true);
  if (!found.ok()) Die(std::string(found.status().message()));
  return found->front();
}

// Readable within `seconds`, or not.
bool Await(int socket, int seconds) {
  pollfd p{socket, POLLIN, 0};
  return poll(&p, 1, seconds * 1000) > 0;
}

int Prepared(int socket) {
  const int one = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  return socket;
}

}  // namespace

void Die(const std::string& why) {
  std::fflush(stdout);
  std::fprintf(stderr, "interop_peer: %s\n", why.c_str());
  std::exit(3);
}

SideChannel SideChannel::Listen(const std::string& host_port) {
  const provider::Address at = Where(host_port);
  const int listener = socket(at.family(), SOCK_STREAM, 0);
  const int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (bind(listener, at.raw(), at.length) != 0 || listen(listener, 1) != 0) {
    Die("side channel " + host_port + ": " + std::strerror(errno));
  }
  if (!Await(listener, 300)) Die("nobody called the side channel within 300 s");
  const int caller = accept(listener, nullptr, nullptr);
  close(listener);
  if (caller < 0) Die(std::string("side channel: ") + std::strerror(errno));
  (void)send(caller, &kHello, 1, MSG_NOSIGNAL);
  return SideChannel(Prepared(caller));
}

SideChannel SideChannel::Connect(const std::string& host_port) {
  const provider::Address to = Where(host_port);
  for (int tries = 0; tries < 1200; ++tries) {
    const int fd = socket(to.family(), SOCK_STREAM, 0);
    char hello = 0;
    // What forwards ports into a guest accepts callers before anybody there listens.
    if (connect(fd, to.raw(), to.length) == 0 && Await(fd, 5) && recv(fd, &hello, 1, 0) == 1 &&
        hello == kHello) {
      return SideChannel(Prepared(fd));
    }
    close(fd);
    (void)poll(nullptr, 0, 100);  // the other process may not listen yet
  }
  Die("side channel " + host_port + ": nobody answers");
}

SideChannel::SideChannel(SideChannel&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), read_(std::move(other.read_)) {}

SideChannel::~SideChannel() {
  if (socket_ >= 0) close(socket_);
}

std::string SideChannel::Exchange(const std::string& mine, int seconds) {
  const std::string line = mine + "\n";
  if (send(socket_, line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
    Die("the other process is gone");
  }
  size_t end;
  while ((end = read_.find('\n')) == std::string::npos) {
    if (!Await(socket_, seconds)) {
      Die("the other process says nothing for " + std::to_string(seconds) +
          " s; this one: " + mine);
    }
    char buffer[4096];
    const ssize_t n = recv(socket_, buffer, sizeof(buffer), 0);
    if (n <= 0) Die("the other process is gone");
    read_.append(buffer, static_cast<size_t>(n));
  }
  std::string theirs = read_.substr(0, end);
  read_.erase(0, end + 1);
  return theirs;
}

}  // namespace verbena::interop
