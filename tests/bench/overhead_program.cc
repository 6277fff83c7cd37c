// SPDX-License-Identifier: Apache-2.0
// Posts and polls on a driver that does nothing; tests/bench/overhead counts the instructions.
//   overhead_program ROUNDS
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "examples/check.h"
#include "transport/context.h"

using namespace verbena;

// Not static and not inlined: callgrind counts by their names. stub_driver/ has the like without
// us.
extern "C" {
__attribute__((noinline)) bool MeasuredSend(QueuePair& qp, const SendWr& wr) {
  return qp.PostSend({&wr, 1}).ok();
}
__attribute__((noinline)) bool MeasuredWrite(QueuePair& qp, const SendWr& wr) {
  return qp.PostSend({&wr, 1}).ok();
}
__attribute__((noinline)) bool MeasuredQuietWrite(QueuePair& qp, const SendWr& wr) {
  return qp.PostSend({&wr, 1}).ok();
}
__attribute__((noinline)) bool MeasuredBatch(QueuePair& qp, const std::vector<SendWr>& wrs) {
  return qp.PostSend(wrs).ok();
}
__attribute__((noinline)) bool MeasuredReceive(QueuePair& qp, const ReceiveWr& wr) {
  return qp.PostReceive({&wr, 1}).ok();
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
  const ReceiveWr receive{.local = region.slice(0, 8), .id = 9};
  WorkCompletion wc[32];
  const auto complete = [&](uint64_t id) {
    Expect(MeasuredPoll(cq, wc) == 1 && wc[0].id == id, "a request did not complete");
  };
  for (int i = 0; i < rounds; ++i) {
    Expect(MeasuredSend(one, send), "a send was refused");
    complete(7);
    Expect(MeasuredWrite(one, write), "a write was refused");
    complete(7);
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
