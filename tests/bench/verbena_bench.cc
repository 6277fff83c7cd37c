// SPDX-License-Identifier: Apache-2.0
// The work of raw_socket on Verbena's API: one queue pair between two processes, on 127.0.0.1
// unless VERBENA_DEVICE says otherwise. Both sides spin on their completion queue, or sleep until
// its channel has an event.
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "tests/bench/sides.h"
#include "transport/context.h"

namespace verbena::bench {
namespace {

constexpr uint32_t kWindow = 16;    // of large requests
constexpr uint32_t kDoorbell = 32;  // small messages posted by one call
constexpr uint32_t kSendQueue = 1024;
constexpr uint32_t kReceiveQueue = 4096;
constexpr size_t kInbox = 0;  // where the peer writes its ping
constexpr size_t kOutbox = 64;

template <typename T>
T Check(absl::StatusOr<T> value) {
  if (!value.ok()) Die(std::string(value.status().message()));
  return *std::move(value);
}
void Check(const absl::Status& status) {
  if (!status.ok()) Die(std::string(status.message()));
}
void Check(const PostResult& posted) { Check(posted.ToStatus()); }

// One side of a connection, with all that it needs.
struct End {
  explicit End(bool events) : with_events(events) {}

  const bool with_events;  // of the completion queue, on the channel
  Context context = Check(Context::Open());
  Device& device = *context.devices()[0];
  std::vector<std::byte> memory = std::vector<std::byte>(kLarge);
  ProtectionDomain pd = Check(device.AllocateProtectionDomain());
  MemoryRegion region =
      Check(pd.Register(memory, Access::kLocalWrite | Access::kRemoteWrite | Access::kRemoteRead));
  CompletionChannel channel =
      with_events ? Check(device.CreateCompletionChannel()) : CompletionChannel();
  CompletionQueue cq = Check(
      device.CreateCompletionQueue({.entries = 8192, .channel = with_events ? &channel : nullptr}));
  QueuePair qp = Check(
      pd.CreateQueuePair({.send_cq = &cq,
                          .receive_cq = &cq,
                          .limits = {.max_send_wr = kSendQueue, .max_receive_wr = kReceiveQueue},
                          .signal = Signal::kSelective}));
  RemoteBuffer peer = {};
  std::array<WorkCompletion, 64> done = {};
  uint64_t sent = 0;      // completed requests
  uint64_t received = 0;  // completed receives

  // Takes what has completed.
  void Poll() {
    const size_t n = cq.Poll(done);
    for (size_t i = 0; i < n; ++i) {
      if (!done[i].ok()) Check(done[i].ToStatus());
      ++(done[i].opcode == WcOpcode::kReceive ? received : sent);
    }
  }

  void PostReceives(uint32_t count, uint32_t size) {
    std::array<ReceiveWr, 64> batch;
    batch.fill({.local = region.slice(kInbox, size)});
    while (count > 0) {
      const auto n = std::min<uint32_t>(count, batch.size());
      Check(qp.PostReceive(std::span(batch).first(n)));
      count -= n;
    }
  }

  std::byte* at(size_t offset) { return &memory[offset]; }

  Counts Report() const {
    const QpCounters q = qp.counters();
    const CqCounters c = cq.counters();
    return {{{"send_calls", q.send_calls},
             {"receive_calls", q.receive_calls},
             {"acks_sent", q.acks_sent},
             {"acks_received", q.acks_received},
             {"rnr_naks_sent", q.rnr_naks_sent},
             {"sends_posted", q.sends_posted},
             {"receive_completions", q.receive_completions},
             {"bytes_sent", q.bytes_sent},
             {"bytes_received", q.bytes_received},
             {"polls", c.polls},
             {"empty_polls", c.empty_polls},
             {"service_wakeups", device.counters().service_wakeups}}};
  }
};

// The client posts no receives beyond these before it connects, nor does the server.
std::unique_ptr<End> Accept(Shared& shared, uint32_t receives, uint32_t size, bool events = false) {
  auto end = std::make_unique<End>(events);
  end->PostReceives(receives, size);
  Listener listener = Check(end->context.Listen("127.0.0.1:0"));
  shared.port.store(listener.port(), std::memory_order_release);
  ConnectionRequest request = Check(listener.Next());
  end->peer = Check(Decode(request.private_data()));
  Check(request.Accept(end->qp, {.private_data = Encode(end->region.remote())}));
  return end;
}

std::unique_ptr<End> Connect(const Shared& shared, uint32_t receives, uint32_t size,
                             bool events = false) {
  auto end = std::make_unique<End>(events);
  end->PostReceives(receives, size);
  Path path = Check(end->context.Resolve("127.0.0.1:" + std::to_string(WaitForPort(shared))));
  const Accepted accepted =
      Check(path.Connect(end->qp, {.private_data = Encode(end->region.remote())}));
  end->peer = Check(Decode(accepted.private_data));
  return end;
}

// Both leave together, so that nobody's last completion is an error.
void Leave(End& end, Shared& shared) {
  shared.server = end.Report();
  shared.done.store(true, std::memory_order_release);
  while (shared.stop.load(std::memory_order_acquire)) {
  }
}
void Dismiss(End& end, Shared& shared, Result* result) {
  result->client = end.Report();
  shared.stop.store(true, std::memory_order_release);
  while (!shared.done.load(std::memory_order_acquire)) end.Poll();
  shared.stop.store(false, std::memory_order_release);
}

bool Stopped(const Shared& shared) { return shared.stop.load(std::memory_order_relaxed); }

// --- 8 B send and receive ------------------------------------------------------------------------

constexpr uint32_t kPings = 64;  // receives that wait

void PostPing(End& end) {
  Check(end.qp.PostSend({.opcode = Opcode::kSend,
                         .local = end.region.slice(kOutbox, kSmall),
                         .flags = SendFlags::kSignaled}));
}

void ServeSends(const Options&, Shared& shared) {
  const auto end = Accept(shared, kPings, kSmall);
  for (uint64_t answered = 0; !Stopped(shared);) {
    end->Poll();
    if (end->received == answered) continue;
    ++answered;
    PostPing(*end);
    end->PostReceives(1, kSmall);
  }
  Leave(*end, shared);
}

Result MeasureSends(const Options& options, Shared& shared) {
  Samples samples;
  const auto end = Connect(shared, kPings, kSmall);
  const Clock clock(options.seconds);
  uint64_t sent = 0;
  for (uint64_t begin = NowNs(); !clock.over(begin) || samples.empty();) {
    PostPing(*end);
    ++sent;
    while (end->received != sent) end->Poll();
    end->PostReceives(1, kSmall);
    const uint64_t now = NowNs();
    if (clock.warm(begin)) samples.Add(now - begin);
    begin = now;
  }
  Result result = Latency(samples);
  Dismiss(*end, shared, &result);
  return result;
}

// --- The same, asleep in between -----------------------------------------------------------------

// How a side sleeps until its channel has an event: in poll(2) on the descriptor, or in the
// library.
enum class Sleep { kPoll, kNext };

// The usual loop: arm, look once more, sleep, look.
void Await(End& end, Sleep how) {
  constexpr int kPatienceMs = 10;  // somebody may have stopped the row
  Check(end.cq.RequestNotify());
  const uint64_t before = end.sent + end.received;
  end.Poll();
  if (end.sent + end.received != before) return;
  CqEvent event;
  if (how == Sleep::kNext) {
    (void)end.channel.Next(absl::Milliseconds(kPatienceMs));
  } else {
    pollfd readable{end.channel.fd(), POLLIN, 0};
    if (poll(&readable, 1, kPatienceMs) != 1 || !end.channel.TryNext(&event)) return;
  }
  end.Poll();
}

Row EventPing(const char* name, Sleep how) {
  Row row;
  row.name = name;
  row.serve = [how](const Options&, Shared& shared) {
    const auto end = Accept(shared, kPings, kSmall, true);
    for (uint64_t answered = 0; !Stopped(shared);) {
      Await(*end, how);
      if (end->received == answered) continue;
      ++answered;
      PostPing(*end);
      end->PostReceives(1, kSmall);
    }
    Leave(*end, shared);
  };
  row.measure = [how](const Options& options, Shared& shared) {
    Samples samples;
    const auto end = Connect(shared, kPings, kSmall, true);
    const Clock clock(options.seconds);
    uint64_t sent = 0;
    for (uint64_t begin = NowNs(); !clock.over(begin) || samples.empty();) {
      PostPing(*end);
      ++sent;
      while (end->received != sent) Await(*end, how);
      end->PostReceives(1, kSmall);
      const uint64_t now = NowNs();
      if (clock.warm(begin)) samples.Add(now - begin);
      begin = now;
    }
    Result result = Latency(samples);
    Dismiss(*end, shared, &result);
    return result;
  };
  return row;
}

// --- 8 B writes ----------------------------------------------------------------------------------

void WritePing(End& end, uint64_t number) {
  std::memcpy(end.at(kOutbox), &number, sizeof(number));
  Check(end.qp.PostSend({.opcode = Opcode::kWrite,
                         .local = end.region.slice(kOutbox, kSmall),
                         .remote = end.peer.at(kInbox),
                         .flags = SendFlags::kSignaled}));
}

uint64_t Inbox(End& end) {
  return std::atomic_ref(*reinterpret_cast<uint64_t*>(end.at(kInbox)))
      .load(std::memory_order_acquire);
}

void ServeWrites(const Options&, Shared& shared) {
  const auto end = Accept(shared, 0, 0);
  for (uint64_t answered = 0; !Stopped(shared);) {
    end->Poll();
    if (Inbox(*end) == answered) continue;
    WritePing(*end, ++answered);
  }
  Leave(*end, shared);
}

Result MeasureWrites(const Options& options, Shared& shared) {
  Samples samples;
  const auto end = Connect(shared, 0, 0);
  const Clock clock(options.seconds);
  uint64_t number = 0;
  for (uint64_t begin = NowNs(); !clock.over(begin) || samples.empty();) {
    WritePing(*end, ++number);
    while (Inbox(*end) != number) end->Poll();
    const uint64_t now = NowNs();
    if (clock.warm(begin)) samples.Add(now - begin);
    begin = now;
  }
  Result result = Latency(samples);
  Dismiss(*end, shared, &result);
  return result;
}

// --- 1 MiB writes and reads ----------------------------------------------------------------------

// A target that looks after its own completion queue.
void Attend(const Options&, Shared& shared) {
  const auto end = Accept(shared, 0, 0);
  while (!Stopped(shared)) end->Poll();
  Leave(*end, shared);
}

Row Bandwidth(const char* name, Opcode opcode) {
  Row row;
  row.name = name;
  row.serve = Attend;
  row.measure = [opcode](const Options& options, Shared& shared) {
    const auto end = Connect(shared, 0, 0);
    const SendWr request{.opcode = opcode,
                         .local = end->region.slice(0, kLarge),
                         .remote = end->peer.at(0),
                         .flags = SendFlags::kSignaled};
    const Clock clock(options.seconds);
    uint64_t posted = 0, begin = 0, before = 0, now = 0;
    while (!clock.over(now) || begin == 0 || end->sent == before) {
      for (; posted - end->sent < kWindow; ++posted) Check(end->qp.PostSend(request));
      end->Poll();
      now = NowNs();
      if (begin == 0 && clock.warm(now)) {
        begin = now;
        before = end->sent;
      }
    }
    Result result;
    result.unit = "GB/s";
    result.value =
        static_cast<double>((end->sent - before) * kLarge) / static_cast<double>(now - begin);
    while (end->sent != posted) end->Poll();
    Dismiss(*end, shared, &result);
    return result;
  };
  return row;
}

// --- 64 B messages -------------------------------------------------------------------------------

void ServeMessages(const Options&, Shared& shared) {
  const auto end = Accept(shared, kReceiveQueue, kMessage);
  for (uint64_t reposted = 0; !Stopped(shared);) {
    end->Poll();
    for (; end->received - reposted >= kDoorbell; reposted += kDoorbell) {
      end->PostReceives(kDoorbell, kMessage);
    }
  }
  Leave(*end, shared);
}

Result MeasureMessages(const Options& options, Shared& shared) {
  const auto end = Connect(shared, 0, 0);
  std::array<SendWr, kDoorbell> batch;
  batch.fill({.opcode = Opcode::kSend, .local = end->region.slice(0, kMessage)});
  batch.back().flags = SendFlags::kSignaled;
  const Clock clock(options.seconds);
  uint64_t posted = 0, begin = 0, before = 0, now = 0;  // doorbells
  while (!clock.over(now) || begin == 0 || end->sent == before) {
    while ((posted - end->sent) * kDoorbell < kSendQueue) {
      Check(end->qp.PostSend(batch));
      ++posted;
    }
    end->Poll();
    now = NowNs();
    if (begin == 0 && clock.warm(now)) {
      begin = now;
      before = end->sent;
    }
  }
  Result result;
  result.unit = "M/s";
  result.value = static_cast<double>((end->sent - before) * kDoorbell) * 1e3 /
                 static_cast<double>(now - begin);
  while (end->sent != posted) end->Poll();
  Dismiss(*end, shared, &result);
  return result;
}

}  // namespace
}  // namespace verbena::bench

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  return Main(argc, argv,
              {{"send_ping", ServeSends, MeasureSends},
               {"write_ping", ServeWrites, MeasureWrites},
               EventPing("event_ping", Sleep::kPoll),
               EventPing("next_ping", Sleep::kNext),
               Bandwidth("writes", verbena::Opcode::kWrite),
               Bandwidth("reads", verbena::Opcode::kRead),
               {"messages", ServeMessages, MeasureMessages}});
}
