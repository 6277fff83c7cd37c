// SPDX-License-Identifier: Apache-2.0
// One end of a connection: a queue pair with a completion queue of its own, and the error that is
// worth showing when it fails. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tools/verbena/buffer.h"
#include "transport/completion_queue.h"
#include "transport/device.h"
#include "transport/protection_domain.h"
#include "transport/queue_pair.h"
#include "transport/work_completion.h"

namespace verbena::tool {

struct LinkDepth {
  uint32_t sends = 16;
  uint32_t receives = 16;
};

// Why the connection of `qp` failed, given the first completion that shows it: the queue pair's
// cause, or the completion's own, and with whom. Cancelled: the peer disconnected, nothing is
// wrong.
absl::Status WhyFailed(QueuePair& qp, const WorkCompletion& failed);

class Link {
 public:
  // Every send is signalled. The device must outlive the link.
  static absl::StatusOr<std::unique_ptr<Link>> Make(Device& device, const LinkDepth& depth);

  // Memory that is released after the queue pair, so that nothing posted outlives it. The reference
  // holds as long as the link.
  absl::StatusOr<Buffer*> AddBuffer(size_t size, Access access);

  QueuePair& qp() { return qp_; }
  CompletionQueue& cq() { return cq_; }

  absl::Status PostSend(const SendWr& request) { return qp_.PostSend(request).ToStatus(); }
  absl::Status PostReceive(const ReceiveWr& request) { return qp_.PostReceive(request).ToStatus(); }

  // Sleeps until an operation of kind `wanted` completes; completions of sends are taken in
  // passing. DeadlineExceeded after `timeout`. Otherwise WhyFailed() of a completion, or
  // Internal if the peer's messages come out of turn.
  absl::StatusOr<WorkCompletion> Await(WcOpcode wanted, absl::Duration timeout);

 private:
  // In this order: the queue pair goes first, then what it uses.
  ProtectionDomain pd_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
  CompletionQueue cq_;
  QueuePair qp_;
};

}  // namespace verbena::tool
