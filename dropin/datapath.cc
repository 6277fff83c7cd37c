// SPDX-License-Identifier: Apache-2.0
#include "dropin/datapath.h"

#include <array>
#include <cstddef>
#include <span>

#include "dropin/completion.h"
#include "dropin/datagrams.h"
#include "dropin/errors.h"
#include "dropin/memory_window.h"
#include "dropin/queue_pair.h"
#include "dropin/shared_receive_queue.h"

namespace verbena::dropin {

SendFlags FlagsOf(unsigned flags) {
  uint8_t out = 0;
  if ((flags & IBV_SEND_SIGNALED) != 0) out |= static_cast<uint8_t>(SendFlags::kSignaled);
  if ((flags & IBV_SEND_SOLICITED) != 0) out |= static_cast<uint8_t>(SendFlags::kSolicited);
  if ((flags & IBV_SEND_FENCE) != 0) out |= static_cast<uint8_t>(SendFlags::kFence);
  if ((flags & IBV_SEND_INLINE) != 0) out |= static_cast<uint8_t>(SendFlags::kInline);
  return static_cast<SendFlags>(out);
}

namespace {

constexpr size_t kBatch = 8;  // requests that one call hands on

// So lists of entries are passed on as they are. (The project is built without strict aliasing.)
static_assert(sizeof(Sge) == sizeof(ibv_sge) && offsetof(Sge, address) == offsetof(ibv_sge, addr) &&
              offsetof(Sge, length) == offsetof(ibv_sge, length) &&
              offsetof(Sge, key) == offsetof(ibv_sge, lkey));

SgeList ListOf(const ibv_sge* list, int count) {
  return std::span(reinterpret_cast<const Sge*>(list), static_cast<size_t>(count));
}

constexpr uint8_t kNoOpcode = 0xff;
constexpr uint8_t Of(Opcode opcode) { return static_cast<uint8_t>(opcode); }
constexpr uint8_t kOpcodes[] = {
    /* IBV_WR_RDMA_WRITE */ Of(Opcode::kWrite),
    /* IBV_WR_RDMA_WRITE_WITH_IMM */ Of(Opcode::kWriteWithImm),
    /* IBV_WR_SEND */ Of(Opcode::kSend),
    /* IBV_WR_SEND_WITH_IMM */ Of(Opcode::kSendWithImm),
    /* IBV_WR_RDMA_READ */ Of(Opcode::kRead),
    /* IBV_WR_ATOMIC_CMP_AND_SWP */ Of(Opcode::kCompareSwap),
    /* IBV_WR_ATOMIC_FETCH_AND_ADD */ Of(Opcode::kFetchAdd),
    /* IBV_WR_LOCAL_INV */ Of(Opcode::kLocalInvalidate),
    /* IBV_WR_BIND_MW */ kNoOpcode,  // of windows that can be bound so: Translate
    /* IBV_WR_SEND_WITH_INV */ Of(Opcode::kSendWithInvalidate),
};
static_assert(IBV_WR_RDMA_WRITE == 0 && IBV_WR_SEND_WITH_INV == std::size(kOpcodes) - 1);

// An opcode that is none becomes one that the queue pair refuses.
void Translate(const ibv_send_wr& wr, SendWr* out) {
  out->opcode =
      static_cast<Opcode>(wr.opcode < std::size(kOpcodes) ? kOpcodes[wr.opcode] : kNoOpcode);
  out->id = wr.wr_id;
  out->local = ListOf(wr.sg_list, wr.num_sge);
  out->flags = FlagsOf(wr.send_flags);
  switch (wr.opcode) {
    case IBV_WR_SEND_WITH_IMM:
      out->immediate = ntohl(wr.imm_data);
      break;
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      out->immediate = ntohl(wr.imm_data);
      [[fallthrough]];
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_READ:
      out->remote = {wr.wr.rdma.remote_addr, wr.wr.rdma.rkey};
      break;
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      out->remote = {wr.wr.atomic.remote_addr, wr.wr.atomic.rkey};
      out->atomic = {wr.wr.atomic.compare_add, wr.wr.atomic.swap};
      break;
    case IBV_WR_SEND_WITH_INV:
    case IBV_WR_LOCAL_INV:
      out->invalidate = wr.invalidate_rkey;
      break;
    case IBV_WR_BIND_MW:
      if (wr.bind_mw.mw == nullptr || wr.bind_mw.mw->type != IBV_MW_TYPE_2) break;
      MemoryWindow::Of(wr.bind_mw.mw)->Translate(wr.bind_mw.rkey, wr.bind_mw.bind_info, out);
      break;
    default:
      break;
  }
}

void Translate(const ibv_recv_wr& wr, ReceiveWr* out) {
  out->id = wr.wr_id;
  out->local = ListOf(wr.sg_list, wr.num_sge);
}

bool IsBind(const ibv_send_wr& wr) { return wr.opcode == IBV_WR_BIND_MW; }
bool IsBind(const ibv_recv_wr&) { return false; }

// In batches, for one doorbell; the usual single one without an array. A bind ends its batch.
template <typename Out, typename Wr, typename Post>
int PostList(Wr* wr, Wr** bad, Post post) {
  if (wr != nullptr && wr->next == nullptr) [[likely]] {
    Out one;
    Translate(*wr, &one);
    const PostResult result = post(std::span<const Out>(&one, 1));
    if (result.ok()) [[likely]]
      return 0;
    *bad = wr;
    return ErrnoOf(result.error);
  }
  while (wr != nullptr) {
    std::array<Out, kBatch> batch;
    Wr* next = wr;
    size_t n = 0;
    for (bool last = false; n < kBatch && next != nullptr && !last; ++n, next = next->next) {
      Translate(*next, &batch[n]);
      last = IsBind(*next);
    }
    const PostResult result = post(std::span<const Out>(batch.data(), n));
    if (!result.ok()) {
      for (size_t i = 0; i < result.accepted; ++i) wr = wr->next;
      *bad = wr;
      return ErrnoOf(result.error);
    }
    wr = next;
  }
  return 0;
}

template <size_t kMost>
int Poll(CompletionQueue& queue, size_t entries, ibv_wc* out) {
  WorkCompletion got[kMost];
  const size_t n = queue.queue().Poll({got, std::min(entries, kMost)});
  for (size_t i = 0; i < n; ++i) {
    const WorkCompletion& from = got[i];
    ibv_wc& to = out[i];
    to.wr_id = from.id;
    to.status = StatusOf(from.status);
    to.opcode = OpcodeOf(from);
    to.vendor_err = from.vendor_error;
    to.byte_len = from.length;
    to.imm_data = ImmediateOf(from);
    to.qp_num = from.qp_number;
    to.src_qp = from.source_qp;
    to.wc_flags = FlagsOf(from);
    to.pkey_index = 0;
    to.slid = 0;
    to.sl = queue.SlOf(from);
    to.dlid_path_bits = 0;
  }
  return static_cast<int>(n);
}

}  // namespace

int PostSend(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad) {
  if (qp->state < IBV_QPS_RTS) [[unlikely]] {
    *bad = wr;
    return EINVAL;
  }
  if (qp->qp_type == IBV_QPT_UD) [[unlikely]] {
    return PostDatagrams(qp, wr, bad);
  }
  fallback::QueuePair& to = QueuePair::Of(qp)->queue_pair();
  return PostList<SendWr>(wr, bad, [&to](auto requests) { return to.PostSend(requests); });
}

// One at a time: a send call of its own each, whichever way.
int PostDatagrams(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad) {
  fallback::DatagramQueuePair& to = *QueuePair::Of(qp)->datagrams();
  for (; wr != nullptr; wr = wr->next) {
    SendWr one;
    Translate(*wr, &one);
    one.to = DestinationOf(wr->wr.ud.ah, wr->wr.ud.remote_qpn, wr->wr.ud.remote_qkey);
    if (const PostResult result = to.PostSend({&one, 1}); !result.ok()) {
      *bad = wr;
      return ErrnoOf(result.error);
    }
  }
  return 0;
}

int PostReceive(ibv_qp* qp, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  if (qp->qp_type == IBV_QPT_UD) [[unlikely]] {
    fallback::DatagramQueuePair& to = *QueuePair::Of(qp)->datagrams();
    return PostList<ReceiveWr>(wr, bad, [&to](auto requests) { return to.PostReceive(requests); });
  }
  fallback::QueuePair& to = QueuePair::Of(qp)->queue_pair();
  return PostList<ReceiveWr>(wr, bad, [&to](auto requests) { return to.PostReceive(requests); });
}

int PostSharedReceive(ibv_srq* srq, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  provider::SharedReceiveQueue& to = SharedReceiveQueue::Of(srq)->queue();
  return PostList<ReceiveWr>(wr, bad, [&to](auto requests) { return to.PostReceive(requests); });
}

int PollCq(ibv_cq* cq, int entries, ibv_wc* out) {
  CompletionQueue& queue = *CompletionQueue::Of(cq);
  if (entries <= 0) return entries < 0 ? -EINVAL : 0;
  if (entries == 1) return Poll<1>(queue, 1, out);
  int total = 0;
  while (total < entries) {
    constexpr int kPollBatch = 16;
    const int room = std::min(entries - total, kPollBatch);
    const int n = Poll<kPollBatch>(queue, static_cast<size_t>(room), out + total);
    total += n;
    if (n < room) break;
  }
  return total;
}

// Without a channel there is nobody to tell, which is no mistake to drivers.
int RequestNotify(ibv_cq* cq, int solicited_only) {
  if (cq->channel == nullptr) return 0;
  return ErrnoOf(CompletionQueue::Of(cq)->queue().RequestNotify(
      solicited_only != 0 ? Notify::kSolicited : Notify::kAny));
}

}  // namespace verbena::dropin
