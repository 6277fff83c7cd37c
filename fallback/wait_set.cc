// SPDX-License-Identifier: Apache-2.0
#include "fallback/wait_set.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "fallback/driven.h"

namespace verbena::fallback {

namespace {
uint64_t Tag(const Driven* qp) { return reinterpret_cast<uintptr_t>(qp); }
}  // namespace

absl::StatusOr<std::unique_ptr<WaitSet>> WaitSet::Create(Hub* hub) {
  absl::StatusOr<std::unique_ptr<io::ReadySet>> ready = io::ReadySet::Create();
  if (!ready.ok()) return ready.status();
  return std::make_unique<WaitSet>(hub, *std::move(ready));
}

WaitSet::WaitSet(Hub* hub, std::unique_ptr<io::ReadySet> ready)
    : hub_(hub), ready_(std::move(ready)) {
  if (!hub_->world().descriptors()) return;
  hub_->Add(this);
  hub_->WatchEdges(this, fd());
}

WaitSet::~WaitSet() {
  while (pins_.load(std::memory_order_acquire) != 0) sched_yield();  // a poll is looking at it
  if (!hub_->world().descriptors()) return;
  hub_->Remove(this);
  hub_->poller().Unwatch(fd());
}

bool WaitSet::Join(Driven* qp, io::Socket socket, bool write) {
  {
    std::lock_guard lock(lock_);
    members_.insert(qp);
    FindOnly();
  }
  if (!ready_->Add(socket, Tag(qp), write)) {
    std::lock_guard lock(lock_);
    members_.erase(qp);
    FindOnly();
    return false;
  }
  count_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void WaitSet::ChangeWatch(Driven* qp, io::Socket socket, bool write) {
  ready_->Change(socket, Tag(qp), write);
}

void WaitSet::Leave(Driven* qp, io::Socket socket) {
  ready_->Remove(socket);
  count_.fetch_sub(1, std::memory_order_relaxed);
  std::lock_guard lock(lock_);
  members_.erase(qp);
  FindOnly();
}

void WaitSet::FindOnly() {
  only_.store(members_.size() == 1 ? Tag(*members_.begin()) : 0, std::memory_order_relaxed);
}

// Owned while the list is locked, and driven when it is not: closing a queue pair takes it off the
// list as its owner, so what is on the list exists. The tag of one that has left may have become
// another's, which is then driven for nothing.
Driven* WaitSet::Own(uint64_t tag) {
  auto* const qp = reinterpret_cast<Driven*>(static_cast<uintptr_t>(tag));
  std::lock_guard lock(lock_);
  return members_.contains(qp) && qp->TryOwn() ? qp : nullptr;
}

void WaitSet::Serve(Nanos deadline, bool polling) {
  std::array<uint64_t, kBatch> tags;
  size_t n = 1;
  // To read the only socket costs as much as to ask whether it is ready.
  if (const uint64_t only = only_.load(std::memory_order_relaxed);
      deadline == 0 && !polling && only != 0) {
    tags[0] = only;
  } else {
    n = ready_->Wait(tags, deadline);
  }
  if (n == 0) return;
  serves_.fetch_add(1, std::memory_order_relaxed);
  bool driven = false;
  for (size_t i = 0; i < n; ++i) {
    Driven* const qp = Own(tags[i]);
    if (qp == nullptr) continue;
    driven = true;
    Driven::Why why = Driven::Why::kPoll;
    if (!polling) why = MayOwe(tags[i]) ? Driven::Why::kServe : Driven::Why::kReady;
    qp->WorkAndRelease(why, 0);
  }
  // The sockets stay ready until their owners have read them: on a single core, to look again at
  // once would keep those from it.
  if (!driven) sched_yield();
}

// False: too many do. The service may have slept through what woke the program.
bool WaitSet::MayOwe(uint64_t tag) {
  {
    std::lock_guard lock(lock_);
    const size_t n = debtor_count_.load(std::memory_order_relaxed);
    if (std::find(debtors_.begin(), debtors_.begin() + n, tag) == debtors_.begin() + n) {
      if (n == debtors_.size()) return false;
      debtors_[n] = tag;
      debtor_count_.store(n + 1, std::memory_order_seq_cst);
    }
  }
  if (!looking_.load(std::memory_order_seq_cst) && !looking_.exchange(true)) LookSoon();
  return true;
}

void WaitSet::LookSoon() { hub_->SetDeadline(this, hub_->Now() + kUnserved); }

void WaitSet::Settle() {
  if (debtor_count_.load(std::memory_order_relaxed) == 0) return;
  std::array<uint64_t, kBatch> tags;
  size_t n = 0;
  {
    std::lock_guard lock(lock_);
    n = debtor_count_.exchange(0, std::memory_order_relaxed);
    tags = debtors_;
  }
  for (size_t i = 0; i < n; ++i) {
    auto* const qp = reinterpret_cast<Driven*>(static_cast<uintptr_t>(tags[i]));
    {
      std::lock_guard lock(lock_);
      // Whoever has it may be the one that is about to owe: it looks again, and settles.
      if (!members_.contains(qp) || !qp->OwnOrNote()) continue;
    }
    qp->SettleAndRelease();
  }
}

// Reported at the first sign of life. From here on the service only looks from time to time, until
// all is quiet: a wake-up of its own for each message is what the set is there to save.
void WaitSet::OnReady(bool, bool) {
  std::array<uint64_t, 1> one;
  was_ready_ = ready_->Wait(one, 0) > 0;
  const uint64_t serves = serves_.load(std::memory_order_relaxed);
  if (!was_ready_ && serves == serves_seen_) return;  // only the bell
  serves_seen_ = serves;
  quiet_looks_ = 0;
  hub_->poller().Unwatch(fd());
  watching_ = false;
  looking_.store(true, std::memory_order_seq_cst);
  LookSoon();
}

void WaitSet::OnDeadline() {
  std::array<uint64_t, kBatch> tags;
  const size_t n = ready_->Wait(tags, 0);
  const uint64_t serves = serves_.load(std::memory_order_relaxed);
  const bool served = serves != serves_seen_;
  serves_seen_ = serves;
  if (!served) Settle();
  if (n > 0 && was_ready_ && !served) StepIn(std::span(tags).first(n));
  was_ready_ = n > 0;
  quiet_looks_ = n > 0 || served ? 0 : quiet_looks_ + 1;
  if (quiet_looks_ < kQuietLooks) return LookSoon();
  looking_.store(false, std::memory_order_seq_cst);
  if (!watching_) hub_->WatchEdges(this, fd());  // says so at once if something came meanwhile
  watching_ = true;
  if (owed() && !looking_.exchange(true)) LookSoon();
}

void WaitSet::StepIn(std::span<const uint64_t> ready) {
  for (const uint64_t tag : ready) {
    if (Driven* const qp = Own(tag)) qp->StepInAndRelease(this);
  }
}

}  // namespace verbena::fallback
