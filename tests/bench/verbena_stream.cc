// SPDX-License-Identifier: Apache-2.0
// One queue pair kept busy: bandwidth, rates, and what a GB costs in CPU seconds.
#include <algorithm>

#include "tests/bench/verbena_end.h"

namespace verbena::bench {
namespace {

constexpr uint32_t kReceives = 4096;
constexpr uint32_t kRepost = 32;  // receives at a time

struct Flow {
  const char* name;
  Opcode opcode;
  uint32_t bytes;
  uint32_t window;            // requests outstanding
  uint32_t batch = 1;         // posted by one call, at most kMostAtOnce
  uint32_t signal_every = 1;  // requests; `window` is a multiple of it, and it of `batch`
  bool poll_each = false;     // after each post, not only when the window is full
  bool cpu = false;           // CPU seconds a GB, instead of what a second brings
  size_t memory = kLarge;     // of both sides, which the requests go through
  bool events = false;        // the client sleeps on its channel, the server in sem_wait(3)
};
constexpr uint32_t kMostAtOnce = 32;

// A target that looks after its own completion queue, and after receives if it needs any. Or that
// leaves everything to the service thread.
void Attend(const Flow& flow, const Options& options, Shared& shared) {
  const bool sends = flow.opcode == Opcode::kSend;
  const auto end = Accept(
      options, shared,
      {.receives = sends ? kReceives : 0, .receive_size = flow.bytes, .memory = flow.memory});
  const double cpu = CpuSeconds();
  if (flow.events) sem_wait(&shared.finished);
  for (uint64_t reposted = 0; !Stopped(shared);) {
    end->Poll();
    for (; end->received - reposted >= kRepost; reposted += kRepost) {
      end->PostReceives(end->qp, kRepost, flow.bytes);
    }
  }
  shared.cpu_seconds = CpuSeconds() - cpu;
  Leave(*end, shared);
}

Result Figure(const Flow& flow, uint64_t requests, uint64_t ns) {
  Result result;
  const bool rate = flow.bytes <= kMessage;
  const auto amount = static_cast<double>(rate ? requests : requests * flow.bytes);
  result.unit = rate ? "M/s" : "GB/s";
  result.value = amount * (rate ? 1e3 : 1) / static_cast<double>(ns);
  return result;
}

class Pusher {
 public:
  Pusher(const Flow& flow, End& end) : flow_(flow), end_(end) {
    SendWr request{.opcode = flow.opcode, .local = end.region.slice(0, flow.bytes)};
    if (flow.opcode != Opcode::kSend) request.remote = end.peer.at(0);
    request.atomic.compare_add = 1;
    batch_.fill(request);
  }

  void Fill() {
    while (posted_ - completed() < flow_.window) {
      posted_ += flow_.batch;
      batch_[flow_.batch - 1].flags =
          posted_ % flow_.signal_every == 0 ? SendFlags::kSignaled : SendFlags::kNone;
      if (flow_.memory > kLarge) Advance();
      Check(end_.qp.PostSend(std::span(batch_).first(flow_.batch)));
      if (flow_.poll_each) end_.Poll();
    }
  }
  // As far as is known.
  uint64_t completed() const { return end_.sent * flow_.signal_every; }
  uint64_t posted() const { return posted_; }

 private:
  void Advance() {
    const size_t offset = posted_ * flow_.bytes % flow_.memory;
    batch_[0].local = end_.region.slice(offset, flow_.bytes);
    batch_[0].remote = end_.peer.at(offset);
  }

  const Flow flow_;
  End& end_;
  std::array<SendWr, kMostAtOnce> batch_;
  uint64_t posted_ = 0;
};

Result Push(const Flow& flow, const Options& options, Shared& shared) {
  const auto end = Connect(options, shared, {.events = flow.events, .memory = flow.memory});
  Pusher pusher(flow, *end);
  const double cpu = CpuSeconds();
  const Clock clock(options.seconds);
  uint64_t begin = 0, before = 0, now = 0;
  while (!clock.over(now) || begin == 0 || pusher.completed() == before) {
    pusher.Fill();
    if (flow.events) {
      end->Await();
    } else {
      end->Poll();
    }
    now = NowNs();
    if (begin == 0 && clock.warm(now)) {
      begin = now;
      before = pusher.completed();
    }
  }
  Result result = Figure(flow, pusher.completed() - before, now - begin);
  while (pusher.completed() != pusher.posted()) {
    if (flow.events) {
      end->Await();
    } else {
      end->Poll();
    }
  }
  const double used = CpuSeconds() - cpu;
  Dismiss(*end, shared, &result);
  if (!flow.cpu) return result;
  const Counts counts = result.client;
  result = CpuPerGb(used, static_cast<double>(pusher.posted() * flow.bytes), shared);
  result.client = counts;
  return result;
}

Row Stream(const Flow& flow) {
  return {flow.name,
          [flow](const Options& options, Shared& shared) { Attend(flow, options, shared); },
          [flow](const Options& options, Shared& shared) { return Push(flow, options, shared); }};
}

}  // namespace

std::vector<Row> StreamRows() {
  const Flow writes{.name = "writes", .opcode = Opcode::kWrite, .bytes = kLarge, .window = 16};
  Flow writes_far = writes;
  writes_far.name = "writes_16m";
  writes_far.memory = 16 * kLarge;
  Flow reads = writes, cpu_poll = writes, cpu_events = writes;
  reads.name = "reads";
  reads.opcode = Opcode::kRead;
  cpu_poll.name = "cpu_poll";
  cpu_events.name = "cpu_events";
  cpu_poll.cpu = cpu_events.cpu = cpu_events.events = true;

  const Flow messages{.name = "messages",
                      .opcode = Opcode::kSend,
                      .bytes = kMessage,
                      .window = 1024,
                      .batch = 32,
                      .signal_every = 32};
  Flow one = messages, one_poll = messages, writes_64 = messages, writes_4k = messages;
  one.name = "messages_one";
  one.batch = 1;
  one_poll.name = "messages_one_poll";
  one_poll.batch = one_poll.signal_every = 1;
  one_poll.poll_each = true;
  writes_64.name = "writes_64";
  writes_64.opcode = Opcode::kWrite;
  writes_4k.name = "writes_4k";
  writes_4k.opcode = Opcode::kWrite;
  writes_4k.bytes = kPage;
  writes_4k.window = 512;
  // No more than 128 of these are in flight, whatever is posted: ConnectParameters.
  const Flow reads_4k{.name = "reads_4k",
                      .opcode = Opcode::kRead,
                      .bytes = kPage,
                      .window = 256,
                      .batch = 16,
                      .signal_every = 16};
  Flow atomics = reads_4k;
  atomics.name = "atomics";
  atomics.opcode = Opcode::kFetchAdd;
  atomics.bytes = kSmall;
  return {Stream(writes),     Stream(writes_far), Stream(reads),    Stream(cpu_poll),
          Stream(cpu_events), Stream(messages),   Stream(one),      Stream(one_poll),
          Stream(writes_64),  Stream(writes_4k),  Stream(reads_4k), Stream(atomics)};
}

}  // namespace verbena::bench
