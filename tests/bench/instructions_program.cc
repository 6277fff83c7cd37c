// SPDX-License-Identifier: Apache-2.0
// Two queue pairs of the TCP provider on a cable in memory, by the API and on one thread;
// tests/bench/instructions counts what each kind of call takes.
//   instructions_program ROUNDS
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "examples/check.h"
#include "fallback/provider.h"
#include "tests/bench/cable_world.h"
#include "transport/context.h"

using namespace verbena;
using bench::CableWorld;

// Not static and not inlined: callgrind counts by their names.
extern "C" {
#define POST(NAME)                                                                    \
  __attribute__((noinline, no_icf)) bool NAME(QueuePair& qp, std::span<SendWr> wrs) { \
    return qp.PostSend(wrs).ok();                                                     \
  }
#define RECEIVE(NAME)                                                                    \
  __attribute__((noinline, no_icf)) bool NAME(QueuePair& qp, std::span<ReceiveWr> wrs) { \
    return qp.PostReceive(wrs).ok();                                                     \
  }
#define POLL(NAME)                                                               \
  __attribute__((noinline, no_icf)) size_t NAME(CompletionQueue& cq,             \
                                                std::span<WorkCompletion> out) { \
    return cq.Poll(out);                                                         \
  }
POST(PostOne)
POLL(ArriveOne)
RECEIVE(ReceiveOne)
POLL(AcknowledgeOne)
POLL(CompleteOne)
POST(GatherOne)
POLL(RestingPoll)
POLL(EmptyPoll)
POST(PostMany)
POLL(ArriveMany)
RECEIVE(ReceiveMany)
POLL(CompleteMany)
POST(PostWrites)
POLL(ArriveWrites)
POLL(ArriveLarge)
}

namespace {

constexpr uint32_t kMany = 32;
constexpr uint32_t kMessage = 64;
constexpr uint32_t kLarge = 1 << 20;
constexpr io::Nanos kLongEnough = 10'000;  // nothing gathers or rests any more

void Expect(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "instructions_program: %s\n", what);
  std::exit(1);
}

// One of the two ends: everything that it has is its own.
struct End {
  explicit End(Device& device)
      : pd(Check(device.AllocateProtectionDomain())),
        cq(Check(device.CreateCompletionQueue({.entries = 1024}))),
        region(Check(pd.Register(memory, Access::kLocalWrite | Access::kRemoteWrite))),
        qp(Check(
            pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq, .signal = Signal::kSelective}))),
        receives(kMany, ReceiveWr{.local = region.slice(0, kMessage)}) {}

  std::vector<std::byte> memory = std::vector<std::byte>(kLarge);
  ProtectionDomain pd;
  CompletionQueue cq;
  MemoryRegion region;
  QueuePair qp;
  std::vector<ReceiveWr> receives;
  WorkCompletion done[kMany];
};

class Pair {
 public:
  Pair(CableWorld* world, Context* context)
      : world_(*world), a_(*context->devices()[0]), b_(*context->devices()[0]) {
    Listener listener = Check(context->Listen("127.0.0.1:7471"));
    Path path = Check(context->Resolve("127.0.0.1:7471"));
    Check(path.StartConnect(a_.qp));
    ConnectionRequest request = Check(listener.Next());
    Check(request.Accept(b_.qp));
    while (a_.qp.state() != QpState::kRts || b_.qp.state() != QpState::kRts) Turn();
    // Both are polled while something comes, so that they become hot.
    Check(b_.qp.PostReceive(b_.receives));
    const SendWr send = Sends(1)[0];
    for (int i = 0; i < 4; ++i) {
      Check(a_.qp.PostSend(send));
      Settle();
    }
    Check(b_.qp.PostReceive(std::span(b_.receives).first(4)));
  }

  void One() {
    std::vector<SendWr> send = Sends(1);
    Pass();
    Expect(PostOne(a_.qp, send), "a send was refused");
    Expect(ArriveOne(b_.cq, b_.done) == 1, "a message did not come");
    Expect(ReceiveOne(b_.qp, std::span(b_.receives).first(1)), "a receive was refused");
    Expect(AcknowledgeOne(b_.cq, b_.done) == 0, "a completion from nowhere");
    Expect(CompleteOne(a_.cq, a_.done) == 1, "a send did not complete");
    Expect(EmptyPoll(a_.cq, a_.done) == 0, "a completion from nowhere");
  }

  // One is under way, and others join it.
  void Gathering() {
    std::vector<SendWr> send = Sends(1);
    Pass();
    Expect(a_.qp.PostSend(send).ok(), "a send was refused");
    for (uint32_t i = 1; i < kMany; ++i) {
      Expect(GatherOne(a_.qp, send), "a send was refused");
      if (i == 1) Expect(a_.cq.Poll(a_.done) == 0, "a completion from nowhere");
      Expect(RestingPoll(a_.cq, a_.done) == 0, "a completion from nowhere");
    }
    Settle();
    Check(b_.qp.PostReceive(b_.receives));
  }

  void Many() {
    std::vector<SendWr> sends = Sends(kMany);
    Pass();
    Expect(PostMany(a_.qp, sends), "sends were refused");
    Expect(ArriveMany(b_.cq, b_.done) == kMany, "messages did not come");
    Expect(ReceiveMany(b_.qp, b_.receives), "receives were refused");
    Expect(b_.cq.Poll(b_.done) == 0, "a completion from nowhere");
    Expect(CompleteMany(a_.cq, a_.done) == 1, "sends did not complete");
  }

  void Writes() {
    std::vector<SendWr> writes = Sends(kMany);
    for (SendWr& write : writes) {
      write.opcode = Opcode::kWrite;
      write.remote = b_.region.remote().at(0);
    }
    Pass();
    Expect(PostWrites(a_.qp, writes), "writes were refused");
    Expect(ArriveWrites(b_.cq, b_.done) == 0, "a completion from nowhere");
    Settle();
  }

  void Large() {
    std::vector<SendWr> write = Sends(1);
    write[0].opcode = Opcode::kWrite;
    write[0].local = a_.region.slice(0, kLarge);
    write[0].remote = b_.region.remote().at(0);
    Pass();
    Expect(a_.qp.PostSend(write).ok(), "a write was refused");
    for (int i = 0; i < 3; ++i) {  // a poll stops after so many calls
      Expect(ArriveLarge(b_.cq, b_.done) == 0, "a completion from nowhere");
    }
    Settle();
  }

 private:
  // The last one is signalled.
  std::vector<SendWr> Sends(uint32_t n) const {
    std::vector<SendWr> sends(n, SendWr{.local = a_.region.slice(0, kMessage)});
    sends.back().flags = SendFlags::kSignaled;
    return sends;
  }
  void Pass() { world_.Pass(kLongEnough); }
  void Turn() {
    Pass();
    world_.Turn();
  }
  // Until nothing more comes at either end.
  void Settle() {
    for (int i = 0; i < 4; ++i) {
      a_.cq.Poll(a_.done);
      b_.cq.Poll(b_.done);
      Turn();
    }
  }

  CableWorld& world_;
  End a_, b_;
};

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  auto owned = std::make_unique<CableWorld>();
  CableWorld* const world = owned.get();
  Context context = Check(Context::OpenOn(Check(fallback::OpenOn(std::move(owned), ""))));
  {
    Pair pair(world, &context);
    for (int i = 0; i < rounds; ++i) {
      pair.One();
      pair.Gathering();
      pair.Many();
      pair.Writes();
      pair.Large();
    }
  }
  std::printf("%d rounds\n", rounds);
}
