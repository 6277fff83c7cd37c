// SPDX-License-Identifier: Apache-2.0
// Ownership (docs/decisions/0007-ownership.md). Who watches is in watching.cc.
#include "fallback/driven.h"

#include <sched.h>

namespace verbena::fallback {

bool Driven::Drive(Why why) {
  if (!OwnOrNote()) return false;
  WorkAndRelease(why, 0);
  return true;
}

void Driven::Release() {
  uint32_t mine = kOwned;
  if (!word_.compare_exchange_strong(mine, 0, std::memory_order_seq_cst)) {
    WorkAndRelease(Why::kReady, 0);
  }
}

void Driven::WithOwnership(absl::FunctionRef<void()> f) const {
  while (!TryOwn()) sched_yield();  // a drive is a few non-blocking calls
  f();
  const_cast<Driven*>(this)->WorkAndRelease(Why::kPost, 0);
}

void Driven::AwaitDrive() const {
  const uint64_t seen = drives_.load(std::memory_order_seq_cst);
  while ((word_.load(std::memory_order_seq_cst) & kOwned) != 0 &&
         drives_.load(std::memory_order_seq_cst) == seen) {
    sched_yield();
  }
}

void Driven::Schedule() {
  // An owner looks again before it lets go; if there is none, the service comes.
  if ((word_.fetch_or(kLookAgain, std::memory_order_seq_cst) & kOwned) == 0) {
    device_->hub().SetDeadline(this, device_->hub().Now());
  }
}

void Driven::RequestFailure() {
  failure_requested_.store(true, std::memory_order_release);
  Schedule();
}

}  // namespace verbena::fallback
