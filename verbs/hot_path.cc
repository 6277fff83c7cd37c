// SPDX-License-Identifier: Apache-2.0
// What most posts and polls are: requests that the driver takes as they are, and completions of
// those that went well. Everything else goes to datapath.cc, polling.cc and iwarp_posts.cc.
// tests/bench/overhead counts the instructions.
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#include "verbs/completion.h"
#include "verbs/forms.h"
#include "verbs/queue_pair.h"
#include "verbs/shared_receive_queue.h"

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

}  // namespace

// A request on its way to the driver, and what is needed after that: kept here rather than in
// registers, which would have to be saved.
template <typename Wr>
struct Posting {
  Wr work;
  Wr* bad;
  QueuePair* self;
  Ledger::Place* place;
};

void QueuePair::OpenShortWay(bool open) {
  for (size_t i = 0; i < kPlainForms; ++i) {
    const Opcode opcode = OpcodeOf(i);
    const bool is_inline = Has(FlagsOf(i), SendFlags::kInline);
    const bool may =
        open && Supported(opcode, capabilities_) && (TakesInline(opcode) || !is_inline);
    const uint64_t most = is_inline ? device_inline_ : std::min<uint64_t>(max_message_, 0xfffffffe);
    const uint32_t fewer = may ? static_cast<uint32_t>(most) + 1 : 0;
    fewer_[i].store(fewer, std::memory_order_release);
    if (opcode > Opcode::kRead || opcode == Opcode::kSendWithInvalidate) continue;
    usual_fewer_[i].store(fewer, std::memory_order_release);
  }
}

// A send, write or read with one entry that the driver takes as it is.
inline bool QueuePair::IsUsual(const SendWr& wr, size_t* which) const {
  if (wr.opcode > Opcode::kRead) [[unlikely]]
    return false;
  *which = PlainForm(wr.opcode, wr.flags);
  // Its length tells whether there is an entry by itself.
  return wr.local.one().length < usual_fewer_[*which].load(std::memory_order_acquire);
}

// Any request that the driver takes as it is.
inline bool QueuePair::IsPlain(const SendWr& wr, size_t* which) const {
  if (wr.opcode > Opcode::kFetchAdd || wr.local.size() > limits_.max_send_sge) return false;
  *which = PlainForm(wr.opcode, wr.flags);
  const uint64_t length = wr.local.size() == 1 ? wr.local.begin()->length : LengthOf(wr.local);
  if (IsAtomic(wr.opcode) && (length != 8 || wr.remote.address % 8 != 0)) return false;
  return length < fewer_[*which].load(std::memory_order_acquire);
}

PostResult QueuePair::PostSend(std::span<const SendWr> requests) {
  if (requests.size() != 1) [[unlikely]]
    return PostBatch(requests);
  const SendWr& wr = requests.front();
  size_t which = 0;
  if (!IsUsual(wr, &which)) [[unlikely]]
    return PostOther(wr);
  Ledger& ledger = *send_ledger_;
  uint64_t name = 0;
  if (!ledger.ReserveOne(&name)) [[unlikely]]
    return PostBatch({&wr, 1});
  Posting<ibv_send_wr> post;
  post.self = this;
  post.place = &ledger.Of(name);
  post.bad = nullptr;
  Fill(wr, forms_[which], name, post.place, &post.work);
  if (const int error = ibv_post_send(qp_, &post.work, &post.bad); error != 0) [[unlikely]] {
    if (post.bad != nullptr)
      return post.self->Refused(post.self->send_ledger_, post.work.wr_id, error);
  }
  post.place->posted.store(post.work.wr_id, std::memory_order_release);
  return {1, PostError::kNone};
}

// One request that is not the usual. A function for what both do in the end would cost the usual
// one the saving of registers.
[[gnu::noinline]] PostResult QueuePair::PostOther(const SendWr& wr) {
  size_t which = 0;
  if (!IsPlain(wr, &which)) return PostBatch({&wr, 1});
  Ledger& ledger = *send_ledger_;
  uint64_t name = 0;
  if (!ledger.ReserveOne(&name)) [[unlikely]]
    return PostBatch({&wr, 1});
  Posting<ibv_send_wr> post;
  post.self = this;
  post.place = &ledger.Of(name);
  post.bad = nullptr;
  Fill(wr, forms_[which], name, post.place, &post.work);
  FillMore(wr, &post.work);
  if (const int error = ibv_post_send(qp_, &post.work, &post.bad); error != 0) [[unlikely]] {
    if (post.bad != nullptr)
      return post.self->Refused(post.self->send_ledger_, post.work.wr_id, error);
  }
  post.place->posted.store(post.work.wr_id, std::memory_order_release);
  return {1, PostError::kNone};
}

PostResult QueuePair::PostBatch(std::span<const SendWr> requests) {
  if ((may_post_.load(std::memory_order_acquire) & kSends) == 0) return {0, Refusal()};
  PostResult result;
  while (result.accepted < requests.size() && result.ok()) {
    ibv_send_wr work[kBatch];
    ibv_sge own[kBatch];  // of requests whose entries the driver does not get
    const SendWr* const wanted = &requests[result.accepted];
    const size_t left = requests.size() - result.accepted;
    uint64_t first = 0;
    const uint32_t places =
        send_ledger_->Reserve(static_cast<uint32_t>(std::min<size_t>(left, kBatch)), &first);
    if (places == 0) {
      result.error = PostError::kQueueFull;
      break;
    }
    uint32_t n = 0, taken = 0;
    uint64_t name = send_ledger_->Name(first);
    for (; n < places; ++n, name = Ledger::Next(name)) {
      const SendWr& wr = wanted[n];
      size_t which = 0;
      if (IsUsual(wr, &which)) [[likely]] {
        Fill(wr, forms_[which], name, &send_ledger_->Of(name), &work[n], &work[n + 1]);
        continue;
      }
      result.error = Build(wr, first + n, &work[n], &own[n]);
      if (!result.ok()) break;
      work[n].next = &work[n + 1];
      // The key of a window changes when its bind was posted, and the driver reads it there.
      if (wr.opcode == Opcode::kBindWindow && ++n > 0) break;
    }
    if (n > 0) {
      work[n - 1].next = nullptr;
      ibv_send_wr* bad = nullptr;
      const int error = ibv_post_send(qp_, work, &bad);
      taken = Taken(error, work, bad, n);
      if (taken < n) result.error = PostErrorOf(error);
      if (wanted[n - 1].opcode == Opcode::kBindWindow)
        BindPosted(wanted[n - 1], first + n - 1, taken == n);
    }
    send_ledger_->Posted(first, taken);
    send_ledger_->GiveBack(first, taken, places);
    result.accepted += taken;
  }
  return result;
}

// By the driver. Inlined, it would cost every post the saving of registers.
[[gnu::noinline]] PostResult QueuePair::Refused(Ledger* ledger, uint64_t name, int error) {
  ledger->GiveBack(ledger->PositionOf(name), 0, 1);
  return {0, PostErrorOf(error)};
}

PostResult QueuePair::PostReceive(std::span<const ReceiveWr> requests) {
  if (requests.size() != 1 || (may_post_.load(std::memory_order_acquire) & kShort) == 0 ||
      requests.front().local.size() != 1) [[unlikely]] {
    return PostReceiveBatch(requests);
  }
  const ReceiveWr& wr = requests.front();
  Ledger& ledger = *receive_ledger_;
  uint64_t name = 0;
  if (!ledger.ReserveOne(&name)) [[unlikely]]
    return PostReceiveBatch({&wr, 1});
  Ledger::Place* const place = &ledger.Of(name);
  place->Begin(wr.id, {.completes = WcOpcode::kReceive});
  Posting<ibv_recv_wr> post;
  post.self = this;
  post.place = place;
  post.bad = nullptr;
  post.work = {
      .wr_id = name, .next = nullptr, .sg_list = AsTheDrivers(wr.local.begin()), .num_sge = 1};
  if (const int error = ibv_post_recv(qp_, &post.work, &post.bad); error != 0) [[unlikely]] {
    if (post.bad != nullptr)
      return post.self->Refused(post.self->receive_ledger_, post.work.wr_id, error);
  }
  post.place->posted.store(post.work.wr_id, std::memory_order_release);
  return {1, PostError::kNone};
}

PostResult SharedReceiveQueue::PostReceive(std::span<const ReceiveWr> requests) {
  if (requests.size() != 1) [[unlikely]]
    return PostEach(requests);
  const ReceiveWr& wr = requests.front();
  if (wr.local.size() > limits_.max_sge) [[unlikely]]
    return {0, PostError::kTooManySges};
  Ledger::Place* const place = ledger_->Take();
  if (place == nullptr) [[unlikely]]
    return {0, PostError::kQueueFull};
  place->Begin(wr.id, {.completes = WcOpcode::kReceive});
  ibv_recv_wr work;
  FillReceive(wr, place->posted.load(std::memory_order_relaxed), &work);
  ibv_recv_wr* bad = nullptr;
  if (const int error = ibv_post_srq_recv(srq_, &work, &bad); error != 0) [[unlikely]] {
    if (bad != nullptr) return Refused(work.wr_id, error);
  }
  return {1, PostError::kNone};
}

[[gnu::noinline]] PostResult SharedReceiveQueue::Refused(uint64_t name, int error) {
  ledger_->Retire(name);
  return {0, PostErrorOf(error)};
}

PostResult SharedReceiveQueue::PostEach(std::span<const ReceiveWr> requests) {
  PostResult result;
  while (result.accepted < requests.size() && result.ok()) {
    const PostResult one = PostReceive(requests.subspan(result.accepted, 1));
    result = {result.accepted + one.accepted, one.error};
  }
  return result;
}

// False: it is of another ledger, or not of the usual kind.
inline bool CompletionQueue::Copy(const ibv_wc& wc, const Ledger& ledger, WorkCompletion* out) {
  constexpr unsigned kTold = IBV_WC_WITH_IMM | IBV_WC_WITH_INV | IBV_WC_IP_CSUM_OK;
  const uint64_t name = wc.wr_id;
  const Ledger::Place& place = ledger.Of(name);
  if (place.posted.load(std::memory_order_acquire) != name ||
      (wc.status | (wc.wc_flags & kTold)) != 0) [[unlikely]] {
    return false;
  }
  std::memcpy(&out->id, &place.id, 16);
  StoreBeforeZero(wc.byte_len, &out->length);
  StoreBeforeZero(wc.qp_num, &out->qp_number);
  return true;
}

size_t CompletionQueue::Poll(std::span<WorkCompletion> out) {
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
    if (Copy(poll.wc[0], *ledger, poll.out.data()) && ledger->RetireOldest(poll.wc[0].wr_id))
        [[likely]] {
      if (self->disturbed()) [[unlikely]]
        return self->PollMore(&poll, 1, 1);
      self->single_polls_.fetch_add(1, std::memory_order_relaxed);
      return 1;
    }
  }
  if (got > 0) return self->PollMore(&poll, 0, static_cast<size_t>(got));
  if (got < 0) [[unlikely]]
    self->PollFailed(got);
  self->empty_polls_.fetch_add(1, std::memory_order_relaxed);
  return 0;
}

// After the device gave completions, of which the first are delivered.
size_t CompletionQueue::PollMore(Polling* poll, size_t delivered, size_t taken) {
  const std::span<WorkCompletion> out = poll->out;
  size_t n = delivered;
  for (size_t i = delivered; i < taken; ++i) {
    ibv_wc& wc = poll->wc[i];
    std::atomic<Ledger*>& latest = Latest(wc.wr_id);
    Ledger* ledger = latest.load(std::memory_order_relaxed);
    bool copied = Copy(wc, *ledger, &out[n]);
    if (!copied) [[unlikely]] {
      Ledger* const other = device_->ledgers().Find(wc.wr_id);
      if (other != nullptr && other != ledger && !device_->iwarp()) {
        ledger = other;
        latest.store(ledger, std::memory_order_relaxed);
        copied = Copy(wc, *ledger, &out[n]);
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
