// SPDX-License-Identifier: Apache-2.0
// What most posts are: requests that the driver takes as they are. Everything else goes to
// datapath.cc and iwarp_posts.cc. Polls: hot_polls.cc. tests/bench/overhead counts the
// instructions.
#include <algorithm>
#include <array>
#include <cstddef>

#include "verbs/completion.h"
#include "verbs/forms.h"
#include "verbs/queue_pair.h"
#include "verbs/shared_receive_queue.h"

namespace verbena::verbs {

// A request on its way to the driver, and what is needed after that: kept here rather than in
// registers, which would have to be saved.
template <typename Wr>
struct Posting {
  Wr work;
  Wr* bad;
  QueuePair* self;
  Ledger::Place* place;
};

// By PlainForm: a request with fewer bytes may be given to the driver as it is.
uint32_t QueuePair::OpenFewer(size_t form) const {
  const Opcode opcode = OpcodeOf(form);
  const bool is_inline = Has(FlagsOf(form), SendFlags::kInline);
  if (!Supported(opcode, capabilities_) || (is_inline && !TakesInline(opcode))) return 0;
  if (type_ == QpType::kUc && !UnreliableToo(opcode)) return 0;
  const uint64_t most = is_inline ? device_inline_ : std::min<uint64_t>(max_message_, 0xfffffffe);
  return static_cast<uint32_t>(most) + 1;
}

void QueuePair::MakeOpenForms() {
  open_forms_ = std::make_unique<std::array<Form, kPlainForms>>();
  for (size_t i = 0; i < kPlainForms; ++i) {
    Form& form = (*open_forms_)[i];
    form = forms_[i];
    const Opcode opcode = OpcodeOf(i);
    const uint32_t fewer = OpenFewer(i);
    if (IsAtomic(opcode)) {
      if (fewer > 8) form.other = 8;  // IBTA 11.4.1.1
    } else if (opcode != Opcode::kSendWithInvalidate) {
      form.fewer = fewer;
      const bool immediate = opcode == Opcode::kSendWithImm || opcode == Opcode::kWriteWithImm;
      if (!immediate && limits_.max_send_sge >= 2) form.other = fewer;
    }
  }
}

void QueuePair::OpenShortWay(bool open) {
  if (open && open_forms_ == nullptr) MakeOpenForms();
  for (size_t i = 0; i < kPlainForms; ++i) {
    fewer_[i].store(open ? OpenFewer(i) : 0, std::memory_order_release);
  }
  short_forms_.store(open ? open_forms_->data() : forms_, std::memory_order_release);
}

// Of an opcode in the first row of the tables.
inline const Form& QueuePair::ShortForm(const SendWr& wr) const {
  const size_t which = PlainForm(wr.opcode, wr.flags);
  return short_forms_.load(std::memory_order_acquire)[which];
}

// Any request that the driver takes as it is.
inline bool QueuePair::IsPlain(const SendWr& wr) const {
  if (wr.opcode > Opcode::kFetchAdd || wr.local.size() > limits_.max_send_sge) return false;
  const uint64_t length = LengthOf(wr.local);
  if (IsAtomic(wr.opcode) && (length != 8 || wr.remote.address % 8 != 0)) return false;
  return length < fewer_[PlainForm(wr.opcode, wr.flags)].load(std::memory_order_acquire);
}

[[gnu::always_inline]] inline void QueuePair::Begin(const Ledger& ledger, uint64_t name,
                                                    Posting<ibv_send_wr>* post) {
  post->self = this;
  post->place = &ledger.Of(name);
  post->bad = nullptr;
}

// To the driver. Not 0: it refused. One that names no request has it nevertheless (Taken).
[[gnu::always_inline]] inline int QueuePair::Give(Posting<ibv_send_wr>* post) {
  const int error = ibv_post_send(qp_, &post->work, &post->bad);
  if (error != 0 && post->bad != nullptr) [[unlikely]]
    return error;
  post->place->posted.store(post->work.wr_id, std::memory_order_release);
  return 0;
}

// The ways are functions that are called last: in one, their exits would cost the usual way the
// saving of registers.
PostResult QueuePair::PostSend(std::span<const SendWr> requests) {
  if (requests.size() != 1) [[unlikely]]
    return PostBatch(requests);
  const SendWr& wr = requests.front();
  if (wr.opcode > Opcode::kRead) [[unlikely]]
    return PostAtomic(wr);
  const Form& form = ShortForm(wr);
  // The length tells whether there is an entry by itself.
  if (wr.local.one().length >= form.fewer) [[unlikely]]
    return PostTwo(requests, form);
  Ledger& ledger = *send_ledger_;
  uint64_t name = 0;
  if (!ledger.ReserveOne(&name)) [[unlikely]]
    return PostBatch({&wr, 1});
  Posting<ibv_send_wr> post;
  Begin(ledger, name, &post);
  FillOne(wr, form, name, post.place, &post.work);
  if (const int error = Give(&post); error != 0) [[unlikely]]
    return post.self->Refused(post.self->send_ledger_, post.work.wr_id, error);
  return {1, PostError::kNone};
}

[[gnu::noinline]] PostResult QueuePair::PostTwo(std::span<const SendWr> requests,
                                                const Form& form) {
  const SendWr& wr = requests.front();
  if (wr.local.size() != 2) [[unlikely]]
    return PostOther(wr);
  const Sge* const two = wr.local.many();
  if (uint64_t{two[0].length} + two[1].length >= form.other) [[unlikely]]
    return PostOther(wr);
  Ledger& ledger = *send_ledger_;
  uint64_t name = 0;
  if (!ledger.ReserveOne(&name)) [[unlikely]]
    return PostBatch({&wr, 1});
  Posting<ibv_send_wr> post;
  Begin(ledger, name, &post);
  FillTwo(wr, two, form, name, post.place, &post.work);
  if (const int error = Give(&post); error != 0) [[unlikely]]
    return post.self->Refused(post.self->send_ledger_, post.work.wr_id, error);
  return {1, PostError::kNone};
}

[[gnu::noinline]] PostResult QueuePair::PostAtomic(const SendWr& wr) {
  if (wr.opcode > Opcode::kFetchAdd) [[unlikely]]
    return PostBatch({&wr, 1});
  const Form& form = ShortForm(wr);
  if (wr.local.one().length != form.other || wr.remote.address % 8 != 0) [[unlikely]]
    return PostOther(wr);
  Ledger& ledger = *send_ledger_;
  uint64_t name = 0;
  if (!ledger.ReserveOne(&name)) [[unlikely]]
    return PostBatch({&wr, 1});
  Posting<ibv_send_wr> post;
  Begin(ledger, name, &post);
  FillAtomic(wr, form, name, post.place, &post.work);
  if (const int error = Give(&post); error != 0) [[unlikely]]
    return post.self->Refused(post.self->send_ledger_, post.work.wr_id, error);
  return {1, PostError::kNone};
}

// Another shape.
[[gnu::noinline]] PostResult QueuePair::PostOther(const SendWr& wr) {
  if (!IsPlain(wr)) return PostBatch({&wr, 1});
  Ledger& ledger = *send_ledger_;
  uint64_t name = 0;
  if (!ledger.ReserveOne(&name)) [[unlikely]]
    return PostBatch({&wr, 1});
  Posting<ibv_send_wr> post;
  Begin(ledger, name, &post);
  FillAny(wr, forms_[PlainForm(wr.opcode, wr.flags)], name, post.place, &post.work);
  if (const int error = Give(&post); error != 0) [[unlikely]]
    return post.self->Refused(post.self->send_ledger_, post.work.wr_id, error);
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
      if (wr.opcode <= Opcode::kRead) [[likely]] {
        if (const Form& form = ShortForm(wr); wr.local.one().length < form.fewer) [[likely]] {
          Fill(wr, form, name, &send_ledger_->Of(name), &work[n], &work[n + 1]);
          continue;
        }
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

}  // namespace verbena::verbs
