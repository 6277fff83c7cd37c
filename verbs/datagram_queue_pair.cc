// SPDX-License-Identifier: Apache-2.0
#include "verbs/datagram_queue_pair.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "transport/datagram.h"
#include "transport/datagram_checks.h"
#include "verbs/address_handle.h"

namespace verbena::verbs {
namespace {

// What the device is given for `destination`; null: it is not of this domain.
const AddressHandle* HandleOf(const Destination& destination, const ProtectionDomain* domain) {
  const verbena::AddressHandle* const handle = destination.address;
  if (handle == nullptr || !handle->is_open()) return nullptr;
  if (handle->impl()->device() != domain->device()) return nullptr;
  const auto* const own = static_cast<const AddressHandle*>(handle->impl());
  return own->domain() == domain ? own : nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<provider::QueuePair>> DatagramQueuePair::Create(
    ProtectionDomain* domain, const QueuePairOptions& options) {
  if (absl::Status s = CheckOptions(domain, options); !s.ok()) return s;
  auto qp = std::make_unique<DatagramQueuePair>(domain, options);
  DatagramQueuePair* const raw = qp.get();
  auto made = Made(std::move(qp));
  if (made.ok()) domain->spent_handles().Join(raw->send_ledger_, raw->send_cq_);
  return made;
}

DatagramQueuePair::DatagramQueuePair(ProtectionDomain* domain, const QueuePairOptions& options)
    : UnreliableQueuePair(domain, options), max_datagram_(device_->attributes().max_datagram) {}

absl::Status DatagramQueuePair::Close() {
  LeaveGroups();
  domain_->spent_handles().Leave(send_ledger_);
  return QueuePair::Close();
}

// --- posts

// What is wrong with the call is refused here, by the same rules as on TCP. IBTA C10-93.1.1 has a
// datagram over the MTU not sent; devices differ in what they say of it.
PostError DatagramQueuePair::Build(const SendWr& wr, uint64_t position, ibv_send_wr* out,
                                   ibv_sge* own) {
  if (wr.opcode != Opcode::kSend && wr.opcode != Opcode::kSendWithImm) {
    return PostError::kInvalidOpcode;
  }
  if (wr.local.size() > limits_.max_send_sge) return PostError::kTooManySges;
  const uint64_t length = LengthOf(wr.local);
  const bool is_inline = Has(wr.flags, SendFlags::kInline);
  if (is_inline && length > limits_.max_inline) return PostError::kInlineTooLong;
  if (length > max_datagram_) return PostError::kMessageTooLong;
  const AddressHandle* const to = HandleOf(wr.to, domain_);
  if (to == nullptr) return PostError::kNoDestination;
  Fill(wr, forms_[WhichForm(wr)], send_ledger_->Name(position), &send_ledger_->at(position), out);
  FillMore(wr, out);
  out->send_flags &= ~static_cast<unsigned>(IBV_SEND_FENCE);  // there is nothing to wait for
  out->wr.ud.ah = to->handle();
  out->wr.ud.remote_qpn = to->group() ? kMulticastQpNumber : wr.to.qp_number;
  // Soft-RoCE sends any Q_Key as it is (Linux 6.1 rxe_req.c init_req_packet), against IBTA 10.2.4.
  const bool own_qkey = (wr.to.qkey & kOwnQkey) != 0;
  out->wr.ud.remote_qkey = own_qkey ? qkey_.load(std::memory_order_relaxed) : wr.to.qkey;
  return is_inline ? CopyInline(wr, length, position, out, own) : PostError::kNone;
}

// --- states

int DatagramQueuePair::FillInit(ibv_qp_attr* attributes) const {
  attributes->qkey = qkey_.load(std::memory_order_relaxed);
  return IBV_QP_QKEY;
}

absl::Status DatagramQueuePair::Modify(const QpModify& change) {
  absl::Status result = QueuePair::Modify(change);
  if (result.ok() && change.state == QpState::kReset) {
    qkey_.store(0, std::memory_order_relaxed);
    LeaveGroups();
  }
  return result;
}

absl::Status DatagramQueuePair::Move(QpState to, const QpModify& change) {
  const uint32_t former = qkey_.load(std::memory_order_relaxed);
  qkey_.store(change.qkey.value_or(former), std::memory_order_relaxed);
  absl::Status result;
  if (to == QpState::kInit) {
    result = ToInit();
  } else if (const int error = MoveDevice(to, change.qkey.has_value()); error != 0) {
    result = ErrnoStatus(error, absl::StrCat("modify ", Name(), " in state ", QpStateName(state_)),
                         "The device does not take this change in this state; try it in another.");
  }
  if (!result.ok()) {
    qkey_.store(former, std::memory_order_relaxed);
    return result;
  }
  if (state_ == QpState::kSqe && to == QpState::kRts) LeftSqe();
  SetState(to);
  return absl::OkStatus();
}

// ibv_modify_qp(3), UD. On the way to SQD no Q_Key is taken, and on the way back a device may have
// to drain first: so it goes before.
int DatagramQueuePair::MoveDevice(QpState to, bool new_qkey) {
  ibv_qp_attr attributes{};
  attributes.qkey = qkey_.load(std::memory_order_relaxed);
  int mask = new_qkey ? IBV_QP_QKEY : 0;
  const bool drains = to == QpState::kSqd || state_ == QpState::kSqd;
  if (drains || to == state_) {
    const int error = mask != 0 ? ModifyDevice(attributes, mask) : 0;
    if (error != 0 || to == state_) return error;
    return to == QpState::kSqd ? ToSqd() : ToRts();
  }
  attributes.qp_state = to == QpState::kRtr ? IBV_QPS_RTR : IBV_QPS_RTS;
  mask |= IBV_QP_STATE;
  if (state_ == QpState::kRtr) mask |= IBV_QP_SQ_PSN;
  return ModifyDevice(attributes, mask);
}

// --- what is asked of it

QpAttributes DatagramQueuePair::Query() const {
  QpAttributes out = QueuePair::Query();
  out.qkey = qkey_.load(std::memory_order_relaxed);
  return out;
}

Capabilities DatagramQueuePair::capabilities() const {
  Capabilities c;
  c.immediate = c.traffic_class = c.unreliable_datagram = true;
  return c;
}

absl::Status DatagramQueuePair::Disconnect() { return provider::HasNoPeer("disconnect"); }

absl::StatusOr<Contact> DatagramQueuePair::contact() { return provider::HasNoPeer("address"); }

absl::Status DatagramQueuePair::Connect(const Contact& /*peer*/,
                                        const ConnectParameters& /*parameters*/) {
  return provider::HasNoPeer("connect");
}

// --- groups

absl::Status DatagramQueuePair::AttachMulticast(const std::string& group) {
  const absl::StatusOr<Ip> ip = provider::ParseGroup("attach multicast", group);
  if (!ip.ok()) return ip.status();
  const std::lock_guard lock(groups_mutex_);
  if (groups_.count(*ip) != 0) return absl::OkStatus();  // ibv_attach_mcast(3): nothing changes
  const absl::StatusOr<Gid> gid = GidTowards(*device_, *Address::FromIp(group, 0));
  if (!gid.ok()) return gid.status();
  auto membership = Membership::Begin(qp_, *ip, *gid);
  if (!membership.ok()) return membership.status();
  groups_.emplace(*ip, *std::move(membership));
  return absl::OkStatus();
}

absl::Status DatagramQueuePair::DetachMulticast(const std::string& group) {
  const absl::StatusOr<Ip> ip = provider::ParseGroup("detach multicast", group);
  if (!ip.ok()) return ip.status();
  const std::lock_guard lock(groups_mutex_);
  return groups_.erase(*ip) != 0 ? absl::OkStatus() : provider::NotAttached();
}

// A device lets no queue pair go that is attached (IBTA o10-2.2.3), and RESET leaves them all.
void DatagramQueuePair::LeaveGroups() {
  const std::lock_guard lock(groups_mutex_);
  groups_.clear();
}

}  // namespace verbena::verbs
