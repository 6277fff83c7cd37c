// SPDX-License-Identifier: Apache-2.0
#include "dropin/memory_window.h"

#include <span>

#include "dropin/context.h"
#include "dropin/datapath.h"
#include "dropin/errors.h"
#include "dropin/memory.h"
#include "dropin/queue_pair.h"

namespace verbena::dropin {
namespace {

constexpr unsigned kRights =
    IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
constexpr uint32_t kChosen = 0xff;  // the part of a key that programs choose

}  // namespace

MemoryWindow::MemoryWindow(ibv_pd* pd, ibv_mw_type type,
                           std::unique_ptr<fallback::MemoryWindow> window)
    : ibv_mw{}, fast_(window.get()), window_(std::move(window)) {
  this->context = pd->context;
  this->pd = pd;
  this->type = type;
  rkey = ProtectionDomain::Of(pd)->domain().device()->keys().NewKey();
  handle = rkey;
}

ibv_mw* MemoryWindow::Allocate(ibv_pd* pd, ibv_mw_type type) {
  if (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2) return Fail<ibv_mw>(EINVAL);
  return new MemoryWindow(pd, type,
                          std::make_unique<fallback::MemoryWindow>(
                              &ProtectionDomain::Of(pd)->domain(), type == IBV_MW_TYPE_1));
}

int MemoryWindow::Free(ibv_mw* mw) {
  if (const absl::Status s = Of(mw)->window_.Close(); !s.ok()) return ErrnoOf(s);
  delete Of(mw);
  return 0;
}

void MemoryWindow::Translate(uint32_t key, const ibv_mw_bind_info& info, SendWr* out) {
  out->opcode = Opcode::kBindWindow;
  const bool zero_based = (info.mw_access_flags & IBV_ACCESS_ZERO_BASED) != 0;
  out->bind = {.window = &window_,
               .region = info.mr == nullptr ? nullptr : &MemoryRegion::Of(info.mr)->region(),
               .address = info.addr,
               .length = info.length,
               .access = static_cast<Access>(info.mw_access_flags & kRights)};
  // Of another window: it cannot be bound so (IBTA 10.6.7.2.3), which a completion has to tell.
  if ((key & ~kChosen) != (rkey & ~kChosen)) out->bind.length = 0;
  fast_->Choose(key, zero_based ? 0 : info.addr);
}

// Type 1 (ibv_bind_mw(3)); without a length the window is bound to nothing.
int MemoryWindow::Bind(ibv_qp* qp, ibv_mw* mw, ibv_mw_bind* bind) {
  MemoryWindow& window = *Of(mw);
  if (qp->pd != mw->pd) return EPERM;
  ibv_mw_bind_info info = bind->bind_info;
  if (info.length == 0) info.mr = window.lender_;
  if (info.mr == nullptr || (info.mw_access_flags & ~(kRights | IBV_ACCESS_ZERO_BASED)) != 0) {
    return EINVAL;
  }
  SendWr wr;
  const uint32_t key = ibv_inc_rkey(mw->rkey);
  window.Translate(key, info, &wr);
  wr.id = bind->wr_id;
  wr.flags = FlagsOf(bind->send_flags);
  const PostResult result = QueuePair::Of(qp)->queue_pair().PostSend({&wr, 1});
  if (!result.ok()) return ErrnoOf(result.error);
  window.lender_ = info.length == 0 ? nullptr : info.mr;
  mw->rkey = key;
  return 0;
}

}  // namespace verbena::dropin
