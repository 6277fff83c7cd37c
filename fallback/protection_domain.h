// SPDX-License-Identifier: Apache-2.0
// Protection domains, memory regions and windows of the fallback.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>

#include "fallback/device.h"
#include "fallback/engine/key_table.h"
#include "transport/provider.h"

namespace verbena::fallback {

class ProtectionDomain final : public provider::ProtectionDomain {
 public:
  explicit ProtectionDomain(Device* device);
  ~ProtectionDomain() override;

  absl::Status Close() override { return children_.CheckNone("protection domain"); }
  absl::StatusOr<std::unique_ptr<provider::MemoryRegion>> Register(
      std::span<std::byte> memory, Access access, const RegisterOptions& options) override;
  // With the first byte at `iova`, which may be 0.
  absl::StatusOr<std::unique_ptr<provider::MemoryRegion>> RegisterAt(std::span<std::byte> memory,
                                                                     Access access, uint64_t iova);
  absl::StatusOr<std::unique_ptr<provider::MemoryWindow>> AllocateWindow() override;
  absl::StatusOr<std::unique_ptr<provider::QueuePair>> CreateQueuePair(
      const QueuePairOptions& options) override;
  absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>> CreateSharedReceiveQueue(
      const SrqOptions& options) override;
  absl::StatusOr<std::unique_ptr<provider::AddressHandle>> CreateAddressHandle(
      const AddressHandleOptions& options) override;
  absl::Status NoDatagrams() const;  // the world has none

  Device* device() const { return device_; }
  uint32_t number() const { return number_; }
  Children& children() { return children_; }
  DomainCounters counters() const override;
  void CountRegistration() { registrations_.fetch_add(1, std::memory_order_relaxed); }

 private:
  Device* const device_;
  const uint32_t number_;
  Children children_;
  std::atomic<uint64_t> registrations_{0};
};

class MemoryRegion final : public provider::MemoryRegion {
 public:
  MemoryRegion(ProtectionDomain* domain, std::span<std::byte> memory, Access access, uint64_t iova,
               bool file);
  ~MemoryRegion() override;

  absl::Status Close() override;
  uint64_t address() const override { return region_.first; }
  uint64_t length() const override { return region_.length; }
  uint32_t local_key() const override { return region_.key; }
  uint32_t remote_key() const override { return region_.key; }
  RegionCounters counters() const override;
  engine::Region* region() { return &region_; }

 private:
  ProtectionDomain* const domain_;
  engine::Region region_;
};

class MemoryWindow final : public provider::MemoryWindow {
 public:
  explicit MemoryWindow(ProtectionDomain* domain, bool type_1 = false);
  ~MemoryWindow() override;

  absl::Status Close() override;
  RemoteBuffer remote() const override;
  WindowCounters counters() const override;
  engine::Region* region() { return &region_; }
  // For the next bind, whose program chooses: its key, and what peers call the first byte.
  void Choose(uint32_t key, uint64_t first);
  // The bind that was posted last: what remote() tells. Returns that.
  RemoteBuffer Announce(uint64_t address, uint64_t length);

 private:
  ProtectionDomain* const domain_;
  engine::Region region_;
  mutable std::mutex mutex_;
  RemoteBuffer remote_;
  std::optional<RemoteBuffer> chosen_;
  uint64_t binds_ = 0;
};

}  // namespace verbena::fallback
