// SPDX-License-Identifier: Apache-2.0
#include "fallback/completion.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "fallback/completion_channel.h"
#include "fallback/driven.h"
#include "transport/completion_queue.h"

namespace verbena::fallback {

namespace {
thread_local const CompletionQueue* sleeping = nullptr;  // in Await of it, driving perhaps
}

absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> CompletionQueue::Create(
    Device* device, const CqOptions& options) {
  const auto channel = provider::ChannelOf<CompletionChannel>(options, device);
  if (!channel.ok()) return channel.status();
  return std::make_unique<CompletionQueue>(device, options, *channel);
}

CompletionQueue::CompletionQueue(Device* device, const CqOptions& options,
                                 CompletionChannel* channel)
    : device_(device), context_(options.context), channel_(channel), ring_(options.entries, this) {
  device_->children().Add();
  device_->counts().completion_queues.fetch_add(1);
  if (channel_ != nullptr) channel_->Join(this);
}

CompletionQueue::~CompletionQueue() {
  own_set_.reset();  // before the device may go
  device_->counts().completion_queues.fetch_sub(1);
  device_->children().Remove();
}

absl::Status CompletionQueue::Close() {
  if (absl::Status s = children_.CheckNone("completion queue"); !s.ok()) return s;
  if (channel_ != nullptr) channel_->Leave(this);
  device_->Forget(this);
  return absl::OkStatus();
}

size_t CompletionQueue::Poll(std::span<WorkCompletion> out) {
  polls_.fetch_add(1, std::memory_order_relaxed);
  size_t n = ring_.Pop(out);
  if (n > 0) {
    if (idle_polls_.load(std::memory_order_relaxed) != 0) idle_polls_ = 0;
    return n;
  }
  const Nanos now = device_->hub().Now();
  last_poll_.store(now, std::memory_order_relaxed);
  if (hot_count_.load(std::memory_order_relaxed) > 0 &&
      now >= rests_until_.load(std::memory_order_relaxed)) {
    DriveHot(now);
    n = ring_.Pop(out);
    if (n > 0) return n;
  }
  if (set_count_.load(std::memory_order_relaxed) > 0) {
    // Who arms and looks will go to sleep, and needs no more help. Who keeps polling does.
    if (ring_.armed()) {
      ForEachSet([](WaitSet& set) { set.Settle(); });
    } else if (idle_polls_.fetch_add(1, std::memory_order_relaxed) >= kFewPolls) {
      ForEachSet([](WaitSet& set) { set.Serve(0, true); });
    }
    n = ring_.Pop(out);
    if (n > 0) return n;
  }
  empty_polls_.fetch_add(1, std::memory_order_relaxed);
  device_->hub().world().Nudge();
  return ring_.Pop(out);
}

// Each is owned while the list is locked, and driven when it is not: closing a queue pair takes it
// off the list and then owns it, so nothing here outlives it.
void CompletionQueue::DriveHot(Nanos now) {
  Nanos rests_until = io::kNever;
  for (size_t i = 0;; ++i) {
    Driven* qp = nullptr;
    {
      std::lock_guard lock(hot_lock_);
      for (; i < hot_.size() && !hot_[i]->TryOwn(); ++i) rests_until = 0;
      if (i >= hot_.size()) break;
      qp = hot_[i];
    }
    if (i > 0) {  // a sweep over many busy ones takes longer than a tick
      now = device_->hub().Now();
      last_poll_.store(now, std::memory_order_relaxed);
    }
    rests_until = std::min(rests_until, qp->WorkAndRelease(Driven::Why::kPoll, now));
    if (hot_count_.load(std::memory_order_relaxed) <= i + 1) break;
  }
  rests_until_.store(rests_until == io::kNever ? 0 : rests_until, std::memory_order_relaxed);
}

void CompletionQueue::ForEachSet(absl::FunctionRef<void(WaitSet&)> f) {
  for (size_t i = 0;; ++i) {
    WaitSet* set = nullptr;
    {
      std::lock_guard lock(hot_lock_);
      if (i >= sets_.size()) return;
      set = sets_[i].set;
      set->Pin();
    }
    f(*set);
    set->Unpin();
  }
}

void CompletionQueue::HandOver() {
  for (;;) {
    Driven* qp = nullptr;
    {
      std::lock_guard lock(hot_lock_);
      for (Driven* candidate : hot_) {
        if (candidate->TryOwn()) {
          qp = candidate;
          break;
        }
      }
    }
    if (qp == nullptr) return;  // who owns the rest serves it; the next tick takes it over
    qp->WorkAndRelease(Driven::Why::kHandOver, 0);
  }
}

absl::Status CompletionQueue::RequestNotify(Notify kind) {
  if (absl::Status s = provider::CheckNotify(channel_); !s.ok()) return s;
  ring_.Arm(kind);
  idle_polls_.store(0, std::memory_order_relaxed);
  if (device_->hub().world().descriptors() && channel_->drives()) {
    MoveInto(channel_->set());
  } else {
    HandOver();
  }
  return absl::OkStatus();
}

absl::Status CompletionQueue::Resize(uint32_t entries) {
  if (absl::Status s = provider::CheckCqEntries("resize completion queue", entries,
                                                Device::Attributes().max_completions, "tcp");
      !s.ok()) {
    return s;
  }
  return ring_.Resize(entries) ? absl::OkStatus() : provider::MoreWaitsThan(entries);
}

CqCounters CompletionQueue::counters() const {
  CqCounters c = ring_.counters();
  c.polls = polls_.load(std::memory_order_relaxed);
  c.empty_polls = empty_polls_.load(std::memory_order_relaxed);
  return c;
}

bool CompletionQueue::Await(absl::Duration timeout) {
  Hub& hub = device_->hub();
  const Nanos deadline = hub.In(timeout);
  bool there = true;
  if (ring_.BeginWait()) {
    WaitSet* const set = hub.world().descriptors() ? OwnSet() : nullptr;
    if (set != nullptr) {
      MoveInto(set);
      there = Sleep(set, deadline);
    } else {
      HandOver();
      there = hub.world().Await([this] { return !ring_.empty(); }, deadline);
    }
    idle_polls_.store(0, std::memory_order_relaxed);
  }
  ring_.EndWait();
  return there;
}

// Its own, not its channel's: the bell of that one may ring for an event that nobody takes.
WaitSet* CompletionQueue::OwnSet() {
  if (WaitSet* const set = own_.load(std::memory_order_acquire)) return set;
  std::lock_guard lock(mutex_);
  if (own_set_ == nullptr) {
    absl::StatusOr<std::unique_ptr<WaitSet>> set = WaitSet::Create(&device_->hub());
    if (!set.ok()) return nullptr;  // no descriptor: then the service wakes whoever waits
    own_set_ = *std::move(set);
    own_.store(own_set_.get(), std::memory_order_release);
  }
  return own_set_.get();
}

// No wake-up is lost: a sleeper counts itself, silences the bell, and looks; a push fills the ring
// and then looks at the count. Who leaves something behind rings for the others.
bool CompletionQueue::Sleep(WaitSet* set, Nanos deadline) {
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  const auto* const before = std::exchange(sleeping, this);
  bool in_time = true;
  while (ring_.empty() && in_time) {
    set->Settle();
    set->Silence();
    if (!ring_.empty()) break;
    set->Serve(deadline);
    in_time = deadline == io::kNever || device_->hub().Now() < deadline;
  }
  sleeping = before;
  const bool there = !ring_.empty();
  if (sleepers_.fetch_sub(1, std::memory_order_seq_cst) > 1 && there) set->Ring();
  return there || in_time;  // another thread may have taken what ended the loop
}

void CompletionQueue::OnPushed() {
  device_->hub().world().Changed();
  // A sleeper that drives sees for itself. (An addition of 0 is a read that no earlier write of
  // this thread can be behind.)
  if (sleeping == this || sleepers_.fetch_add(0, std::memory_order_seq_cst) == 0) return;
  if (WaitSet* const set = own_.load(std::memory_order_acquire)) set->Ring();
}

bool CompletionQueue::AllIn(const WaitSet* set) {
  const size_t streams = streams_.load(std::memory_order_relaxed);
  std::lock_guard lock(hot_lock_);
  for (const Membership& m : sets_) {
    if (m.set == set) return m.count >= streams;
  }
  return streams == 0;
}

void CompletionQueue::MoveInto(WaitSet* set) {
  if (AllIn(set)) return;
  std::vector<Driven*> owned;
  {
    std::lock_guard lock(mutex_);
    for (Driven* qp : queue_pairs_) {
      if (qp->OwnOrAskToJoin(set)) owned.push_back(qp);  // so it is not closed meanwhile
    }
  }
  for (Driven* qp : owned) qp->JoinAndRelease(set);
}

void CompletionQueue::OnNotify() {
  if (channel_ != nullptr) channel_->Signal(this);
}

// Overrun (IBTA 11.6.3.2, ibv_get_async_event(3) IBV_EVENT_CQ_ERR): the queue pairs cannot complete
// anything any more, so they end.
void CompletionQueue::OnOverflow() {
  Event e;
  e.type = EventType::kCqError;
  e.context = context_;
  e.status = absl::ResourceExhaustedError(
      absl::StrCat("a completion queue of ", ring_.entries(),
                   " entries overflowed; make it as large as all that may complete on it"));
  device_->Push(this, std::move(e));
  std::lock_guard lock(mutex_);
  for (Driven* qp : queue_pairs_) qp->RequestFailure();
}

void CompletionQueue::Join(Driven* qp) {
  children_.Add();
  std::lock_guard lock(mutex_);
  queue_pairs_.insert(qp);
}

void CompletionQueue::Leave(Driven* qp) {
  {
    std::lock_guard lock(mutex_);
    queue_pairs_.erase(qp);
  }
  children_.Remove();
}

void CompletionQueue::AddHot(Driven* qp) {
  std::lock_guard lock(hot_lock_);
  hot_.push_back(qp);
  hot_count_.store(hot_.size(), std::memory_order_relaxed);
}

void CompletionQueue::RemoveHot(Driven* qp) {
  std::lock_guard lock(hot_lock_);
  std::erase(hot_, qp);
  hot_count_.store(hot_.size(), std::memory_order_relaxed);
}

void CompletionQueue::Entered(WaitSet* set) {
  std::lock_guard lock(hot_lock_);
  const auto at =
      std::find_if(sets_.begin(), sets_.end(), [set](const Membership& m) { return m.set == set; });
  if (at != sets_.end()) {
    ++at->count;
  } else {
    sets_.push_back({set, 1});
  }
  set_count_.store(sets_.size(), std::memory_order_relaxed);
}

void CompletionQueue::Left(WaitSet* set) {
  std::lock_guard lock(hot_lock_);
  const auto at =
      std::find_if(sets_.begin(), sets_.end(), [set](const Membership& m) { return m.set == set; });
  if (at != sets_.end() && --at->count == 0) sets_.erase(at);
  set_count_.store(sets_.size(), std::memory_order_relaxed);
}

}  // namespace verbena::fallback
