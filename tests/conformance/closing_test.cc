// SPDX-License-Identifier: Apache-2.0
// Closing while others are at work: an object is gone when its Close() has returned, and nobody may
// touch it after that. For ThreadSanitizer and AddressSanitizer above all.
#include <atomic>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/conformance/pair.h"

namespace verbena::conformance {
namespace {

class Closing : public Conformance {};
INSTANTIATE_TEST_SUITE_P(All, Closing, testing::ValuesIn(KernelProviders()),
                         [](const auto& info) { return info.param.name; });

void RunAll(const std::vector<std::function<void()>>& jobs) {
  std::vector<std::thread> threads;
  threads.reserve(jobs.size());
  for (const auto& job : jobs) threads.emplace_back(job);
  for (std::thread& thread : threads) thread.join();
}

// Until nothing is open that was made from it.
template <typename Parent>
void CloseWhenItMay(Parent& parent) {
  while (!parent.Close().ok()) std::this_thread::yield();
}

TEST_P(Closing, AQueueMayGoOnceItsLastQueuePairHas) {
  // A queue pair with completions that nobody has polled is closed, and by another thread, which
  // tries until it may, its completion queue.
  // Expect: the queue pair does not touch the queue after that.
  Device& device = *client().devices()[0];
  ProtectionDomain pd = Check(device.AllocateProtectionDomain());
  constexpr uint32_t kReceives = 1000;
  for (int round = 0; round < 40; ++round) {
    CompletionQueue cq = Check(device.CreateCompletionQueue({.entries = kReceives}));
    QueuePairOptions options{.send_cq = &cq, .receive_cq = &cq};
    options.limits.max_receive_wr = kReceives;
    QueuePair qp = Check(pd.CreateQueuePair(options));
    for (uint32_t i = 0; i < kReceives; ++i) PostReceive(qp, {});
    Check(qp.Modify({.state = QpState::kErr}));
    std::atomic<bool> begun = false;
    std::thread closer([&] {
      begun = true;
      while (!cq.Close().ok()) continue;
    });
    while (!begun) continue;
    Check(qp.Close());
    closer.join();
  }
}

TEST_P(Closing, ParentsMayGoOnceTheirLastChildHas) {
  // Queue pairs, and what they were made from, are each closed by a thread of its own, which tries
  // until it may.
  // Expect: nobody touches a parent after its last child has let go of it.
  for (int round = 0; round < 50; ++round) {
    Context context = Check(ground().NewHost());
    Device& device = *context.devices()[0];
    ProtectionDomain pd = Check(device.AllocateProtectionDomain());
    CompletionChannel channel = Check(device.CreateCompletionChannel());
    CompletionQueue sends = Check(device.CreateCompletionQueue({.entries = 8}));
    CompletionQueue receives =
        Check(device.CreateCompletionQueue({.entries = 8, .channel = &channel}));
    SharedReceiveQueue srq = Check(pd.CreateSharedReceiveQueue());
    std::vector<std::byte> memory(64);
    MemoryRegion region = Check(pd.Register(memory, Access::kLocalWrite));
    QueuePair one = Check(pd.CreateQueuePair({.send_cq = &sends, .receive_cq = &receives}));
    QueuePair other = Check(pd.CreateQueuePair(
        {.send_cq = &sends, .receive_cq = &receives, .shared_receive_queue = &srq}));
    RunAll({[&] { Check(one.Close()); }, [&] { Check(other.Close()); },
            [&] { Check(region.Close()); }, [&] { CloseWhenItMay(srq); },
            [&] { CloseWhenItMay(sends); }, [&] { CloseWhenItMay(receives); },
            [&] { CloseWhenItMay(channel); }, [&] { CloseWhenItMay(pd); },
            [&] { CloseWhenItMay(context); }});
  }
}

// What the threads of the next case do, again and again. Each makes all that it needs, and closes
// it wherever it happens to be.
class Town {
 public:
  explicit Town(ConformanceBase& test) : test_(test) {}

  // Listens, answers some callers in one way or another, and goes while others are still asking.
  void Listen(Context& context, std::mt19937_64& random) {
    absl::StatusOr<Listener> listener = context.Listen(test_.AnyPort(), {.backlog = 4});
    ASSERT_THAT(listener, IsOk());
    Publish(listener->address());
    Things things(context);
    for (uint64_t callers = random() % 6; callers > 0; --callers) {
      absl::StatusOr<ConnectionRequest> request = listener->Next(absl::Milliseconds(5));
      if (!request.ok()) continue;
      switch (random() % 4) {
        case 0:
          (void)request->Reject("not today");
          break;
        case 1:
          break;  // destroyed, which rejects
        default:
          accepted_ += request->Accept(things.qps.emplace_back(things.NewQueuePair())).ok();
      }
    }
    if (random() % 2 == 0) Check(listener->Close());  // before the queue pairs
  }

  void Call(Context& context, std::mt19937_64& random) {
    Things things(context);
    const std::string to = address();
    if (to.empty()) return;
    absl::StatusOr<Path> path = context.Resolve(to);
    if (!path.ok()) return;
    for (int i = 0; i < 3; ++i) {
      QueuePair& qp = things.qps.emplace_back(things.NewQueuePair());
      if (!path->StartConnect(qp, {.deadline = absl::Milliseconds(200)}).ok()) continue;
      Linger(things, qp, random);
    }
  }

  // Two queue pairs out of band, of which one may never come.
  void Meet(Context& context, std::mt19937_64& random) {
    Things things(context);
    if (!things.device.capabilities().out_of_band) return;
    QueuePair& one = things.qps.emplace_back(things.NewQueuePair());
    QueuePair& other = things.qps.emplace_back(things.NewQueuePair());
    const std::string here = Check(one.address()), there = Check(other.address());
    Check(one.StartConnect(there, {.deadline = absl::Milliseconds(200)}));
    Linger(things, one, random);
    if (random() % 3 == 0 || !one.is_open()) return;
    Check(other.StartConnect(here, {.deadline = absl::Milliseconds(200)}));
    Linger(things, other, random);
  }

  int accepted() const { return accepted_; }

 private:
  // In the order in which they may be destroyed.
  struct Things {
    explicit Things(Context& context)
        : device(*context.devices()[0]),
          pd(Check(device.AllocateProtectionDomain())),
          channel(Check(device.CreateCompletionChannel())),
          cq(Check(device.CreateCompletionQueue({.entries = 64, .channel = &channel}))) {
      qps.reserve(8);
    }
    QueuePair NewQueuePair() {
      return Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
    }
    Device& device;
    ProtectionDomain pd;
    CompletionChannel channel;
    CompletionQueue cq;
    std::vector<QueuePair> qps;
  };

  // Looks on for a while, and closes it perhaps.
  static void Linger(Things& things, QueuePair& qp, std::mt19937_64& random) {
    WorkCompletion wc[4];
    CqEvent event;
    switch (random() % 6) {
      case 0:
        Check(qp.Close());
        return;
      case 1:
        Check(things.cq.RequestNotify());
        (void)things.channel.TryNext(&event);
        return;
      case 2:
        (void)things.cq.Wait(1, absl::Milliseconds(1));
        return;
      case 3:
        (void)qp.Disconnect();
        return;
      default:
        for (int i = 0; i < 20; ++i) (void)things.cq.Poll(wc);
    }
  }

  void Publish(const std::string& address) {
    const std::lock_guard lock(mutex_);
    address_ = address;
  }
  std::string address() {
    const std::lock_guard lock(mutex_);
    return address_;
  }

  ConformanceBase& test_;
  std::mutex mutex_;
  std::string address_;
  std::atomic<int> accepted_ = 0;
};

TEST_P(Closing, EverythingWhileEverythingElseGoesOn) {
  // Threads listen, accept, reject and go; call, look on and go; meet out of band; open contexts,
  // do all of that in them, and close them.
  // Expect: every Close succeeds, some connections come about, nothing is used that is gone.
  Town town(*this);
  constexpr int kRounds = 100;
  const auto rounds = [&](uint64_t seed, const std::function<void(std::mt19937_64&)>& once) {
    return [=] {
      std::mt19937_64 random(seed);
      for (int i = 0; i < kRounds; ++i) once(random);
    };
  };
  const auto call = [&](std::mt19937_64& random) { town.Call(client(), random); };
  RunAll({rounds(1, [&](auto& random) { town.Listen(server(), random); }), rounds(2, call),
          rounds(3, call), rounds(4, [&](auto& random) { town.Meet(client(), random); }),
          rounds(5, [&](auto& random) {
            Context own = Check(ground().NewHost());
            town.Call(own, random);
            town.Meet(own, random);
            Check(own.Close());
          })});
  EXPECT_GT(town.accepted(), 0);
}

}  // namespace
}  // namespace verbena::conformance
