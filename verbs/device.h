// SPDX-License-Identifier: Apache-2.0
// One opened RDMA device: what it can, the queue pairs on it, and its asynchronous events.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "transport/provider.h"
#include "verbs/errors.h"
#include "verbs/inventory.h"
#include "verbs/ledger.h"
#include "verbs/library.h"
#include "verbs/resources.h"
#include "verbs/service.h"

namespace verbena::verbs {

class ConnectionRequest;
class QueuePair;

class Device final : public provider::Device,
                     public EventSource,
                     public CmHandler,
                     public Attended {
 public:
  Device(provider::Context* owner, Service* service, Found found);
  ~Device() override;

  provider::Context* owner() const override { return owner_; }
  const DeviceInfo& info() const override { return found_.info; }
  DeviceAttributes attributes() const override;
  Capabilities capabilities() const override { return capabilities_; }
  DeviceCounters counters() const override;
  absl::StatusOr<std::unique_ptr<provider::ProtectionDomain>> AllocateProtectionDomain() override;
  absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> CreateCompletionChannel() override;
  absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> CreateCompletionQueue(
      const CqOptions& options) override;

  int event_fd() const override { return found_.context->async_fd; }
  void OnEvents() override;
  void OnCm(const CmEvent& event) override;
  void OnDeadline() override;

  ibv_context* context() const { return found_.context.get(); }
  const std::string& name() const { return found_.info.name; }
  bool iwarp() const { return found_.iwarp; }
  bool software() const { return found_.info.software; }
  // It refused to make one: "what on device rxe0: errno", with limit and count, and what to do.
  absl::Status Refused(int error, const std::string& what, Resource resource,
                       const std::string& remedy) const;
  uint32_t device_work_requests() const {  // a send queue
    return static_cast<uint32_t>(found_.attributes.max_qp_wr);
  }
  // iWARP: of one that is flushed together with its confirmation (IwarpSends).
  uint32_t completions_a_request() const { return found_.iwarp ? 2 : 1; }
  uint8_t port() const { return found_.port; }
  int ack_delay() const { return found_.attributes.local_ca_ack_delay; }  // code
  absl::StatusOr<ibv_port_attr> PortNow() const;                          // out_of_band.cc
  absl::StatusOr<Way> way() const;  // without a queue pair; out_of_band.cc
  std::vector<Gid> gids() const;    // of the port, as of now; out_of_band.cc
  uint32_t device_inline() const {  // bytes that the driver takes
    const std::lock_guard lock(inline_mutex_);
    return device_inline_;
  }
  Service& service() { return *service_; }
  Ledgers& ledgers() { return ledgers_; }
  Children& children() { return children_; }

  void SetHost(provider::Host* host);
  void Changed();  // a listener has a request
  void Push(const void* object, Event event);
  void Forget(const void* object);

  // With the service's mutex held.
  void Join(uint32_t qp_number, QueuePair* qp) { queue_pairs_[qp_number] = qp; }
  void Leave(uint32_t qp_number) { queue_pairs_.erase(qp_number); }
  void Join(ConnectionRequest* request) { requests_.insert(request); }
  void Leave(ConnectionRequest* request) { requests_.erase(request); }
  // It failed or is being removed. The kernel waits until nothing is open on it, so everything that
  // this provider holds is let go of: connections at once, the device itself when the application
  // has closed what it made.
  void Gone();
  bool gone() const { return gone_.load(std::memory_order_seq_cst); }

  // From a poll, without the mutex: the first completion of a queue pair that failed.
  void ReportFailure(uint32_t qp_number, WcStatus status, const char* what, uint32_t key);

  // What the port counts of refusals for want of a receive (the kernel keeps none for one queue
  // pair): `received` from peers, else sent to them. 0 where the driver counts none.
  uint64_t RnrNaks(bool received) const;

  struct Counts {
    std::atomic<uint64_t> regions{0}, registered_bytes{0}, connects{0}, accepts{0}, rejects{0},
        handshake_failures{0};
  };
  Counts& counts() { return counts_; }

 private:
  class Use;
  void Watch();
  void LetGo();
  bool ProbeInline();  // false: nothing is known, for want of something else
  void Dispatch(const ibv_async_event& event);
  void DispatchQueuePair(const ibv_async_event& event);

  provider::Context* const owner_;
  Service* const service_;
  Found found_;
  DeviceAttributes attributes_;
  Capabilities capabilities_;
  mutable std::mutex inline_mutex_;  // the next two, and attributes_.max_inline
  uint32_t device_inline_ = 0;
  bool inline_known_ = false;
  std::atomic<bool> gone_{false};
  rdma_cm_id* watch_ = nullptr;  // bound to the device: rdma_cm tells who is when it is removed
  Ledgers ledgers_;
  mutable Children children_;
  provider::Host* host_ = nullptr;
  absl::flat_hash_map<uint32_t, QueuePair*> queue_pairs_;
  absl::flat_hash_set<ConnectionRequest*> requests_;
  Counts counts_;
};

// Keeps the device open while something is made on it, or asked of it.
class Device::Use {
 public:
  explicit Use(const Device* device) : device_(device) {
    // Before gone() is asked, as OnDeadline counts after it was set: it sees the child, or this
    // sees that the device is gone. All four are seq_cst.
    device_->children_.Add();
  }
  ~Use() { device_->children_.Remove(); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  absl::Status Check() const;  // Unavailable: it is gone

 private:
  const Device* const device_;
};

}  // namespace verbena::verbs
