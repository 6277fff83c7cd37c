// SPDX-License-Identifier: Apache-2.0
// Making and closing queue pairs, and what is asked of them. The hot path is hot_path.cc.
#include "verbs/queue_pair.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "transport/completion_queue.h"
#include "transport/shared_receive_queue.h"
#include "verbs/iwarp_queue_pair.h"
#include "verbs/memlock.h"
#include "verbs/unreliable_queue_pair.h"

namespace verbena::verbs {

using provider::Of;

namespace {

Capabilities CapabilitiesOf(const Device& device, QpType type) {
  Capabilities c =
      type == QpType::kUc ? UnreliableConnection::CapabilitiesOn(device) : device.capabilities();
  c.unreliable_connection = type == QpType::kUc;
  c.unreliable_datagram = type == QpType::kUd;
  return c;
}

ibv_qp_type TheDrivers(QpType type) {
  switch (type) {
    case QpType::kUd:
      return IBV_QPT_UD;
    case QpType::kUc:
      return IBV_QPT_UC;
    case QpType::kRc:
      break;
  }
  return IBV_QPT_RC;
}

}  // namespace

absl::Status QueuePair::CheckOptions(ProtectionDomain* domain, const QueuePairOptions& o) {
  using provider::CheckQueues;
  Device* device = domain->device();
  if (absl::Status s = CheckQueues<CompletionQueue, SharedReceiveQueue>(o, device); !s.ok()) {
    return s;
  }
  // Soft-RoCE judges the receives by the queue pair's domain, against IBTA 10.2.9.
  const auto* srq = Of<SharedReceiveQueue>(o.shared_receive_queue);
  if (srq != nullptr && srq->domain() != domain && device->software()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "create queue pair: its shared receive queue is of another protection domain, which "
        "device ",
        device->name(), " does not serve; make both on one"));
  }
  return provider::CheckQueueLimits(o.limits, device->attributes(), device->name());
}

absl::StatusOr<std::unique_ptr<provider::QueuePair>> QueuePair::Create(
    ProtectionDomain* domain, const QueuePairOptions& options) {
  if (absl::Status s = CheckOptions(domain, options); !s.ok()) return s;
  return Made(domain->device()->iwarp() ? std::make_unique<IwarpQueuePair>(domain, options)
                                        : std::make_unique<QueuePair>(domain, options));
}

absl::StatusOr<std::unique_ptr<provider::QueuePair>> QueuePair::Made(
    std::unique_ptr<QueuePair> qp) {
  absl::Status made = qp->Make();
  if (made.ok()) return qp;
  if (qp->qp_ != nullptr) (void)qp->Close();
  return made;
}

QueuePair::QueuePair(ProtectionDomain* domain, const QueuePairOptions& options)
    : device_(domain->device()),
      domain_(domain),
      send_cq_(Of<CompletionQueue>(options.send_cq)),
      receive_cq_(Of<CompletionQueue>(options.receive_cq)),
      srq_(Of<SharedReceiveQueue>(options.shared_receive_queue)),
      context_(options.context),
      capabilities_(CapabilitiesOf(*device_, options.type)),
      signal_(options.signal),
      forms_((signal_ == Signal::kAll ? kAllSignaled : kAsAsked).data()),
      limits_(provider::WithDefaults(options.limits, device_->attributes())),
      access_(options.access),
      type_(options.type),
      receive_facts_{.completes = WcOpcode::kReceive,
                     .state = type_ == QpType::kUd ? Ledger::kOdd : uint8_t{0}} {
  domain_->children().Add();
  if (device_->iwarp()) iwarp_ = std::make_unique<IwarpSends>(domain_->iwarp());
}

QueuePair::~QueuePair() {
  if (send_ledger_ != nullptr) device_->ledgers().Release(send_ledger_);
  if (receive_ledger_ != nullptr) device_->ledgers().Release(receive_ledger_);
  domain_->children().Remove();
}

absl::Status QueuePair::Make() {
  const auto refused = [this](int error) {
    return device_->Refused(error, "create queue pair", Resource::kQueuePair,
                            "Ask for smaller queues, or close queue pairs that are not needed.");
  };
  max_message_ = device_->attributes().max_message;
  device_inline_ = std::min(limits_.max_inline, device_->device_inline());
  send_ledger_ = device_->ledgers().Acquire(Ledger::Kind::kSend, limits_.max_send_wr);
  receive_ledger_ = device_->ledgers().Acquire(Ledger::Kind::kReceive, limits_.max_receive_wr);
  if (send_ledger_ == nullptr || receive_ledger_ == nullptr) return refused(ENOMEM);
  {
    const std::lock_guard lock(device_->service().mutex());
    if (!MakeDeviceQueuePair()) return refused(errno);
    send_cq_->Join(this);
    receive_cq_->Join(this);
    send_cq_->children().Add();
    if (receive_cq_ != send_cq_) receive_cq_->children().Add();
    if (srq_ != nullptr) srq_->children().Add();
    if (absl::Status s = ToInit(); !s.ok()) return s;
  }
  rnr_received_before_ = device_->RnrNaks(true);
  rnr_sent_before_ = device_->RnrNaks(false);
  return limits_.max_inline <= device_inline_ ? absl::OkStatus() : MakeInlineArea();
}

// On iWARP each request says whether it is signalled, and may have a confirmation behind it.
bool QueuePair::MakeDeviceQueuePair() {
  ibv_qp_init_attr attributes{};
  attributes.qp_context = this;
  attributes.send_cq = send_cq_->cq();
  attributes.recv_cq = receive_cq_->cq();
  attributes.srq = srq_ != nullptr ? srq_->srq() : nullptr;
  attributes.qp_type = TheDrivers(type_);
  attributes.sq_sig_all = signal_ == Signal::kAll && iwarp_ == nullptr ? 1 : 0;
  uint32_t places = 1;
  if (iwarp_ != nullptr) {
    const uint32_t most = device_->device_work_requests() / limits_.max_send_wr;
    places = std::min(most, std::max(limits_.max_send_sge, 2u));
    iwarp_->set_places(places);
  }
  attributes.cap = {.max_send_wr = limits_.max_send_wr * places,
                    .max_recv_wr = srq_ != nullptr ? 0 : limits_.max_receive_wr,
                    .max_send_sge = limits_.max_send_sge,
                    .max_recv_sge = srq_ != nullptr ? 0 : limits_.max_receive_sge,
                    .max_inline_data = device_inline_};
  qp_ = Lib().create_qp(domain_->pd(), &attributes);
  if (qp_ == nullptr) return false;
  number_ = qp_->qp_num;
  device_->Join(number_, this);
  return true;
}

// Twice the queue, as the ledger: a place may come again before its former request is complete.
absl::Status QueuePair::MakeInlineArea() {
  uint64_t places = 1;
  while (places < uint64_t{limits_.max_send_wr} * 2) places *= 2;
  inline_mask_ = places - 1;
  const uint64_t bytes = places * limits_.max_inline;
  const std::string what = absl::StrCat(
      "create queue pair, ", bytes, " bytes for inline data (max_send_wr ", limits_.max_send_wr,
      ", max_inline ", limits_.max_inline, ", the device takes ", device_inline_, ")");
  inline_area_ = std::make_unique<std::byte[]>(bytes);
  const uint64_t pages = LockedPages(inline_area_.get(), bytes);
  if (absl::Status s = CheckPinnable(what, pages); !s.ok()) return s;
  inline_mr_ = Lib().reg_mr(domain_->pd(), inline_area_.get(), bytes, 0);
  if (inline_mr_ != nullptr) return absl::OkStatus();
  const int error = errno;
  if (absl::Status s = PinRefused(what, pages, error); !s.ok()) return s;
  return device_->Refused(error, what, Resource::kMemoryRegion,
                          "Ask for less inline data, or close regions that are not needed.");
}

// Some drivers drop the completions of a queue pair that goes, and tell nobody of the shared
// receives in them. So they are taken first, when nothing more can arrive.
void QueuePair::LeaveSharedQueue() {
  if (srq_ == nullptr) return;
  bool flushes = false;
  {
    const std::lock_guard lock(device_->service().mutex());
    flushes = state_ == QpState::kErr ? SteadyNow() < shared_flush_by_
                                      : state_ == QpState::kRts || state_ == QpState::kSqd;
    if (phase_ == Phase::kConnected || phase_ == Phase::kAccepting) Part();
    ibv_qp_attr attributes{};
    attributes.qp_state = IBV_QPS_ERR;
    (void)ModifyDevice(attributes, IBV_QP_STATE);
  }
  // Soft-RoCE flushes the receive that it has in hand in a softirq, after this call, and not at all
  // once the queue pair is gone (Linux 6.1 rxe_qp.c rxe_qp_error, rxe_qp_do_cleanup). While this
  // thread sleeps there is time for that.
  constexpr useconds_t kTimeToFlush = 3000;
  if (flushes && device_->software() && !device_->iwarp()) usleep(kTimeToFlush);
  receive_cq_->DropShared(number_);
}

absl::Status QueuePair::Close() {
  LeaveSharedQueue();
  {
    const std::lock_guard lock(device_->service().mutex());
    device_->service().Forget(this);
    if (phase_ == Phase::kConnected || phase_ == Phase::kAccepting) Part();
    DropId();
    OpenShortWay(false);
    SetMayPost(0);
    if (const int error = Lib().destroy_qp(qp_); error != 0) {
      return ErrnoStatus(error, absl::StrCat("close ", Name()), "Is the device still there?");
    }
    device_->Leave(number_);
    send_cq_->Leave(this);
    receive_cq_->Leave(this);
  }
  if (inline_mr_ != nullptr) Lib().dereg_mr(inline_mr_);
  // Completions of a queue pair that is gone would only puzzle; some drivers leave them behind.
  send_ledger_->Clear();
  receive_ledger_->Clear();
  send_cq_->DropVoid();
  receive_cq_->DropVoid();
  device_->Forget(this);
  // At last: they may be closed, and gone, as soon as they have no children.
  if (receive_cq_ != send_cq_) receive_cq_->children().Remove();
  send_cq_->children().Remove();
  if (srq_ != nullptr) srq_->children().Remove();
  return absl::OkStatus();
}

Capabilities QueuePair::capabilities() const {
  Capabilities c = capabilities_;
  const std::lock_guard lock(device_->service().mutex());
  if (iwarp_ != nullptr && phase_ >= Phase::kAccepting) c.remote_completion = iwarp_->confirms();
  return c;
}

absl::Status QueuePair::cause() const {
  const std::lock_guard lock(device_->service().mutex());
  return cause_;
}

ConnectOutcome QueuePair::outcome() const {
  const std::lock_guard lock(device_->service().mutex());
  return outcome_;
}

ConnectionInfo QueuePair::connection() const {
  const std::lock_guard lock(device_->service().mutex());
  return info_;
}

QpCounters QueuePair::counters() const {
  if (send_ledger_->outstanding() > 0) send_cq_->Pull();
  if (receive_ledger_->outstanding() > 0) receive_cq_->Pull();
  QpCounters c;
  c.sends_posted = send_ledger_->posted();
  c.send_completions = send_ledger_->completed();
  c.receives_posted = receive_ledger_->posted();
  c.receive_completions = receive_ledger_->completed();
  c.rnr_naks_received = device_->RnrNaks(true) - rnr_received_before_;
  c.rnr_naks_sent = device_->RnrNaks(false) - rnr_sent_before_;
  return c;
}

std::string QueuePair::Name() const {
  return absl::StrCat("qp 0x", absl::Hex(number_), " on device ", device_->name());
}

}  // namespace verbena::verbs
