// SPDX-License-Identifier: Apache-2.0
// Polls that bring what went well: the other half of hot_path.cc. The rest is in polling.cc.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

#include "verbs/completion.h"

namespace verbena::verbs {
namespace {

// These lie beside each other, and are copied sixteen bytes at a time.
static_assert(offsetof(Ledger::Place, facts) == offsetof(Ledger::Place, id) + 8 &&
              offsetof(WorkCompletion, status) == offsetof(WorkCompletion, id) + 8 &&
              offsetof(WorkCompletion, opcode) - offsetof(WorkCompletion, status) ==
                  offsetof(Facts, completes) &&
              offsetof(WorkCompletion, length) == offsetof(WorkCompletion, status) + sizeof(Facts));
static_assert(offsetof(WorkCompletion, immediate_or_key) == offsetof(WorkCompletion, length) + 4 &&
              offsetof(WorkCompletion, vendor_error) == offsetof(WorkCompletion, qp_number) + 4);

// And 0 into the field behind it.
void StoreBeforeZero(uint32_t value, uint32_t* to) {
  const uint64_t both = std::endian::native == std::endian::little ? value : uint64_t{value} << 32;
  std::memcpy(to, &both, sizeof both);
}

// Its request is the latest of `place`, nothing is odd about that, and it went well.
inline bool IsPlain(const ibv_wc& wc, const Ledger::Place& place) {
  constexpr unsigned kTold = IBV_WC_WITH_IMM | IBV_WC_WITH_INV | IBV_WC_IP_CSUM_OK;
  return place.posted.load(std::memory_order_acquire) == wc.wr_id &&
         (wc.status | (wc.wc_flags & kTold)) == 0;
}

}  // namespace

// False: it is of another ledger, or not of the usual kind.
inline bool CompletionQueue::Copy(const ibv_wc& wc, const Ledger& ledger, WorkCompletion* out) {
  const Ledger::Place& place = ledger.Of(wc.wr_id);
  if (!IsPlain(wc, place)) [[unlikely]]
    return false;
  std::memcpy(&out->id, &place.id, 16);
  StoreBeforeZero(wc.byte_len, &out->length);
  StoreBeforeZero(wc.qp_num, &out->qp_number);
  return true;
}

// The same on an iWARP device. Nor is it a probe's (QueuePair::Probe), which is nobody's to see, or
// one that somebody has told as flushed while it was on its way here.
inline bool CompletionQueue::CopyOnIwarp(const ibv_wc& wc, const Ledger& ledger,
                                         WorkCompletion* out) {
  Ledger::Place& place = ledger.Of(wc.wr_id);
  if (!IsPlain(wc, place)) [[unlikely]]
    return false;
  constexpr auto kPeculiar = std::bit_cast<uint32_t>(Facts{.quiet = true, .state = 0xff});
  const uint32_t known = place.facts.load(std::memory_order_relaxed);
  if ((known & kPeculiar) != 0) [[unlikely]]
    return false;
  std::memcpy(&out->id, &place.id, 16);
  if (!place.Finish()) [[unlikely]]
    return false;
  StoreBeforeZero(wc.byte_len, &out->length);
  StoreBeforeZero(wc.qp_num, &out->qp_number);
  if (std::bit_cast<Facts>(known).completes == WcOpcode::kRead) out->length = place.length;
  return true;
}

// After the one that it brought was copied, which is done once.
[[gnu::noinline]] size_t CompletionQueue::PollRetire(Polling* poll, Ledger* ledger) {
  ledger->Retire(poll->wc[0].wr_id);
  return PollMore(poll, 1, 1);
}

template <bool kIwarp>
[[gnu::always_inline]] inline size_t CompletionQueue::PollShort(std::span<WorkCompletion> out) {
  if (out.size() > kPollBatch) [[unlikely]]
    return PollInBatches(out);
  if (disturbed()) [[unlikely]]
    return PollOn(out, 0);
  Polling poll;
  poll.self = this;
  poll.out = out;
  const int got = ibv_poll_cq(cq_, static_cast<int>(out.size()), poll.wc);
  CompletionQueue* const self = poll.self;
  if (got == 1) {
    Ledger* const ledger = self->Latest(poll.wc[0].wr_id).load(std::memory_order_relaxed);
    const bool copied = kIwarp ? CopyOnIwarp(poll.wc[0], *ledger, poll.out.data())
                               : Copy(poll.wc[0], *ledger, poll.out.data());
    if (copied && ledger->RetireOldest(poll.wc[0].wr_id)) [[likely]] {
      if (self->disturbed()) [[unlikely]]
        return self->PollMore(&poll, 1, 1);
      self->single_polls_.fetch_add(1, std::memory_order_relaxed);
      return 1;
    }
    if (kIwarp && copied) return self->PollRetire(&poll, ledger);
  }
  if (got > 0) return self->PollMore(&poll, 0, static_cast<size_t>(got));
  if (got < 0) [[unlikely]]
    self->PollFailed(got);
  self->empty_polls_.fetch_add(1, std::memory_order_relaxed);
  return 0;
}

size_t CompletionQueue::Poll(std::span<WorkCompletion> out) { return PollShort<false>(out); }
size_t IwarpCompletionQueue::Poll(std::span<WorkCompletion> out) { return PollShort<true>(out); }

// After the device gave completions, of which the first are delivered.
size_t CompletionQueue::PollMore(Polling* poll, size_t delivered, size_t taken) {
  const std::span<WorkCompletion> out = poll->out;
  const auto take = [iwarp = device_->iwarp()](const ibv_wc& wc, const Ledger* ledger,
                                               WorkCompletion* to) {
    return iwarp ? CopyOnIwarp(wc, *ledger, to) : Copy(wc, *ledger, to);
  };
  size_t n = delivered;
  for (size_t i = delivered; i < taken; ++i) {
    ibv_wc& wc = poll->wc[i];
    std::atomic<Ledger*>& latest = Latest(wc.wr_id);
    Ledger* ledger = latest.load(std::memory_order_relaxed);
    bool copied = take(wc, ledger, &out[n]);
    if (!copied) [[unlikely]] {
      Ledger* const other = device_->ledgers().Find(wc.wr_id);
      if (other != nullptr && other != ledger) {
        ledger = other;
        latest.store(ledger, std::memory_order_relaxed);
        copied = take(wc, ledger, &out[n]);
      }
    }
    if (copied) [[likely]] {
      if (!ledger->RetireOldest(wc.wr_id)) ledger->Retire(wc.wr_id);
      ++n;
    } else if (Translate(wc, For::kDelivery, &out[n])) {
      ++n;
    } else {
      wc.wr_id = kNobody;
    }
  }
  completions_.fetch_add(n, std::memory_order_relaxed);
  if (disturbed() || n == 0) [[unlikely]] {
    uint64_t names[kPollBatch];
    uint64_t* end = names;
    for (size_t i = 0; i < taken; ++i) {
      if (poll->wc[i].wr_id != kNobody) *end++ = poll->wc[i].wr_id;
    }
    return PollAround(out, n, names);
  }
  full_polls_.fetch_add(1, std::memory_order_relaxed);
  return n;
}

}  // namespace verbena::verbs
