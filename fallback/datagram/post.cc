// SPDX-License-Identifier: Apache-2.0
// Posting: any thread. What is wrong with the call itself is refused here; what is wrong with the
// memory it names shows when the request runs, as a completion (ibv_post_send(3)).
#include <algorithm>
#include <cstring>
#include <mutex>

#include "fallback/datagram/queue_pair.h"

namespace verbena::datagram {

// A datagram over the MTU is refused as kernel drivers do it (EINVAL): IBTA C10-93.1.1 asks that it
// is not sent.
PostError QueuePair::CheckPost(const SendWr& wr, uint64_t* length) const {
  if (wr.opcode != Opcode::kSend && wr.opcode != Opcode::kSendWithImm) {
    return PostError::kInvalidOpcode;
  }
  if (wr.local.size() > config_.limits.max_send_sge) return PostError::kTooManySges;
  *length = 0;
  for (const Sge& sge : wr.local) *length += sge.length;
  if (Has(wr.flags, SendFlags::kInline) && *length > config_.limits.max_inline) {
    return PostError::kInlineTooLong;
  }
  if (*length > wire::kMaxDatagramPayload) return PostError::kMessageTooLong;
  return PostError::kNone;
}

void QueuePair::Enqueue(uint64_t position, const SendWr& wr, uint64_t length) {
  Entry& e = sq_.at(position);
  e.id = wr.id;
  e.qp_number = wr.to.qp_number;
  e.qkey = wr.to.qkey;
  e.has_immediate = wr.opcode == Opcode::kSendWithImm;
  e.immediate = wr.immediate;
  e.solicited = Has(wr.flags, SendFlags::kSolicited);
  e.signaled = config_.signal_all || Has(wr.flags, SendFlags::kSignaled);
  e.is_inline = Has(wr.flags, SendFlags::kInline);
  e.length = static_cast<uint32_t>(length);
  e.sge_count = 0;
  if (e.is_inline) {
    std::byte* to = sq_.inline_data(position);
    for (const Sge& sge : wr.local) {
      if (sge.length == 0) continue;
      std::memcpy(to, reinterpret_cast<const void*>(sge.address), sge.length);
      to += sge.length;
    }
  } else {
    std::copy(wr.local.begin(), wr.local.end(), sq_.sges(position));
    e.sge_count = static_cast<uint8_t>(wr.local.size());
  }
}

PostResult QueuePair::PostSend(std::span<const SendWr> requests) {
  PostResult result;
  std::lock_guard lock(sq_.post_lock);
  const QpState state = this->state();
  if (state != QpState::kRts && state != QpState::kSqd && state != QpState::kErr &&
      state != QpState::kSqe) {
    result.error = PostError::kInvalidState;
    return result;
  }
  uint64_t tail = sq_.tail();
  // As in engine/post.cc: a request keeps its place until its completion was polled (IBTA 10.8).
  const uint64_t head = sq_.head();
  const uint64_t polled = polled_.load(std::memory_order_acquire);
  const bool all_polled = polled == signaled_.load(std::memory_order_acquire);
  const uint64_t limit = (all_polled ? std::max(head, polled) : polled) + sq_.max_wr();
  for (const SendWr& wr : requests) {
    uint64_t length = 0;
    result.error = tail == limit ? PostError::kQueueFull : CheckPost(wr, &length);
    if (result.error != PostError::kNone) break;
    const Route* const route = config_.surroundings->RouteOf(wr.to.address);
    if (route == nullptr) {
      result.error = PostError::kNoDestination;
      break;
    }
    sq_.at(tail).to = *route;
    Enqueue(tail, wr, length);
    ++tail;
    ++result.accepted;
  }
  sq_.Publish(tail);
  sends_posted_.fetch_add(result.accepted, std::memory_order_relaxed);
  return result;
}

PostResult QueuePair::PostReceive(std::span<const ReceiveWr> requests, bool* wake) {
  *wake = false;
  if (config_.shared_receives != nullptr) return {0, PostError::kUsesSharedQueue};
  const QpState state = this->state();
  if (state == QpState::kReset) return {0, PostError::kInvalidState};
  const PostResult result = own_receives_->Post(requests, wake);
  *wake = state == QpState::kErr;  // flushes at once
  return result;
}

}  // namespace verbena::datagram
