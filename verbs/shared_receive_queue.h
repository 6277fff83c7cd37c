// SPDX-License-Identifier: Apache-2.0
// Receives that many queue pairs of a device take from.
#pragma once

#include <atomic>
#include <memory>

#include "transport/provider.h"
#include "verbs/protection_domain.h"

namespace verbena::verbs {

class SharedReceiveQueue final : public provider::SharedReceiveQueue {
 public:
  static absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>> Create(
      ProtectionDomain* domain, const SrqOptions& options);
  SharedReceiveQueue(ProtectionDomain* domain, const SrqOptions& options);
  ~SharedReceiveQueue() override;

  absl::Status Close() override;
  PostResult PostReceive(std::span<const ReceiveWr> requests) override;  // hot_path.cc
  absl::Status SetLimit(uint32_t limit) override;
  SrqLimits limits() const override;
  SrqCounters counters() const override;

  ibv_srq* srq() const { return srq_; }
  ProtectionDomain* domain() const { return domain_; }
  Children& children() { return children_; }
  // With the service's mutex held: the limit event, or an error of the queue.
  void OnEvent(bool limit_reached);

 private:
  PostResult PostEach(std::span<const ReceiveWr> requests);  // hot_path.cc
  PostResult Refused(uint64_t name, int error);              // hot_path.cc
  void LimitReached();

  ProtectionDomain* const domain_;
  void* const context_;
  ibv_srq* srq_ = nullptr;
  Ledger* ledger_ = nullptr;
  SrqLimits limits_;
  std::atomic<uint32_t> limit_{0};
  std::atomic<uint64_t> limit_events_{0};
  Children children_;
};

}  // namespace verbena::verbs
