// SPDX-License-Identifier: Apache-2.0
// The reference that Verbena's figures are held against: the same work on a TCP socket of the
// kernel, without anything in between. TCP_NODELAY, one thread a side.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "tests/bench/raw_connection.h"
#include "tests/bench/sides.h"

namespace verbena::bench {
namespace {

enum class How { kSpin, kBlock, kEpoll };  // kEpoll: epoll_wait(2) before each receive

// Waits for one socket in a set of its own, or does nothing.
class Waiter {
 public:
  Waiter(int fd, How how) : set_(how == How::kEpoll ? epoll_create1(EPOLL_CLOEXEC) : -1) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (set_ >= 0) Need(epoll_ctl(set_, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
  }
  ~Waiter() {
    if (set_ >= 0) close(set_);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  void Wait() const {
    epoll_event event;
    if (set_ >= 0) Need(epoll_wait(set_, &event, 1, -1) == 1, "epoll_wait");
  }

 private:
  const int set_;
};

// Exactly `n` bytes; false at the end of the stream.
bool ReceiveAll(int fd, char* into, size_t n, How how, const Waiter& waiter) {
  const int flags = how == How::kBlock ? 0 : MSG_DONTWAIT;
  while (n > 0) {
    waiter.Wait();
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

using Figure = Result (*)(Samples&);

Row PingPong(const char* name, How how, Figure figure = Latency) {
  Row row;
  row.name = name;
  row.serve = [how](const Options& options, Shared& shared) {
    char ball[kSmall];
    const int fd = AcceptOne(options, shared);
    const Waiter waiter(fd, how);
    while (ReceiveAll(fd, ball, kSmall, how, waiter)) SendAll(fd, ball, kSmall, how);
    close(fd);
  };
  row.measure = [how, figure](const Options& options, Shared& shared) {
    char ball[kSmall] = {};
    Samples samples;
    const int fd = ConnectOne(options, shared);
    const Waiter waiter(fd, how);
    const Clock clock(options.seconds);
    for (uint64_t begin = NowNs(); !clock.over(begin) || samples.empty();) {
      SendAll(fd, ball, kSmall, how);
      if (!ReceiveAll(fd, ball, kSmall, how, waiter)) Die("the server left");
      const uint64_t end = NowNs();
      if (clock.warm(begin)) samples.Add(end - begin);
      begin = end;
    }
    close(fd);
    return figure(samples);
  };
  return row;
}

// One way, `call` bytes a call at both ends.
struct Flow {
  const char* name;
  How how;
  size_t call;
  double share = 1;      // of the bytes that count
  size_t message = 0;    // 0: GB/s, else millions of so many bytes a second
  bool cpu = false;      // instead: CPU seconds a GB
  size_t into = kLarge;  // bytes that the receiver takes at most
};

void Sink(const Flow& flow, const Options& options, Shared& shared) {
  std::vector<char> into(flow.into);
  const int fd = AcceptOne(options, shared);
  const int flags = flow.how == How::kSpin ? MSG_DONTWAIT : 0;
  const double cpu = CpuSeconds();
  const Clock clock(options.seconds);
  uint64_t begin = 0, end = 0, bytes = 0, all = 0, now = 0;
  for (;;) {
    const ssize_t got = recv(fd, into.data(), into.size(), flags);
    if (got == 0) break;
    if (got < 0 && errno == EAGAIN) continue;
    Need(got > 0, "recv");
    all += static_cast<uint64_t>(got);
    now = NowNs();
    if (shared.stop.load(std::memory_order_relaxed)) continue;  // drain what is under way
    if (begin != 0) bytes += static_cast<uint64_t>(got);
    if (begin == 0 && clock.warm(now)) begin = now;
    end = now;
    if (clock.over(now) && bytes > 0) shared.stop.store(true, std::memory_order_relaxed);
  }
  shared.cpu_seconds = CpuSeconds() - cpu;
  shared.bytes = static_cast<double>(all);
  shared.bytes_per_second = static_cast<double>(bytes) * 1e9 / static_cast<double>(end - begin);
  close(fd);  // which the client waits for
}

Result Source(const Flow& flow, const Options& options, Shared& shared) {
  const std::vector<char> from(flow.call);
  const int fd = ConnectOne(options, shared);
  const double cpu = CpuSeconds();
  while (!shared.stop.load(std::memory_order_relaxed)) {
    SendAll(fd, from.data(), flow.call, flow.how);
  }
  const double used = CpuSeconds() - cpu;
  shutdown(fd, SHUT_WR);
  char end;
  while (recv(fd, &end, 1, 0) > 0) {
  }
  close(fd);
  if (flow.cpu) return CpuPerGb(used, shared.bytes, shared);
  Result result;
  result.unit = flow.message == 0 ? "GB/s" : "M/s";
  result.value = flow.share * shared.bytes_per_second /
                 (flow.message == 0 ? 1e9 : 1e6 * static_cast<double>(flow.message));
  return result;
}

Row Stream(const Flow& flow) {
  return {flow.name,
          [flow](const Options& options, Shared& shared) { Sink(flow, options, shared); },
          [flow](const Options& options, Shared& shared) { return Source(flow, options, shared); }};
}

// What an iWARP stack would send: 4 KiB of payload and 20 B of header and trailer a unit.
constexpr double kUnitShare = 4096.0 / (4096 + 20);
constexpr size_t kUnitCall = 64 * 1024;

}  // namespace
}  // namespace verbena::bench

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  return Main(
      argc, argv,
      {PingPong("ping_spin", How::kSpin), PingPong("ping_block", How::kBlock),
       PingPong("ping_epoll", How::kEpoll), PingPong("trip_spin", How::kSpin, RoundTrip),
       PingPong("trip_block", How::kBlock, RoundTrip), BatchedCalls(),
       Stream({.name = "stream_spin", .how = How::kSpin, .call = kLarge}),
       Stream({.name = "stream_block", .how = How::kBlock, .call = kLarge}),
       Stream({.name = "cpu_spin", .how = How::kSpin, .call = kLarge, .cpu = true}),
       Stream({.name = "cpu_block", .how = How::kBlock, .call = kLarge, .cpu = true}),
       Stream({.name = "units",
               .how = How::kSpin,
               .call = kUnitCall,
               .share = kUnitShare,
               .into = kUnitCall}),
       Stream({.name = "messages", .how = How::kSpin, .call = kMessage, .message = kMessage})});
}
