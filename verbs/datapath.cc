// SPDX-License-Identifier: Apache-2.0
// Posting whatever hot_path.cc does not: one call of the driver's function pointer for a batch,
// translation on the stack, no allocation, no lock of ours.
#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "transport/memory.h"
#include "transport/protection_domain.h"
#include "verbs/completion.h"
#include "verbs/queue_pair.h"
#include "verbs/shared_receive_queue.h"

namespace verbena::verbs {
namespace {

constexpr uint32_t kBatch = 16;  // requests that one call of the driver gets
constexpr uint32_t kSges = 64;   // and their entries; at least what one request may have

constexpr ibv_wr_opcode kOpcodes[kOpcodeCount] = {
    IBV_WR_SEND,
    IBV_WR_SEND_WITH_IMM,
    IBV_WR_SEND_WITH_INV,
    IBV_WR_RDMA_WRITE,
    IBV_WR_RDMA_WRITE_WITH_IMM,
    IBV_WR_RDMA_READ,
    IBV_WR_ATOMIC_CMP_AND_SWP,
    IBV_WR_ATOMIC_FETCH_AND_ADD,
    IBV_WR_LOCAL_INV,
    IBV_WR_BIND_MW,
};

bool TakesInline(Opcode opcode) {
  return opcode <= Opcode::kSendWithInvalidate || opcode == Opcode::kWrite ||
         opcode == Opcode::kWriteWithImm;
}

bool Supported(Opcode opcode, const Capabilities& can) {
  switch (opcode) {
    case Opcode::kSendWithImm:
    case Opcode::kWriteWithImm:
      return can.immediate;
    case Opcode::kSendWithInvalidate:
      return can.send_with_invalidate;
    case Opcode::kCompareSwap:
    case Opcode::kFetchAdd:
      return can.atomics;
    case Opcode::kLocalInvalidate:
    case Opcode::kBindWindow:
      return can.memory_windows;
    default:
      return true;
  }
}

// Of a request that is not supported: whether nobody could support it.
PostError WhyRefused(const SendWr& wr) {
  const bool no_window = wr.opcode == Opcode::kBindWindow && wr.bind.window == nullptr;
  const bool no_inline = Has(wr.flags, SendFlags::kInline) && !TakesInline(wr.opcode);
  return no_window || no_inline ? PostError::kInvalidOpcode : PostError::kUnsupported;
}

// Verbs flags have the same order, and other places.
unsigned FlagsOf(SendFlags flags) {
  unsigned out = 0;
  if (Has(flags, SendFlags::kSignaled)) out |= IBV_SEND_SIGNALED;
  if (Has(flags, SendFlags::kSolicited)) out |= IBV_SEND_SOLICITED;
  if (Has(flags, SendFlags::kFence)) out |= IBV_SEND_FENCE;
  return out;
}

uint64_t CopyEntries(const SgeList& from, ibv_sge* to) {
  uint64_t length = 0;
  for (const Sge& sge : from) {
    *to++ = {.addr = sge.address, .length = sge.length, .lkey = sge.key};
    length += sge.length;
  }
  return length;
}

// The receives of queue pairs and of shared queues, but for the driver's call.
uint32_t BuildReceive(const ReceiveWr& wr, uint64_t name, ibv_recv_wr* out, ibv_sge* sges) {
  CopyEntries(wr.local, sges);
  *out = {.wr_id = name,
          .next = nullptr,
          .sg_list = sges,
          .num_sge = static_cast<int>(wr.local.size())};
  return wr.local.size();
}

// How many of `count` linked requests were taken, from what the driver answered. A driver that
// fails without naming a request has queued all and failed to ring its doorbell.
template <typename Wr>
uint32_t Taken(int error, const Wr* first, const Wr* bad, uint32_t count) {
  return error == 0 || bad == nullptr ? count : static_cast<uint32_t>(bad - first);
}

}  // namespace

PostError QueuePair::Build(const SendWr& wr, uint64_t position, ibv_send_wr* out, ibv_sge* sges) {
  if (static_cast<uint8_t>(wr.opcode) >= kOpcodeCount) return PostError::kInvalidOpcode;
  if (!Supported(wr.opcode, capabilities_)) return WhyRefused(wr);
  if (wr.local.size() > limits_.max_send_sge) return PostError::kTooManySges;
  *out = {};
  out->wr_id = send_ledger_->Name(position);
  out->opcode = kOpcodes[static_cast<uint8_t>(wr.opcode)];
  out->send_flags = (FlagsOf(wr.flags) | always_) & possible_;
  out->sg_list = sges;
  out->num_sge = static_cast<int>(wr.local.size());
  const uint64_t length = CopyEntries(wr.local, sges);
  Ledger::Place& place = send_ledger_->at(position);
  const bool odd = iwarp_ != nullptr || wr.opcode == Opcode::kBindWindow;
  place.Begin(wr.id, {.completes = CompletionOf(wr.opcode),
                      .quiet = (out->send_flags & IBV_SEND_SIGNALED) == 0,
                      .state = odd ? Ledger::kOdd : uint8_t{0}});
  place.key_or_next = wr.remote.key;
  switch (wr.opcode) {
    case Opcode::kSendWithImm:
      out->imm_data = htonl(wr.immediate);
      break;
    case Opcode::kWriteWithImm:
      out->imm_data = htonl(wr.immediate);
      [[fallthrough]];
    case Opcode::kWrite:
    case Opcode::kRead:
      out->wr.rdma.remote_addr = wr.remote.address;
      out->wr.rdma.rkey = wr.remote.key;
      break;
    case Opcode::kSendWithInvalidate:
    case Opcode::kLocalInvalidate:
      out->invalidate_rkey = wr.invalidate;
      break;
    case Opcode::kCompareSwap:
    case Opcode::kFetchAdd:
      if (length != 8) {  // IBTA 11.4.1.1
        return BuildFailing(WcStatus::kLocalLengthError, &place, out, sges);
      }
      // The responder's to refuse (IBTA 9.4.5); Soft-RoCE's library does not let it out.
      if ((wr.remote.address & 7) != 0 && device_->software()) {
        return BuildFailing(WcStatus::kRemoteInvalidRequest, &place, out, sges);
      }
      out->wr.atomic.remote_addr = wr.remote.address;
      out->wr.atomic.rkey = wr.remote.key;
      out->wr.atomic.compare_add = wr.atomic.compare_add;
      out->wr.atomic.swap = wr.atomic.swap;
      break;
    case Opcode::kBindWindow:
      return BuildBind(wr.bind, position, out, sges);
    default:
      break;
  }
  if (iwarp_ != nullptr) [[unlikely]] {
    if (!iwarp_->Takes(wr)) return PostError::kTooManySges;
    place.length = static_cast<uint32_t>(length);
    if (!Has(wr.flags, SendFlags::kInline) &&
        !domain_->iwarp()->keys().Covers(wr.local, wr.opcode == Opcode::kRead)) {
      return BuildFailing(WcStatus::kLocalProtectionError, &place, out, sges);
    }
    if (wr.opcode == Opcode::kRead && !domain_->iwarp()->keys().HaveSinks(wr.local)) {
      return BuildFailing(WcStatus::kGeneralError, &place, out, sges);  // why_no_sink
    }
  }
  if (Has(wr.flags, SendFlags::kInline)) return CopyInline(wr, length, position, out, sges);
  // IBTA 9.7.2; some drivers cut the sum of the entries to 32 bits.
  if (length > max_message_) {
    return BuildFailing(WcStatus::kLocalLengthError, &place, out, sges);
  }
  return PostError::kNone;
}

// A write from memory that no key names fails at this end, before anything leaves.
PostError QueuePair::BuildFailing(WcStatus status, Ledger::Place* place, ibv_send_wr* out,
                                  ibv_sge* sges) {
  place->FailAs(status);
  // Or it would cut off the confirmations of those before it.
  if (iwarp_ != nullptr) out->send_flags |= IBV_SEND_FENCE;
  sges[0] = {.addr = 0, .length = 1, .lkey = 0};
  out->opcode = IBV_WR_RDMA_WRITE;
  out->send_flags &= ~static_cast<unsigned>(IBV_SEND_INLINE);
  out->num_sge = 1;
  out->wr = {};
  return PostError::kNone;
}

PostError QueuePair::CopyInline(const SendWr& wr, uint64_t length, uint64_t position,
                                ibv_send_wr* out, ibv_sge* sges) {
  if (!TakesInline(wr.opcode)) return PostError::kInvalidOpcode;
  if (length > limits_.max_inline) return PostError::kInlineTooLong;
  if (length <= device_inline_) {
    out->send_flags |= IBV_SEND_INLINE;
    return PostError::kNone;
  }
  std::byte* const copy = &inline_area_[(position & inline_mask_) * limits_.max_inline];
  std::byte* to = copy;
  for (const Sge& sge : wr.local) {
    if (sge.length == 0) continue;
    std::memcpy(to, reinterpret_cast<const void*>(sge.address), sge.length);
    to += sge.length;
  }
  sges[0] = {.addr = reinterpret_cast<uint64_t>(copy),
             .length = static_cast<uint32_t>(length),
             .lkey = inline_mr_->lkey};
  out->num_sge = 1;
  return PostError::kNone;
}

PostError QueuePair::BuildBind(const WindowBinding& bind, uint64_t position, ibv_send_wr* out,
                               ibv_sge* sges) {
  auto* window =
      bind.window == nullptr ? nullptr : dynamic_cast<MemoryWindow*>(bind.window->impl());
  auto* region =
      bind.region == nullptr ? nullptr : dynamic_cast<MemoryRegion*>(bind.region->impl());
  if (window == nullptr || region == nullptr) return PostError::kInvalidOpcode;
  // Each by itself: the sum may wrap around, which Soft-RoCE does not see (IBTA C10-75).
  const uint64_t offset = bind.address - region->address();
  if (offset > region->length() || bind.length > region->length() - offset) {
    return BuildFailing(WcStatus::kWindowBindError, &send_ledger_->at(position), out, sges);
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

// iWARP. False: the state has changed since `may` was read, and the places are given back.
bool QueuePair::TakeTurn(Ledger* ledger, uint64_t first, uint32_t places, uint8_t may) {
  ledger->AwaitTurn(first);
  if (may_post_.load(std::memory_order_seq_cst) == may) [[likely]]
    return true;
  ledger->PassTurn(first, 0, places);
  return false;
}

void QueuePair::LeaveTurn(Ledger* ledger, uint64_t first, uint32_t used, uint32_t places) {
  if (iwarp_ != nullptr) [[unlikely]]
    return ledger->PassTurn(first, used, places);
  ledger->GiveBack(first, used, places);
}

PostResult QueuePair::PostBatch(std::span<const SendWr> requests) {
  PostResult result;
  if (iwarp_ != nullptr) [[unlikely]]
    iwarp_->Prepare(requests);
  const uint8_t may = may_post_.load(std::memory_order_acquire);
  if ((may & kSends) == 0) return {0, Refusal()};
  if ((may & kKeeps) != 0) [[unlikely]]
    return KeepSends(requests);
  while (result.accepted < requests.size() && result.ok()) {
    ibv_send_wr work[2 * kBatch + kSges];  // an iWARP device gets more than one for some
    ibv_sge sges[kSges];
    const SendWr* const wanted = &requests[result.accepted];
    const size_t left = requests.size() - result.accepted;
    uint64_t first = 0;
    const uint32_t places =
        send_ledger_->Reserve(static_cast<uint32_t>(std::min<size_t>(left, kBatch)), &first);
    if (places == 0) {
      result.error = PostError::kQueueFull;
      break;
    }
    if (iwarp_ != nullptr && !TakeTurn(send_ledger_, first, places, may)) [[unlikely]] {
      const PostResult rest = PostBatch(requests.subspan(result.accepted));
      return {result.accepted + rest.accepted, rest.error};
    }
    uint32_t n = 0, used = 0, built = 0;
    bool wait = false;
    // A request that is built to fail has an entry though it was posted with none.
    for (; n < places && used + std::max<size_t>(wanted[n].local.size(), 1) <= kSges; ++n) {
      if (iwarp_ != nullptr && !MayStart(wanted[n], first + n)) [[unlikely]] {
        wait = true;
        break;
      }
      if (!BuildShort(wanted[n], first + n, &work[built])) {
        result.error = Build(wanted[n], first + n, &work[built], &sges[used]);
        if (!result.ok()) break;
      }
      used += static_cast<uint32_t>(work[built].num_sge);
      if (built > 0) work[built - 1].next = &work[built];
      ++built;
      if (iwarp_ != nullptr) built += iwarp_->Finish(&work[built - 1]);
      // The key of a window changes when its bind was posted, and the driver reads it there.
      if (wanted[n].opcode == Opcode::kBindWindow && ++n > 0) break;
    }
    if (n == 0 && result.ok() && !wait) result.error = PostError::kTooManySges;
    uint32_t taken = 0;
    if (n > 0) {
      ibv_send_wr* bad = nullptr;
      const int error = ibv_post_send(qp_, work, &bad);
      taken = Taken(error, work, bad, built);
      if (taken < built) result.error = PostErrorOf(error);
      if (iwarp_ != nullptr) taken = IwarpSends::Requests(work, taken);
      if (wanted[n - 1].opcode == Opcode::kBindWindow) {
        BindPosted(wanted[n - 1], first + n - 1, taken == n);
      }
    }
    for (uint32_t i = 0; i < taken; ++i) send_ledger_->Posted(first + i);
    LeaveTurn(send_ledger_, first, taken, places);
    result.accepted += taken;
    if (wait && result.ok()) [[unlikely]] {
      const PostResult rest = Wait(requests.subspan(result.accepted));
      return {result.accepted + rest.accepted, rest.error};
    }
  }
  return result;
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
    ibv_sge sges[kSges];
    const ReceiveWr* const wanted = &requests[result.accepted];
    const size_t left = requests.size() - result.accepted;
    uint64_t first = 0;
    const uint32_t places =
        receive_ledger_->Reserve(static_cast<uint32_t>(std::min<size_t>(left, kBatch)), &first);
    if (places == 0) {
      result.error = PostError::kQueueFull;
      break;
    }
    if (iwarp_ != nullptr && !TakeTurn(receive_ledger_, first, places, may)) [[unlikely]] {
      const PostResult rest = PostReceiveBatch(requests.subspan(result.accepted));
      return {result.accepted + rest.accepted, rest.error};
    }
    uint32_t n = 0, used = 0;
    for (; n < places && used + wanted[n].local.size() <= kSges; ++n) {
      if (wanted[n].local.size() > limits_.max_receive_sge) break;
      receive_ledger_->at(first + n).Begin(
          wanted[n].id, {.completes = WcOpcode::kReceive,
                         .state = iwarp_ != nullptr ? Ledger::kOdd : uint8_t{0}});
      used += BuildReceive(wanted[n], receive_ledger_->Name(first + n), &work[n], &sges[used]);
      if (iwarp_ != nullptr && work[n].num_sge == 0) {
        work[n].sg_list = IwarpSends::Nothing();
        work[n].num_sge = 1;
      }
      if (n > 0) work[n - 1].next = &work[n];
    }
    if (n < places && wanted[n].local.size() > limits_.max_receive_sge) {
      result.error = PostError::kTooManySges;
    }
    ibv_recv_wr* bad = nullptr;
    const int error = n > 0 ? ibv_post_recv(qp_, work, &bad) : 0;
    const uint32_t taken = Taken(error, work, bad, n);
    if (taken < n) result.error = PostErrorOf(error);
    for (uint32_t i = 0; i < taken; ++i) receive_ledger_->Posted(first + i);
    LeaveTurn(receive_ledger_, first, taken, places);
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

PostResult SharedReceiveQueue::PostReceive(std::span<const ReceiveWr> requests) {
  PostResult result;
  for (const ReceiveWr& wr : requests) {
    if (wr.local.size() > limits_.max_sge) {
      result.error = PostError::kTooManySges;
      return result;
    }
    uint64_t position = 0;
    if (!ledger_->Take(&position)) {
      result.error = PostError::kQueueFull;
      return result;
    }
    ledger_->at(position).Begin(wr.id, {.completes = WcOpcode::kReceive});
    ibv_recv_wr work;
    ibv_sge sges[kSges];
    BuildReceive(wr, ledger_->Name(position), &work, sges);
    ibv_recv_wr* bad = nullptr;
    const int error = ibv_post_srq_recv(srq_, &work, &bad);
    if (Taken(error, &work, bad, 1) == 0) {
      ledger_->Retire(ledger_->Name(position));
      result.error = PostErrorOf(error);
      return result;
    }
    ++result.accepted;
  }
  return result;
}

}  // namespace verbena::verbs
