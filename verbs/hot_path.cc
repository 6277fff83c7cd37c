// SPDX-License-Identifier: Apache-2.0
// What most posts and polls are: one request with one entry that the driver takes as it is, and
// completions of requests that went well. Everything else goes to datapath.cc and polling.cc.
// tests/bench/overhead counts the instructions.
#include <algorithm>

#include "verbs/completion.h"
#include "verbs/queue_pair.h"

namespace verbena::verbs {
namespace {

struct Plain {
  ibv_wr_opcode opcode;
  uint32_t refuses;  // flags, and kNever: not posted here
  Facts facts;
};
constexpr uint32_t kNever = 0x100;
constexpr uint32_t kNoFlags = 0xf0;
constexpr uint32_t kInline = static_cast<uint32_t>(SendFlags::kInline);

constexpr Plain Of(Opcode opcode, ibv_wr_opcode device, uint32_t refuses) {
  // Not iWARP: what is not signaled completes only if it fails.
  return {device, refuses, {.opcode = opcode, .completes = CompletionOf(opcode), .plain = true}};
}
constexpr Plain kOthers = {IBV_WR_SEND, kNever, {}};
constexpr Plain kPlains[kOpcodeCount] = {
    Of(Opcode::kSend, IBV_WR_SEND, kNoFlags),
    kOthers,
    kOthers,
    Of(Opcode::kWrite, IBV_WR_RDMA_WRITE, kNoFlags),
    kOthers,
    Of(Opcode::kRead, IBV_WR_RDMA_READ, kNoFlags | kInline),
    kOthers,
    kOthers,
    kOthers,
    kOthers,
};

// By SendFlags, whose bits have the same order and other places.
constexpr uint8_t kFlags[16] = {
    0,
    IBV_SEND_SIGNALED,
    IBV_SEND_SOLICITED,
    IBV_SEND_SIGNALED | IBV_SEND_SOLICITED,
    IBV_SEND_FENCE,
    IBV_SEND_FENCE | IBV_SEND_SIGNALED,
    IBV_SEND_FENCE | IBV_SEND_SOLICITED,
    IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED,
    IBV_SEND_INLINE,
    IBV_SEND_INLINE | IBV_SEND_SIGNALED,
    IBV_SEND_INLINE | IBV_SEND_SOLICITED,
    IBV_SEND_INLINE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED,
    IBV_SEND_INLINE | IBV_SEND_FENCE,
    IBV_SEND_INLINE | IBV_SEND_FENCE | IBV_SEND_SIGNALED,
    IBV_SEND_INLINE | IBV_SEND_FENCE | IBV_SEND_SOLICITED,
    IBV_SEND_INLINE | IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED,
};

constexpr uint64_t kNobody = ~uint64_t{0};  // more ledgers than there may be
bool IsNobody(const ibv_wc& wc) { return wc.wr_id == kNobody; }
uint64_t NameOf(const ibv_wc& wc) { return wc.wr_id; }

}  // namespace

PostResult QueuePair::PostSend(std::span<const SendWr> requests) {
  if (requests.size() != 1 || (may_post_.load(std::memory_order_acquire) & kPlain) == 0)
      [[unlikely]] {
    return PostBatch(requests);
  }
  const SendWr& wr = requests.front();
  const uint32_t flags = static_cast<uint8_t>(wr.flags);
  const auto opcode = static_cast<uint8_t>(wr.opcode);
  if (opcode >= kOpcodeCount || wr.local.size() != 1) [[unlikely]]
    return PostBatch(requests);
  const Plain& plain = kPlains[opcode];
  const Sge& sge = *wr.local.begin();
  if (((flags | kNever) & plain.refuses) != 0 ||
      sge.length > ((flags & kInline) != 0 ? device_inline_ : max_message_)) [[unlikely]] {
    return PostBatch(requests);
  }
  Ledger& ledger = *send_ledger_;
  uint64_t position = 0;
  if (!ledger.ReserveOne(&position)) [[unlikely]]
    return {0, PostError::kQueueFull};
  Ledger::Place& place = ledger.at(position);
  place.Begin(wr.id, plain.facts);
  place.key = wr.remote.key;
  ibv_sge entry = {.addr = sge.address, .length = sge.length, .lkey = sge.key};
  ibv_send_wr work;  // the rest belongs to other opcodes
  work.wr_id = ledger.Name(position);
  work.next = nullptr;
  work.sg_list = &entry;
  work.num_sge = 1;
  work.opcode = plain.opcode;
  work.send_flags = kFlags[flags] | always_;
  work.wr.rdma.remote_addr = wr.remote.address;
  work.wr.rdma.rkey = wr.remote.key;
  ibv_send_wr* bad = nullptr;
  if (const int error = ibv_post_send(qp_, &work, &bad); error != 0 && bad != nullptr)
      [[unlikely]] {
    ledger.GiveBack(position, 0, 1);
    return {0, PostErrorOf(error)};
  }
  ledger.Posted(position);
  return {1, PostError::kNone};
}

PostResult QueuePair::PostReceive(std::span<const ReceiveWr> requests) {
  if (requests.size() != 1 || (may_post_.load(std::memory_order_acquire) & kPlain) == 0 ||
      srq_ != nullptr || requests.front().local.size() != 1) [[unlikely]] {
    return PostReceiveBatch(requests);
  }
  const ReceiveWr& wr = requests.front();
  Ledger& ledger = *receive_ledger_;
  uint64_t position = 0;
  if (!ledger.ReserveOne(&position)) [[unlikely]]
    return {0, PostError::kQueueFull};
  ledger.at(position).Begin(wr.id, {.completes = WcOpcode::kReceive, .plain = true});
  const Sge& sge = *wr.local.begin();
  ibv_sge entry = {.addr = sge.address, .length = sge.length, .lkey = sge.key};
  ibv_recv_wr work = {
      .wr_id = ledger.Name(position), .next = nullptr, .sg_list = &entry, .num_sge = 1};
  ibv_recv_wr* bad = nullptr;
  if (const int error = ibv_post_recv(qp_, &work, &bad); error != 0 && bad != nullptr)
      [[unlikely]] {
    ledger.GiveBack(position, 0, 1);
    return {0, PostErrorOf(error)};
  }
  ledger.Posted(position);
  return {1, PostError::kNone};
}

// False: not to be delivered.
inline bool CompletionQueue::Deliver(const ibv_wc& wc, WorkCompletion* out) {
  const uint64_t name = wc.wr_id;
  constexpr unsigned kTold = IBV_WC_WITH_IMM | IBV_WC_WITH_INV | IBV_WC_IP_CSUM_OK;
  Ledger* ledger = latest_.load(std::memory_order_relaxed);
  if (!ledger->Names(name)) [[unlikely]] {
    ledger = device_->ledgers().Find(name);
    if (ledger == nullptr) return false;
    latest_.store(ledger, std::memory_order_relaxed);
  }
  const Ledger::Place& place = ledger->at(static_cast<uint32_t>(name));
  if ((wc.status | (wc.wc_flags & kTold)) != 0 || !place.plain) [[unlikely]] {
    return Translate(wc, For::kDelivery, out);
  }
  *out = {.id = place.id, .opcode = place.completes, .length = wc.byte_len, .qp_number = wc.qp_num};
  ledger->Retire(name);
  return true;
}

size_t CompletionQueue::Poll(std::span<WorkCompletion> out) {
  polls_.fetch_add(1, std::memory_order_relaxed);
  const uint32_t beside = beside_.load(std::memory_order_acquire);
  if ((beside & (kStashed | kPulling | kAttention)) != 0) [[unlikely]]
    return PollOn(out, 0);
  ibv_wc wc[kPollBatch];
  const int got = ibv_poll_cq(cq_, static_cast<int>(std::min(out.size(), kPollBatch)), wc);
  if (got <= 0) {
    empty_polls_.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }
  size_t n = 0;
  for (ibv_wc *each = wc, *end = wc + got; each != end; ++each) {
    if (Deliver(*each, &out[n])) [[likely]] {
      ++n;
    } else {
      each->wr_id = kNobody;
    }
  }
  completions_.fetch_add(n, std::memory_order_relaxed);
  const uint32_t now = beside_.load(std::memory_order_acquire);
  if (now != beside || got == static_cast<int>(kPollBatch)) [[unlikely]] {
    if (!Pulled(beside, now)) return PollOn(out, n);
    uint64_t names[kPollBatch];
    std::transform(wc, std::remove_if(wc, wc + got, IsNobody), names, NameOf);
    return StashAndUnstash(out, n, names);
  }
  return n;
}

}  // namespace verbena::verbs
