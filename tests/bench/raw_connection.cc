// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/raw_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace verbena::bench {
namespace {

sockaddr_in At(const Options& options, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (inet_pton(AF_INET, options.address.c_str(), &address.sin_addr) != 1) Die("--address: IPv4");
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

int WithoutDelay(int fd) {
  const int on = 1;
  Need(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
  return fd;
}

}  // namespace

void Need(bool good, const char* what) {
  if (!good) Die(std::string(what) + ": " + std::strerror(errno));
}

int AcceptOne(const Options& options, Shared& shared) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = At(options, 0);
  socklen_t size = sizeof(address);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  Need(bind(listener, raw, size) == 0 && listen(listener, 1) == 0, "listen");
  Need(getsockname(listener, raw, &size) == 0, "getsockname");
  shared.port.store(ntohs(address.sin_port), std::memory_order_release);
  const int fd = accept(listener, nullptr, nullptr);
  Need(fd >= 0, "accept");
  close(listener);
  return WithoutDelay(fd);
}

int ConnectOne(const Options& options, const Shared& shared) {
  const sockaddr_in address = At(options, WaitForPort(shared));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  Need(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0, "connect");
  return WithoutDelay(fd);
}

}  // namespace verbena::bench
