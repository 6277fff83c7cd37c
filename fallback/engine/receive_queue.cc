// SPDX-License-Identifier: Apache-2.0
#include "fallback/engine/receive_queue.h"

#include <algorithm>
#include <mutex>

namespace verbena::engine {

ReceiveQueue::ReceiveQueue(uint32_t max_wr, uint32_t max_sge)
    : max_wr_(max_wr),
      max_sge_(max_sge),
      slots_(new Slot[max_wr]),
      sges_(new Sge[size_t{max_wr} * max_sge]) {}

PostResult ReceiveQueue::Post(std::span<const ReceiveWr> requests, bool* wake) {
  PostResult result;
  std::lock_guard lock(lock_);
  uint32_t count = count_.load(std::memory_order_relaxed);
  for (const ReceiveWr& wr : requests) {
    if (wr.local.size() > max_sge_) {
      result.error = PostError::kTooManySges;
      break;
    }
    if (count == max_wr_) {
      result.error = PostError::kQueueFull;
      break;
    }
    const uint32_t at = static_cast<uint32_t>((uint64_t{head_} + count) % max_wr_);
    uint64_t length = 0;
    Sge* to = &sges_[size_t{at} * max_sge_];
    for (const Sge& sge : wr.local) {
      length += sge.length;
      *to++ = sge;
    }
    slots_[at] = {wr.id, length, wr.local.size()};
    ++count;
    ++result.accepted;
  }
  count_.store(count, std::memory_order_seq_cst);
  counters_.posted += result.accepted;
  *wake = taker_waits_ && result.accepted > 0;
  if (*wake) taker_waits_ = false;
  return result;
}

bool ReceiveQueue::Take(Receive* out, bool* limit_reached) {
  *limit_reached = false;
  std::lock_guard lock(lock_);
  const uint32_t count = count_.load(std::memory_order_relaxed);
  if (count == 0) {
    taker_waits_ = true;
    ++counters_.empty;
    return false;
  }
  TakeFirst(out, limit_reached);
  return true;
}

ReceiveQueue::Taken ReceiveQueue::TakeFor(uint64_t length, Receive* out, bool* limit_reached) {
  *limit_reached = false;
  std::lock_guard lock(lock_);
  if (count_.load(std::memory_order_relaxed) == 0) {
    ++counters_.empty;
    return Taken::kEmpty;
  }
  if (slots_[head_].length < length) return Taken::kTooSmall;
  TakeFirst(out, limit_reached);
  return Taken::kYes;
}

inline void ReceiveQueue::TakeFirst(Receive* out, bool* limit_reached) {
  const uint32_t count = count_.load(std::memory_order_relaxed);
  const Slot& slot = slots_[head_];
  out->id = slot.id;
  out->sge_count = slot.sge_count;
  out->length = slot.length;
  const Sge* from = &sges_[size_t{head_} * max_sge_];
  for (uint32_t i = 0; i < slot.sge_count; ++i) out->sges[i] = from[i];
  if (++head_ == max_wr_) head_ = 0;
  count_.store(count - 1, std::memory_order_seq_cst);
  ++counters_.taken;
  if (limit_ != 0 && count - 1 < limit_) {  // one-shot, ibv_modify_srq(3)
    limit_ = 0;
    ++counters_.limit_events;
    *limit_reached = true;
  }
}

bool ReceiveQueue::SetLimit(uint32_t limit) {
  std::lock_guard lock(lock_);
  if (limit != 0 && count_.load(std::memory_order_relaxed) < limit) {
    limit_ = 0;
    ++counters_.limit_events;
    return true;
  }
  limit_ = limit;
  return false;
}

SrqLimits ReceiveQueue::limits() const {
  std::lock_guard lock(lock_);
  return {max_wr_, max_sge_, limit_};
}

SrqCounters ReceiveQueue::counters() const {
  std::lock_guard lock(lock_);
  return counters_;
}

void ReceiveQueue::Clear() {
  std::lock_guard lock(lock_);
  count_.store(0, std::memory_order_seq_cst);
  head_ = 0;
  taker_waits_ = false;
}

}  // namespace verbena::engine
