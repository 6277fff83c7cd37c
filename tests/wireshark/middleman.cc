// SPDX-License-Identifier: Apache-2.0
#include "tests/wireshark/middleman.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "gtest/gtest.h"
#include "tests/process/process.h"

namespace verbena::testing {
namespace {

constexpr size_t kHeader = 20, kFlags = 16, kLength = 18;  // of an MPA frame
constexpr size_t kRecord = 16;                             // at the end of its private data
constexpr uint8_t kCrc = 0x40;

int Patience() { return static_cast<int>(std::chrono::milliseconds(kPatience).count()); }

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

bool WriteAll(int fd, const std::vector<uint8_t>& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = send(fd, &bytes[done], bytes.size() - done, MSG_NOSIGNAL);
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

// A whole MPA frame, or what came of it.
std::vector<uint8_t> ReadFrame(int fd) {
  std::vector<uint8_t> frame(kHeader);
  for (size_t have = 0; have < frame.size();) {
    const ssize_t n = recv(fd, &frame[have], frame.size() - have, 0);
    if (n <= 0) break;
    have += static_cast<size_t>(n);
    if (have == kHeader) frame.resize(kHeader + (frame[kLength] << 8 | frame[kLength + 1]));
  }
  return frame;
}

void Apply(const Changes& changes, std::vector<uint8_t>& frame) {
  if (changes.ask_for_crc) frame[kFlags] |= kCrc;
  if (!changes.cut_record) return;
  frame.resize(frame.size() - kRecord);
  const size_t length = frame.size() - kHeader;
  frame[kLength] = static_cast<uint8_t>(length >> 8);
  frame[kLength + 1] = static_cast<uint8_t>(length);
}

// Both ways, until both have ended or one is broken.
void Relay(int a, int b) {
  pollfd ends[] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
  std::vector<uint8_t> buffer(1 << 16);
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (poll(ends, 2, Patience()) <= 0) return;
    for (int i = 0; i < 2; ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      const int other = i == 0 ? b : a;
      const ssize_t n = recv(ends[i].fd, buffer.data(), buffer.size(), 0);
      if (n < 0) return;
      if (n == 0) {
        shutdown(other, SHUT_WR);
        ends[i].fd = -1;
      } else if (!WriteAll(other, {buffer.begin(), buffer.begin() + n})) {
        return;
      }
    }
  }
}

}  // namespace

Middleman::Middleman(const std::string& to, const Changes& changes)
    : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(listener_, 1), 0);
  EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread(
      [this, port = static_cast<uint16_t>(std::stoi(to)), changes] { Run(port, changes); });
}

Middleman::~Middleman() {
  shutdown(listener_, SHUT_RDWR);
  thread_.join();
  close(listener_);
}

void Middleman::Run(uint16_t to, Changes changes) {
  const int caller = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (caller < 0) return;
  const int called = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(to);
  if (connect(called, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    const int on = 1;
    setsockopt(caller, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(called, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    std::vector<uint8_t> request = ReadFrame(caller);
    Apply(changes, request);
    if (WriteAll(called, request)) Relay(caller, called);
  }
  close(called);
  close(caller);
}

}  // namespace verbena::testing
