// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/verbena_end.h"

#include <sys/epoll.h>

#include <algorithm>
#include <span>

#include "fallback/io/kernel_world.h"
#include "fallback/provider.h"
#include "tests/bench/asking_world.h"

namespace verbena::bench {
namespace {

constexpr uint32_t kIdleQueue = 4;  // requests, of a queue pair that only is there

Context Open(const Options& options) {
  if (options.wire.empty()) return Check(Context::Open());
  if (options.wire != "crc" && options.wire != "plain") Die("--wire: crc or plain");
  const Ask ask = options.wire == "crc" ? Ask::kCrc : Ask::kPlain;
  return Check(
      Context::OpenOn(Check(fallback::OpenOn(Asking(Check(io::NewKernelWorld()), ask), ""))));
}

}  // namespace

End::End(const Options& options, const Setup& wanted)
    : setup(wanted),
      context(Open(options)),
      channel(setup.events ? Check(device.CreateCompletionChannel()) : CompletionChannel()),
      cq(Check(device.CreateCompletionQueue(
          {.entries = static_cast<uint32_t>(setup.active) * (setup.send_queue + setup.receives),
           .channel = setup.events ? &channel : nullptr}))),
      qps(setup.queue_pairs),
      qp(qps.front()) {
  for (size_t i = 0; i < qps.size(); ++i) {
    const bool active = i < setup.active;
    qps[i] = Check(
        pd.CreateQueuePair({.send_cq = &cq,
                            .receive_cq = &cq,
                            .limits = {.max_send_wr = active ? setup.send_queue : kIdleQueue,
                                       .max_receive_wr = active ? setup.receive_queue : kIdleQueue},
                            .signal = Signal::kSelective}));
    if (active) PostReceives(qps[i], setup.receives, setup.receive_size);
  }
  if (!setup.events) return;
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, channel.fd(), &event) != 0) Die("epoll_ctl failed");
}

// The usual loop: arm, look once more, sleep, look.
void End::Await() {
  constexpr int kPatienceMs = 10;
  Check(cq.RequestNotify());
  if (Poll() != 0) return;
  epoll_event ready;
  CqEvent event;
  if (epoll_wait(epoll_, &ready, 1, kPatienceMs) == 1 && channel.TryNext(&event)) Poll();
}

void End::PostReceives(QueuePair& to, uint32_t count, uint32_t size) {
  std::array<ReceiveWr, 64> batch;
  batch.fill({.local = region.slice(kInbox, size)});
  while (count > 0) {
    const auto n = std::min<uint32_t>(count, batch.size());
    Check(to.PostReceive(std::span(batch).first(n)));
    count -= n;
  }
}

Counts End::Report() const {
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

std::unique_ptr<End> Accept(const Options& options, Shared& shared, const Setup& setup) {
  auto end = std::make_unique<End>(options, setup);
  Listener listener = Check(end->context.Listen(options.address + ":0"));
  shared.port.store(listener.port(), std::memory_order_release);
  for (QueuePair& qp : end->qps) {
    ConnectionRequest request = Check(listener.Next());
    end->peer = Check(Decode(request.private_data()));
    Check(request.Accept(qp, {.private_data = Encode(end->region.remote())}));
  }
  return end;
}

std::unique_ptr<End> Connect(const Options& options, const Shared& shared, const Setup& setup) {
  auto end = std::make_unique<End>(options, setup);
  const std::string to = options.address + ":" + std::to_string(WaitForPort(shared));
  Path path = Check(end->context.Resolve(to));
  for (QueuePair& qp : end->qps) {
    const Accepted accepted =
        Check(path.Connect(qp, {.private_data = Encode(end->region.remote())}));
    end->peer = Check(Decode(accepted.private_data));
  }
  return end;
}

void Leave(End& end, Shared& shared) {
  shared.server = end.Report();
  shared.done.store(true, std::memory_order_release);
  while (shared.stop.load(std::memory_order_acquire)) {
  }
}

void Dismiss(End& end, Shared& shared, Result* result) {
  result->client = end.Report();
  shared.stop.store(true, std::memory_order_release);
  sem_post(&shared.finished);
  while (!shared.done.load(std::memory_order_acquire)) end.Poll();
  shared.stop.store(false, std::memory_order_release);
}

}  // namespace verbena::bench
