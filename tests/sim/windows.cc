// SPDX-License-Identifier: Apache-2.0
// Windows over an end's target area: bound and invalidated by its owner, used and invalidated by
// its peer. And requests that break a rule.
#include <algorithm>

#include "tests/sim/player.h"

namespace verbena::sim {

void Player::UseWindow(uint32_t end, Dice dice) {
  End& own = world_.end(end);
  Flow& flow = *flows_[end];
  if (own.qp.state() != QpState::kRts && own.qp.state() != QpState::kSqd) return;
  if (!flow.HasRoom(config_.slots)) return;
  const uint32_t which = dice.Below(kWindows);
  Window& w = own.windows[which];
  Area& target = own.areas[kTarget];
  const bool binds = w.state == WindowState::kFree && !target.dead;
  if (!binds && (w.state != WindowState::kBound || !dice.OneIn(4))) return;
  Request& r = flow.Next();
  ChooseFlags(end, dice, &r);
  r.at = which;
  r.op = binds ? Opcode::kBindWindow : Opcode::kLocalInvalidate;
  SendWr wr{.opcode = r.op, .id = r.seq};
  if (r.signaled && !config_.signal_all) wr.flags = SendFlags::kSignaled;
  if (r.fenced) wr.flags = wr.flags | SendFlags::kFence;
  if (binds) {
    wr.bind.window = reinterpret_cast<MemoryWindow*>(&w.region);
    wr.bind.region = reinterpret_cast<MemoryRegion*>(&target.region);
    wr.bind.address = target.region.first;
    wr.bind.length = target.size;
    wr.bind.access = Access::kRemoteRead | Access::kRemoteWrite;
    w.state = WindowState::kChanging;
  } else {
    wr.invalidate = w.key;
    MarkUsersOf(end, which);
    w.state = WindowState::kChanging;
  }
  const PostResult result = own.qp.PostSend({&wr, 1});
  if (!result.ok()) {
    return verdict_.Fail("a window's request of end ", end,
                         " is refused: ", PostErrorText(result.error));
  }
  if (binds) w.key = own.bind_key;
  Say("request ", r.seq, binds ? ": bind window " : ": invalidate window ", which);
  ++requests_;
  flow.Posted(r);
}

// The window dies while its peer may be using it.
void Player::MarkUsersOf(uint32_t end, uint32_t window) {
  Flow& flow = *flows_[end ^ 1];
  if (flow.failed()) ++doom(end).offences;
  for (uint64_t seq = flow.head(); seq != flow.tail(); ++seq) {
    Request& r = flow.at(seq);
    const bool invalidates = r.op == Opcode::kSendWithInvalidate;
    if (invalidates || r.window != window + 1 || r.length == 0) continue;
    if (r.may_fail == 0) ++doom(end).offences;
    r.may_fail |= Bit(WcStatus::kRemoteAccessError);
  }
}

// Through one of the peer's windows, perhaps, or to invalidate it.
void Player::ChooseWindow(uint32_t end, Dice& dice, Request* r) {
  const bool sends = r->op == Opcode::kSend;
  const bool uses =
      r->op == Opcode::kWrite || r->op == Opcode::kRead || r->op == Opcode::kWriteWithImm;
  if (!sends && !uses) return;
  const uint32_t which = dice.Below(kWindows);
  const Window& w = world_.peer(end).windows[which];
  if (w.state != WindowState::kBound || !dice.OneIn(sends ? 4 : 2)) return;
  r->window = which + 1;
  r->key = w.key;
  if (sends) r->op = Opcode::kSendWithInvalidate;
}

// A rule is broken. The bits of what comes of it.
uint32_t Player::Offend(Dice& dice, const Request& r, SendWr* wr, Sge* sges) {
  const bool atomic = r.op == Opcode::kFetchAdd || r.op == Opcode::kCompareSwap;
  const bool one_sided =
      atomic || r.op == Opcode::kWrite || r.op == Opcode::kRead || r.op == Opcode::kWriteWithImm;
  switch (one_sided ? dice.Below(4) : 3) {
    case 0:
      wr->remote.key ^= 1u << dice.Below(32);
      return Bit(WcStatus::kRemoteAccessError);
    case 1:
      wr->remote.address += dice.OneIn(2) ? uint64_t{4} * config_.longest : 0 - (uint64_t{1} << 20);
      return Bit(WcStatus::kRemoteAccessError);
    case 2:
      if (!atomic || r.at + 1 == kWordCount) break;
      wr->remote.address += dice.Between(1, 7);
      return Bit(WcStatus::kRemoteInvalidRequest);
    default:
      break;
  }
  if (Has(wr->flags, SendFlags::kInline)) return 0;
  Sge* const longest =
      std::max_element(sges, sges + wr->local.size(),
                       [](const Sge& a, const Sge& b) { return a.length < b.length; });
  longest->key ^= 1u << dice.Below(32);
  return Bit(WcStatus::kLocalProtectionError);
}

}  // namespace verbena::sim
