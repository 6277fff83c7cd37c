// SPDX-License-Identifier: Apache-2.0
// What most posts and polls are: one request with one entry that the driver takes as it is, and
// completions of requests that went well. Everything else goes to datapath.cc and polling.cc.
// tests/bench/overhead counts the instructions.
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#include "verbs/completion.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

// An entry of ours is one of the driver's, byte for byte.
static_assert(sizeof(Sge) == sizeof(ibv_sge) && offsetof(Sge, address) == offsetof(ibv_sge, addr) &&
              offsetof(Sge, length) == offsetof(ibv_sge, length) &&
              offsetof(Sge, key) == offsetof(ibv_sge, lkey));
// These lie beside each other, and are copied sixteen bytes at a time.
static_assert(sizeof(RemoteAddress) == 16 && offsetof(RemoteAddress, key) == 8 &&
              offsetof(ibv_send_wr, wr.rdma.rkey) == offsetof(ibv_send_wr, wr.rdma) + 8);
static_assert(offsetof(SendWr, id) == offsetof(SendWr, remote) + 16 &&
              offsetof(Ledger::Place, id) == offsetof(Ledger::Place, key_or_next) + 8);
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

ibv_sge* AsTheDrivers(const Sge& entry) {
  return reinterpret_cast<ibv_sge*>(const_cast<Sge*>(&entry));
}

constexpr uint32_t kSignaled = static_cast<uint32_t>(SendFlags::kSignaled);
constexpr uint32_t kSolicited = static_cast<uint32_t>(SendFlags::kSolicited);
constexpr uint32_t kFence = static_cast<uint32_t>(SendFlags::kFence);
constexpr uint32_t kInline = static_cast<uint32_t>(SendFlags::kInline);

}  // namespace

// What becomes of an opcode with its flags.
struct Form {
  Facts facts;
  bool exists;
  alignas(16) int num_sge = 1;  // as in ibv_send_wr from here on
  ibv_wr_opcode opcode;
  unsigned send_flags;
  uint32_t none;
};
static_assert(offsetof(Form, opcode) == offsetof(Form, num_sge) + 4 &&
              offsetof(Form, send_flags) == offsetof(Form, num_sge) + 8 &&
              offsetof(ibv_send_wr, opcode) == offsetof(ibv_send_wr, num_sge) + 4 &&
              offsetof(ibv_send_wr, send_flags) == offsetof(ibv_send_wr, num_sge) + 8);

// A request on its way to the driver, and what is needed after that: kept here rather than in
// registers, which would have to be saved.
template <typename Wr>
struct Posting {
  Wr work;
  Wr* bad;
  QueuePair* self;
  Ledger::Place* place;
};

namespace {

constexpr Form FormOf(Opcode opcode, uint32_t flags) {
  Form form{};
  form.exists = true;
  switch (opcode) {
    case Opcode::kSend:
      form.opcode = IBV_WR_SEND;
      break;
    case Opcode::kWrite:
      form.opcode = IBV_WR_RDMA_WRITE;
      break;
    case Opcode::kRead:
      form.opcode = IBV_WR_RDMA_READ;
      form.exists = (flags & kInline) == 0;
      break;
    default:
      form.exists = false;
  }
  form.send_flags = ((flags & kSignaled) != 0 ? unsigned{IBV_SEND_SIGNALED} : 0) |
                    ((flags & kSolicited) != 0 ? unsigned{IBV_SEND_SOLICITED} : 0) |
                    ((flags & kFence) != 0 ? unsigned{IBV_SEND_FENCE} : 0) |
                    ((flags & kInline) != 0 ? unsigned{IBV_SEND_INLINE} : 0);
  form.facts = {.completes = CompletionOf(opcode), .quiet = (flags & kSignaled) == 0};
  return form;
}

// By opcode and flags. SendFlags::kSignaled or not: always so in a queue pair that signals all.
constexpr std::array<Form, QueuePair::kForms> FormsWith(uint32_t always) {
  std::array<Form, QueuePair::kForms> forms{};
  for (uint32_t i = 0; i < QueuePair::kForms; ++i) {
    forms[i] =
        FormOf(static_cast<Opcode>(i / QueuePair::kFlagSets), i % QueuePair::kFlagSets | always);
  }
  return forms;
}
constexpr std::array<Form, QueuePair::kForms> kAsAsked = FormsWith(0);
constexpr std::array<Form, QueuePair::kForms> kAllSignaled = FormsWith(kSignaled);

}  // namespace

const Form* QueuePair::FormsOf(Signal signal) {
  return signal == Signal::kAll ? kAllSignaled.data() : kAsAsked.data();
}

void QueuePair::OpenShortWay(bool open) {
  for (uint32_t i = 0; i < QueuePair::kForms; ++i) {
    const bool is_inline = (i & kInline) != 0;
    const uint64_t most = is_inline ? device_inline_ : std::min<uint64_t>(max_message_, 0xfffffffe);
    fewer_[i].store(open && forms_[i].exists ? static_cast<uint32_t>(most) + 1 : 0,
                    std::memory_order_release);
  }
}

inline size_t QueuePair::WhichForm(const SendWr& wr) {
  return static_cast<uint8_t>(wr.opcode) * kFlagSets + static_cast<uint8_t>(wr.flags) % kFlagSets;
}

// False: PostBatch and Build.
inline bool QueuePair::IsShort(const SendWr& wr, size_t which) const {
  // Its length tells whether there is an entry by itself.
  return which < kForms && wr.local.one().length < fewer_[which].load(std::memory_order_acquire);
}

namespace {

// The rest of `work` belongs to other opcodes.
inline void Fill(const SendWr& wr, const Form& form, uint64_t name, Ledger::Place* place,
                 ibv_send_wr* work) {
  std::memcpy(&place->key_or_next, &wr.remote.key, 16);
  place->facts.store(form.facts, std::memory_order_relaxed);
  work->wr_id = name;
  work->next = nullptr;
  work->sg_list = AsTheDrivers(wr.local.one());
  std::memcpy(&work->num_sge, &form.num_sge, 16);
  std::memcpy(&work->wr.rdma, &wr.remote, 16);
}

}  // namespace

bool QueuePair::BuildShort(const SendWr& wr, uint64_t position, ibv_send_wr* work) {
  const size_t which = WhichForm(wr);
  if (!IsShort(wr, which)) return false;
  const uint64_t name = send_ledger_->Name(position);
  Fill(wr, forms_[which], name, &send_ledger_->Of(name), work);
  return true;
}

PostResult QueuePair::PostSend(std::span<const SendWr> requests) {
  if (requests.size() != 1) [[unlikely]]
    return PostBatch(requests);
  const SendWr& wr = requests.front();
  const size_t which = WhichForm(wr);
  uint64_t name = 0;
  if (!IsShort(wr, which) || !send_ledger_->ReserveOne(&name)) [[unlikely]]
    return PostBatch({&wr, 1});
  Posting<ibv_send_wr> post;
  post.self = this;
  post.place = &send_ledger_->Of(name);
  post.bad = nullptr;
  Fill(wr, forms_[which], name, post.place, &post.work);
  if (const int error = ibv_post_send(qp_, &post.work, &post.bad); error != 0) [[unlikely]] {
    if (post.bad != nullptr)
      return post.self->Refused(post.self->send_ledger_, post.work.wr_id, error);
  }
  post.place->posted.store(post.work.wr_id, std::memory_order_release);
  return {1, PostError::kNone};
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
      .wr_id = name, .next = nullptr, .sg_list = AsTheDrivers(*wr.local.begin()), .num_sge = 1};
  if (const int error = ibv_post_recv(qp_, &post.work, &post.bad); error != 0) [[unlikely]] {
    if (post.bad != nullptr)
      return post.self->Refused(post.self->receive_ledger_, post.work.wr_id, error);
  }
  post.place->posted.store(post.work.wr_id, std::memory_order_release);
  return {1, PostError::kNone};
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
      if (other != nullptr && other != ledger) {
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
