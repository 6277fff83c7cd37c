// SPDX-License-Identifier: Apache-2.0
// Posting on an iWARP device: by the short way, or with what IwarpSends puts behind a request.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "verbs/completion.h"
#include "verbs/forms.h"
#include "verbs/iwarp_queue_pair.h"

namespace verbena::verbs {
namespace {

constexpr uint32_t kTogether = 16;         // requests that one call of the driver gets
constexpr uint32_t kSges = 64;             // and their entries; at least what one request may have
constexpr uint32_t kNoEntry = 0xffffffff;  // SgeList::one: not given by itself

inline bool IsOf(const SendWr& wr, const LocalKeys::Region& region) {
  return region.key() == wr.local.one().key && region.Holds(wr.local.one());
}

}  // namespace

const LocalKeys::Region IwarpQueuePair::kNowhere;

IwarpQueuePair::IwarpQueuePair(ProtectionDomain* domain, const QueuePairOptions& options)
    : QueuePair(domain, options) {
  latest_.fill(&kNowhere);
  read_.sg_list = &sink_;
  receive_.num_sge = 1;
}

void IwarpQueuePair::ForgetShortWays() {
  latest_.fill(&kNowhere);
  next_ = end_ = nullptr;
  next_receive_ = end_receive_ = nullptr;
  reads_ = send_ledger_->RoomWith(iwarp_->depth());
}

// Its place is marked as posted before the driver has it, which nobody can tell: all that come
// behind it need the turn, and so does whoever completes requests in the driver's stead.
[[gnu::always_inline]] inline int IwarpQueuePair::Hand(const SendWr& wr, size_t which) {
  const Form& form = forms_[which];
  Ledger& ledger = *send_ledger_;
  Ledger::Place* const place = next_;
  ++std::launder(this)->next_;
  const uint64_t name = ledger.next();
  ledger.TakeNext(name);
  FillPlace(wr, form, place);
  place->posted.store(name, std::memory_order_relaxed);
  FillWork(wr, form, name, &work_);
  work_.sg_list = AsTheDrivers(&wr.local.one());
  return ibv_post_send(qp_, &work_, &bad_);
}

[[gnu::always_inline]] inline int IwarpQueuePair::HandRead(const SendWr& wr, size_t which,
                                                           uint32_t sink, Ledger* ledger,
                                                           uint64_t name) {
  const Form& form = forms_[which];
  Ledger::Place* const place = next_;
  next_ = place + 1;
  ledger->TakeNext(name);
  iwarp_->NoteRead(name);
  FillPlace(wr, form, place);
  place->length = wr.local.one().length;
  place->posted.store(name, std::memory_order_relaxed);
  FillWork(wr, form, name, &read_);
  sink_ = *AsTheDrivers(&wr.local.one());
  sink_.lkey = sink;
  return ibv_post_send(qp_, &read_, &bad_);
}

// A read has its own way here: to call a function would cost it the saving of registers.
PostResult IwarpQueuePair::PostSend(std::span<const SendWr> requests) {
  if (requests.size() != 1) [[unlikely]]
    return PostAny(requests);
  const SendWr& wr = requests.front();
  const size_t which = PlainForm(wr.opcode, wr.flags);
  if (wr.opcode > Opcode::kWrite) [[unlikely]] {
    if (wr.opcode != Opcode::kRead) return PostAny({&wr, 1});
    if (!send_turn_.try_lock()) [[unlikely]]
      return PostNext(wr);
    const LocalKeys::Region& region = *latest_[which];
    if (!IsOf(wr, region)) [[unlikely]]
      return Look(wr);
    const uint32_t sink = region.sink();
    Ledger& ledger = *send_ledger_;
    const uint64_t name = ledger.next();
    if (!ledger.HasRoomFor(reads_, name) || next_ == end_) [[unlikely]]
      return Look(wr);
    if (const int error = HandRead(wr, which, sink, &ledger, name); error != 0) [[unlikely]]
      return Failed(error);
  } else {
    if (!send_turn_.try_lock()) [[unlikely]]
      return PostNext(wr);
    if (!IsOf(wr, *latest_[which]) || next_ == end_) [[unlikely]]
      return Look(wr);
    if (const int error = Hand(wr, which); error != 0) [[unlikely]]
      return Failed(error);
  }
  std::launder(this)->send_turn_.unlock();
  return {1, PostError::kNone};
}

[[gnu::noinline]] PostResult IwarpQueuePair::PostNext(const SendWr& wr) {
  send_turn_.lock();
  return Look(wr);
}

[[gnu::noinline]] PostResult IwarpQueuePair::Look(const SendWr& wr) {
  const size_t which = PlainForm(wr.opcode, wr.flags);
  const bool read = wr.opcode == Opcode::kRead;
  if (!MayTakeAsItIs(wr, which) || !HaveRoom() ||
      (read && send_ledger_->outstanding() >= iwarp_->depth())) {
    send_turn_.unlock();
    return PostAny({&wr, 1});
  }
  const int error =
      read ? HandRead(wr, which, latest_[which]->sink(), send_ledger_, send_ledger_->next())
           : Hand(wr, which);
  if (error != 0) return Failed(error);
  send_turn_.unlock();
  return {1, PostError::kNone};
}

// The driver says so. One that names no request has it nevertheless (Taken).
[[gnu::noinline]] PostResult IwarpQueuePair::Failed(int error) {
  PostResult result{1, PostError::kNone};
  if (std::exchange(bad_, nullptr) != nullptr) {
    send_ledger_->GiveBack(send_ledger_->posted() - 1, 0, 1);
    next_ = end_ = nullptr;
    result = {0, PostErrorOf(error)};
  }
  send_turn_.unlock();
  return result;
}

[[gnu::always_inline]] inline int IwarpQueuePair::HandReceive(const ReceiveWr& wr) {
  Ledger& ledger = *receive_ledger_;
  Ledger::Place* const place = next_receive_;
  next_receive_ = place + 1;
  const uint64_t name = ledger.next();
  ledger.TakeNext(name);
  place->Begin(wr.id, {.completes = WcOpcode::kReceive});
  place->posted.store(name, std::memory_order_relaxed);
  receive_.wr_id = name;
  receive_.sg_list = AsTheDrivers(&wr.local.one());
  return ibv_post_recv(qp_, &receive_, &bad_receive_);
}

PostResult IwarpQueuePair::PostReceive(std::span<const ReceiveWr> requests) {
  if (requests.size() != 1 || requests.front().local.one().length == kNoEntry) [[unlikely]]
    return PostReceiveBatch(requests);
  const ReceiveWr& wr = requests.front();
  if (!receive_turn_.try_lock()) [[unlikely]]
    return PostReceiveBatch({&wr, 1});
  if (next_receive_ == end_receive_) [[unlikely]]
    return LookReceive(wr);
  if (const int error = HandReceive(wr); error != 0) [[unlikely]]
    return FailedReceive(error);
  std::launder(this)->receive_turn_.unlock();
  return {1, PostError::kNone};
}

[[gnu::noinline]] PostResult IwarpQueuePair::LookReceive(const ReceiveWr& wr) {
  const uint8_t may = may_post_.load(std::memory_order_acquire);
  uint32_t room = 0;
  if (srq_ == nullptr && (may & (kReceives | kFlushes)) == kReceives) {
    room = receive_ledger_->Ahead(&next_receive_);
    end_receive_ = next_receive_ + room;
  }
  if (room == 0) {
    receive_turn_.unlock();
    return PostReceiveBatch({&wr, 1});
  }
  if (const int error = HandReceive(wr); error != 0) return FailedReceive(error);
  receive_turn_.unlock();
  return {1, PostError::kNone};
}

[[gnu::noinline]] PostResult IwarpQueuePair::FailedReceive(int error) {
  PostResult result{1, PostError::kNone};
  if (std::exchange(bad_receive_, nullptr) != nullptr) {
    receive_ledger_->GiveBack(receive_ledger_->posted() - 1, 0, 1);
    next_receive_ = end_receive_ = nullptr;
    result = {0, PostErrorOf(error)};
  }
  receive_turn_.unlock();
  return result;
}

bool IwarpQueuePair::MayTakeAsItIs(const SendWr& wr, size_t which) {
  const bool read = wr.opcode == Opcode::kRead;
  const bool is_inline = Has(wr.flags, SendFlags::kInline);
  const Sge& entry = wr.local.one();
  if (may_post_.load(std::memory_order_acquire) != (kReceives | kSends) ||
      Has(wr.flags, SendFlags::kFence) || wr.local.begin() != &entry || wr.local.size() != 1 ||
      (!read && (wr.opcode != Opcode::kSend && wr.opcode != Opcode::kWrite)) ||
      (!read && iwarp_->confirms()) || entry.length > max_message_) {
    return false;
  }
  if (is_inline) return !read && entry.length > 0 && entry.length <= device_inline_;
  const LocalKeys::Region* const region = domain_->iwarp()->keys().Find(entry.key);
  if (region == nullptr || !region->Holds(entry)) return false;
  if (read && (!region->writable() || region->sink() == 0)) return false;
  // An entry that is not there has the key 0, and more bytes than any message.
  const bool keep = entry.key != 0 && region->length() <= max_message_;
  latest_[which] = keep ? region : &kNowhere;
  return keep || !read;  // whose sink is told there
}

bool IwarpQueuePair::HaveRoom() {
  if (next_ == end_) {
    const uint32_t room = send_ledger_->Ahead(&next_);
    end_ = next_ + room;
  }
  return next_ != end_;
}

PostResult IwarpQueuePair::PostAny(std::span<const SendWr> requests) {
  PostResult result;
  iwarp_->Prepare(requests);
  while (result.accepted < requests.size() && result.ok()) {
    ibv_send_wr work[2 * kTogether + kSges];  // the device gets more than one for some
    ibv_sge sges[kSges];
    const SendWr* const wanted = &requests[result.accepted];
    const size_t left = requests.size() - result.accepted;
    std::unique_lock turn(send_turn_);
    const uint8_t may = may_post_.load(std::memory_order_acquire);
    if ((may & (kSends | kKeeps)) != kSends) [[unlikely]] {
      turn.unlock();
      if ((may & kSends) == 0) return {result.accepted, Refusal()};
      const PostResult rest = KeepSends(requests.subspan(result.accepted));
      return {result.accepted + rest.accepted, rest.error};
    }
    next_ = end_ = nullptr;
    uint64_t first = 0;
    const uint32_t places =
        send_ledger_->Reserve(static_cast<uint32_t>(std::min<size_t>(left, kTogether)), &first);
    if (places == 0) {
      result.error = PostError::kQueueFull;
      break;
    }
    uint32_t n = 0, used = 0, built = 0;
    bool wait = false;
    // A request that is built to fail has an entry though it was posted with none.
    for (; n < places && used + std::max<size_t>(wanted[n].local.size(), 1) <= kSges; ++n) {
      if (!MayStart(wanted[n], first + n)) [[unlikely]] {
        wait = true;
        break;
      }
      result.error = Build(wanted[n], first + n, &work[built], &sges[used]);
      if (!result.ok()) break;
      used += static_cast<uint32_t>(work[built].num_sge);
      if (built > 0) work[built - 1].next = &work[built];
      ++built;
      built += iwarp_->Finish(&work[built - 1]);
    }
    if (n == 0 && result.ok() && !wait) result.error = PostError::kTooManySges;
    uint32_t taken = 0;
    if (n > 0) {
      ibv_send_wr* bad = nullptr;
      const int error = ibv_post_send(qp_, work, &bad);
      taken = Taken(error, work, bad, built);
      if (taken < built) result.error = PostErrorOf(error);
      taken = IwarpSends::Requests(work, taken);
    }
    send_ledger_->Posted(first, taken);
    send_ledger_->GiveBack(first, taken, places);
    result.accepted += taken;
    turn.unlock();
    if (wait && result.ok()) [[unlikely]] {
      const PostResult rest = Wait(requests.subspan(result.accepted));
      return {result.accepted + rest.accepted, rest.error};
    }
  }
  return result;
}

}  // namespace verbena::verbs
