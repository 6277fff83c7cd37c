// SPDX-License-Identifier: Apache-2.0
// Protection domains, memory regions and windows of a device.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "transport/provider.h"
#include "verbs/device.h"
#include "verbs/iwarp_domain.h"
#include "verbs/spent_handles.h"

namespace verbena::verbs {

class ProtectionDomain final : public provider::ProtectionDomain {
 public:
  static absl::StatusOr<std::unique_ptr<provider::ProtectionDomain>> Create(Device* device);
  ProtectionDomain(Device* device, ibv_pd* pd);
  ~ProtectionDomain() override;

  absl::Status Close() override;
  absl::StatusOr<std::unique_ptr<provider::MemoryRegion>> Register(
      std::span<std::byte> memory, Access access, const RegisterOptions& options) override;
  absl::StatusOr<std::unique_ptr<provider::MemoryWindow>> AllocateWindow() override;
  absl::StatusOr<std::unique_ptr<provider::QueuePair>> CreateQueuePair(
      const QueuePairOptions& options) override;
  absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>> CreateSharedReceiveQueue(
      const SrqOptions& options) override;
  absl::StatusOr<std::unique_ptr<provider::AddressHandle>> CreateAddressHandle(
      const AddressHandleOptions& options) override;

  Device* device() const { return device_; }
  ibv_pd* pd() const { return pd_; }
  IwarpDomain* iwarp() const { return iwarp_.get(); }  // null on other devices
  Children& children() { return children_; }
  SpentHandles& spent_handles() { return spent_handles_; }
  DomainCounters counters() const override;
  void CountRegistration() { registrations_.fetch_add(1, std::memory_order_relaxed); }

 private:
  Device* const device_;
  ibv_pd* pd_;
  std::unique_ptr<IwarpDomain> iwarp_;
  Children children_;
  SpentHandles spent_handles_;
  std::atomic<uint64_t> registrations_{0};
};

class MemoryRegion final : public provider::MemoryRegion {
 public:
  MemoryRegion(ProtectionDomain* domain, ibv_mr* mr, uint64_t first, Access access);
  ~MemoryRegion() override;

  absl::Status Close() override;
  uint64_t address() const override { return first_; }
  uint64_t length() const override { return length_; }
  uint32_t local_key() const override { return local_key_; }
  uint32_t remote_key() const override { return remote_key_; }
  RegionCounters counters() const override { return {}; }  // a device tells nobody

  ibv_mr* mr() const { return mr_; }
  Children& binds() { return binds_; }  // posted and not complete

 private:
  ProtectionDomain* const domain_;
  ibv_mr* mr_;
  const uint64_t first_;
  const uint64_t length_;
  const Access access_;
  const uint32_t local_key_;
  const uint32_t remote_key_;
  Children binds_;
};

class MemoryWindow final : public provider::MemoryWindow {
 public:
  MemoryWindow(ProtectionDomain* domain, ibv_mw* mw);
  ~MemoryWindow() override;

  absl::Status Close() override;
  RemoteBuffer remote() const override;
  WindowCounters counters() const override;

  ibv_mw* mw() const { return mw_; }
  Children& binds() { return binds_; }
  // A bind is about to be posted: the key that it will have. Announce: it was posted.
  uint32_t NextKey() const { return ibv_inc_rkey(mw_->rkey); }
  void Announce(uint64_t address, uint64_t length, uint32_t key);

 private:
  ProtectionDomain* const domain_;
  ibv_mw* mw_;
  Children binds_;
  mutable std::mutex mutex_;
  RemoteBuffer remote_;
  uint64_t posted_ = 0;
};

// As the kernel takes it; what the device cannot do at all is left out.
int AccessFlags(Access access, const Capabilities& capabilities);

}  // namespace verbena::verbs
