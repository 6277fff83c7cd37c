// SPDX-License-Identifier: Apache-2.0
#include "fallback/device.h"

#include "fallback/completion.h"
#include "fallback/completion_channel.h"
#include "fallback/driven.h"
#include "fallback/engine/limits.h"
#include "fallback/protection_domain.h"
#include "fallback/wire/datagram.h"
#include "fallback/wire/extension.h"

namespace verbena::fallback {

// Turns the host's wish for a call into one by the service. The earliest wish counts.
class HostTimer final : public Watched {
 public:
  HostTimer(Hub* hub, provider::Host* host) : hub_(hub), host_(host) { hub_->Add(this); }
  ~HostTimer() override { hub_->Remove(this); }

  void Set(Nanos at) {
    std::lock_guard lock(mutex_);
    if (at >= at_) return;
    at_ = at;
    hub_->SetDeadline(this, at);
  }
  void OnReady(bool, bool) override {}
  void OnDeadline() override {
    {
      std::lock_guard lock(mutex_);
      at_ = io::kNever;
    }
    host_->OnTimer();
  }

 private:
  Hub* const hub_;
  provider::Host* const host_;
  std::mutex mutex_;
  Nanos at_ = io::kNever;
};

DeviceInfo Device::Info() {
  DeviceInfo info;
  info.name = "tcp";
  info.provider = "tcp";
  info.transport = "iWARP over kernel TCP";
  info.detail = "every address of this host";
  info.usable = true;
  info.reason = "needs no RDMA device, no kernel module and no privileges";
  return info;
}

DeviceAttributes Device::Attributes() {
  DeviceAttributes a;
  a.max_queue_pairs = 1 << 20;
  a.max_completion_queues = 1 << 20;
  a.max_memory_regions = 1 << 24;
  a.max_memory_windows = 1 << 24;
  a.max_shared_receive_queues = 1 << 20;
  a.max_work_requests = engine::kMaxWorkRequests;
  a.max_sge = engine::kMaxSge;
  a.max_inline = engine::kMaxInline;
  a.max_completions = 1 << 22;
  a.max_initiator_depth = engine::kMaxDepth;
  a.max_responder_resources = engine::kMaxDepth;
  a.max_message = engine::kMaxMessage;
  a.max_datagram = wire::kMaxDatagramPayload;
  a.max_region = uint64_t{1} << 62;
  a.private_data_connect = wire::kConnectPrivateData;
  a.private_data_accept = wire::kAcceptPrivateData;
  a.private_data_reject = wire::kRejectPrivateData;
  return a;
}

Device::Device(provider::Context* context, io::World* world, io::Address from,
               const DeviceInfo& info, const engine::Hardships& hardships)
    : context_(context),
      info_(info),
      from_(from),
      hardships_(hardships),
      hub_(world),
      meeting_(this) {}

Device::~Device() = default;

Capabilities Device::capabilities() const {
  Capabilities c;
  c.immediate = c.atomics = c.send_with_invalidate = c.memory_windows = c.rnr = true;
  c.remote_completion = c.unguessable_keys = true;
  c.global_atomics = !hardships_.device_atomics;
  c.lazy_registration = c.peer_counters = c.responder_events = c.own_peer_known = true;
  c.out_of_band = c.out_of_band_handshake = true;
  c.refusal_reasons = c.queue_pair_rights = c.traffic_class = c.unreliable_connection = true;
  c.unreliable_datagram = const_cast<Hub&>(hub_).world().datagrams() != nullptr;
  return c;
}

DeviceCounters Device::counters() const {
  DeviceCounters c;
  {
    std::lock_guard lock(mutex_);
    c.queue_pairs = queue_pairs_.size();
  }
  c.regions = counts_.regions;
  c.registered_bytes = counts_.registered_bytes;
  c.connects = counts_.connects;
  c.accepts = counts_.accepts;
  c.rejects = counts_.rejects;
  c.handshake_failures = counts_.handshake_failures;
  c.service_wakeups = hub_.wakeups();
  return c;
}

absl::StatusOr<std::unique_ptr<provider::ProtectionDomain>> Device::AllocateProtectionDomain() {
  return std::make_unique<ProtectionDomain>(this);
}

absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> Device::CreateCompletionChannel() {
  return CompletionChannel::Create(this);
}

absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> Device::CreateCompletionQueue(
    const CqOptions& options) {
  if (absl::Status s = provider::CheckCqEntries("completion queue", options.entries,
                                                Attributes().max_completions, "tcp");
      !s.ok()) {
    return s;
  }
  if (absl::Status s = CheckLimit("completion queues", counts_.completion_queues + 1,
                                  Attributes().max_completion_queues);
      !s.ok()) {
    return s;
  }
  return CompletionQueue::Create(this, options);
}

std::vector<io::Address> Device::Addresses() {
  return from_.empty() || from_.is_any() ? hub_.streams().Addresses()
                                         : std::vector<io::Address>{from_};
}

void Device::SetHost(provider::Host* host) {
  host_ = host;
  timer_ = std::make_unique<HostTimer>(&hub_, host);
}

void Device::Push(const void* object, Event event) {
  if (host_ == nullptr) return;
  host_->Push(object, std::move(event));
  hub_.world().Changed();
}

void Device::Forget(const void* object) {
  if (host_ != nullptr) host_->Forget(object);
}

void Device::Changed() {
  if (host_ != nullptr) host_->Changed();
  hub_.world().Changed();
}

void Device::SetTimer(Nanos at) {
  if (timer_ != nullptr) timer_->Set(at);
}

void Device::Register(Driven* qp) {
  std::lock_guard lock(mutex_);
  queue_pairs_.insert(qp);
}

void Device::Unregister(Driven* qp) {
  std::lock_guard lock(mutex_);
  queue_pairs_.erase(qp);
}

void Device::WaitForDrives() {
  std::lock_guard lock(mutex_);
  for (Driven* qp : queue_pairs_) qp->ForgetDeadKeys();
}

}  // namespace verbena::fallback
