// SPDX-License-Identifier: Apache-2.0
// Making, changing and closing queue pairs. The hot path is datapath.cc.
#include "fallback/queue_pair.h"

#include <sched.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "transport/completion_queue.h"
#include "transport/protection_domain.h"
#include "transport/shared_receive_queue.h"

namespace verbena::fallback {

namespace {

using provider::Of;

}  // namespace

absl::StatusOr<std::unique_ptr<provider::QueuePair>> QueuePair::Create(
    ProtectionDomain* domain, const QueuePairOptions& options, uint32_t number) {
  using provider::CheckQueues;
  Device* device = domain->device();
  for (const absl::Status& s :
       {CheckQueues<CompletionQueue, SharedReceiveQueue>(options, device),
        provider::CheckQueueLimits(options.limits, Device::Attributes(), "tcp")}) {
    if (!s.ok()) return s;
  }
  return std::make_unique<QueuePair>(domain, options, Configure(domain, options, number));
}

engine::QueuePairConfig QueuePair::Configure(ProtectionDomain* domain,
                                             const QueuePairOptions& options, uint32_t number) {
  engine::QueuePairConfig c;
  c.type = options.type;
  c.number = number != 0 ? number : domain->device()->NewNumber();
  c.domain = domain->number();
  c.limits = provider::WithDefaults(options.limits, Device::Attributes());
  c.access = options.access;
  c.signal_all = options.signal == Signal::kAll;
  c.send_ring = &Of<CompletionQueue>(options.send_cq)->ring();
  c.receive_ring = &Of<CompletionQueue>(options.receive_cq)->ring();
  c.keys = &domain->device()->keys();
  c.hardships = domain->device()->hardships();
  return c;
}

QueuePair::QueuePair(ProtectionDomain* domain, const QueuePairOptions& options,
                     const engine::QueuePairConfig& config)
    : Driven(domain->device(), Of<CompletionQueue>(options.send_cq),
             Of<CompletionQueue>(options.receive_cq)),
      domain_(domain),
      srq_(Of<SharedReceiveQueue>(options.shared_receive_queue)),
      context_(options.context),
      engine_([&] {
        engine::QueuePairConfig c = config;
        c.observer = this;
        c.binder = this;
        c.shared_receives = srq_ != nullptr ? &srq_->queue() : nullptr;
        c.receive_domain = srq_ != nullptr ? srq_->domain()->number() : c.domain;
        return c;
      }()) {
  domain_->children().Add();
  send_cq_->Join(this);
  if (receive_cq_ != send_cq_) receive_cq_->Join(this);
  if (srq_ != nullptr) srq_->Join(this);
  device_->Register(this);
  device_->hub().Add(this);
}

QueuePair::~QueuePair() { domain_->children().Remove(); }

absl::Status QueuePair::Close() {
  WithOwnership([this] {
    CloseConnecting();
    ForgetContact();
    if (socket_ != io::kNoSocket && engine_.unmanaged()) TakeWhatIsThere();
    if (socket_ != io::kNoSocket) {
      engine_.Disconnect();
      SendSome(true, device_->hub().Now());
      EndStream();
    }
    word_.fetch_or(kDead, std::memory_order_acq_rel);
  });
  device_->hub().Remove(this);
  device_->Unregister(this);
  // Completions of a queue pair that is gone would only puzzle (ibv_destroy_qp(3) drops them too).
  send_cq_->ring().Forget(number());
  receive_cq_->ring().Forget(number());
  device_->Forget(this);
  // At last: they may be closed, and gone, as soon as nothing is on them.
  send_cq_->Leave(this);
  if (receive_cq_ != send_cq_) receive_cq_->Leave(this);
  if (srq_ != nullptr) srq_->Leave(this);
  return absl::OkStatus();
}

absl::Status QueuePair::Modify(const QpModify& change) {
  absl::Status result;
  WithOwnership([&] {
    if (change.state == QpState::kReset) {
      CloseConnecting();
      ForgetContact();
      if (socket_ != io::kNoSocket) {
        engine_.Disconnect();
        SendSome(true, device_->hub().Now());
        EndStream();
      }
    }
    result = engine_.Modify(change);
    if (change.state == QpState::kErr && result.ok() && engine_.unmanaged()) CloseConnecting();
    if (result.ok() && (change.timeout || change.retry_count) && phase_ == Phase::kStreaming) {
      const QpAttributes now = engine_.Query();
      SetLiveness(now.timeout, now.retry_count);
    }
  });
  device_->hub().world().Changed();
  return result;
}

// What a device would have taken, and acknowledged, before it was told to destroy the queue pair:
// programs that end at once leave it to the last moment.
void QueuePair::TakeWhatIsThere() {
  const Nanos now = device_->hub().Now();
  for (Came came = Came::kMore; came == Came::kMore;) {
    came = ReceiveSome(now);
    SendSome(true, now);
  }
}

void QueuePair::Finish() {
  if (!TryOwn()) return;  // who has it will look
  if (phase_ == Phase::kStreaming) TakeWhatIsThere();
  WorkAndRelease(Why::kReady, 0);
}

QpAttributes QueuePair::Query() const {
  // Whoever asks may be waiting for the last request: see Work. The mark comes first: who owns it
  // may have looked for it already, and the request's end not be visible yet.
  drain_watched_.store(true, std::memory_order_seq_cst);
  NoteToOwner();
  QpAttributes now = engine_.Query();
  now.traffic_class = traffic_class_.load(std::memory_order_relaxed);
  return now;
}

absl::Status QueuePair::Disconnect() {
  absl::Status result;
  WithOwnership([&] {
    if (phase_ == Phase::kIdle && engine_.state() != QpState::kErr) {
      result = absl::FailedPreconditionError(
          absl::StrCat("disconnect qp ", number(), ": it is not connected"));
    } else if (phase_ == Phase::kStreaming) {
      engine_.Disconnect();
    } else if (phase_ != Phase::kIdle) {
      ConnectFailed(absl::CancelledError("disconnected while connecting"), false);
    }
  });
  return result;
}

ConnectOutcome QueuePair::outcome() const {
  std::lock_guard lock(mutex_);
  return outcome_;
}

ConnectionInfo QueuePair::connection() const {
  std::lock_guard lock(mutex_);
  return info_;
}

void QueuePair::ForgetDeadKeys() {
  AwaitDrive();
  while (has_unsent_.load(std::memory_order_seq_cst)) {
    if ((word_.load(std::memory_order_seq_cst) & kDead) != 0) return;  // the lingerer has a copy
    if (!TryOwn()) {
      sched_yield();
      continue;
    }
    engine_.KeepUnsent();
    WorkAndRelease(Why::kPost, 0);
    return;
  }
}

void QueuePair::OnEvent(EventType type, const absl::Status& why) {
  Event e;
  e.type = type;
  e.context = context_;
  e.qp_number = number();
  e.status = why;
  device_->Push(this, std::move(e));
}

void QueuePair::PrepareBind(const WindowBinding& bind, engine::SendEntry* entry) {
  auto* window = dynamic_cast<MemoryWindow*>(bind.window->impl());
  auto* region = dynamic_cast<MemoryRegion*>(bind.region->impl());
  if (window == nullptr || region == nullptr) {
    entry->failure = WcStatus::kWindowBindError;
    entry->window = entry->region = nullptr;
    return;
  }
  entry->window = window->region();
  entry->region = region->region();
  entry->window->pending.fetch_add(1);
  entry->region->pending.fetch_add(1);
  entry->compare_add = bind.address;
  entry->swap = bind.length;
  entry->bind_access = bind.access;
  const RemoteBuffer announced = window->Announce(bind.address, bind.length);
  entry->remote_address = announced.address;
  entry->immediate_or_key = announced.key;
}

}  // namespace verbena::fallback
