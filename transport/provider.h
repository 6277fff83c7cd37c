// SPDX-License-Identifier: Apache-2.0
// The seam between the API and what carries it out. A provider implements these classes; nobody
// else sees them. For every entry, unless it says otherwise: any thread may call; it does not
// block; spans and pointers are borrowed for the call; errors carry object, fact and remedy.
// Close(): FailedPrecondition while children are open, and then nothing has changed; OK: the object
// serves nothing more and may be destroyed. The API destroys an object only after Close() was OK.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/capabilities.h"
#include "transport/counters.h"
#include "transport/events.h"
#include "transport/options.h"
#include "transport/out_of_band.h"
#include "transport/qp_state.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"

namespace verbena::provider {

class Object {
 public:
  virtual ~Object() = default;
  virtual absl::Status Close() = 0;
};

class MemoryRegion : public Object {
 public:
  virtual uint64_t address() const = 0;  // iova of the first byte
  virtual uint64_t length() const = 0;
  virtual uint32_t local_key() const = 0;
  virtual uint32_t remote_key() const = 0;
  virtual RegionCounters counters() const = 0;
};

class MemoryWindow : public Object {
 public:
  virtual RemoteBuffer remote() const = 0;  // as of the latest posted bind
  virtual WindowCounters counters() const = 0;
};

class CompletionChannel : public Object {
 public:
  virtual int fd() const = 0;
  virtual bool TryNext(CqEvent* event) = 0;
  virtual ChannelCounters counters() const = 0;
  // Blocks until TryNext may have something (true, perhaps for nothing) or `timeout` (false).
  virtual bool Await(absl::Duration timeout) = 0;
};

class CompletionQueue : public Object {
 public:
  virtual size_t Poll(std::span<WorkCompletion> out) = 0;  // hot; moves bytes too
  virtual absl::Status RequestNotify(Notify kind) = 0;
  virtual absl::Status Resize(uint32_t entries) = 0;  // never drops an entry
  virtual uint32_t entries() const = 0;
  virtual CqCounters counters() const = 0;
  // Blocks until Poll may have something (true, perhaps for nothing) or `timeout` (false).
  virtual bool Await(absl::Duration timeout) = 0;
};

class Device;

// Where datagrams go. Posts go by it while the handle is open, and not afterwards.
class AddressHandle : public Object {
 public:
  virtual Device* device() const = 0;  // who else may look behind it
  virtual const AddressHandleOptions& options() const = 0;
};

class SharedReceiveQueue : public Object {
 public:
  virtual PostResult PostReceive(std::span<const ReceiveWr> requests) = 0;
  virtual absl::Status SetLimit(uint32_t limit) = 0;  // arms the one-shot event; 0 disarms
  virtual SrqLimits limits() const = 0;
  virtual SrqCounters counters() const = 0;
};

class QueuePair : public Object {
 public:
  virtual PostResult PostSend(std::span<const SendWr> requests) = 0;        // hot
  virtual PostResult PostReceive(std::span<const ReceiveWr> requests) = 0;  // hot
  virtual absl::Status Modify(const QpModify& change) = 0;
  virtual QpAttributes Query() const = 0;
  virtual Capabilities capabilities() const = 0;  // of the peer, once connected
  virtual absl::Status Disconnect() = 0;   // as rdma_disconnect(3): to ERR, flush, tell the peer
  virtual absl::Status cause() const = 0;  // why it is in ERR; OK: it is not, or was asked to
  virtual ConnectOutcome outcome() const = 0;  // of the latest connect of this queue pair
  virtual ConnectionInfo connection() const = 0;
  virtual QpCounters counters() const = 0;
  // Out of band. The contact stays until RESET; Connect needs it taken. The outcome is an event.
  virtual absl::StatusOr<Contact> contact() = 0;
  virtual absl::Status Connect(const Contact& peer, const ConnectParameters& parameters) = 0;
  // QpType::kUd. `group`: a numeric address; NotFound: to be left, and not attached.
  virtual absl::Status AttachMulticast(const std::string& group);
  virtual absl::Status DetachMulticast(const std::string& group);
};

class ProtectionDomain : public Object {
 public:
  virtual DomainCounters counters() const = 0;
  virtual absl::StatusOr<std::unique_ptr<MemoryRegion>> Register(
      std::span<std::byte> memory, Access access, const RegisterOptions& options) = 0;
  virtual absl::StatusOr<std::unique_ptr<MemoryWindow>> AllocateWindow() = 0;
  virtual absl::StatusOr<std::unique_ptr<QueuePair>> CreateQueuePair(
      const QueuePairOptions& options) = 0;
  virtual absl::StatusOr<std::unique_ptr<SharedReceiveQueue>> CreateSharedReceiveQueue(
      const SrqOptions& options) = 0;
  virtual absl::StatusOr<std::unique_ptr<AddressHandle>> CreateAddressHandle(
      const AddressHandleOptions& options);
};

class Context;

class Device {
 public:
  virtual ~Device() = default;
  virtual Context* owner() const = 0;  // whose Await serves waits for what is made here
  virtual const DeviceInfo& info() const = 0;
  virtual DeviceAttributes attributes() const = 0;
  virtual Capabilities capabilities() const = 0;
  virtual DeviceCounters counters() const = 0;
  virtual absl::StatusOr<std::unique_ptr<ProtectionDomain>> AllocateProtectionDomain() = 0;
  virtual absl::StatusOr<std::unique_ptr<CompletionChannel>> CreateCompletionChannel() = 0;
  virtual absl::StatusOr<std::unique_ptr<CompletionQueue>> CreateCompletionQueue(
      const CqOptions& options) = 0;
};

// How the device of a connection was chosen. What info() and then the queue pair's connection()
// say.
struct Selection {
  std::vector<Candidate> candidates = {};
  bool tell_peer = false;   // a path: the connection request carries them to the peer
  bool rendezvous = false;  // a path: its connects ask for a way over RDMA and are always rejected
};

class ConnectionRequest : public Object {  // Close() without an answer rejects
 public:
  virtual Device* device() const = 0;
  virtual const ConnectionInfo& info() const = 0;
  virtual const std::string& private_data() const = 0;
  virtual bool rendezvous() const { return false; }       // see Selection: only to be rejected
  virtual void Announce(const Selection& selection) = 0;  // before Accept
  virtual absl::Status Accept(QueuePair& qp, const AcceptParameters& parameters) = 0;
  virtual absl::Status Reject(const std::string& private_data) = 0;
};

class Listener : public Object {
 public:
  virtual std::string address() const = 0;  // with the port that it got
  virtual int fd() const = 0;
  virtual std::unique_ptr<ConnectionRequest> TryNext() = 0;  // null: none waits
  virtual ListenerCounters counters() const = 0;
};

class Path : public Object {
 public:
  virtual Device* device() const = 0;
  virtual const ConnectionInfo& info() const = 0;
  virtual void Announce(const Selection& selection) = 0;  // before Connect
  // May be closed as soon as it returned. The outcome is an event of `qp`: kEstablished, kRejected
  // or kUnreachable.
  virtual absl::Status Connect(QueuePair& qp, const ConnectParameters& parameters) = 0;
};

class Context : public Object {
 public:
  virtual std::vector<Device*> devices() const = 0;
  virtual absl::StatusOr<std::unique_ptr<Listener>> Listen(const std::string& address,
                                                           const ListenOptions& options) = 0;
  virtual absl::StatusOr<std::unique_ptr<Path>> Resolve(const std::string& address,  // may block
                                                        const ResolveOptions& options) = 0;
  // Set once before anything else is called.
  virtual void SetHost(Host* host) = 0;
  // Blocks until `ready` (called often, from this thread) or `timeout`; the answer is ready()'s.
  virtual bool Await(absl::FunctionRef<bool()> ready, absl::Duration timeout) = 0;
  virtual void Wake() = 0;  // Await looks again: something outside of this provider changed
  // FailedPrecondition: what Close() would refuse for.
  virtual absl::Status CheckClosable() const = 0;
  virtual ContextCounters counters() const { return {}; }
  virtual Contact contact() const = 0;  // the devices; not the nonce

  // For the provider that others are composed on (connect/): a clock, which Await's time-outs are
  // counted in, and Host::OnTimer in `after` or sooner, on the service and without a lock held.
  virtual absl::Duration Now() const { return absl::ZeroDuration(); }
  virtual void SetTimer(absl::Duration) {}
};

}  // namespace verbena::provider
