// SPDX-License-Identifier: Apache-2.0
// Requests that hot_path.cc does not know: what becomes of each, on the stack, with no allocation
// and no lock of ours. And receives by the dozen.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "transport/memory.h"
#include "transport/protection_domain.h"
#include "verbs/forms.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

// Of a request that is not supported: whether nobody could support it.
PostError WhyRefused(const SendWr& wr) {
  const bool no_window = wr.opcode == Opcode::kBindWindow && wr.bind.window == nullptr;
  const bool no_inline = Has(wr.flags, SendFlags::kInline) && !TakesInline(wr.opcode);
  return no_window || no_inline ? PostError::kInvalidOpcode : PostError::kUnsupported;
}

}  // namespace

PostError QueuePair::Build(const SendWr& wr, uint64_t position, ibv_send_wr* out, ibv_sge* own) {
  if (static_cast<uint8_t>(wr.opcode) >= kOpcodeCount) return PostError::kInvalidOpcode;
  if (!Supported(wr.opcode, capabilities_)) return WhyRefused(wr);
  if (wr.local.size() > limits_.max_send_sge) return PostError::kTooManySges;
  Ledger::Place& place = send_ledger_->at(position);
  Fill(wr, forms_[WhichForm(wr)], send_ledger_->Name(position), &place, out);
  FillMore(wr, out);
  const uint64_t length = LengthOf(wr.local);
  if (wr.opcode == Opcode::kBindWindow) return BuildBind(wr.bind, position, out, own);
  if (IsAtomic(wr.opcode)) {
    if (length != 8) {  // IBTA 11.4.1.1
      return BuildFailing(WcStatus::kLocalLengthError, &place, out, own);
    }
    // The responder's to refuse (IBTA 9.4.5); Soft-RoCE's library does not let it out.
    if ((wr.remote.address & 7) != 0 && device_->software()) {
      return BuildFailing(WcStatus::kRemoteInvalidRequest, &place, out, own);
    }
  }
  if (iwarp_ != nullptr) [[unlikely]] {
    if (!iwarp_->Takes(wr)) return PostError::kTooManySges;
    place.length = static_cast<uint32_t>(length);
    out->send_flags &= ~static_cast<unsigned>(IBV_SEND_FENCE);  // IwarpSends waits
    if (!Has(wr.flags, SendFlags::kInline) &&
        !domain_->iwarp()->keys().Covers(wr.local, wr.opcode == Opcode::kRead)) {
      return BuildFailing(WcStatus::kLocalProtectionError, &place, out, own);
    }
    if (wr.opcode == Opcode::kRead && !domain_->iwarp()->keys().HaveSinks(wr.local)) {
      return BuildFailing(WcStatus::kGeneralError, &place, out, own);  // why_no_sink
    }
    out->sg_list = own;
    out->num_sge = IwarpSends::CopyEntries(wr.local, own);
  }
  if (Has(wr.flags, SendFlags::kInline)) return CopyInline(wr, length, position, out, own);
  // IBTA 9.7.2; some drivers cut the sum of the entries to 32 bits.
  if (length > max_message_) {
    return BuildFailing(WcStatus::kLocalLengthError, &place, out, own);
  }
  return PostError::kNone;
}

// A write from memory that no key names fails at this end, before anything leaves.
PostError QueuePair::BuildFailing(WcStatus status, Ledger::Place* place, ibv_send_wr* out,
                                  ibv_sge* own) {
  place->FailAs(status);
  // Or it would cut off the confirmations of those before it.
  if (iwarp_ != nullptr) out->send_flags |= IBV_SEND_FENCE;
  *own = {.addr = 0, .length = 1, .lkey = 0};
  out->sg_list = own;
  out->opcode = IBV_WR_RDMA_WRITE;
  out->send_flags &= ~static_cast<unsigned>(IBV_SEND_INLINE);
  out->num_sge = 1;
  out->wr = {};
  return PostError::kNone;
}

PostError QueuePair::CopyInline(const SendWr& wr, uint64_t length, uint64_t position,
                                ibv_send_wr* out, ibv_sge* own) {
  if (!TakesInline(wr.opcode)) return PostError::kInvalidOpcode;
  if (length > limits_.max_inline) return PostError::kInlineTooLong;
  if (length <= device_inline_) return PostError::kNone;
  std::byte* const copy = &inline_area_[(position & inline_mask_) * limits_.max_inline];
  std::byte* to = copy;
  for (const Sge& sge : wr.local) {
    if (sge.length == 0) continue;
    std::memcpy(to, reinterpret_cast<const void*>(sge.address), sge.length);
    to += sge.length;
  }
  *own = {.addr = reinterpret_cast<uint64_t>(copy),
          .length = static_cast<uint32_t>(length),
          .lkey = inline_mr_->lkey};
  out->sg_list = own;
  out->num_sge = 1;
  out->send_flags &= ~static_cast<unsigned>(IBV_SEND_INLINE);
  return PostError::kNone;
}

PostError QueuePair::BuildBind(const WindowBinding& bind, uint64_t position, ibv_send_wr* out,
                               ibv_sge* own) {
  auto* window =
      bind.window == nullptr ? nullptr : dynamic_cast<MemoryWindow*>(bind.window->impl());
  auto* region =
      bind.region == nullptr ? nullptr : dynamic_cast<MemoryRegion*>(bind.region->impl());
  if (window == nullptr || region == nullptr) return PostError::kInvalidOpcode;
  // Each by itself: the sum may wrap around, which Soft-RoCE does not see (IBTA C10-75).
  const uint64_t offset = bind.address - region->address();
  if (offset > region->length() || bind.length > region->length() - offset) {
    return BuildFailing(WcStatus::kWindowBindError, &send_ledger_->at(position), out, own);
  }
  send_ledger_->Pin(position, &window->binds(), &region->binds());
  out->num_sge = 0;
  out->bind_mw.mw = window->mw();
  out->bind_mw.rkey = window->NextKey();
  out->bind_mw.bind_info = {
      .mr = region->mr(),
      .addr = bind.address,
      .length = bind.length,
      .mw_access_flags = static_cast<unsigned>(AccessFlags(bind.access, capabilities_))};
  return PostError::kNone;
}

void QueuePair::BindPosted(const SendWr& wr, uint64_t position, bool taken) {
  if (!taken) return send_ledger_->Unpin(position);
  if (send_ledger_->at(position).known().fails_as != WcStatus::kSuccess) return;
  auto* window = static_cast<MemoryWindow*>(wr.bind.window->impl());
  window->Announce(wr.bind.address, wr.bind.length, window->NextKey());
}

PostError QueuePair::Refusal() const {
  return may_post_.load(std::memory_order_acquire) == 0 && qp_ == nullptr
             ? PostError::kDead
             : PostError::kInvalidState;
}

PostResult QueuePair::PostReceiveBatch(std::span<const ReceiveWr> requests) {
  PostResult result;
  if (srq_ != nullptr) return {0, PostError::kUsesSharedQueue};
  const uint8_t may = may_post_.load(std::memory_order_acquire);
  if ((may & kReceives) == 0) return {0, Refusal()};
  if ((may & kFlushes) != 0 && iwarp_ != nullptr) [[unlikely]]
    return KeepReceives(requests);
  while (result.accepted < requests.size() && result.ok()) {
    ibv_recv_wr work[kBatch];
    const ReceiveWr* const wanted = &requests[result.accepted];
    const size_t left = requests.size() - result.accepted;
    uint64_t first = 0;
    std::unique_lock turn(receive_turn_, std::defer_lock);
    if (iwarp_ != nullptr) turn.lock();
    if (iwarp_ != nullptr && may_post_.load(std::memory_order_acquire) != may) [[unlikely]] {
      turn.unlock();
      const PostResult rest = PostReceiveBatch(requests.subspan(result.accepted));
      return {result.accepted + rest.accepted, rest.error};
    }
    if (iwarp_ != nullptr) next_receive_ = end_receive_ = nullptr;
    const uint32_t places =
        receive_ledger_->Reserve(static_cast<uint32_t>(std::min<size_t>(left, kBatch)), &first);
    if (places == 0) {
      result.error = PostError::kQueueFull;
      break;
    }
    uint32_t n = 0, taken = 0;
    for (; n < places; ++n) {
      if (wanted[n].local.size() > limits_.max_receive_sge) {
        result.error = PostError::kTooManySges;
        break;
      }
      receive_ledger_->at(first + n).Begin(wanted[n].id, receive_facts_);
      FillReceive(wanted[n], receive_ledger_->Name(first + n), &work[n]);
      if (iwarp_ != nullptr && work[n].num_sge == 0) {
        work[n].sg_list = IwarpSends::Nothing();
        work[n].num_sge = 1;
      }
      work[n].next = &work[n + 1];
    }
    if (n > 0) {
      work[n - 1].next = nullptr;
      ibv_recv_wr* bad = nullptr;
      const int error = ibv_post_recv(qp_, work, &bad);
      taken = Taken(error, work, bad, n);
      if (taken < n) result.error = PostErrorOf(error);
    }
    receive_ledger_->Posted(first, taken);
    receive_ledger_->GiveBack(first, taken, places);
    result.accepted += taken;
  }
  if ((may & kFlushes) != 0 && result.accepted > 0) Kick();
  return result;
}

// In ERR a receive flushes at once (IBTA 10.3.1.7). A driver without a doorbell for receives looks
// at its queue when the state is set.
void QueuePair::Kick() {
  const std::lock_guard lock(device_->service().mutex());
  if (state_ != QpState::kErr) return;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  (void)ModifyDevice(attributes, IBV_QP_STATE);
}

// What was posted in SQD runs in RTS (IBTA 10.3.1.5). Soft-RoCE finds requests by their doorbell
// only and does not look again when the state is set. Its library refuses an atomic without an
// entry, and rings the doorbell all the same.
void QueuePair::RingDoorbell() {
  if (!device_->software()) return;
  ibv_send_wr work{};
  work.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
  ibv_send_wr* bad = nullptr;
  (void)ibv_post_send(qp_, &work, &bad);
}

}  // namespace verbena::verbs
