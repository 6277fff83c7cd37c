// SPDX-License-Identifier: Apache-2.0
// Posts and polls on a driver that does nothing; tests/bench/overhead counts the instructions.
//   overhead_program ROUNDS
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "examples/check.h"
#include "transport/context.h"

using namespace verbena;

// Not static and not inlined: callgrind counts by their names.
extern "C" {
__attribute__((noinline)) bool MeasuredPost(QueuePair& qp, const SendWr& wr) {
  return qp.PostSend({&wr, 1}).ok();
}
__attribute__((noinline)) size_t MeasuredPoll(CompletionQueue& cq, WorkCompletion* wc) {
  return cq.Poll({wc, 1});
}
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  auto context = Check(Context::Open({.device = "verbs:stub0", .rdma = Rdma::kRequired}));
  Device& device = *context.devices()[0];
  auto pd = Check(device.AllocateProtectionDomain());
  auto cq = Check(device.CreateCompletionQueue({.entries = 1024}));
  auto one = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  auto other = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  const std::string there = Check(other.address());
  (void)Check(one.address());
  Check(one.Connect(there));

  std::vector<std::byte> memory(4096);
  auto region = Check(pd.Register(memory, Access::kLocalWrite | Access::kRemoteWrite));
  const SendWr wr{.opcode = Opcode::kWrite,
                  .local = region.slice(0, 8),
                  .remote = region.remote().at(8),
                  .id = 7};
  WorkCompletion wc;
  for (int i = 0; i < rounds; ++i) {
    if (!MeasuredPost(one, wr) || MeasuredPoll(cq, &wc) != 1 || wc.id != 7) {
      std::fprintf(stderr, "round %d did not complete\n", i);
      return 1;
    }
  }
  std::printf("%d rounds\n", rounds);
}
