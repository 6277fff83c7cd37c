// SPDX-License-Identifier: Apache-2.0
// Who watches the socket of a queue pair (docs/decisions/0007-ownership.md and 0012-waiting.md):
// the service, its pollers, or wait sets. All of it by the owner.
#include <algorithm>

#include "fallback/completion.h"
#include "fallback/driven.h"
#include "fallback/wait_set.h"

namespace verbena::fallback {

void Driven::JoinAndRelease(WaitSet* set) {
  if (!HasStream() || std::ranges::count(sets_, set) == 0) {
    wanted_set_.store(set, std::memory_order_relaxed);
    if (HasStream()) {
      WorkAndRelease(Why::kReady, 0);
      return;
    }
  }
  Release();
}

bool Driven::OwnOrAskToJoin(WaitSet* set) {
  if (TryOwn()) return true;
  wanted_set_.store(set, std::memory_order_release);
  return OwnOrNote();
}

void Driven::StepInAndRelease(WaitSet* set) {
  unserved_set_ = set;
  WorkAndRelease(Why::kStepIn, 0);
}

void Driven::ChooseWatcher(Why why, Nanos now, bool closing) {
  const bool cold = !hot_ && sets_.empty();
  WaitSet* wanted = wanted_set_.load(std::memory_order_acquire);
  if (wanted != nullptr) wanted = wanted_set_.exchange(nullptr, std::memory_order_acq_rel);
  if (closing || (why == Why::kHandOver && hot_)) {
    if (!cold) return MakeCold();  // its last words, or nobody polls any more
  } else if (wanted != nullptr) {
    return JoinSet(wanted);
  } else if (why == Why::kStepIn) {
    LeaveSet(unserved_set_);
    if (sets_.empty()) return MakeCold();
  } else if (why == Why::kPoll && !sets_.empty()) {
    // Polled and not armed: whoever waited for it is awake.
    if (!send_cq_->armed() && !receive_cq_->armed()) return MakeHot();
  } else if (why == Why::kReady && cold && (receive_cq_->polled(now) || send_cq_->polled(now))) {
    return MakeHot();
  }
  UpdateWatch();
}

bool Driven::Neglected(Nanos now) {
  const bool polled = receive_cq_->polled(now) || send_cq_->polled(now);
  const bool unserved = served_ == served_at_tick_ && !polled;
  served_at_tick_ = served_;
  // To be served by the service again costs more than a wake-up: the poller may have its core.
  const bool idle = last_served_ - last_traffic_ > kIdleAfter &&
                    (receive_cq_->has_many_hot() || send_cq_->has_many_hot());
  return unserved || idle;
}

// From whoever has it.
void Driven::Unwatch() {
  if (hot_) {
    device_->hub().SetHot(this, false);
    send_cq_->RemoveHot(this);
    if (receive_cq_ != send_cq_) receive_cq_->RemoveHot(this);
    hot_.store(false, std::memory_order_seq_cst);
  } else if (sets_.empty()) {
    device_->hub().poller().Unwatch(socket_);
  }
  while (!sets_.empty()) LeaveSet(sets_.back());
}

void Driven::MakeHot() {
  Unwatch();
  hot_ = true;
  served_at_tick_ = ++served_;
  send_cq_->AddHot(this);
  if (receive_cq_ != send_cq_) receive_cq_->AddHot(this);
  device_->hub().SetHot(this, true);
}

void Driven::MakeCold() {
  Unwatch();
  watching_write_ = want_write_;
  device_->hub().Watch(this, socket_, true, want_write_);
}

void Driven::JoinSet(WaitSet* set) {
  UpdateWatch();
  if (std::ranges::count(sets_, set) > 0) return;
  if (!set->Join(this, socket_, want_write_)) {  // then the service has it, as ever
    if (hot_) MakeCold();
    return;
  }
  if (sets_.empty()) Unwatch();
  sets_.push_back(set);
  watching_write_ = want_write_;
  send_cq_->Entered(set);
  if (receive_cq_ != send_cq_) receive_cq_->Entered(set);
}

void Driven::LeaveSet(WaitSet* set) {
  if (std::erase(sets_, set) == 0) return;
  set->Leave(this, socket_);
  send_cq_->Left(set);
  if (receive_cq_ != send_cq_) receive_cq_->Left(set);
}

void Driven::UpdateWatch() {
  if (hot_ || want_write_ == watching_write_) return;
  watching_write_ = want_write_;
  for (WaitSet* set : sets_) set->ChangeWatch(this, socket_, want_write_);
  if (sets_.empty()) device_->hub().ChangeWatch(this, socket_, true, want_write_);
}

}  // namespace verbena::fallback
