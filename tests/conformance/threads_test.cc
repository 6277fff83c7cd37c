// SPDX-License-Identifier: Apache-2.0
// Every object is thread-safe: many threads on shared objects, for ThreadSanitizer above all.
#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "tests/conformance/operations.h"
#include "tests/conformance/pair.h"
#include "tests/conformance/sanitizer.h"

namespace verbena::conformance {
namespace {

constexpr auto kTime = std::chrono::milliseconds(kThreadSanitizer ? 5000 : 500);

class Threads : public Conformance {
 protected:
  // Runs each job again and again on a thread of its own until the time is over.
  void Run(const std::vector<std::function<void()>>& jobs) {
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    for (const auto& job : jobs) {
      threads.emplace_back([&stop, &job] {
        while (!stop.load(std::memory_order_relaxed)) job();
      });
    }
    const auto end = std::chrono::steady_clock::now() + kTime;
    while (std::chrono::steady_clock::now() < end) RunFor(absl::Milliseconds(10));
    stop = true;
    for (std::thread& thread : threads) thread.join();
  }
};
INSTANTIATE_TEST_SUITE_P(All, Threads, testing::ValuesIn(KernelProviders()),
                         [](const auto& info) { return info.param.name; });

// Four connections of one pair of ends with shared queues and regions, and what threads do to them.
struct Crowd {
  explicit Crowd(ConformanceBase& on)
      : test(on),
        pair(MakePair(on, {.server = {.memory = 4 << 20,
                                      .cq_entries = 65536,
                                      .shared_receive_queue = SrqLimits{}},
                           .client = {.cq_entries = 65536}})),
        listener(Check(on.server().Listen(on.AnyPort()))),
        path(Check(on.client().Resolve(listener.address()))) {
    for (int i = 0; i < 3; ++i) {
      local.push_back(ours.NewQueuePair());
      remote.push_back(theirs.NewQueuePair());
      Connect(test, local.back(), remote.back());
    }
    for (QueuePair& qp : local) senders.push_back(&qp);
    senders.push_back(&ours.qp);
    PostReceives(kReceives);
  }

  // Three requests of one kind at a time; poster `n` has its own memory at this end.
  void Post(uint64_t n, std::mt19937_64& random) {
    const uint64_t which = random() % senders.size();
    QueuePair& qp = *senders[which];
    Opcode opcode = random() % 4 == 0 ? Opcode::kSend : kOneSided[random() % 4];
    if (IsAtomic(opcode) && !atomics) opcode = Opcode::kRead;
    // Whatever is written has a place for each connection (and poster): else the program itself
    // would race. 0: written to by the peer; 64 KiB: read from, read into; 128 KiB: added to.
    const uint64_t remote = opcode == Opcode::kRead ? 65536
                            : IsAtomic(opcode)      ? 131072
                                                    : which * 4096;
    const bool gathers = opcode == Opcode::kSend || opcode == Opcode::kWrite;
    const uint64_t local = gathers ? n * 4096 : 65536 + (n * 4 + which) * 4096;
    SendWr batch[3];
    for (SendWr& request : batch) {
      request = OneSided(opcode, ours, theirs.at(remote), 1);
      request.local = ours.slice(local, IsAtomic(opcode) ? 8 : random() % 2000);
    }
    const PostResult result = qp.PostSend(batch);
    posted += result.accepted;
    if (opcode == Opcode::kSend) sent += result.accepted;
  }

  void PollOurs() {
    WorkCompletion batch[16];
    const size_t n = ours.cq.Poll(batch);
    for (size_t i = 0; i < n; ++i) failed += !batch[i].ok();
    completed += n;
  }

  void PollTheirs() {
    WorkCompletion batch[16];
    const size_t n = theirs.cq.Poll(batch);
    for (size_t i = 0; i < n; ++i) failed += !batch[i].ok();
    received += n;
    PostReceives(n);
  }

  void PostReceives(size_t count) {
    for (; count > 0; --count) {
      const uint64_t place = (1 << 20) + next_receive++ % kReceives * 4096;
      EXPECT_THAT(theirs.srq.PostReceive({.local = theirs.slice(place, 4096), .id = 1}),
                  Posted(1, PostError::kNone));
    }
  }

  void Register() {
    absl::StatusOr<MemoryRegion> region = ours.pd.Register(extra.bytes(), kEverything);
    ASSERT_THAT(region, IsOk());
    ASSERT_THAT(region->Close(), IsOk());
  }

  void ConnectOnce() {
    absl::StatusOr<CompletionQueue> cq = ours.device.CreateCompletionQueue();
    ASSERT_THAT(cq, IsOk());
    absl::StatusOr<QueuePair> qp = ours.pd.CreateQueuePair({.send_cq = &*cq, .receive_cq = &*cq});
    ASSERT_THAT(qp, IsOk());
    if (!path.Connect(*qp, {.deadline = absl::Seconds(2)}).ok()) return;
    EXPECT_THAT(qp->PostSend(OneSided(Opcode::kWrite, ours, theirs.at(150000), 1)),
                Posted(1, PostError::kNone));
    EXPECT_THAT(cq->Wait(1, kLong), IsOk());
    if (qp->number() % 2 == 0) {
      EXPECT_THAT(qp->Disconnect(), IsOk());
    }
  }

  void AcceptOnce() {
    absl::StatusOr<ConnectionRequest> request = listener.Next(absl::Milliseconds(20));
    if (!request.ok()) return;
    absl::StatusOr<CompletionQueue> cq = theirs.device.CreateCompletionQueue();
    ASSERT_THAT(cq, IsOk());
    absl::StatusOr<QueuePair> qp = theirs.pd.CreateQueuePair({.send_cq = &*cq, .receive_cq = &*cq});
    ASSERT_THAT(qp, IsOk());
    if (request->Accept(*qp).ok()) {
      EXPECT_THAT(qp->WaitUntilDisconnected(kLong), IsOk());
    }
  }

  void AskEverything() {
    for (QueuePair* qp : senders) {
      (void)qp->Query();
      (void)qp->counters();
      (void)qp->cause();
    }
    (void)theirs.srq.SetLimit(1);
    (void)theirs.srq.counters();
    (void)ours.cq.counters();
    (void)ours.region.counters();
    (void)ours.device.counters();
    (void)test.client().events().TryNext();
    (void)test.server().events().TryNext();
  }

  ConformanceBase& test;
  Pair pair;
  End& ours = *pair.client;
  End& theirs = *pair.server;
  Listener listener;
  Path path;
  Buffer extra{1 << 20};
  std::vector<QueuePair> local, remote;
  std::vector<QueuePair*> senders;
  const bool atomics = ours.device.capabilities().atomics;
  static constexpr uint64_t kReceives = 256;
  uint64_t next_receive = 0;  // of the thread that polls their queue
  std::atomic<uint64_t> posted = 0, completed = 0, failed = 0, sent = 0, received = 0;
};

TEST_P(Threads, EverybodyDoesEverything) {
  // Two threads post to four connections, two poll one queue, one polls the other and posts
  // receives, one registers and closes memory, one connects and closes queue pairs, one accepts
  // them, one asks everything that can be asked.
  // Expect: every accepted request completes once and well; nothing crashes or hangs.
  Crowd crowd(*this);
  const auto poster = [&](uint64_t n) {
    return [&crowd, n, random = std::mt19937_64(n)]() mutable { crowd.Post(n, random); };
  };
  Run({poster(0), poster(1), [&] { crowd.PollOurs(); }, [&] { crowd.PollOurs(); },
       [&] { crowd.PollTheirs(); }, [&] { crowd.Register(); }, [&] { crowd.ConnectOnce(); },
       [&] { crowd.AcceptOnce(); }, [&] { crowd.AskEverything(); }});
  EXPECT_TRUE(RunUntil([&] {
    crowd.PollOurs();
    crowd.PollTheirs();
    return crowd.completed == crowd.posted && crowd.received == crowd.sent;
  })) << "posted "
      << crowd.posted << ", completed " << crowd.completed << "; sent " << crowd.sent
      << ", received " << crowd.received;
  EXPECT_EQ(crowd.failed, 0u);
  EXPECT_GT(crowd.posted, 100u);
  for (QueuePair* qp : crowd.senders) EXPECT_EQ(qp->state(), QpState::kRts) << qp->cause();
  for (const QueuePair& qp : crowd.remote) EXPECT_EQ(qp.state(), QpState::kRts) << qp.cause();
}

TEST_P(Threads, FailuresUnderConcurrentUse) {
  // Connections are made and fail (a wrong key, a disconnect from either end) while other threads
  // post to them, poll them and ask for their state.
  // Expect: every accepted request completes once, whatever its status.
  Pair pair = MakePair(*this, Both({.cq_entries = 65536}));
  End& ours = *pair.client;
  End& theirs = *pair.server;
  for (int round = 0; round < 10; ++round) {
    QueuePair near = ours.NewQueuePair(), far = theirs.NewQueuePair();
    Connect(*this, near, far);
    std::atomic<uint64_t> posted = 0, completed = 0;
    std::atomic<bool> stop = false, all_posted = false;
    const auto post = [&] {
      while (!stop) {
        if (posted - completed > 1000) continue;  // posts to a dead queue pair flush at once
        posted += near.PostSend(OneSided(Opcode::kWrite, ours, theirs.at(0), 1)).accepted;
      }
    };
    const auto poll = [&] {
      WorkCompletion batch[16];
      while (!all_posted || completed < posted) completed += ours.cq.Poll(batch);
    };
    const auto ask = [&] {
      while (!stop) (void)near.Query(), (void)far.Query(), (void)near.cause();
    };
    std::thread threads[] = {std::thread(post), std::thread(post), std::thread(ask)};
    std::thread poller(poll);
    RunUntil([&] { return completed > 200; });
    if (round % 3 == 0) {
      const SendWr wrong = OneSided(Opcode::kWrite, ours, {.address = 1, .key = 2}, 2);
      size_t accepted = 0;  // the others fill the queue as fast as it empties
      RunUntil([&] { return (accepted = near.PostSend(wrong).accepted) == 1; });
      posted += accepted;
    } else {
      Check((round % 3 == 1 ? near : far).Disconnect());
    }
    EXPECT_TRUE(RunUntil([&] { return near.state() == QpState::kErr; }));
    RunFor(absl::Milliseconds(5));
    stop = true;
    for (std::thread& thread : threads) thread.join();
    all_posted = true;
    poller.join();
    EXPECT_EQ(completed, posted);
  }
}

TEST_P(Threads, BlockingConnectAndAccept) {
  // One thread waits in Listener::Next and accepts, the other in Path::Connect, 50 times.
  // Expect: both return the connection; the acceptor's private data comes with it.
  End server_end(*server().devices()[0], {}), client_end(*client().devices()[0], {});
  Listener listener = Check(server().Listen(AnyPort()));
  Path path = Check(client().Resolve(listener.address()));
  std::thread acceptor([&] {
    for (int i = 0; i < 50; ++i) {
      absl::StatusOr<ConnectionRequest> request = listener.Next(kLong);
      ASSERT_THAT(request, IsOk());
      QueuePair qp = server_end.NewQueuePair();
      ASSERT_THAT(request->Accept(qp, {.private_data = "welcome"}), IsOk());
      ASSERT_THAT(qp.WaitUntilDisconnected(kLong), IsOk());
    }
  });
  for (int i = 0; i < 50; ++i) {
    QueuePair qp = client_end.NewQueuePair();
    absl::StatusOr<Accepted> accepted = path.Connect(qp);
    EXPECT_THAT(accepted, IsOk());
    if (accepted.ok()) {
      EXPECT_THAT(accepted->private_data, testing::StartsWith("welcome"));
    }
  }
  acceptor.join();
}

TEST_P(Threads, ManyWaitOnOneQueue) {
  // Four threads wait on one completion queue, two messages for each.
  // Expect: each gets its two; none is lost or given twice.
  Pair pair = MakePair(*this);
  std::atomic<uint64_t> sum = 0;
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] {
      absl::StatusOr<std::vector<WorkCompletion>> got = pair.server->cq.Wait(2, kLong);
      ASSERT_THAT(got, IsOk());
      for (const WorkCompletion& wc : *got) sum += wc.id;
    });
  }
  for (uint64_t id = 1; id <= 8; ++id) {
    PostReceive(pair.server->qp, {.local = pair.server->slice(0, 8), .id = 1ull << id});
  }
  for (uint64_t id = 1; id <= 8; ++id) {
    Post(pair.client->qp, {.opcode = Opcode::kSend, .local = pair.client->slice(0, 8), .id = id});
    RunFor(absl::Milliseconds(1));
  }
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(sum, 0x1feu);
}

}  // namespace
}  // namespace verbena::conformance
