// SPDX-License-Identifier: Apache-2.0
// Posts and polls on a driver that does nothing; tests/bench/overhead counts the instructions.
//   overhead_program ROUNDS
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "examples/check.h"
#include "transport/context.h"
#include "transport/providers.h"

using namespace verbena;

// Not static and not inlined: callgrind counts by their names. stub_driver/ has the like without
// us.
extern "C" {
#define POST(NAME)                                                               \
  __attribute__((noinline, no_icf)) bool NAME(QueuePair& qp, const SendWr& wr) { \
    return qp.PostSend({&wr, 1}).ok();                                           \
  }
POST(MeasuredSend)
POST(MeasuredWrite)
POST(MeasuredQuietWrite)
POST(MeasuredTwoEntries)
POST(MeasuredImmediate)
POST(MeasuredAtomic)
POST(MeasuredInline)
POST(MeasuredIwarpSend)
POST(MeasuredIwarpWrite)
POST(MeasuredIwarpRead)
__attribute__((noinline)) bool MeasuredReceiveShared(SharedReceiveQueue& srq, const ReceiveWr& wr) {
  return srq.PostReceive({&wr, 1}).ok();
}
__attribute__((noinline)) bool MeasuredBatch(QueuePair& qp, const std::vector<SendWr>& wrs) {
  return qp.PostSend(wrs).ok();
}
__attribute__((noinline)) bool MeasuredReceive(QueuePair& qp, const ReceiveWr& wr) {
  return qp.PostReceive({&wr, 1}).ok();
}
__attribute__((noinline)) bool MeasuredIwarpReceive(QueuePair& qp, const ReceiveWr& wr) {
  return qp.PostReceive({&wr, 1}).ok();
}
__attribute__((noinline)) size_t MeasuredIwarpPoll(CompletionQueue& cq, WorkCompletion* wc) {
  return cq.Poll({wc, 1});
}
__attribute__((noinline)) size_t MeasuredIwarpPollOfMany(CompletionQueue& cq, WorkCompletion* wc) {
  return cq.Poll({wc, 32});
}
__attribute__((noinline)) size_t MeasuredPoll(CompletionQueue& cq, WorkCompletion* wc) {
  return cq.Poll({wc, 1});
}
__attribute__((noinline)) size_t MeasuredPollOther(CompletionQueue& cq, WorkCompletion* wc) {
  return cq.Poll({wc, 1});
}
__attribute__((noinline)) size_t MeasuredPollBehindQuiet(CompletionQueue& cq, WorkCompletion* wc) {
  return cq.Poll({wc, 1});
}
__attribute__((noinline)) size_t MeasuredPollOfMany(CompletionQueue& cq, WorkCompletion* wc) {
  return cq.Poll({wc, 32});
}
__attribute__((noinline)) size_t MeasuredEmptyPoll(CompletionQueue& cq, WorkCompletion* wc) {
  return cq.Poll({wc, 1});
}
}

namespace {

void Expect(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "overhead_program: %s\n", what);
  std::exit(1);
}

// The same on the device that is an iWARP one.
// Without selection, which connects by IP addresses: the stub has none.
Context OpenAlone(const std::string& provider, const std::string& device) {
  const std::span<const ProviderEntry> all = AllProviders();
  const auto entry = std::find_if(all.begin(), all.end(),
                                  [&](const ProviderEntry& each) { return each.name == provider; });
  return Check(Context::OpenOn(Check(entry->open(device, nullptr))));
}

class Iwarp {
 public:
  explicit Iwarp(std::span<std::byte> memory)
      : context_(OpenAlone("verbs", "stub1")),
        pd_(Check(context_.devices()[0]->AllocateProtectionDomain())),
        cq_(Check(context_.devices()[0]->CreateCompletionQueue({.entries = 1024}))),
        region_(Check(pd_.Register(memory, Access::kLocalWrite))),
        qp_(Check(pd_.CreateQueuePair(
            {.send_cq = &cq_, .receive_cq = &cq_, .signal = Signal::kSelective}))) {
    Path path = Check(context_.Resolve("192.0.2.1:7471"));  // RFC 5737
    Check(path.Connect(qp_));
    write_ = {.opcode = Opcode::kWrite,
              .local = region_.slice(0, 8),
              .remote = {.address = 4096, .key = 1},
              .id = 7,
              .flags = SendFlags::kSignaled};
    send_ = read_ = write_;
    send_.opcode = Opcode::kSend;
    read_.opcode = Opcode::kRead;
    Expect(qp_.PostSend(read_).ok(), "a first read was refused");  // which makes the sink
    Complete();
  }

  void Round() {
    Expect(MeasuredIwarpSend(qp_, send_), "iWARP: a send was refused");
    Complete();
    Expect(MeasuredIwarpWrite(qp_, write_), "iWARP: a write was refused");
    Complete();
    Expect(MeasuredIwarpRead(qp_, read_), "iWARP: a read was refused");
    Complete();
    Expect(MeasuredIwarpReceive(qp_, {.local = write_.local, .id = 9}),
           "iWARP: a receive was refused");
    Complete(9);
    for (int i = 0; i < 32; ++i) Expect(qp_.PostSend(send_).ok(), "iWARP: a send was refused");
    WorkCompletion wc[32];
    Expect(MeasuredIwarpPollOfMany(cq_, wc) == 32, "iWARP: not all completed");
  }

 private:
  void Complete(uint64_t id = 7) {
    WorkCompletion wc;
    Expect(MeasuredIwarpPoll(cq_, &wc) == 1 && wc.ok() && wc.id == id,
           "iWARP: a request did not complete");
  }

  Context context_;
  ProtectionDomain pd_;
  CompletionQueue cq_;
  MemoryRegion region_;
  QueuePair qp_;
  SendWr send_, write_, read_;
};

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  auto context = Check(Context::Open({.device = "verbs:stub0", .rdma = Rdma::kRequired}));
  Device& device = *context.devices()[0];
  auto pd = Check(device.AllocateProtectionDomain());
  auto cq = Check(device.CreateCompletionQueue({.entries = 1024}));
  auto one =
      Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq, .signal = Signal::kSelective}));
  auto other =
      Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq, .signal = Signal::kSelective}));
  const std::string there = Check(other.address());
  (void)Check(one.address());
  Check(one.Connect(there));

  std::vector<std::byte> memory(4096);
  auto region = Check(pd.Register(memory, Access::kLocalWrite | Access::kRemoteWrite));
  const SendWr write{.opcode = Opcode::kWrite,
                     .local = region.slice(0, 8),
                     .remote = region.remote().at(8),
                     .id = 7,
                     .flags = SendFlags::kSignaled};
  SendWr send = write, quiet = write;
  send.opcode = Opcode::kSend;
  quiet.flags = SendFlags::kNone;
  const std::vector<SendWr> batch(32, write);
  const Sge both[2] = {region.slice(0, 8), region.slice(8, 8)};
  SendWr two = write, immediate = send, atomic = write, inlined = write;
  two.local = std::span<const Sge>(both);
  immediate.opcode = Opcode::kSendWithImm;
  atomic.opcode = Opcode::kFetchAdd;
  inlined.flags = SendFlags::kSignaled | SendFlags::kInline;
  SharedReceiveQueue srq = Check(pd.CreateSharedReceiveQueue());
  QueuePair shared =
      Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq, .shared_receive_queue = &srq}));
  Iwarp iwarp(memory);
  const ReceiveWr receive{.local = region.slice(0, 8), .id = 9};
  WorkCompletion wc[32];
  const auto complete = [&](uint64_t id) {
    Expect(MeasuredPoll(cq, wc) == 1 && wc[0].id == id, "a request did not complete");
  };
  const auto finish = [&](uint64_t id) {  // of other shapes, whose polls are not counted
    Expect(cq.Poll({wc, 1}) == 1 && wc[0].id == id, "a request did not complete");
  };
  for (int i = 0; i < rounds; ++i) {
    Expect(MeasuredSend(one, send), "a send was refused");
    complete(7);
    Expect(MeasuredWrite(one, write), "a write was refused");
    complete(7);
    Expect(MeasuredTwoEntries(one, two), "a write of two entries was refused");
    finish(7);
    Expect(MeasuredImmediate(one, immediate), "a send with immediate data was refused");
    finish(7);
    Expect(MeasuredAtomic(one, atomic), "an atomic was refused");
    finish(7);
    Expect(MeasuredInline(one, inlined), "an inline write was refused");
    finish(7);
    Expect(MeasuredReceiveShared(srq, receive), "a shared receive was refused");
    finish(9);
    iwarp.Round();
    Expect(MeasuredReceive(one, receive), "a receive was refused");
    Expect(MeasuredPollOther(cq, wc) == 1 && wc[0].id == 9, "a receive did not complete");
    Expect(MeasuredEmptyPoll(cq, wc) == 0, "a completion from nowhere");
    Expect(MeasuredBatch(one, batch), "a batch was refused");
    Expect(MeasuredPollOfMany(cq, wc) == 32, "a batch did not complete");
    for (int k = 0; k < 15; ++k) Expect(MeasuredQuietWrite(one, quiet), "a write was refused");
    Expect(one.PostSend(write).ok() && MeasuredPollBehindQuiet(cq, wc) == 1, "no completion");
  }
  void* const driver = dlopen("libibverbs.so.1", RTLD_NOW);
  const auto bare =
      reinterpret_cast<int (*)(int)>(driver == nullptr ? nullptr : dlsym(driver, "RunBare"));
  Expect(bare != nullptr && bare(rounds) == 0, "the driver alone does not work");
  std::printf("%d rounds\n", rounds);
}
