// SPDX-License-Identifier: Apache-2.0
// Shared receive queues of the fallback.
#pragma once

#include <memory>
#include <mutex>

#include "absl/container/flat_hash_set.h"
#include "fallback/engine/receive_queue.h"
#include "fallback/protection_domain.h"
#include "transport/provider.h"

namespace verbena::fallback {

class Driven;

class SharedReceiveQueue final : public provider::SharedReceiveQueue {
 public:
  static absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>> Create(
      ProtectionDomain* domain, const SrqOptions& options);
  SharedReceiveQueue(ProtectionDomain* domain, const SrqOptions& options);
  ~SharedReceiveQueue() override;

  absl::Status Close() override { return children_.CheckNone("shared receive queue"); }
  PostResult PostReceive(std::span<const ReceiveWr> requests) override;
  absl::Status SetLimit(uint32_t limit) override;
  SrqLimits limits() const override { return queue_.limits(); }
  SrqCounters counters() const override { return queue_.counters(); }

  engine::ReceiveQueue& queue() { return queue_; }
  ProtectionDomain* domain() const { return domain_; }
  void Join(Driven* qp);
  void Leave(Driven* qp);
  void LimitReached();

 private:
  ProtectionDomain* const domain_;
  void* const context_;
  engine::ReceiveQueue queue_;
  Children children_;
  std::mutex mutex_;
  absl::flat_hash_set<Driven*> queue_pairs_;
};

}  // namespace verbena::fallback
