// SPDX-License-Identifier: Apache-2.0
// What queue pairs share that are not reliable: a send that fails stops the send queue alone (SQE,
// IBTA 10.3.1.6) or, as Soft-RoCE has it, the queue pair, and no receiver makes them wait. And
// unreliable connections (UC), which are nothing but that:
// docs/decisions/0023-unreliable-connections.md.
#pragma once

#include "verbs/queue_pair.h"

namespace verbena::verbs {

class UnreliableQueuePair : public QueuePair {
 public:
  using QueuePair::QueuePair;

  QpCounters counters() const override;
  void CompletionFailed(WcStatus status, const char* what, uint32_t key) override;

 protected:
  void LeftSqe();  // to RTS: what had failed is forgotten
};

// On RoCE and InfiniBand, connected out of band. Its posts and polls take the short ways of
// hot_path.cc, but for the opcodes that it does not have.
class UnreliableConnection final : public UnreliableQueuePair {
 public:
  static absl::StatusOr<std::unique_ptr<provider::QueuePair>> Create(
      ProtectionDomain* domain, const QueuePairOptions& options);
  using UnreliableQueuePair::UnreliableQueuePair;

  static Capabilities CapabilitiesOn(const Device& device);

 private:
  PostError Build(const SendWr& wr, uint64_t position, ibv_send_wr* out, ibv_sge* own) override;
  absl::Status Move(QpState to, const QpModify& change) override;
};

}  // namespace verbena::verbs
