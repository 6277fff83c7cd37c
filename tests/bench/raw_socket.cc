// SPDX-License-Identifier: Apache-2.0
// The reference that Verbena's figures are held against: the same work on a TCP socket of the
// kernel, without anything in between. TCP_NODELAY, 127.0.0.1, one thread a side.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "tests/bench/sides.h"

namespace verbena::bench {
namespace {

enum class How { kSpin, kBlock, kPoll };  // kPoll: poll(2) before each receive

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

void Need(bool good, const char* what) {
  if (!good) Die(std::string(what) + ": " + std::strerror(errno));
}

int WithoutDelay(int fd) {
  const int on = 1;
  Need(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
  return fd;
}

int AcceptOne(Shared& shared) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(0);
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

int ConnectOne(const Shared& shared) {
  const sockaddr_in address = Loopback(WaitForPort(shared));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  Need(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0, "connect");
  return WithoutDelay(fd);
}

// Exactly `n` bytes; false at the end of the stream.
bool ReceiveAll(int fd, char* into, size_t n, How how) {
  const int flags = how == How::kBlock ? 0 : MSG_DONTWAIT;
  while (n > 0) {
    pollfd readable{fd, POLLIN, 0};
    if (how == How::kPoll) Need(poll(&readable, 1, -1) == 1, "poll");
    const ssize_t got = recv(fd, into, n, flags);
    if (got == 0) return false;
    if (got < 0 && errno == EAGAIN) continue;
    Need(got > 0, "recv");
    into += got;
    n -= static_cast<size_t>(got);
  }
  return true;
}

void SendAll(int fd, const char* from, size_t n, How how) {
  const int flags = MSG_NOSIGNAL | (how == How::kSpin ? MSG_DONTWAIT : 0);
  while (n > 0) {
    const ssize_t sent = send(fd, from, n, flags);
    if (sent < 0 && errno == EAGAIN) continue;
    Need(sent > 0, "send");
    from += sent;
    n -= static_cast<size_t>(sent);
  }
}

Row PingPong(const char* name, How how) {
  Row row;
  row.name = name;
  row.serve = [how](const Options&, Shared& shared) {
    char ball[kSmall];
    const int fd = AcceptOne(shared);
    while (ReceiveAll(fd, ball, kSmall, how)) SendAll(fd, ball, kSmall, how);
    close(fd);
  };
  row.measure = [how](const Options& options, Shared& shared) {
    char ball[kSmall] = {};
    Samples samples;
    const int fd = ConnectOne(shared);
    const Clock clock(options.seconds);
    for (uint64_t begin = NowNs(); !clock.over(begin) || samples.empty();) {
      SendAll(fd, ball, kSmall, how);
      if (!ReceiveAll(fd, ball, kSmall, how)) Die("the server left");
      const uint64_t end = NowNs();
      if (clock.warm(begin)) samples.Add(end - begin);
      begin = end;
    }
    close(fd);
    return Latency(samples);
  };
  return row;
}

// One way, `unit` bytes a call, into a buffer of 1 MiB; the receiver counts.
Row Stream(const char* name, How how, size_t unit) {
  Row row;
  row.name = name;
  row.serve = [how](const Options& options, Shared& shared) {
    std::vector<char> into(kLarge);
    const int fd = AcceptOne(shared);
    const int flags = how == How::kSpin ? MSG_DONTWAIT : 0;
    const Clock clock(options.seconds);
    uint64_t begin = 0, end = 0, bytes = 0, now = 0;
    for (;;) {
      const ssize_t got = recv(fd, into.data(), into.size(), flags);
      if (got == 0) break;
      if (got < 0 && errno == EAGAIN) continue;
      Need(got > 0, "recv");
      now = NowNs();
      if (shared.stop.load(std::memory_order_relaxed)) continue;  // drain what is under way
      if (begin != 0) bytes += static_cast<uint64_t>(got);
      if (begin == 0 && clock.warm(now)) begin = now;
      end = now;
      if (clock.over(now) && bytes > 0) shared.stop.store(true, std::memory_order_relaxed);
    }
    shared.bytes_per_second = static_cast<double>(bytes) * 1e9 / static_cast<double>(end - begin);
    close(fd);  // which the client waits for
  };
  row.measure = [how, unit](const Options&, Shared& shared) {
    const std::vector<char> from(unit);
    const int fd = ConnectOne(shared);
    while (!shared.stop.load(std::memory_order_relaxed)) SendAll(fd, from.data(), unit, how);
    shutdown(fd, SHUT_WR);
    char end;
    while (recv(fd, &end, 1, 0) > 0) {
    }
    close(fd);
    Result result;
    result.unit = unit == kLarge ? "GB/s" : "M/s";
    result.value = shared.bytes_per_second / (unit == kLarge ? 1e9 : 1e6 * kMessage);
    return result;
  };
  return row;
}

}  // namespace
}  // namespace verbena::bench

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  return Main(
      argc, argv,
      {PingPong("ping_spin", How::kSpin), PingPong("ping_block", How::kBlock),
       PingPong("ping_poll", How::kPoll), Stream("stream_spin", How::kSpin, kLarge),
       Stream("stream_block", How::kBlock, kLarge), Stream("messages", How::kSpin, kMessage)});
}
