// SPDX-License-Identifier: Apache-2.0
// Protection domains and what belongs to them: memory regions and windows. Queue pairs and memory
// of different domains never meet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/access.h"
#include "transport/counters.h"
#include "transport/datagram.h"
#include "transport/handle.h"
#include "transport/memory.h"
#include "transport/options.h"
#include "transport/provider.h"
#include "transport/queue_pair.h"
#include "transport/shared_receive_queue.h"

namespace verbena {

// Registered memory, owned by the application and lent to the device until Close(). The memory must
// outlive the registration: unmapping it earlier is undefined. Close() may be called under inbound
// traffic: once it returns no byte lands in or leaves the memory any more, and a peer that goes on
// gets REM_ACCESS_ERR. Any thread.
class MemoryRegion : public Handle<provider::MemoryRegion> {
 public:
  using Handle::Handle;
  uint64_t address() const { return impl_->address(); }  // iova of the first byte
  uint64_t length() const { return impl_->length(); }    // bytes
  uint32_t local_key() const { return impl_->local_key(); }
  uint32_t remote_key() const { return impl_->remote_key(); }
  RegionCounters counters() const { return impl_->counters(); }

  // A local entry of `length` bytes from `offset`. Bounds are checked when the request runs.
  Sge slice(uint64_t offset, uint32_t length) const {
    return {address() + offset, length, local_key()};
  }
  // What to tell the peer.
  RemoteBuffer remote() const { return {address(), length(), remote_key()}; }
};

// A type-2 memory window (IBTA 10.6.7.2.3): posted Opcode::kBindWindow lends part of a region under
// a key of its own, to the peer of the binding queue pair only, until it is invalidated by either
// end or closed. A region refuses to close while windows are bound to it.
class MemoryWindow : public Handle<provider::MemoryWindow> {
 public:
  using Handle::Handle;
  // What to tell the peer: known when the bind has been posted, valid once the bind completed.
  RemoteBuffer remote() const { return impl_->remote(); }
  WindowCounters counters() const { return impl_->counters(); }
};

class ProtectionDomain : public Handle<provider::ProtectionDomain> {
 public:
  ProtectionDomain() = default;
  ProtectionDomain(std::unique_ptr<provider::ProtectionDomain> impl, provider::Context* context)
      : Handle(std::move(impl)), context_(context) {}

  // InvalidArgument: empty span, address wraps, or remote write/atomic without local write.
  // ResourceExhausted: too many regions. Touches no page, takes microseconds at any size.
  absl::StatusOr<MemoryRegion> Register(std::span<std::byte> memory, Access access,
                                        const RegisterOptions& options = {});
  absl::StatusOr<MemoryWindow> AllocateWindow();

  // The queue pair is in INIT: receives may be posted, then it is connected, or (QpType::kUd)
  // modified to RTR and RTS. InvalidArgument names the limit that was exceeded, or the queue that
  // is missing or of another device.
  absl::StatusOr<QueuePair> CreateQueuePair(const QueuePairOptions& options);
  absl::StatusOr<SharedReceiveQueue> CreateSharedReceiveQueue(const SrqOptions& options = {});
  // InvalidArgument: not a numeric address, or none that the device can send to. Unimplemented:
  // no datagrams on this device (capabilities().unreliable_datagram).
  absl::StatusOr<AddressHandle> CreateAddressHandle(const AddressHandleOptions& options);

  DomainCounters counters() const { return impl_->counters(); }

 private:
  provider::Context* context_ = nullptr;
};

}  // namespace verbena
