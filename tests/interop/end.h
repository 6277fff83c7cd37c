// SPDX-License-Identifier: Apache-2.0
// One end of a connection under test: a queue pair, its queues, and memory whose content a seed
// decides. The initiator and the responder differ only in how they connect.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tests/interop/side_channel.h"
#include "transport/context.h"

namespace verbena::interop {

template <typename T>
T Check(absl::StatusOr<T> value, const char* what) {
  if (!value.ok()) Die(std::string(what) + ": " + std::string(value.status().message()));
  return *std::move(value);
}
void Check(const absl::Status& status, const char* what);

struct EndOptions {
  std::string provider = {};  // "tcp", "verbs:siw0"
  bool initiator = false;
  std::string address = {};   // of the responder
  uint64_t memory = 1 << 20;  // bytes that a message may have
  bool remote_completion = false;
};

class End {
 public:
  explicit End(const EndOptions& options);

  // Listens first, so that the caller may follow at once.
  void PrepareToConnect();
  // A new queue pair, connected. An error: what stands in the way.
  absl::Status Connect();
  void Disconnect();
  // The responder rejects with `reason`, and the initiator hears it. Empty, or what is wrong.
  std::string ConnectInVain(const std::string& reason);

  static constexpr uint64_t kGuard = 64;  // bytes behind a target that nobody may touch
  void FillPattern(uint64_t seed, uint64_t size);
  void FillGuard(uint64_t size);  // target and guard, with what no pattern has
  // Empty: [0, size) is the pattern, and the guard behind it is whole. Else what is wrong.
  std::string Compare(uint64_t seed, uint64_t size) const;

  WcStatus AwaitSend(absl::Duration patience) { return Await(send_cq, patience, nullptr); }
  WcStatus AwaitReceive(absl::Duration patience, WorkCompletion* wc) {
    return Await(receive_cq, patience, wc);
  }

  const EndOptions options;
  Context context;
  Device& device;
  std::vector<std::byte> memory;
  ProtectionDomain pd;
  MemoryRegion region;        // all of it, open to the peer
  CompletionChannel channel;  // of the receive queue
  CompletionQueue send_cq;
  CompletionQueue receive_cq;
  QueuePair qp;
  std::string private_data;  // of the peer's request or reply
  ConnectionInfo info;

 private:
  // kGeneralError if nothing came.
  WcStatus Await(CompletionQueue& cq, absl::Duration patience, WorkCompletion* wc);
  Listener listener_;
};

}  // namespace verbena::interop
