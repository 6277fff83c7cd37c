// SPDX-License-Identifier: Apache-2.0
// Two processes that do everything that goes over the wire once, for a capture.
//   every_operation serve ADDRESS:PORT            says `listening on …`, takes one connection
//   every_operation call ADDRESS:PORT [plain]     plain: what any iWARP peer can
// The last operation is one that the server refuses.
#include "tests/wireshark/every_operation.h"

#include <array>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include "examples/check.h"
#include "transport/context.h"

using namespace verbena;             // NOLINT: a test program
using namespace verbena::wireshark;  // NOLINT

namespace {

constexpr Access kAll = Access::kLocalWrite | Access::kRemoteWrite | Access::kRemoteRead |
                        Access::kRemoteAtomic | Access::kWindowBind;
constexpr uint32_t kWindows = 2;

// Memory, domain, queue pair and what they need.
struct End {
  explicit End(Device& device)
      : domain(Check(device.AllocateProtectionDomain())),
        cq(Check(device.CreateCompletionQueue())),
        memory(2 * kLarge),
        region(Check(domain.Register(memory, kAll))),
        qp(Check(domain.CreateQueuePair({.send_cq = &cq, .receive_cq = &cq}))) {}
  // The next `count` completions; ends the process if one is an error.
  void Finish(size_t count) {
    for (const WorkCompletion& wc : Check(cq.Wait(count, absl::Seconds(30)))) Check(wc.ToStatus());
  }
  void Do(const SendWr& request) {
    Check(qp.PostSend(request));
    Finish(1);
  }

  ProtectionDomain domain;
  CompletionQueue cq;
  std::vector<std::byte> memory;
  MemoryRegion region;
  QueuePair qp;
};

void Serve(Context& context, const char* address) {
  auto listener = Check(context.Listen(address));
  printf("listening on %s\n", listener.address().c_str());
  fflush(stdout);
  auto request = Check(listener.Next(absl::Seconds(30)));
  End end(request.device());
  // One receive less than there are messages of the peer: see below.
  const bool own = request.info().own_peer;
  for (uint32_t i = 0; i < (own ? kOwnReceives : kPlainReceives); ++i) {
    Check(end.qp.PostReceive({.local = end.region.slice(kLarge, kMedium)}));
  }
  Check(request.Accept(end.qp, {.private_data = Encode(end.region.remote())}));

  // Two windows, for the peer to invalidate; their keys are the first message.
  std::array<MemoryWindow, kWindows> windows;
  auto* keys = reinterpret_cast<uint32_t*>(end.memory.data());
  for (uint32_t i = 0; i < kWindows; ++i) {
    windows[i] = Check(end.domain.AllocateWindow());
    end.Do({.opcode = Opcode::kBindWindow,
            .bind = {&windows[i], &end.region, end.region.address(), 64, Access::kRemoteRead}});
    keys[i] = windows[i].remote().key;
  }
  Check(end.qp.PostSend({.local = end.region.slice(0, kWindows * sizeof(uint32_t))}));
  if (own) {
    end.Finish(kOwnReceives + 1);
    // The peer's next message found no receive; only then is there one.
    while (end.qp.counters().rnr_naks_sent == 0) (void)end.cq.Wait(1, absl::Milliseconds(1));
    Check(end.qp.PostReceive({.local = end.region.slice(kLarge, kMedium)}));
    end.Finish(1);
  } else {
    end.Finish(kPlainReceives + 1);
  }
  Check(end.qp.WaitUntilDisconnected(absl::Seconds(30)));
}

void Call(Context& context, const char* address, bool plain) {
  auto path = Check(context.Resolve(address));
  End end(path.device());
  Check(end.qp.PostReceive({.local = end.region.slice(0, kMedium)}));
  const RemoteBuffer peer = Check(Decode(Check(path.Connect(end.qp)).private_data));
  end.Finish(1);
  const auto* keys = reinterpret_cast<const uint32_t*>(end.memory.data());
  const std::array<uint32_t, kWindows> invalidate = {keys[0], keys[1]};

  const auto slice = [&end](uint32_t size) { return end.region.slice(0, size); };
  for (const uint32_t size : kWriteAndReadSizes) {
    end.Do({.opcode = Opcode::kWrite, .local = slice(size), .remote = peer.at(0)});
    end.Do({.opcode = Opcode::kRead, .local = slice(size), .remote = peer.at(0)});
  }
  end.Do({.local = slice(5)});
  end.Do({.local = slice(kMedium), .flags = SendFlags::kSolicited});
  end.Do({.opcode = Opcode::kSendWithInvalidate, .local = slice(5), .invalidate = invalidate[0]});
  end.Do({.opcode = Opcode::kSendWithInvalidate,
          .local = slice(0),
          .flags = SendFlags::kSolicited,
          .invalidate = invalidate[1]});
  if (!plain) {
    end.Do({.opcode = Opcode::kSendWithImm, .local = slice(5), .immediate = kImmediate});
    end.Do({.opcode = Opcode::kWriteWithImm,
            .local = slice(5),
            .remote = peer.at(0),
            .immediate = kImmediate + 1});
    end.Do({.opcode = Opcode::kWriteWithImm,
            .local = slice(0),
            .remote = peer.at(0),
            .flags = SendFlags::kSolicited,
            .immediate = kImmediate + 2});
    end.Do({.opcode = Opcode::kFetchAdd,
            .local = slice(8),
            .remote = peer.at(8),
            .atomic = {.compare_add = kAdded}});
    end.Do({.opcode = Opcode::kCompareSwap,
            .local = slice(8),
            .remote = peer.at(8),
            .atomic = {.compare_add = 1, .swap = kSwapped}});
    end.Do({.local = slice(5)});  // waits for a receive
  }
  Check(end.qp.PostSend(
      {.opcode = Opcode::kWrite, .local = slice(5), .remote = {peer.address, peer.key ^ 0x100}}));
  Check(end.qp.WaitUntilDisconnected(absl::Seconds(30)));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "every_operation serve|call ADDRESS:PORT [plain]\n");
    return 2;
  }
  auto context = Check(Context::Open({.device = "tcp"}));
  if (std::string(argv[1]) == "serve") {
    Serve(context, argv[2]);
  } else {
    Call(context, argv[2], argc > 3);
  }
}
