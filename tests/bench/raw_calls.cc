// SPDX-License-Identifier: Apache-2.0
// A remote call written by hand on a socket: numbers, a method, Protobuf bodies, and as many frames
// a system call as there are. No deadlines, no errors, one caller. What any RPC on TCP is measured
// against.
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "tests/bench/echo.pb.h"
#include "tests/bench/raw_connection.h"
#include "tests/bench/rpc_meter.h"

namespace verbena::bench {
namespace {

constexpr uint64_t kEcho = 0x6563686f;
constexpr size_t kBuffer = size_t{256} << 10;

struct Header {
  uint32_t body;  // bytes
  uint32_t call;
  uint64_t method;
};

uint64_t system_calls = 0;
uint64_t SystemCallsHere() { return system_calls; }

// Frames on their way out, in order.
class Outbox {
 public:
  void Put(uint32_t call, const Text& body) {
    const size_t bytes = body.ByteSizeLong();
    const Header header{static_cast<uint32_t>(bytes), call, kEcho};
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof(header) + bytes);
    std::memcpy(&bytes_[at], &header, sizeof(header));
    body.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(&bytes_[at + sizeof(header)]));
  }
  // As much as the socket takes.
  void Flush(int fd) {
    if (bytes_.empty()) return;
    ++system_calls;
    const ssize_t sent = send(fd, bytes_.data(), bytes_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EAGAIN) return;
    Need(sent > 0, "send");
    bytes_.erase(0, static_cast<size_t>(sent));
  }

 private:
  std::string bytes_;
};

// Frames that have come, whole ones handed on.
class Inbox {
 public:
  // False at the end of the stream.
  template <typename OnFrame>
  bool Receive(int fd, OnFrame on_frame) {
    ++system_calls;
    const ssize_t got = recv(fd, &bytes_[have_], bytes_.size() - have_, MSG_DONTWAIT);
    if (got == 0) return false;
    if (got < 0 && errno == EAGAIN) return true;
    Need(got > 0, "recv");
    have_ += static_cast<size_t>(got);
    size_t at = 0;
    for (Header header; have_ - at >= sizeof(header); at += sizeof(header) + header.body) {
      std::memcpy(&header, &bytes_[at], sizeof(header));
      if (have_ - at < sizeof(header) + header.body) break;
      if (!body_.ParseFromArray(&bytes_[at + sizeof(header)], static_cast<int>(header.body))) {
        Die("a body does not parse");
      }
      on_frame(header, body_);
    }
    std::memmove(bytes_.data(), &bytes_[at], have_ - at);
    have_ -= at;
    return true;
  }

 private:
  std::vector<char> bytes_ = std::vector<char>(kBuffer);
  size_t have_ = 0;
  Text body_;
};

void Serve(const Options& options, Shared& shared) {
  const int fd = AcceptOne(options, shared);
  const Cost cost(SystemCallsHere);
  Inbox in;
  Outbox out;
  Text answer;
  const auto serve = [&](const Header& header, const Text& request) {
    if (header.method != kEcho) Die("an unknown method");
    answer = request;
    out.Put(header.call, answer);
  };
  while (in.Receive(fd, serve)) out.Flush(fd);
  shared.server = cost.Report(0);
  close(fd);
}

Result Measure(const Options& options, Shared& shared) {
  const int fd = ConnectOne(options, shared);
  Text request;
  request.set_text(std::string(kMessage, 'x'));
  std::array<bool, kInFlight> running;
  running.fill(true);
  size_t left = kInFlight;
  Inbox in;
  Outbox out;
  Progress progress(options.seconds, kCallsALook);
  const Cost cost(SystemCallsHere);
  for (uint32_t call = 0; call < kInFlight; ++call) out.Put(call, request);
  while (left > 0) {
    out.Flush(fd);
    const bool open = in.Receive(fd, [&](const Header& header, const Text& answer) {
      if (header.call >= kInFlight || !running[header.call]) Die("an answer to no call");
      if (answer.text().size() != kMessage) Die("an answer of another length");
      running[header.call] = progress.Next();
      if (running[header.call]) {
        out.Put(header.call, request);
      } else {
        --left;
      }
    });
    if (!open) Die("the server left");
  }
  Result result = progress.Figure();
  result.client = cost.Report(progress.calls());
  shutdown(fd, SHUT_WR);
  close(fd);
  return result;
}

}  // namespace

Row BatchedCalls() { return {"calls_deep", Serve, Measure}; }

}  // namespace verbena::bench
