// SPDX-License-Identifier: Apache-2.0
#include "dropin/work_requests.h"

#include <arpa/inet.h>

#include <cstring>
#include <span>

#include "dropin/datagrams.h"
#include "dropin/datapath.h"
#include "dropin/errors.h"
#include "dropin/memory_window.h"
#include "dropin/queue_pair.h"

namespace verbena::dropin {
namespace {

QueuePair& Mine(ibv_qp_ex* qp) { return *static_cast<QueuePair*>(qp); }

SendWr& Add(ibv_qp_ex* qp, Opcode opcode) { return Mine(qp).requests().Add(*qp, opcode); }

void OneSided(ibv_qp_ex* qp, Opcode opcode, uint32_t rkey, uint64_t address) {
  Add(qp, opcode).remote = {address, rkey};
}

}  // namespace

bool TakesOperations(uint64_t flags) {
  constexpr uint64_t kTaken = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
                              IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM |
                              IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
                              IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_LOCAL_INV |
                              IBV_QP_EX_WITH_SEND_WITH_INV | IBV_QP_EX_WITH_BIND_MW;
  return (flags & ~kTaken) == 0;
}

void SetOperations(QueuePair* qp) {
  ibv_qp_ex& ex = *qp;
  ex.wr_start = [](ibv_qp_ex* q) { Mine(q).requests().Start(Mine(q)); };
  ex.wr_complete = [](ibv_qp_ex* q) { return Mine(q).requests().Complete(&Mine(q)); };
  ex.wr_abort = [](ibv_qp_ex* q) { Mine(q).requests().Abort(Mine(q)); };
  ex.wr_send = [](ibv_qp_ex* q) { Add(q, Opcode::kSend); };
  ex.wr_send_imm = [](ibv_qp_ex* q, __be32 imm) {
    Add(q, Opcode::kSendWithImm).immediate = ntohl(imm);
  };
  ex.wr_send_inv = [](ibv_qp_ex* q, uint32_t key) {
    Add(q, Opcode::kSendWithInvalidate).invalidate = key;
  };
  ex.wr_local_inv = [](ibv_qp_ex* q, uint32_t key) {
    Add(q, Opcode::kLocalInvalidate).invalidate = key;
  };
  ex.wr_bind_mw = [](ibv_qp_ex* q, ibv_mw* mw, uint32_t key, const ibv_mw_bind_info* info) {
    Mine(q).requests().AddBind(*q, mw, key, *info);
  };
  ex.wr_rdma_read = [](ibv_qp_ex* q, uint32_t key, uint64_t address) {
    OneSided(q, Opcode::kRead, key, address);
  };
  ex.wr_rdma_write = [](ibv_qp_ex* q, uint32_t key, uint64_t address) {
    OneSided(q, Opcode::kWrite, key, address);
  };
  ex.wr_rdma_write_imm = [](ibv_qp_ex* q, uint32_t key, uint64_t address, __be32 imm) {
    SendWr& wr = Add(q, Opcode::kWriteWithImm);
    wr.remote = {address, key};
    wr.immediate = ntohl(imm);
  };
  ex.wr_atomic_cmp_swp = [](ibv_qp_ex* q, uint32_t key, uint64_t address, uint64_t compare,
                            uint64_t swap) {
    SendWr& wr = Add(q, Opcode::kCompareSwap);
    wr.remote = {address, key};
    wr.atomic = {compare, swap};
  };
  ex.wr_atomic_fetch_add = [](ibv_qp_ex* q, uint32_t key, uint64_t address, uint64_t add) {
    SendWr& wr = Add(q, Opcode::kFetchAdd);
    wr.remote = {address, key};
    wr.atomic = {add, 0};
  };
  ex.wr_set_ud_addr = [](ibv_qp_ex* q, ibv_ah* ah, uint32_t qpn, uint32_t qkey) {
    Mine(q).requests().SetDestination(DestinationOf(ah, qpn, qkey));
  };
  ex.wr_set_sge = [](ibv_qp_ex* q, uint32_t key, uint64_t address, uint32_t length) {
    const ibv_sge one{address, length, key};
    Mine(q).requests().SetSges(1, &one);
  };
  ex.wr_set_sge_list = [](ibv_qp_ex* q, size_t count, const ibv_sge* list) {
    Mine(q).requests().SetSges(count, list);
  };
  ex.wr_set_inline_data = [](ibv_qp_ex* q, void* address, size_t length) {
    const ibv_data_buf one{address, length};
    Mine(q).requests().SetInline(1, &one);
  };
  ex.wr_set_inline_data_list = [](ibv_qp_ex* q, size_t count, const ibv_data_buf* list) {
    Mine(q).requests().SetInline(count, list);
  };
}

// In a child after fork it may be locked by a thread that is not there.
void WorkRequests::Start(const QueuePair& qp) {
  if (!qp.process().inherited()) mutex_.lock();
  requests_.clear();
  locals_.clear();
  sges_.clear();
  inline_.clear();
}

SendWr& WorkRequests::Add(const ibv_qp_ex& qp, Opcode opcode) {
  locals_.emplace_back();
  SendWr& wr = requests_.emplace_back();
  wr.opcode = opcode;
  wr.id = qp.wr_id;
  wr.flags = FlagsOf(qp.wr_flags & ~unsigned{IBV_SEND_INLINE});
  return wr;
}

// Translated when it is posted: the window takes one bind at a time.
void WorkRequests::AddBind(const ibv_qp_ex& qp, ibv_mw* mw, uint32_t key,
                           const ibv_mw_bind_info& info) {
  Add(qp, Opcode::kBindWindow);
  locals_.back().window = mw;
  locals_.back().key = key;
  locals_.back().bind = info;
}

void WorkRequests::SetSges(size_t count, const ibv_sge* list) {
  Local& local = locals_.back();
  local.first = sges_.size();
  local.count = count;
  for (size_t i = 0; i < count; ++i) {
    sges_.push_back({list[i].addr, list[i].length, list[i].lkey});
  }
}

// The program may reuse its memory as soon as this returns.
void WorkRequests::SetInline(size_t count, const ibv_data_buf* list) {
  Local& local = locals_.back();
  local.is_inline = true;
  local.data = inline_.size();
  size_t length = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto* const from = static_cast<const std::byte*>(list[i].addr);
    inline_.insert(inline_.end(), from, from + list[i].length);
    length += list[i].length;
  }
  local.first = sges_.size();
  local.count = 1;
  sges_.push_back({0, static_cast<uint32_t>(length), 0});
}

int WorkRequests::Complete(QueuePair* qp) {
  if (qp->process().inherited()) return EIO;
  int error = qp->qp()->state < IBV_QPS_RTS ? EINVAL : 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    const Local& local = locals_[i];
    if (local.is_inline) {
      sges_[local.first].address = reinterpret_cast<uint64_t>(inline_.data() + local.data);
      requests_[i].flags = requests_[i].flags | SendFlags::kInline;
    }
    requests_[i].local = std::span<const Sge>(sges_.data() + local.first, local.count);
  }
  if (error == 0 && qp->datagrams() != nullptr) {
    error = ErrnoOf(qp->datagrams()->PostSend(requests_).error);
    mutex_.unlock();
    return error;
  }
  // In pieces, of which each ends with a bind.
  const std::span<const SendWr> all(requests_);
  for (size_t i = 0, first = 0; i < requests_.size() && error == 0; ++i) {
    const Local& local = locals_[i];
    const bool bind = requests_[i].opcode == Opcode::kBindWindow;
    if (bind && local.window->type != IBV_MW_TYPE_2) {
      error = EINVAL;
      break;
    }
    if (bind) MemoryWindow::Of(local.window)->Translate(local.key, local.bind, &requests_[i]);
    if (!bind && i + 1 < requests_.size()) continue;
    error = ErrnoOf(qp->queue_pair().PostSend(all.subspan(first, i + 1 - first)).error);
    first = i + 1;
  }
  mutex_.unlock();
  return error;
}

void WorkRequests::Abort(const QueuePair& qp) {
  if (!qp.process().inherited()) mutex_.unlock();
}

}  // namespace verbena::dropin
