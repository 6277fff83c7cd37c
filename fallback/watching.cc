// SPDX-License-Identifier: Apache-2.0
// Who watches the socket of a queue pair (docs/decisions/0007-ownership.md and 0012-waiting.md):
// the service, its pollers, or wait sets. All of it by the owner.
#include <algorithm>

#include "fallback/queue_pair.h"

namespace verbena::fallback {

void QueuePair::JoinAndRelease(WaitSet* set) {
  if (phase_ != Phase::kStreaming || std::ranges::count(sets_, set) == 0) {
    wanted_set_.store(set, std::memory_order_relaxed);
    if (phase_ == Phase::kStreaming) {
      WorkAndRelease(Why::kReady);
      return;
    }
  }
  Release();
}

bool QueuePair::OwnOrAskToJoin(WaitSet* set) {
  if (TryOwn()) return true;
  wanted_set_.store(set, std::memory_order_release);
  return OwnOrNote();
}

void QueuePair::StepInAndRelease(WaitSet* set) {
  unserved_set_ = set;
  WorkAndRelease(Why::kStepIn);
}

// At the end of each drive of a stream.
void QueuePair::ChooseWatcher(Why why, Nanos now) {
  const bool cold = !hot_ && sets_.empty();
  WaitSet* wanted = wanted_set_.load(std::memory_order_acquire);
  if (wanted != nullptr) wanted = wanted_set_.exchange(nullptr, std::memory_order_acq_rel);
  if (engine_.closing() || (why == Why::kHandOver && hot_)) {
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

// From whoever has it.
void QueuePair::Unwatch() {
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

void QueuePair::MakeHot() {
  Unwatch();
  hot_ = true;
  served_at_tick_ = ++served_;
  send_cq_->AddHot(this);
  if (receive_cq_ != send_cq_) receive_cq_->AddHot(this);
  device_->hub().SetHot(this, true);
}

void QueuePair::MakeCold() {
  Unwatch();
  watching_write_ = want_write_;
  device_->hub().Watch(this, socket_, true, want_write_);
}

void QueuePair::JoinSet(WaitSet* set) {
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

void QueuePair::LeaveSet(WaitSet* set) {
  if (std::erase(sets_, set) == 0) return;
  set->Leave(this, socket_);
  send_cq_->Left(set);
  if (receive_cq_ != send_cq_) receive_cq_->Left(set);
}

void QueuePair::UpdateWatch() {
  if (hot_ || want_write_ == watching_write_) return;
  watching_write_ = want_write_;
  for (WaitSet* set : sets_) set->ChangeWatch(this, socket_, want_write_);
  if (sets_.empty()) device_->hub().ChangeWatch(this, socket_, true, want_write_);
}

}  // namespace verbena::fallback
