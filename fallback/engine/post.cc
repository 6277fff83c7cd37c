// SPDX-License-Identifier: Apache-2.0
// Posting: any thread. What is wrong with the call itself is refused here; what is wrong with the
// memory it names shows when the request runs, as a completion (ibv_post_send(3)).
#include <algorithm>
#include <cstring>
#include <mutex>

#include "fallback/engine/queue_pair.h"

namespace verbena::engine {

namespace {

bool TakesFlag(const SendWr& wr) {
  if (!Has(wr.flags, SendFlags::kInline)) return true;
  return IsSend(wr.opcode) || wr.opcode == Opcode::kWrite || wr.opcode == Opcode::kWriteWithImm;
}

// ibv_post_send(3), but for SendWithInvalidate: IBTA 9.4.1.1 has it for reliable connections.
bool TakesOpcode(QpType type, Opcode op) {
  return type != QpType::kUc || !(IsRead(op) || op == Opcode::kSendWithInvalidate);
}

uint32_t FeatureOf(Opcode op) {
  switch (op) {
    case Opcode::kSendWithImm:
    case Opcode::kWriteWithImm:
      return wire::kImmediate;
    case Opcode::kCompareSwap:
    case Opcode::kFetchAdd:
      return wire::kAtomics;
    default:
      return 0;
  }
}

}  // namespace

inline PostError QueuePair::CheckPost(const SendWr& wr) const {
  if (static_cast<uint8_t>(wr.opcode) >= kOpcodeCount || !TakesFlag(wr) ||
      !TakesOpcode(config_.type, wr.opcode)) {
    return PostError::kInvalidOpcode;
  }
  if (const uint32_t feature = FeatureOf(wr.opcode);
      feature != 0 && has_session_.load(std::memory_order_acquire) &&
      (active_features_.load(std::memory_order_relaxed) & feature) == 0) {
    return PostError::kUnsupported;
  }
  if (wr.local.size() > config_.limits.max_send_sge) return PostError::kTooManySges;
  if (Has(wr.flags, SendFlags::kInline)) {
    uint64_t length = 0;
    for (const Sge& sge : wr.local) length += sge.length;
    if (length > config_.limits.max_inline) return PostError::kInlineTooLong;
  }
  if (wr.opcode == Opcode::kBindWindow &&
      (wr.bind.window == nullptr || wr.bind.region == nullptr)) {
    return PostError::kInvalidOpcode;
  }
  return PostError::kNone;
}

void QueuePair::Enqueue(uint64_t position, const SendWr& wr) {
  SendEntry& e = sq_.at(position);
  e.id = wr.id;
  e.remote_address = wr.remote.address;
  e.remote_key = wr.remote.key;
  e.compare_add = wr.atomic.compare_add;
  e.swap = wr.atomic.swap;
  e.opcode = wr.opcode;
  e.flags = wr.flags;
  e.signaled = config_.signal_all || Has(wr.flags, SendFlags::kSignaled);
  e.is_inline = Has(wr.flags, SendFlags::kInline);
  e.done = false;
  e.failure = WcStatus::kSuccess;
  e.immediate_or_key =
      wr.opcode == Opcode::kSendWithInvalidate || wr.opcode == Opcode::kLocalInvalidate
          ? wr.invalidate
          : wr.immediate;
  uint64_t length = 0;
  if (e.is_inline) {
    std::byte* to = sq_.inline_data(position);
    for (const Sge& sge : wr.local) {
      if (sge.length > 0)
        std::memcpy(to + length, reinterpret_cast<const void*>(sge.address), sge.length);
      length += sge.length;
    }
    e.sge_count = 0;
  } else {
    Sge* to = sq_.sges(position);
    for (const Sge& sge : wr.local) {
      length += sge.length;
      *to++ = sge;
    }
    e.sge_count = static_cast<uint8_t>(wr.local.size());
  }
  // IBTA 9.7.2: 2^31 bytes; atomics move exactly 8 (11.4.1.1).
  const bool atomic = wr.opcode == Opcode::kCompareSwap || wr.opcode == Opcode::kFetchAdd;
  if (length > kMaxMessage || (atomic && length != 8)) e.failure = WcStatus::kLocalLengthError;
  e.length = e.failure == WcStatus::kSuccess ? static_cast<uint32_t>(length) : 0;
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
  // A request is outstanding until its completion was polled (IBTA 10.8), so that a completion
  // queue of matching size never overflows. Unsignalled ones are free once they are acknowledged.
  const uint64_t head = sq_.head();
  const uint64_t polled = polled_.load(std::memory_order_acquire);
  const bool all_polled = polled == signaled_.load(std::memory_order_acquire);
  // Who polls a completion at once may be ahead of the owner, which retires the request after it.
  const uint64_t limit = (all_polled ? std::max(head, polled) : polled) + sq_.max_wr();
  for (const SendWr& wr : requests) {
    result.error = tail == limit ? PostError::kQueueFull : CheckPost(wr);
    if (result.error != PostError::kNone) break;
    Enqueue(tail, wr);
    if (wr.opcode == Opcode::kBindWindow) {
      SendEntry& e = sq_.at(tail);
      config_.binder->PrepareBind(wr.bind, &e);
    }
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
  PostResult result = own_receives_->Post(requests, wake);
  if (state == QpState::kErr) *wake = true;  // flushes at once
  return result;
}

}  // namespace verbena::engine
