// SPDX-License-Identifier: Apache-2.0
#include "fallback/protection_domain.h"

#include "absl/strings/str_cat.h"
#include "fallback/address_handle.h"
#include "fallback/datagram_queue_pair.h"
#include "fallback/mapping.h"
#include "fallback/queue_pair.h"
#include "fallback/shared_receive_queue.h"

namespace verbena::fallback {

ProtectionDomain::ProtectionDomain(Device* device) : device_(device), number_(device->NewDomain()) {
  device_->children().Add();
}

ProtectionDomain::~ProtectionDomain() { device_->children().Remove(); }

absl::StatusOr<std::unique_ptr<provider::MemoryRegion>> ProtectionDomain::Register(
    std::span<std::byte> memory, Access access, const RegisterOptions& options) {
  return RegisterAt(memory, access,
                    options.iova != 0 ? options.iova : reinterpret_cast<uint64_t>(memory.data()));
}

absl::StatusOr<std::unique_ptr<provider::MemoryRegion>> ProtectionDomain::RegisterAt(
    std::span<std::byte> memory, Access access, uint64_t iova) {
  if (absl::Status s = provider::CheckMemory(memory, access, {.iova = iova}); !s.ok()) return s;
  const DeviceAttributes limits = Device::Attributes();
  if (absl::Status s = CheckLimit("region bytes", memory.size(), limits.max_region); !s.ok()) {
    return s;
  }
  if (device_->counts().regions >= limits.max_memory_regions) {
    return absl::ResourceExhaustedError(
        absl::StrCat("register: ", limits.max_memory_regions, " regions are registered already"));
  }
  const Mapping mapping = QueryMapping(memory);
  if (mapping.read_only && Allows(access, Access::kLocalWrite)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "register ", memory.size(),
        " bytes: part of the memory is mapped without write permission, "
        "and the access asks for writes; map it writable or register it for reading only"));
  }
  return std::make_unique<MemoryRegion>(this, memory, access, iova, mapping.file);
}

absl::StatusOr<std::unique_ptr<provider::MemoryWindow>> ProtectionDomain::AllocateWindow() {
  return std::make_unique<MemoryWindow>(this);
}

absl::StatusOr<std::unique_ptr<provider::QueuePair>> ProtectionDomain::CreateQueuePair(
    const QueuePairOptions& options) {
  if (options.type == QpType::kUd) {
    return DatagramQueuePair::Create(this, options, device_->OwnIp());
  }
  return QueuePair::Create(this, options);
}

absl::Status ProtectionDomain::NoDatagrams() const {
  return absl::UnimplementedError(
      "datagrams: this network has none (capabilities().unreliable_datagram)");
}

absl::StatusOr<std::unique_ptr<provider::AddressHandle>> ProtectionDomain::CreateAddressHandle(
    const AddressHandleOptions& options) {
  return AddressHandle::Create(this, options);
}

absl::StatusOr<std::unique_ptr<provider::SharedReceiveQueue>>
ProtectionDomain::CreateSharedReceiveQueue(const SrqOptions& options) {
  return SharedReceiveQueue::Create(this, options);
}

MemoryRegion::MemoryRegion(ProtectionDomain* domain, std::span<std::byte> memory, Access access,
                           uint64_t iova, bool file)
    : domain_(domain) {
  Device* device = domain_->device();
  region_.key = device->keys().NewKey();
  region_.domain = domain_->number();
  region_.access = access;
  region_.guarded = file;
  region_.first = iova;
  region_.length = memory.size();
  region_.host = memory.data();
  device->keys().Add(&region_);
  domain_->children().Add();
  domain_->CountRegistration();
  device->counts().regions.fetch_add(1);
  device->counts().registered_bytes.fetch_add(memory.size());
}

// The key dies first; then whoever was using it in a call is waited for, never a message.
absl::Status MemoryRegion::Close() {
  const uint32_t in_use = region_.windows.load() + region_.pending.load();
  if (in_use > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("close memory region: ", in_use,
                     " windows are bound to it; invalidate or close them first"));
  }
  domain_->device()->keys().Kill(&region_);
  domain_->device()->WaitForDrives();
  return absl::OkStatus();
}

MemoryRegion::~MemoryRegion() {
  domain_->device()->counts().regions.fetch_sub(1);
  domain_->device()->counts().registered_bytes.fetch_sub(region_.length);
  domain_->children().Remove();
}

RegionCounters MemoryRegion::counters() const {
  RegionCounters c;
  c.remote_reads = region_.reads.load(std::memory_order_relaxed);
  c.remote_writes = region_.writes.load(std::memory_order_relaxed);
  c.remote_atomics = region_.atomics.load(std::memory_order_relaxed);
  return c;
}

MemoryWindow::MemoryWindow(ProtectionDomain* domain, bool type_1) : domain_(domain) {
  region_.window = true;
  region_.type_1 = type_1;
  region_.domain = domain_->number();
  domain_->children().Add();
  domain_->device()->counts().windows.fetch_add(1);
}

absl::Status MemoryWindow::Close() {
  if (region_.pending.load() > 0) {
    return absl::FailedPreconditionError(
        "close memory window: a bind of it is posted and not complete; wait for its completion");
  }
  if (region_.bound.load()) engine::ReleaseWindow(&domain_->device()->keys(), &region_);
  domain_->device()->WaitForDrives();
  return absl::OkStatus();
}

MemoryWindow::~MemoryWindow() {
  domain_->device()->counts().windows.fetch_sub(1);
  domain_->children().Remove();
}

RemoteBuffer MemoryWindow::remote() const {
  std::lock_guard lock(mutex_);
  return remote_;
}

void MemoryWindow::Choose(uint32_t key, uint64_t first) {
  std::lock_guard lock(mutex_);
  chosen_ = {first, 0, key};
}

RemoteBuffer MemoryWindow::Announce(uint64_t address, uint64_t length) {
  std::lock_guard lock(mutex_);
  if (chosen_) {
    remote_ = {chosen_->address, length, chosen_->key};
    chosen_.reset();
  } else {
    remote_ = {address, length, domain_->device()->keys().NewKey()};
  }
  ++binds_;
  return remote_;
}

WindowCounters MemoryWindow::counters() const {
  std::lock_guard lock(mutex_);
  return {.binds = binds_,
          .remote_reads = region_.reads.load(std::memory_order_relaxed),
          .remote_writes = region_.writes.load(std::memory_order_relaxed),
          .remote_atomics = region_.atomics.load(std::memory_order_relaxed)};
}

DomainCounters ProtectionDomain::counters() const {
  return {.objects = static_cast<uint64_t>(children_.count()),
          .registrations = registrations_.load(std::memory_order_relaxed)};
}

}  // namespace verbena::fallback
