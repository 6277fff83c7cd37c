// SPDX-License-Identifier: Apache-2.0
// What goes wrong with connections and memory, by somebody's wish or nobody's.
#include "fallback/engine/test_allocations.h"
#include "tests/sim/player.h"

namespace verbena::sim {

void Player::Break(uint32_t link, Dice dice) {
  if (!world_.end(2 * link).connected() && !world_.end(2 * link + 1).connected()) return;
  doom(2 * link).lost = true;
  for (Wire& w : world_.link(link).wires) {
    w.DropAllBut(dice.Below(static_cast<uint32_t>(w.there()) + 1));
    w.Break();
  }
}

void Player::HalfClose(uint32_t end) {
  if (!world_.end(end).connected()) return;
  doom(end).lost = true;
  world_.end(end).out->Swallow();
}

void Player::Disconnect(uint32_t end, bool modify) {
  End& own = world_.end(end);
  if (!own.connected() || Dead(end)) return;
  doom(end).ended = true;
  doom(end).enders |= 1u << end % 2;
  if (modify) {
    (void)own.qp.Modify({.state = QpState::kErr});
  } else {
    own.qp.Disconnect();
  }
}

// The requests and receives under way that use this memory may fail now.
void Player::MarkUsers(uint32_t end, AreaKind kind) {
  if (kind == kReceives) {
    doom(end).bad_receives = true;
    for (PostedReceive& r : ReceivesOf(end).slots) {
      if (r.busy) r.may_fail |= Bit(WcStatus::kLocalProtectionError);
    }
    return;
  }
  Flow& flow = *flows_[kind == kTarget ? end ^ 1 : end];
  const WcStatus status =
      kind == kTarget ? WcStatus::kRemoteAccessError : WcStatus::kLocalProtectionError;
  // What failed at its own end may still arrive here.
  if (flow.failed()) ++doom(end).offences;
  for (uint64_t seq = flow.head(); seq != flow.tail(); ++seq) {
    Request& r = flow.at(seq);
    const bool atomic = r.op == Opcode::kFetchAdd || r.op == Opcode::kCompareSwap;
    const bool sink = r.op == Opcode::kRead || atomic;
    const bool two_sided = r.op == Opcode::kSend || r.op == Opcode::kSendWithImm ||
                           r.op == Opcode::kSendWithInvalidate;
    const bool uses = kind == kTarget ? !two_sided && !atomic : (kind == kSinks) == sink;
    if (!uses || r.length == 0) continue;
    if (r.may_fail == 0) ++doom(end).offences;
    r.may_fail |= Bit(status);
  }
}

void Player::Deregister(uint32_t end, Dice dice) {
  static constexpr AreaKind kKinds[] = {kSources, kSinks, kTarget, kReceives};
  static constexpr const char* kNames[] = {"sources", "sinks", "target", "receives"};
  End& own = world_.end(end);
  const uint32_t which = dice.Below(4);
  const AreaKind kind = kKinds[which];
  Area& area = own.areas[kind];
  if (area.dead || (kind == kReceives && Shares(end))) return;
  // A region with windows refuses.
  for (const Window& w : own.windows) {
    if (kind == kTarget && w.state != WindowState::kFree) return;
  }
  Say("its ", kNames[which]);
  MarkUsers(end, kind);
  world_.Kill(own.node, &area);
  std::memset(area.host, 0xee, area.size);
}

void Player::Refuse() {
  refuses_ = !refuses_;
  engine::RefuseQuietly(refuses_);
  for (uint32_t i = 0; i < config_.links; ++i) dooms_[i].may_be_lost = true;
}

// As a queue pair's Modify(RESET) does, on both ends, and then a new connection.
void Player::Reconnect(uint32_t link, Dice dice) {
  const bool look = config_.shared_receives || dice.OneIn(2);
  for (uint32_t end : {2 * link, 2 * link + 1}) {
    End& own = world_.end(end);
    doom(end).ended = true;
    if (own.connected()) {
      own.qp.Disconnect();
      own.Turn(0, SIZE_MAX, true, world_.now);
      own.Abandon();
    }
  }
  if (look) PollAll();
  sums_known_ = false;
  for (uint32_t end : {2 * link, 2 * link + 1}) flows_[end]->Inspect();
  for (uint32_t end : {2 * link, 2 * link + 1}) {
    if (verdict_.failed()) return;
    for (QpState state : {QpState::kReset, QpState::kInit}) {
      if (absl::Status s = world_.end(end).qp.Modify({.state = state}); !s.ok()) {
        return verdict_.Fail("end ", end, ": ", s.ToString());
      }
    }
    Renew(end);
  }
  dooms_[link] = {};
  dooms_[link].may_be_lost = refuses_;
  for (uint32_t end : {2 * link, 2 * link + 1}) flows_[end]->Forget();
  world_.Connect(link);
}

// Memory that was deregistered is registered again, for the next connection.
void Player::Renew(uint32_t end) {
  End& own = world_.end(end);
  for (AreaKind kind : {kSources, kSinks, kReceives, kTarget}) {
    if (!own.areas[kind].dead) continue;
    constexpr Access kPeers = Access::kRemoteWrite | Access::kRemoteRead | Access::kWindowBind;
    const Access access = kind == kTarget ? kPeers : Access::kLocalRead;
    world_.Register(own.node, &own.areas[kind], access | Access::kLocalWrite);
  }
  for (Window& w : own.windows) {
    if (w.region.bound) engine::ReleaseWindow(&own.node->keys, &w.region);
    w.state = WindowState::kFree;
  }
  receive_failed_[end] = false;
  if (Shares(end)) return;
  Receives& all = ReceivesOf(end);
  for (PostedReceive& r : all.slots) r.busy = false;
  all.head = all.tail;
  all.outstanding = 0;
}

}  // namespace verbena::sim
