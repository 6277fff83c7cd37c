// SPDX-License-Identifier: Apache-2.0
// The data path: 32 requests a doorbell, completions taken as they come, nothing allocated, nothing
// that blocks. Adds one to a counter at the far end, many times; both ends are in this process.
//   hot_loop [TIMES]
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "examples/check.h"
#include "transport/context.h"

using namespace verbena;  // NOLINT: an example

namespace {

void AddOften(QueuePair& qp, CompletionQueue& cq, Sge before, RemoteAddress counter, int times) {
  std::array<SendWr, 32> batch;
  batch.fill({.opcode = Opcode::kFetchAdd,
              .local = before,
              .remote = counter,
              .atomic = {.compare_add = 1}});
  std::array<WorkCompletion, 64> done;
  int posted = 0;
  int completed = 0;
  while (completed < times) {
    const auto next = std::min<size_t>(batch.size(), times - posted);
    const auto [accepted, error] = qp.PostSend(std::span(batch).first(next));  // one doorbell
    if (error != PostError::kNone && error != PostError::kQueueFull) {
      fprintf(stderr, "post: %s\n", PostErrorText(error));
      std::exit(1);
    }
    posted += static_cast<int>(accepted);  // fewer than `next`: the queue is full, poll first
    const size_t count = cq.Poll(done);    // never blocks; moves the bytes too
    for (size_t i = 0; i < count; ++i) Check(done[i].ToStatus());
    completed += static_cast<int>(count);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int times = argc > 1 ? std::atoi(argv[1]) : 1'000'000;
  auto context = Check(Context::Open());
  auto listener = Check(context.Listen("127.0.0.1:0"));
  auto path = Check(context.Resolve(listener.address()));
  auto& device = path.device();
  auto pd = Check(device.AllocateProtectionDomain());
  auto cq = Check(device.CreateCompletionQueue());
  alignas(8) std::array<uint64_t, 2> words = {};  // the counter, and what it was before
  auto region = Check(pd.Register(std::as_writable_bytes(std::span(words)),
                                  Access::kLocalWrite | Access::kRemoteAtomic));
  auto near = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  auto far = Check(pd.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}));
  Check(path.StartConnect(near));
  auto request = Check(listener.Next());
  Check(request.Accept(far));
  while (near.state() != QpState::kRts) Check(context.events().Next());

  AddOften(near, cq, region.slice(8, 8), region.remote().at(0), times);
  printf("the counter is %llu\n", static_cast<unsigned long long>(words[0]));
  Check(near.Disconnect());
  return words[0] == static_cast<uint64_t>(times) ? 0 : 1;
}
