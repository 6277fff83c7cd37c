// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/player.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "fallback/engine/test_allocations.h"

namespace verbena::sim {

namespace {
// Until everything is at rest: a peer may be refused every 10 µs for the second of a farewell, in
// some rounds each.
constexpr int kMostRounds = 1'000'000;
}  // namespace

Player::Player(const Config& config, Pool* pool, bool tell)
    : config_(config), tell_(tell), world_(config_, pool) {
  for (uint32_t i = 0; i < world_.ends(); ++i) {
    flows_.push_back(std::make_unique<Flow>(&world_, i, &doom(i), pool, &verdict_));
  }
}

Outcome Player::Play(const std::vector<Step>& steps, const std::vector<uint32_t>& keep,
                     volatile uint32_t* at) {
  Outcome out;
  const size_t count = keep.empty() ? steps.size() : keep.size();
  for (size_t i = 0; i < count && !verdict_.failed(); ++i) {
    *at = keep.empty() ? static_cast<uint32_t>(i) : keep[i];
    if (*at >= steps.size()) continue;
    const Step& step = steps[*at];
    if (tell_) {
      absl::StrAppend(&story_, uint32_t{*at}, ": ", ActionName(step.action), " ", step.who, "\n");
    }
    Do(step);
  }
  engine::RefuseQuietly(false);
  out.failed = verdict_.failed();
  out.text = verdict_.text();
  out.requests = requests_;
  out.story = story_;
  return out;
}

void Player::Do(const Step& step) {
  const Dice dice(step.random);
  const uint32_t who = step.who;
  switch (step.action) {
    case Action::kPost:
      return Post(who, dice);
    case Action::kWindow:
      return UseWindow(who, dice);
    case Action::kPostReceive:
      return PostReceive(who, dice, false);
    case Action::kTurn:
      return Turn(who, dice);
    case Action::kPoll:
      return Poll(who, dice);
    case Action::kAdvance: {
      Dice by = dice;
      world_.now += by.OneIn(20) ? Nanos{by.Below(1000)} * 3'600'000'000'000
                                 : Nanos{by.Below(1 << by.Between(1, 30))};
      return;
    }
    case Action::kInspect:
      return flows_[who]->Inspect();
    case Action::kStall:
      return world_.end(who).out->Stall(!world_.end(who).out->stalled());
    case Action::kDrain:
      return Drain(who);
    case Action::kSettle:
      return Settle();
    case Action::kBreak:
      return Break(who, dice);
    case Action::kHalfClose:
      return HalfClose(who);
    case Action::kDisconnect:
      return Disconnect(who, false);
    case Action::kError:
      return Disconnect(who, true);
    case Action::kDeregister:
      return Deregister(who, dice);
    case Action::kRefuse:
      return Refuse();
    case Action::kReconnect:
      return Reconnect(who, dice);
  }
}

void Player::Turn(uint32_t end, Dice dice) {
  static constexpr size_t kMost[] = {1, 3, 20, 100, 1500, Wire::kMost, Wire::kMost, Wire::kMost};
  const size_t in = dice.OneIn(5) ? 0 : kMost[dice.Below(std::size(kMost))];
  const size_t out = kMost[dice.Below(std::size(kMost))];
  world_.now += dice.Below(2000);
  const bool idle = dice.OneIn(2);
  Say(in, " bytes in and ", out, " out at a time", idle ? ", idle" : "");
  world_.end(end).Turn(in, out, idle, world_.now);
}

void Player::Poll(uint32_t node, Dice dice) { PollSome(node, dice.Between(1, 16)); }

size_t Player::PollSome(uint32_t node, size_t most) {
  WorkCompletion batch[16];
  Node& n = world_.node(node);
  const size_t sends = n.send_ring.Pop({batch, most});
  for (size_t i = 0; i < sends && !verdict_.failed(); ++i) {
    Say("end ", batch[i].qp_number - 16, ": request ", batch[i].id, " ",
        WcStatusName(batch[i].status));
    flows_[batch[i].qp_number - 16]->OnSend(batch[i]);
  }
  const size_t receives = n.receive_ring.Pop({batch, most});
  for (size_t i = 0; i < receives && !verdict_.failed(); ++i) OnReceive(batch[i]);
  return sends + receives;
}

void Player::PollAll() {
  for (uint32_t i = 0; i < config_.nodes; ++i) {
    while (PollSome(i, 16) > 0 && !verdict_.failed()) {
    }
  }
}

void Player::OnReceive(const WorkCompletion& wc) {
  const uint32_t end = wc.qp_number - 16;
  Say("end ", end, ": receive ", wc.id, " ", WcStatusName(wc.status));
  Receives& all = ReceivesOf(end);
  PostedReceive& r = all.slots[wc.id % config_.slots];
  if (!r.busy || r.id != wc.id || (!Shares(end) && wc.id != all.head)) {
    return verdict_.Fail("end ", end, ": receive ", wc.id, " completes out of turn or again");
  }
  ++all.head;
  --all.outstanding;
  r.busy = false;
  Flow& flow = *flows_[end ^ 1];
  if (wc.ok()) {
    if (receive_failed_[end]) {
      return verdict_.Fail("end ", end, ": receive ", wc.id, " completes well after an error");
    }
    return flow.OnMessage(wc, r, ReceiveArea(end));
  }
  const Doom& d = doom(end);
  const Message* next = flow.next_message();
  uint32_t allowed = d.any() ? kFlush : 0;
  if (!receive_failed_[end]) {
    allowed |= r.may_fail;
    if ((next != nullptr && !next->is_write && next->length > r.capacity) ||
        flow.FailsInTheMiddle(r.capacity)) {
      allowed |= Bit(WcStatus::kLocalLengthError);
    }
  }
  if ((allowed & Bit(wc.status)) == 0) {
    verdict_.Fail("end ", end, ": receive ", wc.id, " completes with ", WcStatusName(wc.status));
  }
  receive_failed_[end] = true;
}

void Player::Drain(uint32_t end) {
  End& e = world_.end(end);
  const QpState state = e.qp.state();
  if (state != QpState::kRts && state != QpState::kSqd) return;
  if (state == QpState::kSqd && e.drained && e.qp.counters().send_completions != e.drained_at) {
    return verdict_.Fail("end ", end, " completed a request after it said that it was drained");
  }
  e.drained = false;
  const QpState to = state == QpState::kRts ? QpState::kSqd : QpState::kRts;
  if (absl::Status s = e.qp.Modify({.state = to}); !s.ok()) {
    verdict_.Fail("end ", end, ": ", s.ToString());
  }
}

// Receives for every message that waits for one.
void Player::SupplyReceives() {
  for (uint32_t i = 0; i < world_.ends(); ++i) {
    if (Dead(i)) continue;
    uint64_t wanted = flows_[i ^ 1]->messages_under_way();
    if (Shares(i)) wanted = config_.slots;
    while (ReceivesOf(i).outstanding < std::min<uint64_t>(wanted, config_.slots)) {
      const uint64_t before = ReceivesOf(i).tail;
      PostReceive(i, Dice(before), true);
      if (ReceivesOf(i).tail == before) break;
    }
  }
}

// One round of everybody. True: nothing moves any more, and no timer runs.
bool Player::Quiet() {
  bool moved = false;
  for (uint32_t i = 0; i < world_.ends(); ++i) {
    moved |= world_.end(i).Turn(SIZE_MAX, SIZE_MAX, true, world_.now);
  }
  PollAll();
  SupplyReceives();
  if (moved) return false;
  Nanos next = engine::kNever;
  for (uint32_t i = 0; i < world_.ends(); ++i) next = std::min(next, world_.end(i).deadline());
  if (next == engine::kNever) return true;
  world_.now = std::max(world_.now, next);
  return false;
}

void Player::Settle() {
  for (uint32_t i = 0; i < world_.ends(); ++i) {
    world_.end(i).out->Stall(false);
    // A message that is refused for a second, 64 bytes at a time, would take millions of rounds.
    world_.end(i).out->SetWindow(Wire::kMost);
    if (world_.end(i).qp.state() == QpState::kSqd) Drain(i);
  }
  int rounds = 0;
  while (!verdict_.failed() && !Quiet()) {
    if (++rounds == kMostRounds) return verdict_.Fail("it never comes to rest");
  }
  for (uint32_t i = 0; i < world_.ends(); ++i) world_.end(i).out->SetWindow(config_.window);
  for (uint32_t i = 0; i < config_.links && !verdict_.failed(); ++i) CheckLink(i);
  if (!verdict_.failed()) CheckWords();
  if (!verdict_.failed() && config_.shared_receives) CheckShared();
}

void Player::CheckLink(uint32_t link) {
  const uint32_t a = 2 * link, b = a + 1;
  if (!Dead(a) && !Dead(b)) {
    if (dooms_[link].lost || dooms_[link].ended) {
      return verdict_.Fail("link ", link, " has ended, and neither end knows");
    }
    flows_[a]->AtRest();
    if (!verdict_.failed()) flows_[b]->AtRest();
    return;
  }
  sums_known_ = false;
  if (!dooms_[link].any()) return verdict_.Fail("link ", link, " died of nothing");
  for (uint32_t i : {a, b}) {
    End& e = world_.end(i);
    if (!Dead(i) || e.connected()) return verdict_.Fail("end ", i, " outlives its link");
    if (e.events[static_cast<size_t>(EventType::kDisconnected)] != 1) {
      return verdict_.Fail("end ", i, " was not told once that it is disconnected");
    }
    flows_[i]->AfterDeath(dooms_[link].OnlyEndedBy(i ^ 1) && !world_.peer(i).gave_up);
    if (!Shares(i) && ReceivesOf(i).outstanding > 0 && !verdict_.failed()) {
      return verdict_.Fail("end ", i, ": receive ", ReceivesOf(i).head, " never completes");
    }
  }
}

// At rest no message has a receive, so those that did not complete are in the queue.
void Player::CheckShared() {
  const SrqCounters c = world_.node(0).shared->counters();
  const uint32_t outstanding = receives_[kMaxEnds].outstanding;
  if (outstanding != c.posted - c.taken) {
    verdict_.Fail("a shared receive was taken and never completes: ", outstanding, " outstanding, ",
                  c.posted - c.taken, " in the queue");
  }
}

void Player::CheckWords() {
  if (!sums_known_) return;
  for (uint32_t i = 0; i < config_.nodes; ++i) {
    if (std::memcmp(world_.node(i).words.host, sums_[i], sizeof(sums_[i])) != 0) {
      return verdict_.Fail("at rest, a word of node ", i, " lacks somebody's addition");
    }
  }
}

}  // namespace verbena::sim
