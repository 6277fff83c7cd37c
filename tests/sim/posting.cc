// SPDX-License-Identifier: Apache-2.0
// Random requests and receives, and what the model expects of each.
#include <algorithm>
#include <iterator>

#include "tests/sim/player.h"

namespace verbena::sim {

namespace {

uint32_t LengthOf(Dice& dice, uint32_t longest) {
  switch (dice.Below(8)) {
    case 0:
      return 0;
    case 1:
    case 2:
    case 3:
      return dice.Between(1, std::min(longest, 64u));
    case 4:
      return longest;
    default:
      return dice.Between(1, longest);
  }
}

bool FromSource(Opcode op) {
  return op == Opcode::kSend || op == Opcode::kSendWithImm || op == Opcode::kSendWithInvalidate ||
         op == Opcode::kWrite || op == Opcode::kWriteWithImm;
}

bool TakesReceive(Opcode op) {
  return op == Opcode::kSend || op == Opcode::kSendWithImm || op == Opcode::kSendWithInvalidate ||
         op == Opcode::kWriteWithImm;
}

}  // namespace

// Into pieces with gaps; some are empty.
Layout Player::Split(Dice& dice, size_t base, uint32_t length) const {
  Layout l;
  l.base = base;
  l.count = dice.OneIn(2) ? 1 : dice.Between(1, kMostPieces);
  uint32_t left = length;
  for (uint32_t i = 0; i + 1 < l.count; ++i) {
    l.lengths[i] = dice.Below(left + 1);
    left -= l.lengths[i];
  }
  l.lengths[l.count - 1] = left;
  return l;
}

bool Player::Choose(uint32_t end, Dice& dice, Request* r) {
  static constexpr Opcode kMix[] = {
      Opcode::kSend,  Opcode::kSend,  Opcode::kSend,        Opcode::kSendWithImm,
      Opcode::kWrite, Opcode::kWrite, Opcode::kWrite,       Opcode::kWrite,
      Opcode::kRead,  Opcode::kRead,  Opcode::kRead,        Opcode::kWriteWithImm,
      Opcode::kRead,  Opcode::kWrite, Opcode::kCompareSwap, Opcode::kFetchAdd,
  };
  r->op = kMix[dice.Below(std::size(kMix))];
  const bool atomic = r->op == Opcode::kCompareSwap || r->op == Opcode::kFetchAdd;
  if (TakesReceive(r->op) && flows_[end]->MessagesFull()) return false;
  if (atomic) {
    r->length = 8;
    r->at = dice.Below(kWordCount);
    r->operand = r->op == Opcode::kFetchAdd ? dice.Between(1, 3) : dice.Below(4);
    r->swap = dice.Below(4);
    r->shared_word = r->op == Opcode::kFetchAdd && dice.OneIn(3);
  } else {
    r->length = LengthOf(dice, config_.longest);
    const size_t target = world_.peer(end).areas[kTarget].size;
    r->at = dice.Below(static_cast<uint32_t>(target) - r->length + 1);
  }
  r->layout = Split(dice, size_t{r->slot} * world_.stride(), r->length);
  return true;
}

void Player::ChooseFlags(uint32_t end, Dice& dice, Request* r) {
  r->fenced = dice.OneIn(8);
  const Flow& flow = *flows_[end];
  const bool must_signal = flow.places() + 1 >= config_.slots / 2;
  r->signaled = config_.signal_all || must_signal || dice.OneIn(2);
}

// False: better not post it.
bool Player::MayFail(uint32_t end, Dice& dice, Request* r) {
  End& own = world_.end(end);
  End& peer = world_.peer(end);
  if (own.qp.state() == QpState::kErr) {
    if (!dice.OneIn(8)) return false;
    r->must_fail = r->no_effect = true;
    r->may_fail = kFlush;
    return true;
  }
  if (TakesReceive(r->op) && config_.rnr_retry != 7 &&
      (Shares(end ^ 1) || ReceivesOf(end ^ 1).outstanding <= flows_[end]->messages_under_way())) {
    r->may_fail |= Bit(WcStatus::kRnrRetryExceeded);
  }
  const AreaKind local = FromSource(r->op) ? kSources : kSinks;
  const bool one_sided = r->op != Opcode::kSend && r->op != Opcode::kSendWithImm;
  uint32_t wrong = 0;
  if (own.areas[local].dead && r->length > 0) wrong |= Bit(WcStatus::kLocalProtectionError);
  if (one_sided && r->length > 0 && r->length + r->at > 0 &&
      peer.areas[r->op == Opcode::kCompareSwap || r->op == Opcode::kFetchAdd ? kWords : kTarget]
          .dead) {
    wrong |= Bit(WcStatus::kRemoteAccessError);
  }
  if (wrong == 0) return true;
  if (!dice.OneIn(4)) return false;
  r->may_fail |= wrong;
  r->must_fail = true;
  // What is wrong at this end alone may show when some of it is done.
  r->no_effect = (wrong & Bit(WcStatus::kRemoteAccessError)) != 0;
  return true;
}

void Player::Post(uint32_t end, Dice dice) {
  End& own = world_.end(end);
  Flow& flow = *flows_[end];
  const QpState state = own.qp.state();
  if (state == QpState::kReset || !flow.HasRoom(config_.slots)) return;
  Request& r = flow.Next();
  if (!Choose(end, dice, &r)) return;
  ChooseFlags(end, dice, &r);
  if (!MayFail(end, dice, &r)) return;
  if (!r.must_fail) ChooseWindow(end, dice, &r);
  Submit(end, dice, r);
}

void Player::Submit(uint32_t end, Dice& dice, Request& r) {
  End& own = world_.end(end);
  End& peer = world_.peer(end);
  Area& local = own.areas[FromSource(r.op) ? kSources : kSinks];
  SendWr wr{.opcode = r.op, .id = r.seq};
  wr.immediate = static_cast<uint32_t>(r.seq);
  if (r.signaled && !config_.signal_all) wr.flags = wr.flags | SendFlags::kSignaled;
  if (r.fenced) wr.flags = wr.flags | SendFlags::kFence;
  if (dice.OneIn(4)) wr.flags = wr.flags | SendFlags::kSolicited;
  const bool source = FromSource(r.op);
  const bool is_inline =
      source && r.length <= 128 && dice.OneIn(3) && !local.dead && r.may_fail != kFlush;
  if (is_inline) wr.flags = wr.flags | SendFlags::kInline;
  Sge sges[kMostPieces];
  uint32_t count = 0;
  r.layout.Each([&](size_t place, uint32_t offset, uint32_t n) {
    if (source && !local.dead) FillPattern(local.host + place, r.pattern, offset, n);
    sges[count++] = local.sge(place, n);
  });
  wr.local = std::span<const Sge>(sges, count);
  if (r.op == Opcode::kFetchAdd || r.op == Opcode::kCompareSwap) {
    const Area& words = r.shared_word ? peer.node->words : peer.areas[kWords];
    wr.remote = {words.region.first + 8 * r.at, words.region.key};
    wr.atomic = {r.operand, r.swap};
  } else {
    const Area& target = peer.areas[kTarget];
    wr.remote = {target.region.first + r.at, r.window != 0 ? r.key : uint32_t{target.region.key}};
  }
  if (r.op == Opcode::kSendWithInvalidate) {
    wr.invalidate = r.key;
    // Reads through the window must be answered first: the fence is the program's duty.
    wr.flags = wr.flags | SendFlags::kFence;
    r.fenced = true;
    peer.windows[r.window - 1].state = WindowState::kChanging;
  } else if (config_.faults && r.length > 0 && !r.must_fail && dice.OneIn(200)) {
    if (const uint32_t status = Offend(dice, r, &wr, sges); status != 0) {
      r.may_fail |= status;
      r.must_fail = true;
      r.no_effect = status != Bit(WcStatus::kLocalProtectionError);
    }
  }
  const PostResult result = own.qp.PostSend({&wr, 1});
  if (!result.ok()) {
    return verdict_.Fail("a post on end ", end, " with ", flows_[end]->places(), " of ",
                         config_.slots, " outstanding is refused: ", PostErrorText(result.error));
  }
  Say("request ", r.seq, ": opcode ", static_cast<int>(r.op), ", ", r.length, " bytes in ", count,
      " pieces, peer's offset ", r.at, r.fenced ? ", fenced" : "", is_inline ? ", inline" : "",
      r.signaled ? "" : ", unsignalled", r.window != 0 ? ", window" : "",
      r.must_fail ? ", must fail" : "");
  ++requests_;
  flows_[end]->Posted(r);
  if (r.shared_word) {
    sums_[world_.NodeOf(end ^ 1)][r.at] += r.operand;
  }
  if (is_inline) flows_[end]->Scribble(r);
}

Area& Player::ReceiveArea(uint32_t end) {
  return Shares(end) ? world_.end(end).node->receives : world_.end(end).areas[kReceives];
}

// `wanted`: a message waits for it.
void Player::PostReceive(uint32_t end, Dice dice, bool wanted) {
  End& own = world_.end(end);
  Receives& all = ReceivesOf(end);
  Area& area = ReceiveArea(end);
  if (own.qp.state() == QpState::kReset) return;
  for (uint32_t left = dice.Between(1, 3); left > 0; --left) {
    PostedReceive& r = all.slots[all.tail % config_.slots];
    if (r.busy || all.outstanding >= config_.slots) return;
    if (area.dead && !wanted && !dice.OneIn(3)) return;
    const bool brief = config_.faults && !Shares(end) && dice.OneIn(300);
    r.capacity = brief ? dice.Below(config_.longest) : config_.longest;
    r.layout = Split(dice, all.tail % config_.slots * world_.stride(), r.capacity);
    r.id = all.tail;
    r.may_fail = area.dead ? Bit(WcStatus::kLocalProtectionError) : 0;
    if (brief) doom(end).brief_receives = true;
    if (area.dead) doom(end).bad_receives = true;
    if (!area.dead) std::memset(area.host + r.layout.base, 0xaa, world_.stride());
    Sge sges[kMostPieces];
    uint32_t count = 0;
    r.layout.Each([&](size_t place, uint32_t, uint32_t n) { sges[count++] = area.sge(place, n); });
    const ReceiveWr wr{.local = std::span<const Sge>(sges, count), .id = r.id};
    bool wake = false;
    const PostResult result =
        Shares(end) ? own.node->shared->Post({&wr, 1}, &wake) : own.qp.PostReceive({&wr, 1}, &wake);
    if (!result.ok()) {
      return verdict_.Fail("a receive of end ", end, " is refused: ", PostErrorText(result.error));
    }
    Say("receive ", r.id, " of ", r.capacity, " bytes in ", count, " pieces");
    ++requests_;
    ++all.tail;
    ++all.outstanding;
    r.busy = true;
  }
}

}  // namespace verbena::sim
